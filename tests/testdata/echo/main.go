// Command echo is somebody else's node: it echoes datagrams on port 7, and asks
// a peer for an echo. It shares no code with the lab. An argument gives it a fault:
// exit ends it before it has read anything, deaf has it stop reading once it is in
// service, and write has it write to its folder first, and say where its proxy is.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// patience is how long an echo may take.
const patience = time.Second

type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Dir     string `json:"dir"`
		Callee  string `json:"callee"`
		Payload []byte `json:"payload"`
		Peers   []struct {
			Name      string   `json:"name"`
			Addresses []string `json:"addresses"`
		} `json:"peers"`
	} `json:"params"`
}

func main() {
	fault := ""
	if len(os.Args) > 1 {
		fault = os.Args[1]
	}
	if fault == "exit" {
		fmt.Fprintln(os.Stderr, "no configuration")
		os.Exit(7)
	}
	peers := map[string]string{}
	for lines := bufio.NewReader(os.Stdin); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return // whoever drives it is gone
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		var result any = struct{}{}
		switch r.Method {
		case "prepare":
			if fault == "write" {
				fmt.Fprintln(os.Stderr, "proxy", os.Getenv("https_proxy"))
				err = os.WriteFile(filepath.Join(r.Params.Dir, "state"), nil, 0o600)
			}
			if err == nil {
				err = serve()
			}
			result = map[string]any{"functions": []string{"echo"}}
		case "start":
			for _, p := range r.Params.Peers {
				if len(p.Addresses) > 0 {
					peers[p.Name] = net.JoinHostPort(p.Addresses[0], "7")
				}
			}
		case "echo":
			err = ask(peers[r.Params.Callee], r.Params.Payload)
		}
		answer := map[string]any{"jsonrpc": "2.0", "id": r.ID, "result": result}
		if err != nil {
			delete(answer, "result")
			answer["error"] = map[string]any{"code": 1, "message": err.Error()}
		}
		json.NewEncoder(os.Stdout).Encode(answer)
		if r.Method == "start" && fault == "deaf" {
			select {}
		}
	}
}

func serve() error {
	conn, err := net.ListenPacket("udp4", ":7")
	if err != nil {
		return err
	}
	go func() {
		for data := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(data)
			if err != nil {
				return
			}
			conn.WriteTo(data[:n], from)
		}
	}()
	return nil
}

func ask(peer string, payload []byte) error {
	conn, err := net.Dial("udp4", peer)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1500))
	return err
}

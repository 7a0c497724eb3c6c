// Package attach lets a person enter a lab that is up: gauntlet exec --lab
// hands its own descriptors over an abstract unix socket in the machine's
// network namespace, and the lab's init starts the command. A process cannot
// enter a user namespace from a Go program, which has several threads.
//
// The socket is no file, is gone with the lab however that ends, and answers
// to the same user only. Messages are JSON, one a packet:
//
//	--> {"host":"alice","argv":["ping","bob"],"env":[…],"dir":"…"} + stdin, stdout, stderr
//	<-- {"started":true} or {"error":"…","status":127}
//	--> {"signal":2}
//	<-- {"status":0}
package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxMessage bounds one message, in bytes.
const maxMessage = 128 << 10

// Exit statuses of exec where the command could not do its work, as in sh;
// StatusFailed is Gauntlet's own failure.
const (
	StatusFailed      = 125
	StatusCannotRun   = 126
	StatusNotFound    = 127
	handedDescriptors = 3
)

// request asks for a command in a host or box, then passes signals on.
type request struct {
	Host   string   `json:"host,omitempty"`
	Argv   []string `json:"argv,omitempty"`
	Env    []string `json:"env,omitempty"`
	Dir    string   `json:"dir,omitempty"`
	Signal int      `json:"signal,omitempty"`
}

// answer says what became of it.
type answer struct {
	Started bool   `json:"started,omitempty"`
	Error   string `json:"error,omitempty"`
	Status  int    `json:"status"`
}

func address(lab string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unixpacket", Name: fmt.Sprintf("@gauntlet/%d/%s", os.Geteuid(), lab)}
}

// Listen takes the name of a lab on this machine. The file is to be handed to
// the lab's sandbox.
func Listen(lab string) (*os.File, error) {
	l, err := net.ListenUnix("unixpacket", address(lab))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("a lab named %s is already up", lab)
	} else if err != nil {
		return nil, fmt.Errorf("listen for lab %s: %w", lab, err)
	}
	defer l.Close()
	return l.File()
}

func send(c *net.UnixConn, message any, rights ...int) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(data) > maxMessage {
		return fmt.Errorf("command and environment take %d bytes, more than the %d of a message", len(data), maxMessage)
	}
	var oob []byte
	if len(rights) > 0 {
		oob = unix.UnixRights(rights...)
	}
	_, _, err = c.WriteMsgUnix(data, oob, nil)
	return err
}

// receive reads one message and the descriptors that came with it.
func receive(c *net.UnixConn, message any) ([]*os.File, error) {
	data := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(4*handedDescriptors))
	n, oobn, _, _, err := c.ReadMsgUnix(data, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, net.ErrClosed
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	if err := json.Unmarshal(data[:n], message); err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

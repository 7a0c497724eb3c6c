package attach

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter runs a command in a host or box of a lab that is up, on this process's
// stdin, stdout and stderr, passes signals on to it, and returns its exit
// status.
func Enter(lab, host string, argv []string) (int, error) {
	c, err := net.DialUnix("unixpacket", nil, address(lab))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return StatusFailed, fmt.Errorf("no lab named %s is up; start it with: gauntlet up --name %s TOPOLOGY", lab, lab)
	} else if err != nil {
		return StatusFailed, fmt.Errorf("lab %s: %w", lab, err)
	}
	defer c.Close()
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	if err := send(c, request{Host: host, Argv: argv, Env: os.Environ(), Dir: dir}, 0, 1, 2); err != nil {
		return StatusFailed, fmt.Errorf("lab %s: %w", lab, err)
	}
	answers := make(chan answer)
	broken := make(chan error, 1)
	go func() {
		for {
			var a answer
			files, err := receive(c, &a)
			closeAll(files)
			if err != nil {
				broken <- err
				return
			}
			answers <- a
		}
	}()
	for {
		select {
		case a := <-answers:
			switch {
			case a.Error != "":
				return a.Status, fmt.Errorf("lab %s: %s", lab, a.Error)
			case !a.Started:
				return a.Status, nil
			}
		case <-broken:
			return StatusFailed, fmt.Errorf("lab %s went down", lab)
		case s := <-signals:
			send(c, request{Signal: int(s.(syscall.Signal))})
		}
	}
}

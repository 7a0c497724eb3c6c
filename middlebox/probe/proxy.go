package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"gauntlet/middlebox"
)

// What a proxy is measured to be beside the words of the scenario file.
const (
	proxyNone    = "none"     // CONNECT to an allowed port delivers nothing
	proxyAnyPort = "any-port" // CONNECT to any port delivers
)

// Proxy measures what an HTTP proxy at an endpoint inside does with the CONNECT
// method (RFC 9110 §9.3.6): whether to an allowed port bytes get through, both
// ways, and whether to another it refuses. The word is middlebox.ProxyHTTPConnect
// if both are so.
func Proxy(ctx context.Context, w *Watch, s Subject, proxy netip.AddrPort) (string, error) {
	p := &prober{Subject: s, ctx: ctx, watch: w}
	allowed := p.delivers(proxy, middlebox.ProxyHTTPSPort)
	other := p.delivers(proxy, anyPort)
	if err := p.end(); err != nil {
		return "", fmt.Errorf("measure the proxy: %w", err)
	}
	switch {
	case !allowed:
		return proxyNone, nil
	case other:
		return proxyAnyPort, nil
	}
	return string(middlebox.ProxyHTTPConnect), nil
}

// delivers says whether what is sent through the proxy to a port outside that
// answers comes back. A refusal of the proxy is no error.
func (p *prober) delivers(proxy netip.AddrPort, port uint16) bool {
	p.watch.services.Lock()
	defer p.watch.services.Unlock()
	outside := p.echo(p.WAN[0], port)
	if p.err != nil {
		return false
	}
	defer func() { p.fail(outside.close()) }()
	d, a := p.connect(p.LAN[0], 0, proxy)
	if p.err != nil {
		return false
	}
	defer func() { p.fail(d.close()) }()
	if !a.connected {
		p.fail(fmt.Errorf("no connection from %v to the proxy at %v: %v", p.LAN[0].Addr, proxy, a))
		return false
	}
	p.fail(d.SetDeadline(deadline(p.ctx)))
	through, err := tunnel(d.File, outside.at)
	p.fail(err)
	return through
}

// deadline is when patience or the context ends.
func deadline(ctx context.Context) time.Time {
	at := time.Now().Add(patience)
	if end, ok := ctx.Deadline(); ok && end.Before(at) {
		return end
	}
	return at
}

// tunnel asks the proxy for a connection and sends bytes through it that must
// come back.
func tunnel(c *os.File, to netip.AddrPort) (bool, error) {
	if _, err := fmt.Fprintf(c, "CONNECT %v HTTP/1.1\r\nHost: %v\r\n\r\n", to, to); err != nil {
		return false, fmt.Errorf("ask the proxy for %v: %w", to, err)
	}
	in := bufio.NewReader(c)
	response, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return false, fmt.Errorf("the proxy's answer about %v: %w", to, err)
	}
	if response.StatusCode/100 != 2 {
		return false, response.Body.Close()
	}
	if _, err := io.WriteString(c, payloadWord); err != nil {
		return false, fmt.Errorf("through the proxy to %v: %w", to, err)
	}
	back := make([]byte, len(payloadWord))
	if _, err := io.ReadFull(in, back); err != nil {
		return false, fmt.Errorf("through the proxy from %v: %w", to, err)
	}
	return string(back) == payloadWord, nil
}

// echoer is a TCP port outside that sends back what it gets.
type echoer struct {
	*net.TCPListener
	at      netip.AddrPort
	serving sync.WaitGroup
}

// echo opens one.
func (p *prober) echo(at Host, port uint16) *echoer {
	if p.err != nil {
		return nil
	}
	e := &echoer{at: netip.AddrPortFrom(at.Addr, port)}
	err := at.Space.Do(func() (err error) {
		e.TCPListener, err = open(e.at)
		return err
	})
	if err != nil {
		p.fail(fmt.Errorf("listen at %v: %w", e.at, err))
		return nil
	}
	e.serving.Go(func() {
		for {
			c, err := e.AcceptTCP()
			if err != nil {
				return // it is closed
			}
			e.serving.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				io.Copy(c, c) // what doesn't come back is what is measured
			})
		}
	})
	return e
}

// close ends it, once those who are connected have left.
func (e *echoer) close() error {
	err := e.Close()
	e.serving.Wait()
	return err
}

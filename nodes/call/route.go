package call

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gauntlet/nodes/datagram"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/media"
	"gauntlet/nodes/relay"
)

// route is one way that media goes and comes. Packets are taken off it from
// when it is made until it is closed, whichever route this end sends on.
type route struct {
	transport relay.Transport
	relay     int // number of the relay; noRelay: straight to the other end
	relayName string
	dialled   bool // a connection straight to the other end that this end opened
	send      func(packet []byte) error
	lost      chan struct{} // closed when the route is known to be dead; nil: it never tells
	close     func()        // ends the route, and waits for what it started

	heard atomic.Uint64 // good packets that came
}

// direct is the route between the two ends' UDP sockets. It takes packets from
// every address that is known to be the other end's.
type direct struct {
	route
	socket *datagram.Socket
	to     atomic.Pointer[netip.AddrPort]
	take   func(*route, []byte)

	mu      sync.Mutex
	cancels []func()
}

func newDirect(socket *datagram.Socket, take func(*route, []byte)) *direct {
	d := &direct{socket: socket, take: take}
	d.transport, d.relay = relay.UDP, noRelay
	d.send = func(packet []byte) error { return socket.WriteTo(packet, *d.to.Load()) }
	d.close = d.deafen
	return d
}

// hear takes packets from one more address.
func (d *direct) hear(from netip.AddrPort) {
	cancel := d.socket.HandleMedia(from, func(packet []byte) { d.take(&d.route, packet) })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cancels = append(d.cancels, cancel)
}

func (d *direct) deafen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, cancel := range d.cancels {
		cancel()
	}
	d.cancels = nil
}

// overRelay opens this end's media leg at a relay: by UDP if this end has any
// and it passes, else by TCP.
func overRelay(ctx context.Context, c *directory.Client, udp bool, session *relay.Session, at directory.Supernode, number int, take func(*route, []byte)) (*route, error) {
	if udp {
		r, err := relayUDP(ctx, c, session, at, number, take)
		if err == nil {
			return r, nil
		}
		c.Log.Info("no media leg over UDP", "relay", at.Name, "error", err)
	}
	return relayTCP(ctx, c, session, at, number, take)
}

func relayUDP(ctx context.Context, c *directory.Client, session *relay.Session, at directory.Supernode, number int, take func(*route, []byte)) (*route, error) {
	bound := 3 * c.Profile.UDPAnswer
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer in %v", bound))
	defer cancel()
	r := &route{transport: relay.UDP, relay: number, relayName: at.Name}
	r.send = func(packet []byte) error { return c.Socket.WriteTo(packet, at.Addr) }
	// The relay may pass on the first packets before it says that the leg is
	// open.
	r.close = c.Socket.HandleMedia(at.Addr, func(packet []byte) { take(r, packet) })
	err := session.OpenUDP(ctx, c.Profile.UDPRetransmit, func(token []byte) error {
		return c.Socket.WriteTo(token, at.Addr)
	})
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func relayTCP(ctx context.Context, c *directory.Client, session *relay.Session, at directory.Supernode, number int, take func(*route, []byte)) (*route, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Profile.ConnectTimeout, fmt.Errorf("no answer in %v", c.Profile.ConnectTimeout))
	defer cancel()
	conn, err := session.OpenTCP(ctx, func(ctx context.Context) (net.Conn, error) {
		var failures []error
		for _, port := range c.Ports(at.Addr.Port()) {
			conn, err := c.Network.Dial(ctx, netip.AddrPortFrom(at.Addr.Addr(), port))
			if err == nil {
				return conn, nil
			}
			failures = append(failures, err)
		}
		return nil, errors.Join(failures...)
	})
	if err != nil {
		return nil, err
	}
	return overTCP(conn, &route{relay: number, relayName: at.Name}, take), nil
}

// writeTimeout bounds the writing of a packet to a TCP connection; one that
// takes nothing for so long is dead.
const writeTimeout = 2 * time.Second

// overTCP makes r the route over a connection that carries media from now on,
// which it owns.
func overTCP(conn net.Conn, r *route, take func(*route, []byte)) *route {
	r.transport, r.lost = relay.TCP, make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(r.lost)
		defer conn.Close()
		reader := media.NewFrameReader(conn)
		for {
			packet, err := reader.Read()
			if err != nil {
				return
			}
			take(r, packet)
		}
	})
	buffer := make([]byte, 0, media.FrameOverhead+media.MaxPacket)
	r.send = func(packet []byte) error { // called by the load alone
		buffer = media.AppendFrame(buffer[:0], packet)
		conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := conn.Write(buffer); err != nil {
			conn.Close() // a frame may be cut: nothing after it could be read
			return err
		}
		return nil
	}
	r.close = func() {
		conn.Close()
		reading.Wait()
	}
	return r
}

// dialMedia opens the media connection to the other end's listener.
func dialMedia(ctx context.Context, c *directory.Client, theirs offer) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Profile.ConnectTimeout, fmt.Errorf("no connection in %v", c.Profile.ConnectTimeout))
	defer cancel()
	conn, err := c.Network.Dial(ctx, theirs.Listen)
	if err != nil {
		return nil, err
	}
	conn.SetWriteDeadline(time.Now().Add(c.Profile.ConnectTimeout))
	if _, err := conn.Write(theirs.Token.Wire()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open media connection: %w", err)
	}
	conn.SetWriteDeadline(time.Time{})
	return conn, nil
}

// stream is an end's media: one sender and one receiver for the whole call,
// over whichever routes there are.
type stream struct {
	receiver *media.Receiver
	load     *media.Load
	route    atomic.Pointer[route] // on which this end sends

	starting sync.Once
	stop     context.CancelFunc
	ended    chan struct{} // closed when the load has ended
	sent     int           // valid once ended is closed
}

func newStream(keys media.Keys) (*stream, error) {
	sender, err := media.NewSender(keys.Local)
	if err != nil {
		return nil, err
	}
	receiver, err := media.NewReceiver(keys.Remote)
	if err != nil {
		return nil, err
	}
	return &stream{receiver: receiver, load: media.NewLoad(sender), ended: make(chan struct{})}, nil
}

// start begins to send the load, once.
func (s *stream) start(ctx context.Context) {
	s.starting.Do(func() {
		ctx, cancel := context.WithCancel(ctx)
		s.stop = cancel
		go func() {
			defer close(s.ended)
			s.sent, _ = s.load.Run(ctx, func(packet []byte) error {
				r := s.route.Load()
				if r == nil {
					return errors.New("no route for media")
				}
				return r.send(packet)
			})
		}()
	})
}

// halt ends the load and waits for that. A stream that never started is spent
// by it.
func (s *stream) halt() (sent int) {
	s.starting.Do(func() {
		s.stop = func() {}
		close(s.ended)
	})
	s.stop()
	<-s.ended
	return s.sent
}

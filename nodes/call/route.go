package call

import (
	"context"
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

// route is one way that media goes and comes.
type route struct {
	transport relay.Transport
	relay     int // number of the relay; -1: none
	relayName string
	send      func(packet []byte) error
	close     func() // ends the route, and waits for what it started
}

// stream is an end's media: one sender and one receiver for the whole call,
// over whichever route there is.
type stream struct {
	receiver *media.Receiver
	load     *media.Load
	route    atomic.Pointer[route]

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

// take counts a packet that arrived. It is called where packets are read.
func (s *stream) take(packet []byte) { s.receiver.Receive(packet, time.Now()) }

// use makes r the route and ends the earlier one.
func (s *stream) use(r *route) {
	if old := s.route.Swap(r); old != nil && old != r {
		old.close()
	}
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
					return fmt.Errorf("no route for media")
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

// direct is the route to an address of the other end.
func direct(socket *datagram.Socket, to netip.AddrPort, also []netip.AddrPort, take func([]byte)) *route {
	// The other end may have come to another pair, so that its packets may
	// come from any address that is known to be its own.
	var cancels []func()
	for _, from := range append([]netip.AddrPort{to}, also...) {
		cancels = append(cancels, socket.HandleMedia(from, take))
	}
	return &route{
		transport: relay.UDP,
		relay:     -1,
		send:      func(packet []byte) error { return socket.WriteTo(packet, to) },
		close: func() {
			for _, cancel := range cancels {
				cancel()
			}
		},
	}
}

// overRelay opens this end's media leg at a relay: by UDP if this end has any
// and it passes, else by TCP.
func overRelay(ctx context.Context, c *directory.Client, session *relay.Session, at directory.Supernode, number int, take func([]byte)) (*route, error) {
	if c.Reach().UDP {
		r, err := relayUDP(ctx, c, session, at, number, take)
		if err == nil {
			return r, nil
		}
		c.Log.Info("no media leg over UDP", "relay", at.Name, "error", err)
	}
	return relayTCP(ctx, c, session, at, number, take)
}

func relayUDP(ctx context.Context, c *directory.Client, session *relay.Session, at directory.Supernode, number int, take func([]byte)) (*route, error) {
	bound := 3 * c.Profile.UDPAnswer
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("no answer in %v", bound))
	defer cancel()
	// The relay may pass on the first packets before it says that the leg is
	// open.
	unhandle := c.Socket.HandleMedia(at.Addr, take)
	err := session.OpenUDP(ctx, c.Profile.UDPRetransmit, func(token []byte) error {
		return c.Socket.WriteTo(token, at.Addr)
	})
	if err != nil {
		unhandle()
		return nil, err
	}
	return &route{
		transport: relay.UDP,
		relay:     number,
		send:      func(packet []byte) error { return c.Socket.WriteTo(packet, at.Addr) },
		close:     unhandle,
	}, nil
}

// writeTimeout bounds the writing of a packet to a TCP leg; one that takes
// nothing for so long is dead.
const writeTimeout = 2 * time.Second

func relayTCP(ctx context.Context, c *directory.Client, session *relay.Session, at directory.Supernode, number int, take func([]byte)) (*route, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Profile.ConnectTimeout, fmt.Errorf("no answer in %v", c.Profile.ConnectTimeout))
	defer cancel()
	conn, err := session.OpenTCP(ctx, func(ctx context.Context) (net.Conn, error) {
		var err error
		for _, port := range c.Ports(at.Addr.Port()) {
			var conn net.Conn
			if conn, err = c.Network.Dial(ctx, netip.AddrPortFrom(at.Addr.Addr(), port)); err == nil {
				return conn, nil
			}
		}
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		reader := media.NewFrameReader(conn)
		for {
			packet, err := reader.Read()
			if err != nil {
				return
			}
			take(packet)
		}
	})
	buffer := make([]byte, 0, media.FrameOverhead+media.MaxPacket)
	return &route{
		transport: relay.TCP,
		relay:     number,
		send: func(packet []byte) error { // called by the load alone
			buffer = media.AppendFrame(buffer[:0], packet)
			conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := conn.Write(buffer); err != nil {
				conn.Close() // a frame may be cut: nothing after it could be read
				return err
			}
			return nil
		},
		close: func() {
			conn.Close()
			reading.Wait()
		},
	}, nil
}

package relay

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/media"
)

// counter is a UDP socket that counts.
type counter struct{ packets int }

func (c *counter) WriteTo([]byte, netip.AddrPort) error {
	c.packets++
	return nil
}

// forwarding is a server with one paired session over UDP, without sockets.
func forwarding(out PacketWriter) (*Server, netip.AddrPort) {
	config := Default()
	config.MediaRate, config.MediaBurst = 1<<40, 1<<40
	s := NewServer(config, out)
	a, b := newEnd(s, nil, User{1}), newEnd(s, nil, User{2})
	id := NewID()
	if s.join(a, id, b.user) != nil || s.join(b, id, a.user) != nil {
		panic("cannot join")
	}
	from := netip.MustParseAddrPort("10.0.0.1:5000")
	s.HandleDatagram(from, s.grant(a, UDP).Wire())
	s.HandleDatagram(netip.MustParseAddrPort("10.0.0.2:5000"), s.grant(b, UDP).Wire())
	return s, from
}

func TestForwardAllocatesNothing(t *testing.T) {
	out := &counter{}
	s, from := forwarding(out)
	packet := bytes.Repeat([]byte{0x80}, media.PacketSize)
	if allocs := testing.AllocsPerRun(1000, func() { s.HandleDatagram(from, packet) }); allocs != 0 {
		t.Errorf("%v allocations a packet", allocs)
	}
	if out.packets != 1001 {
		t.Errorf("%d packets were forwarded instead of 1001", out.packets)
	}
}

func TestUnknownSourcesAreIgnored(t *testing.T) {
	out := &counter{}
	s, from := forwarding(out)
	packet := bytes.Repeat([]byte{0x80}, media.PacketSize)
	s.HandleDatagram(netip.AddrPortFrom(from.Addr(), from.Port()+1), packet)
	s.HandleDatagram(from, bytes.Repeat([]byte{0x80}, media.MaxPacket+1))
	s.HandleDatagram(from, append([]byte{TokenMark}, make([]byte, 16)...)) // media of an odd first byte, or a wrong token
	if out.packets != 0 {
		t.Errorf("%d packets were forwarded", out.packets)
	}
}

func BenchmarkForwardUDP(b *testing.B) {
	s, from := forwarding(&counter{})
	packet := bytes.Repeat([]byte{0x80}, media.PacketSize)
	b.ReportAllocs()
	b.SetBytes(media.PacketSize)
	for b.Loop() {
		s.HandleDatagram(from, packet)
	}
}

func BenchmarkForwardToTCP(b *testing.B) {
	s, from := forwarding(&counter{})
	e := s.sources[from].peer
	done := make(chan struct{})
	l := &leg{conn: sink{}, queue: make([]byte, 0, queueSize), filled: make(chan struct{}, 1)}
	e.setLeg(l)
	go func() {
		defer close(done)
		l.write(time.Second)
	}()
	packet := bytes.Repeat([]byte{0x80}, media.PacketSize)
	b.ReportAllocs()
	b.SetBytes(media.PacketSize)
	for b.Loop() {
		s.HandleDatagram(from, packet)
	}
	l.close()
	<-done
}

func FuzzFrame(f *testing.F) {
	f.Add(frame(frameJoin, make([]byte, 48)))
	f.Add(frame(frameOpened, []byte{1}))
	f.Add([]byte{frameStream, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		buffer := new(frameBuffer)
		kind, body, whole, err := buffer.read(bytes.NewReader(data))
		if err != nil {
			return
		}
		if !bytes.Equal(whole, data[:len(whole)]) || len(whole) != headerSize+len(body) {
			t.Fatalf("frame %x read as %x", data, whole)
		}
		if again := frame(kind, body); !bytes.Equal(again, whole) {
			t.Fatalf("frame %x is made again as %x", whole, again)
		}
		parseJoin(body)
		parseTransport(body)
		ParseToken(body)
	})
}

// FuzzServer plays bytes of a client to a paired end.
func FuzzServer(f *testing.F) {
	f.Add(frame(frameStream, []byte("hello")))
	f.Add(append(frame(frameAsk, []byte{1}), frame(frameAsk, []byte{2})...))
	f.Add(frame(frameStandby, make([]byte, standbyBody)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewServer(Default(), &counter{})
		a, b := newEnd(s, script{bytes.NewReader(data)}, User{1}), newEnd(s, sink{}, User{2})
		close(b.told)
		id := NewID()
		if s.join(a, id, b.user) != nil || s.join(b, id, a.user) != nil {
			t.Fatal("cannot join")
		}
		if err := a.run(t.Context(), new(frameBuffer)); err == nil {
			t.Error("a connection that ended is served on")
		}
		s.leave(a)
		s.leave(b)
		if len(s.sessions)+len(s.tokens)+len(s.perUser)+len(s.sources) != 0 {
			t.Error("the server holds something of a session that ended")
		}
	})
}

// TestFrameBytes holds the wire format still.
func TestFrameBytes(t *testing.T) {
	id, peer := ID{0xaa}, User{0xbb}
	join := append([]byte{1, 0, 48, 0xaa}, make([]byte, 15)...)
	join = append(append(join, 0xbb), make([]byte, 31)...)
	for name, c := range map[string]struct{ got, want []byte }{
		"join":    {frame(frameJoin, id[:], peer[:]), join},
		"paired":  {frame(framePaired), []byte{2, 0, 0}},
		"stream":  {frame(frameStream, []byte("hi")), []byte{3, 0, 2, 'h', 'i'}},
		"standby": {frame(frameStandby, make([]byte, standbyBody)), append([]byte{4, 0, 16}, make([]byte, 16)...)},
		"ask":     {frame(frameAsk, []byte{byte(TCP)}), []byte{5, 0, 1, 2}},
		"opened":  {frame(frameOpened, []byte{byte(UDP)}), []byte{7, 0, 1, 1}},
		"token":   {Token{0xcc}.Wire(), append([]byte{0xc2, 0xcc}, make([]byte, 15)...)},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s is %x, want %x", name, c.got, c.want)
		}
	}
}

// TestPairedIsToldBeforeTheStream has one end send before the other was told
// that it is paired: it must learn of that first.
func TestPairedIsToldBeforeTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Default(), &counter{})
		conn := newRecord()
		a, b := newEnd(s, sink{}, User{1}), newEnd(s, conn, User{2})
		id := NewID()
		if s.join(b, id, a.user) != nil || s.join(a, id, b.user) != nil {
			t.Fatal("cannot join")
		}
		hello := frame(frameStream, []byte("hello"))
		passed := make(chan error, 1)
		go func() { passed <- a.pass(t.Context(), hello) }()
		synctest.Wait()
		ended := make(chan error, 1)
		go func() { ended <- b.run(t.Context(), new(frameBuffer)) }()
		if err := <-passed; err != nil {
			t.Error(err)
		}
		if first, second := <-conn.wrote, <-conn.wrote; first[0] != framePaired || !bytes.Equal(second, hello) {
			t.Errorf("wrote %x and then %x", first, second)
		}
		conn.Close()
		<-ended
	})
}

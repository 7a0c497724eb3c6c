package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/media"
	"gauntlet/nodes/relay"
)

func TestStreamIsPassedWholeAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, relay.Default())
		_, _, sa, sb := pairUp(t, w)
		sent := make([]byte, 300<<10)
		rand.Read(sent)
		go sa.Stream().Write(sent)
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(sb.Stream(), got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, sent) {
			t.Error("the stream changed on its way")
		}
	})
}

func TestStreamKeepsToItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := relay.Default()
		w := newWorld(t, config)
		_, _, sa, sb := pairUp(t, w)
		start := time.Now()
		total := config.StreamBurst + 4*config.StreamRate
		go sa.Stream().Write(make([]byte, total))
		if _, err := io.CopyN(io.Discard, sb.Stream(), int64(total)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("4 s worth of bytes above the burst took %v", took)
		}
	})
}

func TestEndLeavesEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, relay.Default())
		_, _, sa, sb := pairUp(t, w)
		sa.Close()
		<-sb.Done()
		if !strings.Contains(sb.Err().Error(), "the other end left") {
			t.Errorf("bob was told %v", sb.Err())
		}
		synctest.Wait()
		if n := w.server.Sessions(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func TestOnlyTheTwoUsersJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, relay.Default())
		id := relay.NewID()
		a := w.user("alice", "10.0.0.1", alice)
		e := w.user("eve", "10.0.0.3", eve)
		sa := a.join(id, bob)
		synctest.Wait()
		for _, peer := range []relay.User{alice, bob, eve} {
			s := e.join(id, peer)
			<-s.Done()
			if !errors.Is(s.Err(), net.ErrClosed) && !strings.Contains(s.Err().Error(), "user") {
				t.Errorf("eve, who names %x, is told %v", peer[0], s.Err())
			}
		}
		select {
		case <-sa.Paired():
			t.Error("alice is paired with eve")
		default:
		}
		<-sa.Done() // nobody came
		if !strings.Contains(sa.Err().Error(), "did not join in time") {
			t.Errorf("alice is told %v", sa.Err())
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := relay.Default()
		config.MaxSessions, config.MaxPerUser = 3, 2
		w := newWorld(t, config)
		a := w.user("alice", "10.0.0.1", alice)
		e := w.user("eve", "10.0.0.3", eve)
		a.join(relay.NewID(), bob)
		a.join(relay.NewID(), bob)
		synctest.Wait()
		third := a.join(relay.NewID(), bob)
		<-third.Done()
		if !strings.Contains(third.Err().Error(), "sessions already") {
			t.Errorf("alice's third session: %v", third.Err())
		}
		e.join(relay.NewID(), bob)
		synctest.Wait()
		fourth := e.join(relay.NewID(), bob)
		<-fourth.Done()
		if !strings.Contains(fourth.Err().Error(), "sessions already") {
			t.Errorf("the relay's fourth session: %v", fourth.Err())
		}
		if n := w.server.Sessions(); n != 3 {
			t.Errorf("%d sessions instead of 3", n)
		}
	})
}

func TestMediaIsPassedUnchangedOverAnyPairOfLegs(t *testing.T) {
	for _, c := range []struct{ a, b relay.Transport }{
		{relay.UDP, relay.UDP}, {relay.UDP, relay.TCP}, {relay.TCP, relay.UDP}, {relay.TCP, relay.TCP},
	} {
		t.Run(c.a.String()+"-"+c.b.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, relay.Default())
				a, b, sa, sb := pairUp(t, w)
				sendA, receiveA := a.open(sa, c.a)
				sendB, receiveB := b.open(sb, c.b)
				for i := range 50 {
					packet := bytes.Repeat([]byte{128 + byte(i)}, media.PacketSize)
					sendA(packet)
					if got := receiveB(); !bytes.Equal(got, packet) {
						t.Fatalf("packet %d from alice became %x", i, got)
					}
					packet[1] = 9
					sendB(packet)
					if got := receiveA(); !bytes.Equal(got, packet) {
						t.Fatalf("packet %d from bob became %x", i, got)
					}
				}
			})
		})
	}
}

// open opens a media leg and returns how to use it.
func (u *user) open(s *relay.Session, transport relay.Transport) (send func([]byte), receive func() []byte) {
	u.w.t.Helper()
	if transport == relay.UDP {
		if err := s.OpenUDP(u.w.t.Context(), 100*time.Millisecond, u.sendUDP); err != nil {
			u.w.t.Fatal(err)
		}
		return func(p []byte) {
			if err := u.sendUDP(p); err != nil {
				u.w.t.Error(err)
			}
		}, u.receiveUDP
	}
	conn, err := s.OpenTCP(u.w.t.Context(), u.dialMedia)
	if err != nil {
		u.w.t.Fatal(err)
	}
	u.w.t.Cleanup(func() { conn.Close() })
	reader := media.NewFrameReader(conn)
	return func(p []byte) {
			if _, err := conn.Write(media.AppendFrame(nil, p)); err != nil {
				u.w.t.Error(err)
			}
		}, func() []byte {
			conn.SetReadDeadline(time.Now().Add(time.Second))
			packet, err := reader.Read()
			if err != nil {
				u.w.t.Fatalf("await media: %v", err)
			}
			return packet
		}
}

func TestTokenOpensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, relay.Default())
		a, b, sa, sb := pairUp(t, w)
		sendB, receiveB := b.open(sb, relay.UDP)
		a.open(sa, relay.UDP)
		w.mu.Lock()
		var spent []byte
		for _, packet := range w.seen {
			if _, ok := relay.ParseToken(packet); ok {
				spent = packet // alice's, the last one seen
			}
		}
		w.mu.Unlock()
		if spent == nil {
			t.Fatal("no token was seen")
		}
		// Eve saw the token and plays it again, over UDP and over TCP.
		e := w.user("eve", "10.0.0.3", eve)
		if err := e.sendUDP(spent); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if err := e.sendUDP(bytes.Repeat([]byte{0x80}, media.PacketSize)); err != nil {
			t.Fatal(err)
		}
		conn, err := e.dialMedia(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(spent)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a spent token is answered over TCP")
		}
		// Bob's media still reaches alice, and bob got nothing of eve's.
		sendB([]byte{0x80, 1})
		if got := a.receiveUDP(); !bytes.Equal(got, []byte{0x80, 1}) {
			t.Errorf("alice received %x", got)
		}
		if err := a.sendUDP([]byte{0x80, 2}); err != nil {
			t.Fatal(err)
		}
		if got := receiveB(); !bytes.Equal(got, []byte{0x80, 2}) {
			t.Errorf("bob received %x first", got)
		}
	})
}

func TestUnusedTokenGrowsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := relay.Default()
		w := newWorld(t, config)
		a, _, sa, _ := pairUp(t, w)
		ctx, cancel := context.WithTimeout(t.Context(), config.JoinTimeout+10*time.Second)
		defer cancel()
		held := true
		err := sa.OpenUDP(ctx, config.JoinTimeout+time.Second, func(packet []byte) error {
			if held { // the first copy is lost, the second comes too late
				held = false
				return nil
			}
			return a.sendUDP(packet)
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a token of %v age: %v", config.JoinTimeout+time.Second, err)
		}
	})
}

func TestRelayCannotReadOrChangeMedia(t *testing.T) {
	var master media.Master
	rand.Read(master.Key[:])
	sender, err := media.NewSender(master)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := media.NewReceiver(master)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("what alice said to bob, in 39 bytes. ok")
	packet, err := sender.Packet(secret, 0)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(packet, secret[:8]) {
		t.Error("the media can be read in the packet")
	}
	changed := bytes.Clone(packet)
	changed[20] ^= 0x80
	if _, err := receiver.Receive(changed, time.Now()); err == nil {
		t.Error("a packet that the relay changed is taken")
	}
	if got, err := receiver.Receive(packet, time.Now()); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("the packet that was left alone: %q, %v", got, err)
	}
}

func TestMediaAboveItsRateIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := relay.Default()
		w := newWorld(t, config)
		a, b, sa, sb := pairUp(t, w)
		a.open(sa, relay.UDP)
		b.open(sb, relay.UDP)
		packet := bytes.Repeat([]byte{0x80}, 1000)
		for range 100 {
			if err := a.sendUDP(packet); err != nil {
				t.Fatal(err)
			}
		}
		received := 0
		buffer := make([]byte, 2048)
		for {
			b.socket.SetReadDeadline(time.Now().Add(time.Second))
			if _, _, err := b.socket.ReadFrom(buffer); err != nil {
				break
			}
			received++
		}
		if want := config.MediaBurst / len(packet); received != want {
			t.Errorf("%d of 100 packets at once passed instead of %d", received, want)
		}
	})
}

func TestIdleSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := relay.Default()
		w := newWorld(t, config)
		_, _, sa, sb := pairUp(t, w)
		for range 10 { // alice says that she wants it, bob does not
			time.Sleep(config.IdleTimeout / 2)
			select {
			case <-sb.Done():
				return
			default:
			}
			sa.Standby()
		}
		t.Error("a session that one end has forgotten goes on")
	})
}

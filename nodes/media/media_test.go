package media_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/media"
)

// pair makes a sender and the receiver that matches it.
func pair(t testing.TB) (*media.Sender, *media.Receiver) {
	t.Helper()
	var master media.Master
	copy(master.Key[:], "a key of thirty-two bytes, fixed.")
	copy(master.Salt[:], "twelve bytes")
	sender, err := media.NewSender(master)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := media.NewReceiver(master)
	if err != nil {
		t.Fatal(err)
	}
	return sender, receiver
}

func TestKeysOfBothEndsCross(t *testing.T) {
	exporter := func(label string, _ []byte, length int) ([]byte, error) {
		var out []byte
		for len(out) < length {
			sum := sha256.Sum256(append([]byte(label), out...))
			out = append(out, sum[:]...)
		}
		return out[:length], nil
	}
	client, err := media.Export(exporter, true)
	if err != nil {
		t.Fatal(err)
	}
	server, err := media.Export(exporter, false)
	if err != nil {
		t.Fatal(err)
	}
	if client.Local != server.Remote || client.Remote != server.Local {
		t.Error("what one end sends with is not what the other receives with")
	}
	if client.Local == client.Remote {
		t.Error("both directions have one key")
	}
	broken := errors.New("no exporter")
	if _, err := media.Export(func(string, []byte, int) ([]byte, error) { return nil, broken }, true); !errors.Is(err, broken) {
		t.Errorf("error of the exporter is lost: %v", err)
	}
}

func TestPacketOf2004(t *testing.T) {
	sender, receiver := pair(t)
	payload := bytes.Repeat([]byte{7}, media.PayloadSize)
	packet, err := sender.Packet(payload, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(packet) != 67 {
		t.Errorf("packet of %d bytes instead of 67", len(packet))
	}
	if packet[0] < 128 || packet[0] > 191 {
		t.Errorf("first byte %d is not RTP's by RFC 7983", packet[0])
	}
	if framed := media.AppendFrame(nil, packet); len(framed) != 69 {
		t.Errorf("%d bytes over a stream instead of 69", len(framed))
	}
	got, err := receiver.Receive(packet, time.Now())
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("received %x, %v", got, err)
	}
	if _, err := sender.Packet(make([]byte, media.MaxPacket), 0); err == nil {
		t.Error("a payload above the largest packet is taken")
	}
}

func TestChangedOrRepeatedPacketIsRefused(t *testing.T) {
	sender, receiver := pair(t)
	now := time.Now()
	for i := range media.PacketSize {
		packet, err := sender.Packet(make([]byte, media.PayloadSize), 0)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(packet)
		changed[i] ^= 1
		if _, err := receiver.Receive(changed, now); err == nil {
			t.Errorf("a packet changed in byte %d is taken", i)
		}
		if _, err := receiver.Receive(packet, now); err != nil {
			t.Fatalf("a packet is refused after its changed copy (byte %d): %v", i, err)
		}
		if _, err := receiver.Receive(packet, now); err == nil {
			t.Error("a repeated packet is taken")
		}
	}
	stats := receiver.Stats()
	if stats.Received != media.PacketSize || stats.Rejected != 2*media.PacketSize || stats.Lost() != 0 {
		t.Errorf("counted %+v", stats)
	}
	for _, junk := range [][]byte{nil, {0x80}, make([]byte, 67), make([]byte, 3000)} {
		if _, err := receiver.Receive(junk, now); !errors.Is(err, media.ErrNotMedia) {
			t.Errorf("%d bytes of junk: %v", len(junk), err)
		}
	}
}

func TestStatsOverWrapReorderingAndLoss(t *testing.T) {
	sender, receiver := pair(t)
	now := time.Now()
	const total = 70000 // more than the sequence numbers there are
	var held []byte
	lost := 0
	for n := range total {
		packet, err := sender.Packet([]byte{1}, uint32(n*16000/70))
		if err != nil {
			t.Fatal(err)
		}
		at := now.Add(time.Duration(n) * time.Second / 70)
		switch {
		case n > 0 && n%1000 == 0:
			lost++
			continue
		case n%100 == 50:
			held = bytes.Clone(packet)
			continue
		}
		if _, err := receiver.Receive(packet, at); err != nil {
			t.Fatalf("packet %d: %v", n, err)
		}
		if held != nil {
			if _, err := receiver.Receive(held, at); err != nil {
				t.Fatalf("packet before %d, late: %v", n, err)
			}
			held = nil
		}
	}
	stats := receiver.Stats()
	if stats.Received != total-lost || stats.Expected != total || stats.Lost() != lost {
		t.Errorf("received %d, expected %d, lost %d; want %d, %d, %d",
			stats.Received, stats.Expected, stats.Lost(), total-lost, total, lost)
	}
	if stats.Jitter <= 0 || stats.Jitter > 15*time.Millisecond {
		t.Errorf("jitter %v of packets one interval late at most", stats.Jitter)
	}
}

func TestLoadKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender, receiver := pair(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute-time.Millisecond)
		defer cancel()
		sent, err := media.NewLoad(sender).Run(ctx, func(packet []byte) error {
			_, err := receiver.Receive(packet, time.Now())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := 60 * media.Rate; sent != want {
			t.Errorf("sent %d packets in a minute instead of %d", sent, want)
		}
		stats := receiver.Stats()
		if stats.Received != sent || stats.Bytes != int64(sent*media.PacketSize) {
			t.Errorf("received %d packets, %d bytes, of %d", stats.Received, stats.Bytes, sent)
		}
		if stats.Jitter > 100*time.Microsecond {
			t.Errorf("jitter %v without a network", stats.Jitter)
		}
	})
}

func TestLoadCountsOnlyWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender, _ := pair(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second-time.Millisecond)
		defer cancel()
		n := 0
		sent, err := media.NewLoad(sender).Run(ctx, func([]byte) error {
			n++
			if n%2 == 0 {
				return io.ErrClosedPipe
			}
			return nil
		})
		if err != nil || n != media.Rate || sent != media.Rate/2 {
			t.Errorf("%d of %d counted, %v", sent, n, err)
		}
	})
}

func TestFrames(t *testing.T) {
	var stream []byte
	for n := 1; n <= media.MaxPacket; n += 7 {
		stream = media.AppendFrame(stream, bytes.Repeat([]byte{byte(n)}, n))
	}
	reader := media.NewFrameReader(bytes.NewReader(stream))
	for n := 1; n <= media.MaxPacket; n += 7 {
		packet, err := reader.Read()
		if err != nil || !bytes.Equal(packet, bytes.Repeat([]byte{byte(n)}, n)) {
			t.Fatalf("frame of %d bytes: %d bytes, %v", n, len(packet), err)
		}
	}
	if _, err := reader.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for name, bad := range map[string][]byte{"empty": {0, 0}, "too large": {0xff, 0xff, 1}, "cut": {0, 5, 1}} {
		if _, err := media.NewFrameReader(bytes.NewReader(bad)).Read(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s frame: %v", name, err)
		}
	}
}

func FuzzReceive(f *testing.F) {
	sender, _ := pair(f)
	packet, err := sender.Packet(make([]byte, media.PayloadSize), 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packet)
	f.Add([]byte{0x9f, 0xff})
	f.Add(append([]byte{0x90}, make([]byte, 40)...))
	var other media.Master // a key that no packet of the corpus was sealed with
	rand.Read(other.Key[:])
	f.Fuzz(func(t *testing.T, data []byte) {
		receiver, err := media.NewReceiver(other)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := receiver.Receive(data, time.Now()); err == nil {
			t.Error("a packet that nobody sealed is taken")
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(media.AppendFrame(nil, []byte("packet")))
	f.Fuzz(func(t *testing.T, data []byte) {
		reader := media.NewFrameReader(bytes.NewReader(data))
		read := 0
		for {
			packet, err := reader.Read()
			if err != nil {
				return
			}
			if read += len(packet) + media.FrameOverhead; read > len(data) {
				t.Fatal("more was read than there is")
			}
		}
	})
}

func BenchmarkReceive(b *testing.B) {
	sender, receiver := pair(b)
	packets := make([][]byte, 0, 4096)
	for range cap(packets) {
		packet, err := sender.Packet(make([]byte, media.PayloadSize), 0)
		if err != nil {
			b.Fatal(err)
		}
		packets = append(packets, bytes.Clone(packet))
	}
	now := time.Now()
	if _, err := receiver.Receive(packets[0], now); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := 1
	for b.Loop() {
		if n == len(packets) {
			b.StopTimer()
			sender, receiver = pair(b)
			for i := range packets {
				packet, _ := sender.Packet(make([]byte, media.PayloadSize), 0)
				packets[i] = append(packets[i][:0], packet...)
			}
			receiver.Receive(packets[0], now)
			n = 1
			b.StartTimer()
		}
		if _, err := receiver.Receive(packets[n], now); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

func TestReceiveAllocatesNothing(t *testing.T) {
	sender, receiver := pair(t)
	packets := make([][]byte, 0, 300)
	for range cap(packets) {
		packet, err := sender.Packet(make([]byte, media.PayloadSize), 0)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, bytes.Clone(packet))
	}
	now := time.Now()
	n := 0
	receive := func() {
		if _, err := receiver.Receive(packets[n], now); err != nil {
			t.Fatal(err)
		}
		n++
	}
	receive()
	if allocs := testing.AllocsPerRun(200, receive); allocs != 0 {
		t.Errorf("%v allocations a packet", allocs)
	}
}

package packet_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
	"gauntlet/topo/ns/nstest"
	"gauntlet/topo/packet"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// maxFrame is what the wire of the tests takes, more than a slot does.
const maxFrame = 4000

// newWire makes a namespace with a wire between the interfaces a and b, on which
// only the test sends.
func newWire(t testing.TB) *ns.Handle {
	t.Helper()
	space := nstest.New(t)
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		must(t, space.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
	}
	handle, err := netlink.NewHandleAt(netns.NsHandle(space.FD()))
	must(t, err)
	defer handle.Close()
	must(t, handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a", MTU: maxFrame}, PeerName: "b", PeerMTU: maxFrame}))
	for _, name := range []string{"a", "b"} {
		link, err := handle.LinkByName(name)
		must(t, err)
		must(t, handle.LinkSetUp(link))
	}
	nstest.Carry(t, space, "a", "b")
	return space
}

func slots(t testing.TB, space *ns.Handle, name string, n int) *packet.Slots {
	t.Helper()
	r, err := packet.OpenSlots(space, name, n)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

func blocks(t testing.TB, space *ns.Handle, name string, bytes int, timeout time.Duration) *packet.Blocks {
	t.Helper()
	r, err := packet.OpenBlocks(space, name, bytes, timeout)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

// frame is an Ethernet frame of a length, with a type for experiments and a
// number.
func frame(n, length int) []byte {
	f := make([]byte, length)
	binary.BigEndian.PutUint16(f[12:], 0x88b5)
	binary.BigEndian.PutUint32(f[14:], uint32(n))
	for i := 18; i < length; i++ {
		f[i] = byte(n + i)
	}
	return f
}

func send(t testing.TB, through *packet.Slots, frame []byte) {
	t.Helper()
	_, err := unix.Write(through.FD(), frame)
	must(t, err)
}

// queued opens a socket without a ring, which sends through the queue in front of
// an interface: what goes past that is shown to no socket as it leaves.
func queued(t testing.TB, space *ns.Handle, name string) (fd int) {
	t.Helper()
	must(t, space.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index})
	}))
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	return fd
}

// await waits until a ring can be read.
func await(t testing.TB, fd int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		if n > 0 {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatalf("nothing to read after 10 s: %v", err)
		}
	}
}

// reader is what both kinds of ring can do.
type reader struct {
	FD    func() int
	Count func() (received, dropped uint64, err error)
	Drain func(func(packet.Packet))
}

// kinds open both kinds of ring on b: one of 1 MiB or more, or the smallest.
var kinds = map[string]func(t testing.TB, space *ns.Handle, large bool) reader{
	"blocks": func(t testing.TB, space *ns.Handle, large bool) reader {
		bytes := 1
		if large {
			bytes = 1 << 20
		}
		r := blocks(t, space, "b", bytes, time.Millisecond)
		return reader{r.FD, r.Count, r.Drain}
	},
	"slots": func(t testing.TB, space *ns.Handle, large bool) reader {
		n := 1
		if large {
			n = 1024
		}
		r := slots(t, space, "b", n)
		return reader{r.FD, r.Count, func(f func(packet.Packet)) { r.Drain(f) }}
	},
}

// Each packet comes out once, whole and in order, whichever way it crossed the
// interface, with the time at which it did.
func TestPackets(t *testing.T) {
	for name, open := range kinds {
		t.Run(name, func(t *testing.T) {
			space := newWire(t)
			r := open(t, space, true)
			there, back := slots(t, space, "a", 1), queued(t, space, "b")
			const sent = 400
			length := func(n int) int { return 60 + n*37%1455 }
			last := time.Now()
			for n := range sent {
				through := there.FD()
				if n%3 == 0 {
					through = back
				}
				_, err := unix.Write(through, frame(n, length(n)))
				must(t, err)
			}
			after, got := time.Now(), 0
			for got < sent {
				await(t, r.FD())
				r.Drain(func(p packet.Packet) {
					if !bytes.Equal(p.Data, frame(got, length(got))) || p.Length != len(p.Data) || p.Outgoing != (got%3 == 0) {
						t.Errorf("packet %d, of %d bytes, outgoing %v: %d bytes, %x…", got, p.Length, p.Outgoing, len(p.Data), p.Data[:20])
					}
					if p.At.Before(last) || p.At.After(after) {
						t.Errorf("packet %d at %v, not between the one before at %v and %v", got, p.At, last, after)
					}
					last = p.At
					got++
				})
			}
			received, dropped, err := r.Count()
			if received != sent || dropped != 0 || err != nil {
				t.Errorf("counted %d packets, %d dropped, %v; want %d and 0", received, dropped, err, sent)
			}
		})
	}
}

// A packet that a slot has no room for is cut, and says how long it was.
func TestSlotsCut(t *testing.T) {
	space := newWire(t)
	r, from := slots(t, space, "b", 1), slots(t, space, "a", 1)
	send(t, from, frame(1, 3000))
	send(t, from, frame(2, 100))
	var lengths []int
	await(t, r.FD())
	if !r.Drain(func(p packet.Packet) {
		if len(p.Data) == 0 || !bytes.Equal(p.Data, frame(len(lengths)/2+1, p.Length)[:len(p.Data)]) {
			t.Errorf("packet of %d bytes begins %x", p.Length, p.Data[:min(len(p.Data), 20)])
		}
		lengths = append(lengths, p.Length, len(p.Data))
	}) {
		t.Error("two packets in more slots, and the ring is not empty")
	}
	if len(lengths) != 4 || lengths[0] != 3000 || lengths[1] < 1514 || lengths[1] > 2048 || lengths[2] != 100 || lengths[3] != 100 {
		t.Errorf("lengths and room: %v, want 3000 in a slot, and 100 whole", lengths)
	}
}

// What comes when nobody reads is kept until the ring is full; the rest is
// counted, and the ring goes on.
func TestOverflow(t *testing.T) {
	const sent = 200
	for name, open := range kinds {
		t.Run(name, func(t *testing.T) {
			space := newWire(t)
			r := open(t, space, false)
			from := slots(t, space, "a", 1)
			for n := range sent {
				send(t, from, frame(n, 1400))
			}
			read := 0
			await(t, r.FD())
			r.Drain(func(p packet.Packet) {
				if !bytes.Equal(p.Data, frame(read, 1400)) {
					t.Errorf("packet %d is %x…", read, p.Data[:20])
				}
				read++
			})
			received, dropped, err := r.Count()
			if err != nil || read == 0 || dropped == 0 || received != sent || received-dropped != uint64(read) {
				t.Errorf("%d packets of %d received, %d dropped, %d read, %v", received, sent, dropped, read, err)
			}
			send(t, from, frame(sent, 100))
			for again := 0; again == 0; {
				await(t, r.FD())
				r.Drain(func(p packet.Packet) {
					if again++; p.Length != 100 {
						t.Errorf("after the overflow came a packet of %d bytes", p.Length)
					}
				})
			}
			if received, now, _ := r.Count(); received != sent+1 || now != dropped {
				t.Errorf("after one more: %d received, %d dropped", received, now)
			}
		})
	}
}

// TestStall leaves blocks alone for a while that packets trickle in, each into a
// block of its own: none may be lost.
func TestStall(t *testing.T) {
	const sent = 60
	space := newWire(t)
	r := blocks(t, space, "b", 1<<20, time.Millisecond)
	from := slots(t, space, "a", 1)
	pace := time.NewTicker(4 * time.Millisecond)
	defer pace.Stop()
	for n := range sent {
		send(t, from, frame(n, 109))
		<-pace.C
	}
	read := 0
	for read < sent {
		await(t, r.FD())
		r.Drain(func(packet.Packet) { read++ })
	}
	if _, dropped, err := r.Count(); dropped != 0 || err != nil {
		t.Errorf("%d packets dropped, %v", dropped, err)
	}
	if r.Waiting() {
		t.Error("all is read, and a packet is waiting")
	}
	if r.Taken() < 2 {
		t.Errorf("all in %d blocks: nothing was handed over in %v", r.Taken(), sent*4*time.Millisecond)
	}
}

// A packet in a block that is not handed over yet is waiting, and can't be read.
func TestWaiting(t *testing.T) {
	space := newWire(t)
	r := blocks(t, space, "b", 1<<20, time.Minute)
	drain := func() (n int) {
		r.Drain(func(packet.Packet) { n++ })
		return n
	}
	if n := drain(); n != 0 || r.Waiting() {
		t.Errorf("an empty ring gives %d packets, and says that some wait: %v", n, r.Waiting())
	}
	send(t, slots(t, space, "a", 1), frame(1, 100))
	if n := drain(); n != 0 || !r.Waiting() || r.Taken() != 0 {
		t.Errorf("%d packets of a block that is not full; waiting: %v, blocks taken: %d", n, r.Waiting(), r.Taken())
	}
}

// An interface that goes away wakes who polls for its socket, once, and says so.
func TestFault(t *testing.T) {
	space := newWire(t)
	all := map[string]interface {
		FD() int
		Fault() error
	}{"blocks": blocks(t, space, "b", 1, time.Millisecond), "slots": slots(t, space, "b", 1)}
	for name, r := range all {
		if err := r.Fault(); err != nil {
			t.Errorf("%s: %v before anything happened", name, err)
		}
	}
	handle, err := netlink.NewHandleAt(netns.NsHandle(space.FD()))
	must(t, err)
	defer handle.Close()
	link, err := handle.LinkByName("a")
	must(t, err)
	must(t, handle.LinkDel(link))
	for name, r := range all {
		await(t, r.FD())
		if err := r.Fault(); !errors.Is(err, unix.ENETDOWN) {
			t.Errorf("%s of an interface that is gone: %v, want that the network is down", name, err)
		}
		if err := r.Fault(); err != nil {
			t.Errorf("%s: %v once more", name, err)
		}
	}
}

func TestOpenUndoesItself(t *testing.T) {
	space := newWire(t)
	before := descriptors(t)
	for what, open := range map[string]func() error{
		"blocks": func() error { _, err := packet.OpenBlocks(space, "c", 1, 0); return err },
		"slots":  func() error { _, err := packet.OpenSlots(space, "c", 1); return err },
	} {
		if err := open(); err == nil || !strings.Contains(err.Error(), "open packet ring of c") {
			t.Errorf("%s on an interface that is not there: %v", what, err)
		}
	}
	if now := descriptors(t); now > before { // fewer, where a socket of before is only now gone
		t.Errorf("%d descriptors open, %d before", now, before)
	}
}

func TestClose(t *testing.T) {
	space := newWire(t)
	before := descriptors(t)
	r, err := packet.OpenSlots(space, "b", 1)
	must(t, err)
	from, err := packet.OpenSlots(space, "a", 1)
	must(t, err)
	send(t, from, frame(1, 100))
	if received, _, err := r.Count(); received != 1 || err != nil {
		t.Errorf("counted %d packets, %v; want 1", received, err)
	}
	for range 2 {
		must(t, r.Close())
		must(t, from.Close())
		if received, _, err := r.Count(); received != 1 || err != nil || r.FD() != -1 {
			t.Errorf("closed: counted %d packets, %v, descriptor %d; want 1, none", received, err, r.FD())
		}
	}
	if now := descriptors(t); now > before { // fewer, where a socket of before is only now gone
		t.Errorf("%d descriptors open, %d before", now, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

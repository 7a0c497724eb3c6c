package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

// A probe's packet carries a word by which it is known and a number that no
// other has.
const (
	payloadWord = "gauntlet"
	payloadSize = len(payloadWord) + 8
)

// Watch knows what becomes of the probe's packets: it reads the drop logs of
// the boxes, and all sockets of the probe report to it. One Watch serves all
// measurements of a lab at the same time, since one log has one reader.
type Watch struct {
	mu      sync.Mutex // guards what follows
	next    uint64
	port    uint16
	packets map[uint64]*packet
	streams map[netip.AddrPort]*stream // by the address that connects, as the box's hooks see it first
	points  map[netip.AddrPort]*point  // TCP endpoints that are not the kernel's
	logs    []*watched

	services sync.Mutex // held by who listens at a service's port outside, which measurements share
}

// watched is one box.
type watched struct {
	*dropLog
	space  *ns.Handle
	before map[string]middlebox.Counter
}

// NewWatch returns a Watch that reads no log yet.
func NewWatch() *Watch {
	return &Watch{
		next:    rand.Uint64(),
		port:    firstPort + uint16(rand.IntN(lastPort-firstPort)),
		packets: map[uint64]*packet{}, streams: map[netip.AddrPort]*stream{}, points: map[netip.AddrPort]*point{},
	}
}

// Ports that the probe's sockets use: below those that the kernel gives out by
// itself (net.ipv4.ip_local_port_range begins at 32768), above those of
// services.
const (
	firstPort = 20_000
	lastPort  = 32_000
)

// ports returns n ports that follow each other and that nobody else gets until
// all have been given out.
func (w *Watch) ports(n int) uint16 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if int(w.port)+n > lastPort {
		w.port = firstPort
	}
	first := w.port
	w.port += uint16(n)
	return first
}

// Box begins to read the drop log of a box whose rules log to an NFLOG group.
// Nobody else may read that group until Close.
func (w *Watch) Box(name string, space *ns.Handle, group uint16) error {
	log, err := openDropLog(space, name, group, w.dropped)
	if err != nil {
		return fmt.Errorf("watch %s: %w", name, err)
	}
	before, err := middlebox.Counters(space)
	if err != nil {
		_, closed := log.close()
		return errors.Join(fmt.Errorf("watch %s: %w", name, err), closed)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logs = append(w.logs, &watched{log, space, before})
	return nil
}

// Reloaded must be called after the rules of a box were loaded anew, which
// puts its counters back to zero.
func (w *Watch) Reloaded(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.logs {
		if b.box != name {
			continue
		}
		before, err := middlebox.Counters(b.space)
		if err != nil {
			return fmt.Errorf("watch %s: %w", name, err)
		}
		b.before = before
		b.mu.Lock()
		clear(b.logged)
		b.mu.Unlock()
	}
	return nil
}

// Close ends the reading. It returns, by the box's name, where counters and
// log tell different stories or messages were lost: what was measured there is
// not certain.
func (w *Watch) Close() map[string]error {
	w.mu.Lock()
	logs := w.logs
	w.logs = nil
	w.mu.Unlock()
	doubts := map[string]error{}
	for _, b := range logs {
		after, err := b.counted()
		logged, closed := b.close()
		if err = errors.Join(err, closed); err != nil {
			doubts[b.box] = err
			continue
		}
		for rule, c := range after {
			if counted := c.Packets - b.before[rule].Packets; counted != logged[rule] {
				err = errors.Join(err, fmt.Errorf("%s, rule %s: %d packets counted, %d logged", b.box, rule, counted, logged[rule]))
			}
		}
		if err != nil {
			doubts[b.box] = err
		}
	}
	return doubts
}

// settling is how often counters are read until they stand still.
const settling = 10

// counted reads the counters of a box once the log has been read as far as they
// count: what is dropped in between, such as a late segment, is in one of them alone.
func (b *watched) counted() (map[string]middlebox.Counter, error) {
	counters, err := middlebox.Counters(b.space)
	for range settling {
		if err == nil {
			err = b.sync(context.Background())
		}
		if err != nil {
			return nil, err
		}
		before := counters
		if counters, err = middlebox.Counters(b.space); maps.Equal(before, counters) {
			break
		}
	}
	return counters, err
}

// sync waits until the logs have been read as far as they are.
func (w *Watch) sync(ctx context.Context) error {
	w.mu.Lock()
	logs := w.logs
	w.mu.Unlock()
	for _, l := range logs {
		if err := l.sync(ctx); err != nil {
			return err
		}
	}
	return nil
}

// packet makes a packet to be followed.
func (w *Watch) packet() *packet {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	p := &packet{watch: w, number: w.next, arrived: make(chan struct{}), fated: make(chan struct{})}
	w.packets[p.number] = p
	return p
}

// find returns the packet of a payload, nil if it is none of the probe's.
func (w *Watch) find(payload []byte) *packet {
	if len(payload) < payloadSize || string(payload[:len(payloadWord)]) != payloadWord {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.packets[binary.BigEndian.Uint64(payload[len(payloadWord):])]
}

// dropped takes a packet that a box has logged.
func (w *Watch) dropped(box, rule string, ip []byte) {
	if len(ip) < 20 || ip[0]>>4 != 4 || len(ip) < int(ip[0]&15)*4+8 {
		return
	}
	transport := ip[int(ip[0]&15)*4:]
	switch ip[9] {
	case unix.IPPROTO_UDP:
		if p := w.find(transport[udpHeader:]); p != nil {
			p.drop(Drop{box, rule})
		}
	case unix.IPPROTO_ICMP:
		if len(transport) < icmpHeader+ipHeader {
			return
		}
		if _, _, protocol, quoted, ok := parseQuoted(transport[icmpHeader:]); ok {
			header := udpHeader
			if protocol == unix.IPPROTO_TCP {
				header = tcpHeader
			}
			if p := w.find(quoted[min(header, len(quoted)):]); p != nil {
				p.drop(Drop{box, rule})
			}
		}
	case unix.IPPROTO_TCP:
		if len(transport) > tcpHeader { // a segment that is followed has no options
			if p := w.find(transport[tcpHeader:]); p != nil {
				p.drop(Drop{box, rule})
				return
			}
		}
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(transport))
		w.mu.Lock()
		s := w.streams[from]
		w.mu.Unlock()
		if s != nil {
			s.drop(Drop{box, rule})
		}
	}
}

// Drop says who dropped a packet.
type Drop struct {
	Box, Rule string
}

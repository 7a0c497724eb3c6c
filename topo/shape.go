package topo

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

const (
	// minRate and maxRate bound what tbf(8) is asked for, in bit/s. Below the
	// first, one full frame takes longer than any timer of a test.
	minRate = 1_000
	maxRate = 10_000_000_000

	// maxDelay bounds the delay of a link. A satellite's is under 1 s; netem
	// counts in 32 bits of 64 ns.
	maxDelay = time.Minute

	// frame is the largest Ethernet frame on a link, in bytes: an MTU of 1500
	// and 14 of header. tbf drops what its bucket can't hold.
	frame = 1514

	// bucketTime is how much tbf may send at once, as time at its rate. It is
	// one tick of a 250 Hz kernel; less can't reach the rate.
	bucketTime = 4 * time.Millisecond

	// queueTime is how much tbf holds back before it drops, as time at its
	// rate, and queueFrames the least it holds, so that TCP can start at all.
	queueTime   = 200 * time.Millisecond
	queueFrames = 8

	// netemQueue is how many packets netem(8) may hold during their delay.
	netemQueue = 100_000
)

// shaper applies shapes to the interfaces of one namespace.
type shaper struct {
	handle *netlink.Handle
}

func newShaper(h *ns.Handle) (*shaper, error) {
	handle, err := netlink.NewHandleAt(netns.NsHandle(h.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink handle: %w", err)
	}
	return &shaper{handle}, nil
}

func (s *shaper) close() { s.handle.Close() }

// apply shapes what leaves an interface. It returns what the shape asks for
// and the kernel lacks, such as "delay 25ms".
func (s *shaper) apply(index int, shape Shape) (missing []string, err error) {
	parent := uint32(netlink.HANDLE_ROOT)
	if shape.Delay > 0 || shape.Jitter > 0 || shape.Loss > 0 {
		switch err := s.handle.QdiscAdd(netem(index, shape)); {
		case err == nil:
			parent = netlink.MakeHandle(1, 1)
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP):
			missing = impairments(shape)
		default:
			return nil, fmt.Errorf("add netem: %w", err)
		}
	}
	if shape.Rate > 0 {
		switch err := s.handle.QdiscAdd(tbf(index, parent, shape.Rate)); {
		case err == nil:
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP):
			missing = append(missing, fmt.Sprintf("rate %d bit/s", shape.Rate))
		default:
			return nil, fmt.Errorf("add tbf: %w", err)
		}
	}
	return missing, nil
}

// impairments lists what only netem does.
func impairments(s Shape) (list []string) {
	if s.Delay > 0 {
		list = append(list, fmt.Sprintf("delay %v", s.Delay))
	}
	if s.Jitter > 0 {
		list = append(list, fmt.Sprintf("jitter %v", s.Jitter))
	}
	if s.Loss > 0 {
		list = append(list, fmt.Sprintf("loss %g%%", s.Loss*100))
	}
	return list
}

func tbf(index int, parent uint32, rate uint64) *netlink.Tbf {
	bytes := rate / 8
	bucket := max(frame+64, uint64(float64(bytes)*bucketTime.Seconds()))
	queue := max(queueFrames*frame, uint64(float64(bytes)*queueTime.Seconds()))
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0x10, 0), Parent: parent},
		Rate:       bytes,
		Limit:      uint32(bucket + queue),
		Buffer:     netlink.Xmittime(bytes, uint32(bucket)),
	}
}

func netem(index int, s Shape) *netlink.Netem {
	return netlink.NewNetem(
		netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		netlink.NetemQdiscAttrs{
			Latency: microseconds(s.Delay),
			Jitter:  microseconds(s.Jitter),
			Loss:    float32(s.Loss * 100),
			Limit:   netemQueue,
		})
}

// microseconds converts for netem, which counts in them.
func microseconds(d time.Duration) uint32 {
	return uint32(min(d.Microseconds(), math.MaxUint32))
}

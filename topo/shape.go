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
	"gauntlet/topo/pump"
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

	// netemQueue is how many frames netem(8) may hold during their delay: what a
	// line of the pump holds of the longest ones.
	netemQueue = pump.MaxBytes / frame
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

// limit bounds the rate at which frames leave an interface. It returns what the
// kernel lacks for it, such as "rate 128000 bit/s", or "".
func (s *shaper) limit(index int, rate uint64) (missing string, err error) {
	switch err := s.handle.QdiscAdd(tbf(index, netlink.HANDLE_ROOT, rate)); {
	case err == nil:
		return "", nil
	case lacking(err):
		return fmt.Sprintf("rate %d bit/s", rate), nil
	default:
		return "", fmt.Errorf("add tbf: %w", err)
	}
}

// delay has frames leave an interface later, by netem. lacks says that this
// kernel has none.
func (s *shaper) delay(index int, by time.Duration) (lacks bool, err error) {
	switch err := s.handle.QdiscAdd(netem(index, by)); {
	case err == nil:
		return false, nil
	case lacking(err):
		return true, nil
	default:
		return false, fmt.Errorf("add netem: %w", err)
	}
}

// undelay takes the delay away again.
func (s *shaper) undelay(index int, by time.Duration) error {
	if err := s.handle.QdiscDel(netem(index, by)); err != nil {
		return fmt.Errorf("remove netem: %w", err)
	}
	return nil
}

// lacking says whether the kernel refused a queue because it doesn't know it.
func lacking(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) }

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

func netem(index int, delay time.Duration) *netlink.Netem {
	return netlink.NewNetem(
		netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		netlink.NetemQdiscAttrs{
			Latency: uint32(min(delay.Microseconds(), math.MaxUint32)),
			Limit:   netemQueue,
		})
}

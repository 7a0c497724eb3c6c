package topo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// batchSize bounds the messages sent to the kernel at once, so that the
// answers to all of them fit into the socket's receive buffer.
const batchSize = 64

// answerTimeout bounds the wait for an acknowledgement. The kernel answers
// rtnetlink requests before the send returns, so it is never used up.
const answerTimeout = 10 * time.Second

// rtnl is an rtnetlink(7) socket in one namespace. Requests are gathered and
// sent many at a time: a lab of hundreds of hosts is bounded by what each of
// them costs. It is used by one goroutine at a time.
type rtnl struct {
	fd      int
	pending []request
	seq     uint32
	buf     []byte
}

// request is one message and what it is for.
type request struct {
	what string // for the error
	*nl.NetlinkRequest
}

// openRTNL opens a socket in the namespace of the calling thread.
func openRTNL() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	s := &rtnl{fd: fd}
	limit := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	err = errors.Join(
		unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1), // answers don't repeat the request
		unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1), // errors say why
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open rtnetlink socket: %w", err), s.close())
	}
	return s, nil
}

func (s *rtnl) close() error {
	if err := unix.Close(s.fd); err != nil {
		return fmt.Errorf("close rtnetlink socket: %w", err)
	}
	return nil
}

// add queues a message for flush.
func (s *rtnl) add(what string, kind, flags int, data ...nl.NetlinkRequestData) {
	r := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	for _, d := range data {
		r.AddData(d)
	}
	s.pending = append(s.pending, request{what, r})
}

// flush sends what is queued and returns what the kernel refused.
func (s *rtnl) flush() error {
	var errs []error
	for len(s.pending) > 0 {
		n := min(len(s.pending), batchSize)
		if err := s.exchange(s.pending[:n]); err != nil {
			errs = append(errs, err)
		}
		s.pending = s.pending[n:]
	}
	s.pending = nil
	return errors.Join(errs...)
}

// exchange sends some messages in one datagram and reads an acknowledgement
// for each.
func (s *rtnl) exchange(batch []request) error {
	s.buf = s.buf[:0]
	first := s.seq + 1
	for _, r := range batch {
		s.seq++
		r.Seq = s.seq
		s.buf = append(s.buf, r.Serialize()...)
	}
	if err := unix.Sendto(s.fd, s.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send %d rtnetlink messages: %w", len(batch), err)
	}
	var errs []error
	answer := make([]byte, os.Getpagesize())
	for answered := 0; answered < len(batch); {
		n, _, err := unix.Recvfrom(s.fd, answer, 0)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("receive rtnetlink answer: %w", err))...)
		}
		for rest := answer[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < unix.SizeofNlMsghdr || size > len(rest) {
				return errors.Join(append(errs, fmt.Errorf("rtnetlink answer of %d bytes in a datagram of %d", size, len(rest)))...)
			}
			kind, seq := binary.NativeEndian.Uint16(rest[4:]), binary.NativeEndian.Uint32(rest[8:])
			if at := int(seq - first); kind == unix.NLMSG_ERROR && size >= unix.SizeofNlMsghdr+4 && at >= 0 && at < len(batch) {
				answered++
				if code := int32(binary.NativeEndian.Uint32(rest[unix.SizeofNlMsghdr:])); code != 0 {
					errs = append(errs, fmt.Errorf("%s: %w%s", batch[at].what, unix.Errno(-code), reason(rest[:size])))
				}
			}
			rest = rest[min(len(rest), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
	return errors.Join(errs...)
}

// reason returns the kernel's own words for an error, in parentheses, or "" if
// it gave none. Its attributes follow the error code and the header of the
// request.
func reason(answer []byte) string {
	attrs := unix.SizeofNlMsghdr + 4 + unix.SizeofNlMsghdr
	if len(answer) <= attrs {
		return ""
	}
	list, err := nl.ParseRouteAttr(answer[attrs:])
	if err != nil {
		return ""
	}
	for _, a := range list {
		if a.Attr.Type == unix.NLMSGERR_ATTR_MSG {
			return " (" + strings.TrimRight(string(a.Value), "\x00") + ")"
		}
	}
	return ""
}

const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

// addBridge queues a bridge that is up from the beginning. Its hardware
// address is given, since a bridge otherwise changes its own whenever a port
// is added, which leaves wrong entries in its neighbours' tables. It doesn't
// snoop multicast, for which it would send IGMP messages of its own.
func (s *rtnl) addBridge(name string, index int, mac net.HardwareAddr) {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0))
	s.add("add bridge "+name, unix.RTM_NEWLINK, create, upMessage(index),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, mac), info)
}

// end is one end of a veth pair.
type end struct {
	name  string
	index int
	mac   net.HardwareAddr
}

// addVeth queues a veth pair in one message: the port, up and on a bridge of
// this namespace unless that is 0, and its peer in another, down.
func (s *rtnl) addVeth(port end, bridge int, peer end, in *ns.Handle) {
	other := nl.NewRtAttr(nl.VETH_INFO_PEER, nil)
	down := nl.NewIfInfomsg(unix.AF_UNSPEC) // the kernel can't bring it up before it is joined to the port
	down.Index = int32(peer.index)
	other.AddChild(down)
	other.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(peer.name))
	other.AddRtAttr(unix.IFLA_ADDRESS, peer.mac)
	other.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(in.FD())))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddChild(other)
	attrs := []nl.NetlinkRequestData{
		upMessage(port.index),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(port.name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, port.mac), info,
	}
	if bridge != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	}
	s.add("add veth "+port.name, unix.RTM_NEWLINK, create, attrs...)
}

// setMaster queues putting an interface onto a bridge.
func (s *rtnl) setMaster(name string, index, bridge int) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	s.add("put "+name+" onto a bridge", unix.RTM_SETLINK, 0, msg, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
}

// setUp queues bringing an interface up.
func (s *rtnl) setUp(name string, index int) {
	s.add("bring "+name+" up", unix.RTM_SETLINK, 0, upMessage(index))
}

func upMessage(index int) *nl.IfInfomsg {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(index), unix.IFF_UP, unix.IFF_UP
	return msg
}

// addAddress queues an IPv4 address of an interface.
func (s *rtnl) addAddress(name string, index int, addr netip.Prefix) {
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	msg.Index, msg.Prefixlen = uint32(index), uint8(addr.Bits())
	s.add(fmt.Sprintf("add address %v to %s", addr, name), unix.RTM_NEWADDR, create, msg,
		nl.NewRtAttr(unix.IFA_LOCAL, addr.Addr().AsSlice()),
		nl.NewRtAttr(unix.IFA_ADDRESS, addr.Addr().AsSlice()),
		nl.NewRtAttr(unix.IFA_BROADCAST, last(addr).AsSlice()))
}

// addNeighbour queues a neighbour's hardware address that is never resolved and
// never forgotten, in the place of what the kernel has tried to find out itself.
func (s *rtnl) addNeighbour(addr netip.Addr, mac net.HardwareAddr, index int) {
	s.add(fmt.Sprintf("add neighbour %v", addr), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, &neighbour{
		NdMsg: unix.NdMsg{Family: unix.AF_INET, Ifindex: int32(index), State: unix.NUD_PERMANENT},
	},
		nl.NewRtAttr(unix.NDA_DST, addr.AsSlice()),
		nl.NewRtAttr(unix.NDA_LLADDR, mac))
}

// neighbour is the fixed part of a neighbour message.
type neighbour struct{ unix.NdMsg }

func (n *neighbour) Len() int { return unix.SizeofNdMsg }

func (n *neighbour) Serialize() []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = n.Family
	binary.NativeEndian.PutUint32(b[4:], uint32(n.Ifindex))
	binary.NativeEndian.PutUint16(b[8:], n.State)
	b[10], b[11] = n.Flags, n.Type
	return b
}

// addRoute queues an IPv4 route. The prefix 0.0.0.0/0 is the default route.
// The neighbour it goes through need not be in a prefix of the interface.
func (s *rtnl) addRoute(r Route, index int) {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len, msg.Scope, msg.Flags = unix.AF_INET, uint8(r.To.Bits()), unix.RT_SCOPE_UNIVERSE, unix.RTNH_F_ONLINK
	s.add(fmt.Sprintf("add route to %v through %v", r.To, r.Via), unix.RTM_NEWROUTE, create, msg,
		nl.NewRtAttr(unix.RTA_DST, r.To.Addr().AsSlice()),
		nl.NewRtAttr(unix.RTA_GATEWAY, r.Via.AsSlice()),
		nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
}

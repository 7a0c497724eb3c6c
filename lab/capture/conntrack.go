package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/lab/evidence"
	"gauntlet/middlebox"
)

// Numbers of ctnetlink, linux/netfilter/nfnetlink_conntrack.h.
const (
	conntrackGet = 1 // IPCTNL_MSG_CT_GET

	ctTupleOriginal    = 1
	ctTupleReply       = 2
	ctMark             = 8
	ctCountersOriginal = 9
	ctCountersReply    = 10
	ctTimestamp        = 20

	ctTupleIP    = 1
	ctTupleProto = 2

	ctSourceV4      = 1
	ctDestinationV4 = 2

	ctProtocol        = 1
	ctSourcePort      = 2
	ctDestinationPort = 3

	ctPackets = 1
	ctBytes   = 2

	ctStarted = 1
)

// dumpTries is how often a dump that the table changed under is repeated.
const dumpTries = 5

// dumpConntrack reads the UDP and TCP connections over IPv4 of the namespace
// that the socket is in.
func dumpConntrack(conn *netlink.Conn) ([]evidence.Entry, error) {
	for range dumpTries {
		messages, err := conn.Execute(request(subsystemConntrack, conntrackGet, netlink.Dump, unix.AF_INET, 0, nil))
		if err != nil {
			return nil, fmt.Errorf("read connection table: %w", err)
		}
		entries := make([]evidence.Entry, 0, len(messages))
		interrupted := false
		for _, m := range messages {
			interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
			entry, ok, err := parseConntrack(m.Data)
			if err != nil {
				return nil, fmt.Errorf("read connection table: %w", err)
			}
			if ok {
				entries = append(entries, entry)
			}
		}
		if !interrupted {
			return entries, nil
		}
	}
	return nil, errors.New("read connection table: it changed under the reader each time")
}

// parseConntrack reads one message of a dump. ok is false for anything but UDP
// and TCP over IPv4.
func parseConntrack(data []byte) (e evidence.Entry, ok bool, err error) {
	if len(data) < generalHeader {
		return e, false, errors.New("connection message is too short")
	}
	d, err := netlink.NewAttributeDecoder(data[generalHeader:])
	if err != nil {
		return e, false, fmt.Errorf("connection message: %w", err)
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		switch d.Type() {
		case ctTupleOriginal:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				e.Transport, e.Original = parseTuple(d)
				return nil
			})
		case ctTupleReply:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				_, e.Reply = parseTuple(d)
				return nil
			})
		case ctCountersOriginal:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				e.OriginalPackets, e.OriginalBytes = parseCounters(d)
				return nil
			})
		case ctCountersReply:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				e.ReplyPackets, e.ReplyBytes = parseCounters(d)
				return nil
			})
		case ctMark:
			e.Mapped = d.Uint32()&middlebox.MappedMark != 0
		case ctTimestamp:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == ctStarted {
						e.Started = time.Unix(0, int64(d.Uint64()))
					}
				}
				return nil
			})
		}
	}
	if err := d.Err(); err != nil {
		return e, false, fmt.Errorf("connection message: %w", err)
	}
	whole := e.Original.Src.IsValid() && e.Original.Dst.IsValid() && e.Reply.Src.IsValid() && e.Reply.Dst.IsValid()
	return e, whole && e.Transport != "", nil
}

func parseTuple(d *netlink.AttributeDecoder) (transport string, t evidence.Tuple) {
	var src, dst netip.Addr
	var srcPort, dstPort uint16
	for d.Next() {
		switch d.Type() {
		case ctTupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case ctSourceV4:
						src, _ = netip.AddrFromSlice(d.Bytes())
					case ctDestinationV4:
						dst, _ = netip.AddrFromSlice(d.Bytes())
					}
				}
				return nil
			})
		case ctTupleProto:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case ctProtocol:
						switch d.Uint8() {
						case unix.IPPROTO_UDP:
							transport = evidence.UDP
						case unix.IPPROTO_TCP:
							transport = evidence.TCP
						}
					case ctSourcePort:
						srcPort = d.Uint16()
					case ctDestinationPort:
						dstPort = d.Uint16()
					}
				}
				return nil
			})
		}
	}
	return transport, evidence.Tuple{Src: netip.AddrPortFrom(src, srcPort), Dst: netip.AddrPortFrom(dst, dstPort)}
}

func parseCounters(d *netlink.AttributeDecoder) (packets, bytes uint64) {
	for d.Next() {
		switch d.Type() {
		case ctPackets:
			packets = d.Uint64()
		case ctBytes:
			bytes = d.Uint64()
		}
	}
	return packets, bytes
}

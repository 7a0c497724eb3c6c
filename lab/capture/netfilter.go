package capture

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// Numbers of nfnetlink, linux/netfilter/nfnetlink.h.
const (
	subsystemConntrack = 1 // NFNL_SUBSYS_CTNETLINK
	subsystemLog       = 4 // NFNL_SUBSYS_ULOG

	// generalHeader is the length of struct nfgenmsg, which each message
	// begins with: family, version and, big-endian, a resource id.
	generalHeader = 4
)

// messageBuffer holds the longest message: a drop with a whole packet of
// 65,535 bytes, or the 32 KiB that the kernel fills of a dump at once.
const messageBuffer = 128 << 10

// dialNetfilter opens a netfilter socket inside the namespace.
func dialNetfilter(namespace *ns.Handle) (conn *netlink.Conn, err error) {
	err = namespace.Do(func() error {
		conn, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: messageBuffer})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	return conn, nil
}

// request makes a message of a subsystem of nfnetlink.
func request(subsystem, kind uint16, flags netlink.HeaderFlags, family uint8, resource uint16, attributes []byte) netlink.Message {
	data := []byte{family, 0}
	data = binary.BigEndian.AppendUint16(data, resource)
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(subsystem<<8 | kind),
			Flags: netlink.Request | flags,
		},
		Data: append(data, attributes...),
	}
}

package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// Numbers of nfnetlink_log, linux/netfilter/nfnetlink_log.h.
const (
	subsystemLog = 4 // NFNL_SUBSYS_ULOG

	logPacket = 0 // NFULNL_MSG_PACKET
	logConfig = 1 // NFULNL_MSG_CONFIG

	logConfigCommand   = 1
	logConfigMode      = 2
	logConfigThreshold = 5

	logBind       = 1
	logCopyPacket = 2

	logPayload = 9
	logPrefix  = 10

	// generalHeader is the length of struct nfgenmsg.
	generalHeader = 4
)

// logCopied is how much of a packet the log is asked for: the headers of IPv4
// and TCP with all their options, and a payload of the probe's.
const logCopied = 60 + 60 + payloadSize

// logBuffer is what is asked for as the socket's buffer, in bytes; the kernel
// gives at most net.core.rmem_max.
const logBuffer = 1 << 20

// dropLog reads what the rules of one box log. Each packet is a message of its
// own, queued by the kernel before it goes on to drop the packet.
type dropLog struct {
	box   string
	conn  *netlink.Conn
	group uint16
	take  func(box, rule string, packet []byte)
	done  chan struct{}

	marking sync.Mutex // held while a mark is sent
	mu      sync.Mutex // guards what follows
	waiting []chan struct{}
	logged  map[string]uint64 // messages by rule
	lost    error             // why messages are missing, nil if none are
	ended   bool
}

// openDropLog binds the group inside the box's namespace and begins to read.
// It fails with EPERM while somebody else reads that group.
func openDropLog(h *ns.Handle, box string, group uint16, take func(box, rule string, packet []byte)) (*dropLog, error) {
	l := &dropLog{box: box, group: group, take: take, done: make(chan struct{}), logged: map[string]uint64{}}
	err := h.Do(func() (err error) {
		l.conn, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	})
	if err == nil {
		err = l.bind()
	}
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w (somebody else reads it, or there is no right to)", err)
	}
	if err != nil {
		err = fmt.Errorf("read log group %d of %s: %w", group, box, err)
		if l.conn != nil {
			err = errors.Join(err, l.conn.Close())
		}
		return nil, err
	}
	go l.read()
	return l, nil
}

func (l *dropLog) bind() error {
	if err := l.conn.SetReadBuffer(logBuffer); err != nil {
		return err
	}
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Uint8(logConfigCommand, logBind)
	// struct nfulnl_msg_config_mode: how much of a packet, what of it, padding.
	e.Bytes(logConfigMode, append(binary.BigEndian.AppendUint32(nil, uint32(logCopied)), logCopyPacket, 0))
	e.Uint32(logConfigThreshold, 1) // no message waits for another
	if err := l.send(e); err != nil {
		return err
	}
	for { // packets may be logged before the acknowledgement comes
		messages, err := l.conn.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == netlink.Error {
				return nil
			}
			l.message(m)
		}
	}
}

func (l *dropLog) send(e *netlink.AttributeEncoder) error {
	attributes, err := e.Encode()
	if err != nil {
		return err
	}
	data := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, l.group)
	_, err = l.conn.Send(netlink.Message{
		Header: netlink.Header{Type: subsystemLog<<8 | logConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(data, attributes...),
	})
	return err
}

func (l *dropLog) read() {
	defer close(l.done)
	for {
		messages, err := l.conn.Receive()
		if err != nil {
			l.mu.Lock()
			if l.lost == nil {
				l.lost = err
			}
			lost := errors.Is(err, unix.ENOBUFS)
			l.ended = !lost
			for _, w := range l.waiting { // acknowledgements may be among what is lost
				close(w)
			}
			l.waiting = nil
			l.mu.Unlock()
			if lost {
				continue
			}
			return
		}
		for _, m := range messages {
			l.message(m)
		}
	}
}

func (l *dropLog) message(m netlink.Message) {
	switch m.Header.Type {
	case netlink.Error: // the answer to a mark
		l.mu.Lock()
		if len(l.waiting) > 0 {
			close(l.waiting[0])
			l.waiting = l.waiting[1:]
		}
		l.mu.Unlock()
	case subsystemLog<<8 | logPacket:
		if len(m.Data) < generalHeader {
			return
		}
		d, err := netlink.NewAttributeDecoder(m.Data[generalHeader:])
		if err != nil {
			return
		}
		var rule string
		var packet []byte
		for d.Next() {
			switch d.Type() {
			case logPrefix:
				rule = d.String()
			case logPayload:
				packet = d.Bytes()
			}
		}
		l.mu.Lock()
		l.logged[rule]++
		l.mu.Unlock()
		l.take(l.box, rule, packet)
	}
}

// sync returns when all packets that were logged before the call have been
// taken. It repeats a setting of the group, which changes nothing: the kernel
// puts the acknowledgement into the queue behind them.
func (l *dropLog) sync(ctx context.Context) error {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Uint32(logConfigThreshold, 1)
	done := make(chan struct{})
	l.marking.Lock()
	l.mu.Lock()
	if l.ended {
		defer l.marking.Unlock()
		defer l.mu.Unlock()
		return fmt.Errorf("the drop log of %s has ended: %w", l.box, l.lost)
	}
	l.waiting = append(l.waiting, done)
	l.mu.Unlock()
	err := l.send(e)
	l.marking.Unlock()
	if err != nil {
		return fmt.Errorf("the drop log of %s: send a mark: %w", l.box, err)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the drop log of %s: %w", l.box, context.Cause(ctx))
	}
}

// close ends the reading and waits for it. It returns how many messages of
// each rule came, and why some are missing.
func (l *dropLog) close() (map[string]uint64, error) {
	l.mu.Lock()
	lost := l.lost
	l.mu.Unlock()
	err := l.conn.Close()
	<-l.done
	return l.logged, errors.Join(lost, err)
}

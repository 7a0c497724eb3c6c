package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/lab/evidence"
	"gauntlet/topo/ns"
)

// Numbers of nfnetlink_log, linux/netfilter/nfnetlink_log.h.
const (
	logPacket = 0 // NFULNL_MSG_PACKET
	logConfig = 1 // NFULNL_MSG_CONFIG

	logConfigCommand   = 1
	logConfigMode      = 2
	logConfigThreshold = 5
	logConfigFlags     = 6

	logBind       = 1
	logCopyPacket = 2
	logSequence   = 1

	logTimestamp = 3
	logPayload   = 9
	logPrefix    = 10
	logSeq       = 12
)

// logBuffer is what is asked for as the socket's buffer; the kernel gives at
// most net.core.rmem_max.
const logBuffer = 4 << 20

// dropLog reads the drop messages of one router. Each packet is a message of
// its own, sent at once and numbered, so a gap shows what was lost.
type dropLog struct {
	router string
	conn   *netlink.Conn
	store  *store
	group  uint16
	done   chan struct{} // closed when the reader has ended; nil before start

	marking sync.Mutex // held while a mark is sent
	mu      sync.Mutex // guards what follows
	sent    uint64     // marks sent
	got     uint64     // marks answered, or lost with an overrun
	waiting []logMark
	next    uint32 // the sequence number expected
	rules   map[string]uint64
	logged  uint64
	missing uint64
	overrun uint64
	ended   error
	closing bool
}

type logMark struct {
	number uint64
	done   chan struct{}
}

// openDropLog binds the group inside the namespace.
func openDropLog(namespace *ns.Handle, router string, group uint16, store *store) (*dropLog, error) {
	conn, err := dialNetfilter(namespace)
	if err != nil {
		return nil, err
	}
	l := &dropLog{router: router, conn: conn, store: store, group: group, rules: make(map[string]uint64)}
	if err := l.configure(); err != nil {
		return nil, errors.Join(fmt.Errorf("bind log group %d: %w", group, err), conn.Close())
	}
	return l, nil
}

func (l *dropLog) configure() error {
	if err := l.conn.SetReadBuffer(logBuffer); err != nil {
		return err
	}
	encoder := netlink.NewAttributeEncoder()
	encoder.ByteOrder = binary.BigEndian
	encoder.Uint8(logConfigCommand, logBind)
	// struct nfulnl_msg_config_mode: how much of a packet, what of it, padding.
	encoder.Bytes(logConfigMode, []byte{0, 0, 0xff, 0xff, logCopyPacket, 0})
	encoder.Uint32(logConfigThreshold, 1)
	encoder.Uint16(logConfigFlags, logSequence)
	attributes, err := encoder.Encode()
	if err != nil {
		return err
	}
	_, err = l.conn.Send(request(subsystemLog, logConfig, netlink.Acknowledge, unix.AF_UNSPEC, l.group, attributes))
	if err != nil {
		return err
	}
	// Packets may be logged before the acknowledgement comes.
	for bound := false; !bound; {
		messages, err := l.conn.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == netlink.Error {
				bound = true
				continue
			}
			l.take(m)
		}
	}
	return nil
}

// start begins to read.
func (l *dropLog) start() {
	l.done = make(chan struct{})
	go l.read()
}

// close ends the reading and waits for it.
func (l *dropLog) close() error {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	err := l.conn.Close()
	if l.done != nil {
		<-l.done
	}
	return err
}

func (l *dropLog) read() {
	defer close(l.done)
	for {
		messages, err := l.conn.Receive()
		switch {
		case err == nil:
			for _, m := range messages {
				l.take(m)
			}
		case errors.Is(err, unix.ENOBUFS):
			// Messages are lost, and acknowledgements may be among them.
			l.mu.Lock()
			l.overrun++
			l.answer(l.sent)
			l.mu.Unlock()
		default:
			l.end(err)
			return
		}
	}
}

// end lets go of all who wait, and keeps the reason.
func (l *dropLog) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = err
	for _, w := range l.waiting {
		close(w.done)
	}
	l.waiting = nil
	if !l.closing {
		l.store.problem(fmt.Errorf("the drop log of %s ended: %w", l.router, err))
	}
}

func (l *dropLog) take(m netlink.Message) {
	if m.Header.Type == netlink.Error {
		l.mu.Lock()
		l.answer(l.got + 1)
		l.mu.Unlock()
		return
	}
	if m.Header.Type != netlink.HeaderType(subsystemLog<<8|logPacket) {
		return
	}
	message, err := parseLog(m.Data)
	if err != nil {
		l.store.problem(fmt.Errorf("drop log of %s: %w", l.router, err))
		return
	}
	if message.at.IsZero() {
		message.at = time.Now()
	}
	l.mu.Lock()
	l.logged++
	l.rules[message.rule]++
	l.missing += uint64(message.sequence - l.next)
	l.next = message.sequence + 1
	l.mu.Unlock()
	l.store.line(evidence.DropsFile, evidence.DroppedPacket{
		Time: message.at, Router: l.router, Rule: message.rule, Packet: message.packet,
	})
}

// answer ends all marks up to a number. The caller holds mu.
func (l *dropLog) answer(number uint64) {
	l.got = max(l.got, number)
	left := l.waiting[:0]
	for _, w := range l.waiting {
		if w.number <= l.got {
			close(w.done)
		} else {
			left = append(left, w)
		}
	}
	l.waiting = left
}

// sync returns when all messages sent before the call have been taken. It
// repeats a setting of the group, which changes nothing, and waits for the
// acknowledgement, which the kernel puts into the same queue.
func (l *dropLog) sync(ctx context.Context) error {
	encoder := netlink.NewAttributeEncoder()
	encoder.ByteOrder = binary.BigEndian
	encoder.Uint32(logConfigThreshold, 1)
	attributes, err := encoder.Encode()
	if err != nil {
		return err
	}
	l.marking.Lock()
	l.mu.Lock()
	if l.ended != nil {
		l.mu.Unlock()
		l.marking.Unlock()
		return fmt.Errorf("log has ended: %w", l.ended)
	}
	l.sent++
	w := logMark{number: l.sent, done: make(chan struct{})}
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	_, err = l.conn.Send(request(subsystemLog, logConfig, netlink.Acknowledge, unix.AF_UNSPEC, l.group, attributes))
	if err != nil {
		// No acknowledgement will come for this one.
		l.mu.Lock()
		l.answer(w.number)
		l.mu.Unlock()
	}
	l.marking.Unlock()
	if err != nil {
		return fmt.Errorf("send mark: %w", err)
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// logMessage is one packet as nfnetlink_log gives it.
type logMessage struct {
	at       time.Time // zero if the kernel did not stamp the packet
	rule     string
	packet   []byte
	sequence uint32
}

func parseLog(data []byte) (m logMessage, err error) {
	if len(data) < generalHeader {
		return m, errors.New("log message is too short")
	}
	d, err := netlink.NewAttributeDecoder(data[generalHeader:])
	if err != nil {
		return m, fmt.Errorf("log message: %w", err)
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		switch d.Type() {
		case logTimestamp:
			if b := d.Bytes(); len(b) == 16 {
				seconds, micros := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
				m.at = time.Unix(int64(seconds), int64(micros)*1000)
			}
		case logPayload:
			m.packet = d.Bytes()
		case logPrefix:
			m.rule = d.String()
		case logSeq:
			m.sequence = d.Uint32()
		}
	}
	if err := d.Err(); err != nil {
		return m, fmt.Errorf("log message: %w", err)
	}
	return m, nil
}

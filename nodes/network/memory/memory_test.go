package memory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/nodes/network"
)

var (
	addrA = netip.MustParseAddr("198.18.0.1")
	addrB = netip.MustParseAddr("198.18.0.2")
)

const latency = 10 * time.Millisecond

// connect makes a connection between two hosts.
func connect(t *testing.T, n *Internet) (near, far net.Conn) {
	t.Helper()
	a, b := n.Host("a", addrA), n.Host("b", addrB)
	l, err := b.Listen(t.Context(), netip.AddrPortFrom(addrB, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = a.Dial(t.Context(), netip.AddrPortFrom(addrB, 80)); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	if got := network.AddrPort(far.RemoteAddr()); got != network.AddrPort(near.LocalAddr()) {
		t.Errorf("the listener sees %s, the dialer is %s", got, near.LocalAddr())
	}
	return near, far
}

func TestStreamKeepsOrderAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := connect(t, New(Latency(latency)))
		defer near.Close()
		defer far.Close()
		sent := make([]byte, 5*window+17)
		for i := range sent {
			sent[i] = byte(i * 31)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for b := sent; len(b) > 0; b = b[min(len(b), 1000):] {
				if _, err := near.Write(b[:min(len(b), 1000)]); err != nil {
					t.Error(err)
					return
				}
			}
			near.(interface{ CloseWrite() error }).CloseWrite()
		})
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("read %d bytes, %v; want the %d that were sent", len(got), err, len(sent))
		}
		// The other direction is still open.
		if _, err := far.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if n, err := near.Read(make([]byte, 4)); n != 1 || err != nil {
			t.Errorf("after the half close: read %d, %v", n, err)
		}
		wg.Wait()
	})
}

func TestStreamDeadlineAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := connect(t, New(Latency(latency)))
		start := time.Now()
		near.SetReadDeadline(start.Add(time.Second))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read with a deadline: %v after %s", err, time.Since(start))
		}
		near.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := near.Write(make([]byte, 2*window)); !errors.Is(err, os.ErrDeadlineExceeded) || n != window {
			t.Errorf("write to one who doesn't read: %d, %v; want %d and the deadline", n, err, window)
		}
		far.Close()
		near.SetWriteDeadline(time.Time{})
		if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: %v", err)
		}
		near.Close()
	})
}

func TestFilterHoldsStreamsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Latency(latency))
		near, far := connect(t, n)
		defer near.Close()
		defer far.Close()
		n.SetFilter(func(transport string, _, _ netip.AddrPort) bool { return transport != "tcp" })
		if _, err := near.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		far.SetReadDeadline(time.Now().Add(time.Minute))
		if k, err := far.Read(make([]byte, 4)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read %d bytes through a block, %v", k, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host("a", addrA).Dial(ctx, netip.AddrPortFrom(addrB, 80)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("connect through a block: %v", err)
		}
		n.SetFilter(nil)
		far.SetReadDeadline(time.Time{})
		b := make([]byte, 4)
		if _, err := io.ReadFull(far, b); err != nil || string(b) != "late" {
			t.Errorf("after the block: %q, %v", b, err)
		}
	})
}

func TestRefused(t *testing.T) {
	n := New()
	if _, err := n.Host("a", addrA).Dial(t.Context(), netip.AddrPortFrom(addrB, 9)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect to nobody: %v", err)
	}
	b := n.Host("b", addrB)
	l, err := b.Listen(t.Context(), netip.AddrPortFrom(addrB, 9))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := b.Listen(t.Context(), netip.AddrPortFrom(addrB, 9)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen twice: %v", err)
	}
	if _, err := b.Listen(t.Context(), netip.AddrPortFrom(addrA, 9)); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("listen at another host's address: %v", err)
	}
}

func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Latency(latency))
		a, err := n.Host("a", addrA).ListenPacket(t.Context(), netip.AddrPortFrom(addrA, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := n.Host("b", addrB).ListenPacket(t.Context(), netip.AddrPortFrom(netip.IPv4Unspecified(), 5))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(addrB, 5))
		for range udpQueue + 10 {
			a.WriteTo([]byte("ping"), to)
		}
		start := time.Now()
		buf := make([]byte, 10)
		k, from, err := b.ReadFrom(buf)
		if err != nil || string(buf[:k]) != "ping" || network.AddrPort(from) != network.AddrPort(a.LocalAddr()) {
			t.Errorf("read %q from %v, %v", buf[:k], from, err)
		}
		if d := time.Since(start); d != latency {
			t.Errorf("under way for %s, want %s", d, latency)
		}
		synctest.Wait()
		got := 1
		b.SetReadDeadline(time.Now().Add(time.Second))
		for {
			if _, _, err := b.ReadFrom(buf); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				break
			}
			got++
		}
		if got < udpQueue || got > udpQueue+1 {
			t.Errorf("%d datagrams of %d got through a queue of %d", got, udpQueue+10, udpQueue)
		}
		n.SetFilter(func(transport string, _, _ netip.AddrPort) bool { return false })
		a.WriteTo([]byte("lost"), to)
		b.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := b.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read through a block: %v", err)
		}
	})
}

// Package nstest makes network namespaces for tests.
package nstest

import (
	"errors"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// New makes an empty namespace that ends with the test. Without the right to make
// one the test is skipped, or fails where GAUNTLET_NO_SKIP asks for every test.
func New(t testing.TB) *ns.Handle {
	t.Helper()
	h, err := ns.New()
	switch {
	case errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1":
		t.Skipf("this test needs CAP_SYS_ADMIN: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// patience bounds the wait for the kernel, in seconds.
const patience = 10

// Carry waits until interfaces have a queue to send through, which the kernel
// gives them a little after they are up, and tells by its notifications. A packet
// before that is lost, and whoever asked for its neighbour's address asks again
// a second later.
func Carry(t testing.TB, space *ns.Handle, names ...string) {
	t.Helper()
	in := netns.NsHandle(space.FD())
	changes, err := nl.SubscribeAt(in, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		t.Fatalf("watch interfaces: %v", err)
	}
	defer changes.Close()
	if err := changes.SetReceiveTimeout(&unix.Timeval{Sec: patience}); err != nil {
		t.Fatalf("watch interfaces: %v", err)
	}
	handle, err := netlink.NewHandleAt(in)
	if err != nil {
		t.Fatalf("look at interfaces: %v", err)
	}
	defer handle.Close()
	down := make(map[string]bool)
	for _, name := range names {
		link, err := handle.LinkByName(name)
		if err != nil {
			t.Fatalf("find interface %s: %v", name, err)
		}
		if link.Attrs().OperState != netlink.OperUp {
			down[name] = true
		}
	}
	for len(down) > 0 {
		messages, _, err := changes.Receive()
		if err != nil {
			t.Fatalf("wait until %v are up: %v", down, err)
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWLINK {
				continue
			}
			link, err := netlink.LinkDeserialize(nil, m.Data)
			if err != nil {
				t.Fatalf("read interface's change: %v", err)
			}
			if link.Attrs().OperState == netlink.OperUp {
				delete(down, link.Attrs().Name)
			}
		}
	}
}

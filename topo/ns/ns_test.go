package ns_test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"gauntlet/topo/ns"
)

// newNamespace makes a namespace that ends with the test. Without the right to
// make one the test is skipped, or fails if GAUNTLET_NO_SKIP is 1.
func newNamespace(t *testing.T) *ns.Handle {
	t.Helper()
	h, err := ns.New()
	if errors.Is(err, unix.EPERM) && os.Getenv("GAUNTLET_NO_SKIP") != "1" {
		t.Skipf("no right to make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// inode identifies a namespace, see namespaces(7).
func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}

func current(t *testing.T) uint64 {
	t.Helper()
	h, err := ns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	return inode(t, h.FD())
}

func TestDoRunsInsideAndReturns(t *testing.T) {
	home := current(t)
	outer, inner := newNamespace(t), newNamespace(t)
	err := outer.Do(func() error {
		if got, want := current(t), inode(t, outer.FD()); got != want {
			t.Errorf("inside the outer: namespace %d, want %d", got, want)
		}
		err := inner.Do(func() error {
			if got, want := current(t), inode(t, inner.FD()); got != want {
				t.Errorf("inside the inner: namespace %d, want %d", got, want)
			}
			return os.ErrInvalid
		})
		if !errors.Is(err, os.ErrInvalid) {
			t.Errorf("inner Do returned %v, want its function's error", err)
		}
		if got, want := current(t), inode(t, outer.FD()); got != want {
			t.Errorf("back in the outer: namespace %d, want %d", got, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := current(t); got != home {
		t.Errorf("afterwards: namespace %d, want %d", got, home)
	}
}

func TestDoReturnsAfterPanic(t *testing.T) {
	h, home := newNamespace(t), current(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		h.Do(func() error { panic("inside") })
	}()
	if got := current(t); got != home {
		t.Errorf("after a panic: namespace %d, want %d", got, home)
	}
}

func TestSocketStaysInside(t *testing.T) {
	h := newNamespace(t)
	var inside net.PacketConn
	if err := h.Do(func() (err error) {
		inside, err = net.ListenPacket("udp4", "0.0.0.0:4000")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	// The same port is still free in another namespace.
	other := newNamespace(t)
	if err := other.Do(func() error {
		c, err := net.ListenPacket("udp4", "0.0.0.0:4000")
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Errorf("port taken across namespaces: %v", err)
	}
}

func TestConcurrentDo(t *testing.T) {
	a, b, home := newNamespace(t), newNamespace(t), current(t)
	var wg sync.WaitGroup
	for i := range 8 {
		h := []*ns.Handle{a, b}[i%2]
		want := inode(t, h.FD())
		wg.Go(func() {
			for range 200 {
				if err := h.Do(func() error {
					if got := current(t); got != want {
						t.Errorf("namespace %d, want %d", got, want)
					}
					runtime.Gosched()
					return nil
				}); err != nil {
					t.Error(err)
				}
				if got := current(t); got != home {
					t.Errorf("outside: namespace %d, want %d", got, home)
				}
			}
		})
	}
	wg.Wait()
}

func TestSysctl(t *testing.T) {
	h := newNamespace(t)
	read := func() (value string) {
		if err := h.Do(func() (err error) { value, err = ns.ReadSysctl("net.ipv4.ip_forward"); return err }); err != nil {
			t.Fatal(err)
		}
		return value
	}
	for _, want := range []string{"1", "0"} {
		if err := h.Sysctl("net.ipv4.ip_forward", want); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != want {
			t.Errorf("net.ipv4.ip_forward is %q, want %q", got, want)
		}
	}
	if err := h.Sysctl("net/ipv4/ip_forward", "1"); err != nil || read() != "1" {
		t.Errorf("with slashes: %v, value %q", err, read())
	}
	if err := h.Sysctl("net.no.such", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown parameter: %v, want a file that doesn't exist", err)
	}
	for _, name := range []string{"", "net..ipv4", "../etc/passwd", "net/../../etc/passwd"} {
		if err := h.Sysctl(name, "1"); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("name %q: %v, want a refusal", name, err)
		}
	}
}

func TestFromFile(t *testing.T) {
	h := newNamespace(t)
	fd, err := unix.Dup(h.FD())
	if err != nil {
		t.Fatal(err)
	}
	copied, err := ns.FromFile(os.NewFile(uintptr(fd), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if got, want := inode(t, copied.FD()), inode(t, h.FD()); got != want {
		t.Errorf("namespace %d, want %d", got, want)
	}
	for _, path := range []string{"/proc/self/ns/uts", "/dev/null"} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if h, err := ns.FromFile(f); err == nil {
			h.Close()
			t.Errorf("%s was taken for a network namespace", path)
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s was left open after the refusal", path)
		}
	}
}

func TestClosed(t *testing.T) {
	h := newNamespace(t)
	for range 2 {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Do(func() error { t.Error("ran"); return nil }); !errors.Is(err, ns.ErrClosed) {
		t.Errorf("Do of a closed handle: %v, want ErrClosed", err)
	}
	if fd := h.FD(); fd != -1 {
		t.Errorf("descriptor %d of a closed handle, want -1", fd)
	}
}

func BenchmarkDo(b *testing.B) {
	h, err := ns.New()
	if err != nil {
		b.Skip(err)
	}
	defer h.Close()
	for b.Loop() {
		if err := h.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// Here stays where the process is.
func TestHere(t *testing.T) {
	h, err := ns.Here()
	if err != nil {
		t.Fatal(err)
	}
	home := current(t)
	if err := h.Do(func() error {
		if got := current(t); got != home {
			t.Errorf("inside: namespace %d, want %d", got, home)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := h.Do(func() error { return nil }); !errors.Is(err, ns.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

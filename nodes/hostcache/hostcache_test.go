package hostcache

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gauntlet/nodes/membership"
)

const limit = 200

var epoch = time.Date(2006, 1, 2, 3, 4, 5, 0, time.UTC)

func entry(i int) Entry {
	e := Entry{LastSeen: epoch.Add(time.Duration(i) * time.Second)}
	e.Supernode.ID[0], e.Supernode.ID[1] = byte(i), byte(i>>8)
	e.Supernode.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 33033)
	e.Supernode.Seal = make([]byte, 32)
	e.Supernode.Seal[0] = 9
	return e
}

// TestLimit is claim L4 of papers.md.
func TestLimit(t *testing.T) {
	c := New(limit)
	first := entry(0)
	first.Default = true
	c.Add(first)
	for i := 1; i <= 1000; i++ {
		c.Add(entry(i))
	}
	list := c.Entries()
	if len(list) != limit {
		t.Fatalf("%d entries, want %d", len(list), limit)
	}
	if list[0].Supernode.Addr != entry(1000).Supernode.Addr {
		t.Errorf("first is %s, want the one seen last", list[0].Supernode.Addr)
	}
	if got := list[limit-1]; !got.Default {
		t.Error("the default supernode was given up")
	}
	if got, want := list[limit-2].Supernode.Addr, entry(1000-limit+2).Supernode.Addr; got != want {
		t.Errorf("the oldest is %s, want %s", got, want)
	}
	old := entry(3)
	c.Add(old)
	for _, e := range c.Entries() {
		if e.Supernode.Addr == old.Supernode.Addr {
			t.Error("an entry older than all was taken into a full cache")
		}
	}
}

func TestAddReplacesByAddress(t *testing.T) {
	c := New(limit)
	a := entry(1)
	a.Default = true
	c.Add(a)
	b := entry(1)
	b.Supernode.ID[5] = 7
	b.LastSeen = epoch
	c.Add(b)
	got := c.Entries()
	if len(got) != 1 || got[0].Supernode.ID[5] != 7 || !got[0].Default || !got[0].LastSeen.Equal(a.LastSeen) {
		t.Errorf("%+v", got)
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	empty, err := Load(dir, limit)
	if err != nil || len(empty.Entries()) != 0 {
		t.Fatalf("cache of the first run: %v, %v", empty, err)
	}
	c := New(limit)
	c.Runs = 3
	c.Middlebox = Middlebox{UDP: true, Mapping: "endpoint-independent", Filtering: "address-dependent",
		External: netip.MustParseAddrPort("198.18.9.9:4000"), Local: netip.MustParseAddr("10.0.0.2"), Tested: epoch}
	for i := range 5 {
		e := entry(i)
		e.Default = i == 2
		c.Add(e)
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	opts := []cmp.Option{cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{}), cmpopts.IgnoreUnexported(Cache{}, membership.Supernode{})}
	if d := cmp.Diff(c, got, opts...); d != "" {
		t.Errorf("cache (-saved +loaded):\n%s", d)
	}
	if d := cmp.Diff(c.Entries(), got.Entries(), opts...); d != "" {
		t.Errorf("entries (-saved +loaded):\n%s", d)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("files left: %v, %v", names, err)
	}
	if err := c.Save(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("saved into a folder that isn't there")
	}
}

func TestLoadRefuses(t *testing.T) {
	c := New(limit)
	c.Add(entry(1))
	good, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"cut":           string(good[:len(good)-20]),
		"no XML":        "hello",
		"version":       strings.Replace(string(good), `version="1"`, `version="2"`, 1),
		"address":       strings.Replace(string(good), "198.18.0.1:33033", "198.18.0.1", 1),
		"port":          strings.Replace(string(good), ":33033", ":0", 1),
		"id":            strings.Replace(string(good), `id="01`, `id="0`, 1),
		"key":           strings.Replace(string(good), `key="09`, `key="`, 1),
		"negative runs": strings.Replace(string(good), "<runs>0", "<runs>-1", 1),
		"too large":     string(good) + strings.Repeat(" ", maxFile),
	} {
		if bad == string(good) {
			t.Fatalf("%s: nothing was changed", name)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, limit); err == nil {
			t.Errorf("%s: loaded", name)
		} else if !strings.Contains(err.Error(), FileName) {
			t.Errorf("%s: the error doesn't name the file: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	c := New(limit)
	for i := range 3 {
		c.Add(entry(i))
	}
	c.Middlebox = Middlebox{UDP: true, Tested: epoch}
	b, err := c.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(fmt.Sprintf(`<shared version="%d"><hostcache><supernode/></hostcache></shared>`, formatVersion)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b, limit)
		if err != nil {
			return
		}
		if len(c.entries) > limit {
			t.Errorf("%d entries", len(c.entries))
		}
		again, err := c.Marshal()
		if err != nil {
			return // a time that XML can't say
		}
		if _, err := Parse(again, limit); err != nil && len(again) <= maxFile {
			t.Errorf("what was parsed and written can't be parsed: %v", err)
		}
	})
}

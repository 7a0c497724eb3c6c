// Package hostcache keeps the supernodes that a client knows, and what it
// found out about its own middlebox, in the file shared.xml.
package hostcache

import (
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gauntlet/nodes/membership"
)

// FileName is the name of the cache's file, as later versions of the original
// had it (papers.md §2.12).
const FileName = "shared.xml"

// maxFile bounds the file that is read, in bytes: 200 entries take about 60 KB.
const maxFile = 256 << 10

// formatVersion is written into the file; another one is not read.
const formatVersion = 1

// Entry is a supernode that the client has heard of.
type Entry struct {
	Supernode membership.Supernode
	LastSeen  time.Time
	Default   bool // given from the beginning, and never given up
}

// Middlebox is what the client found out about the box in front of it.
type Middlebox struct {
	UDP       bool
	Mapping   string // RFC 4787 words, see package control
	Filtering string
	External  netip.AddrPort // of the UDP socket when it was tested
	Local     netip.Addr     // the host's address when it was tested
	Tested    time.Time      // zero: never
}

// Cache is the contents of the file. It is not safe for concurrent use.
type Cache struct {
	Runs      int // how often the client has logged in
	Middlebox Middlebox
	limit     int
	entries   []Entry
}

// New makes an empty cache that holds at most limit supernodes.
func New(limit int) *Cache { return &Cache{limit: limit} }

// Entries are the supernodes, those seen last first.
func (c *Cache) Entries() []Entry {
	list := slices.Clone(c.entries)
	slices.SortStableFunc(list, func(a, b Entry) int { return b.LastSeen.Compare(a.LastSeen) })
	return list
}

// Supernodes are the entries' supernodes in the same order.
func (c *Cache) Supernodes() []membership.Supernode {
	var list []membership.Supernode
	for _, e := range c.Entries() {
		list = append(list, e.Supernode)
	}
	return list
}

// Add enters a supernode or refreshes it. An entry of the same address is
// replaced; in a full cache the one seen longest ago that is no default goes.
func (c *Cache) Add(e Entry) {
	for i, old := range c.entries {
		if old.Supernode.Addr == e.Supernode.Addr {
			e.Default = e.Default || old.Default
			if old.LastSeen.After(e.LastSeen) {
				e.LastSeen = old.LastSeen
			}
			c.entries[i] = e
			return
		}
	}
	if len(c.entries) < c.limit {
		c.entries = append(c.entries, e)
		return
	}
	oldest := -1
	for i, old := range c.entries {
		if !old.Default && (oldest < 0 || old.LastSeen.Before(c.entries[oldest].LastSeen)) {
			oldest = i
		}
	}
	if oldest >= 0 && !e.LastSeen.Before(c.entries[oldest].LastSeen) {
		c.entries[oldest] = e
	}
}

// file is the XML form.
type file struct {
	XMLName   xml.Name   `xml:"shared"`
	Version   int        `xml:"version,attr"`
	Runs      int        `xml:"runs"`
	Middlebox *fileBox   `xml:"middlebox"`
	Hosts     []fileHost `xml:"hostcache>supernode"`
}

type fileBox struct {
	UDP       bool      `xml:"udp,attr"`
	Mapping   string    `xml:"mapping,attr,omitempty"`
	Filtering string    `xml:"filtering,attr,omitempty"`
	External  string    `xml:"external,attr,omitempty"`
	Local     string    `xml:"local,attr,omitempty"`
	Tested    time.Time `xml:"tested,attr"`
}

type fileHost struct {
	ID       string    `xml:"id,attr"`
	Addr     string    `xml:"address,attr"`
	Seal     string    `xml:"key,attr"`
	LastSeen time.Time `xml:"seen,attr"`
	Default  bool      `xml:"default,attr,omitempty"`
}

// Load reads the file in dir. A file that isn't there is an empty cache; one
// that is damaged is an error, and the caller goes on with its defaults.
func Load(dir string, limit int) (*Cache, error) {
	path := filepath.Join(dir, FileName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return New(limit), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host cache: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read host cache %s: %w", path, err)
	}
	c, err := Parse(b, limit)
	if err != nil {
		return nil, fmt.Errorf("read host cache %s: %w", path, err)
	}
	return c, nil
}

// Parse reads the XML form.
func Parse(b []byte, limit int) (*Cache, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	var x file
	if err := xml.Unmarshal(b, &x); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	if x.Version != formatVersion {
		return nil, fmt.Errorf("version %d, want %d", x.Version, formatVersion)
	}
	if x.Runs < 0 {
		return nil, fmt.Errorf("%d runs", x.Runs)
	}
	c := New(limit)
	c.Runs = x.Runs
	if m := x.Middlebox; m != nil {
		c.Middlebox = Middlebox{UDP: m.UDP, Mapping: m.Mapping, Filtering: m.Filtering, Tested: m.Tested}
		var err error
		if m.External != "" {
			if c.Middlebox.External, err = netip.ParseAddrPort(m.External); err != nil {
				return nil, fmt.Errorf("middlebox: %w", err)
			}
		}
		if m.Local != "" {
			if c.Middlebox.Local, err = netip.ParseAddr(m.Local); err != nil {
				return nil, fmt.Errorf("middlebox: %w", err)
			}
		}
	}
	for i, h := range x.Hosts {
		e, err := h.entry()
		if err != nil {
			return nil, fmt.Errorf("supernode %d: %w", i+1, err)
		}
		c.Add(e)
	}
	return c, nil
}

func (h fileHost) entry() (Entry, error) {
	e := Entry{LastSeen: h.LastSeen, Default: h.Default}
	id, err := hex.DecodeString(h.ID)
	if err != nil || len(id) != len(e.Supernode.ID) {
		return e, fmt.Errorf("id %.40q: want %d hexadecimal bytes", h.ID, len(e.Supernode.ID))
	}
	e.Supernode.ID = membership.ID(id)
	if e.Supernode.Addr, err = netip.ParseAddrPort(h.Addr); err != nil {
		return e, fmt.Errorf("address: %w", err)
	}
	if e.Supernode.Addr.Port() == 0 {
		return e, fmt.Errorf("address %s: no port", e.Supernode.Addr)
	}
	if e.Supernode.Seal, err = hex.DecodeString(h.Seal); err != nil {
		return e, fmt.Errorf("key: %w", err)
	}
	if _, err := e.Supernode.Key(); err != nil {
		return e, err
	}
	return e, nil
}

// Marshal writes the XML form.
func (c *Cache) Marshal() ([]byte, error) {
	x := file{Version: formatVersion, Runs: c.Runs}
	if m := c.Middlebox; !m.Tested.IsZero() {
		box := &fileBox{UDP: m.UDP, Mapping: m.Mapping, Filtering: m.Filtering, Tested: m.Tested}
		if m.External.IsValid() {
			box.External = m.External.String()
		}
		if m.Local.IsValid() {
			box.Local = m.Local.String()
		}
		x.Middlebox = box
	}
	for _, e := range c.entries {
		x.Hosts = append(x.Hosts, fileHost{ID: e.Supernode.ID.String(), Addr: e.Supernode.Addr.String(),
			Seal: hex.EncodeToString(e.Supernode.Seal), LastSeen: e.LastSeen, Default: e.Default})
	}
	b, err := xml.MarshalIndent(x, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode host cache: %w", err)
	}
	return append([]byte(xml.Header), append(b, '\n')...), nil
}

// Save writes the file in dir atomically: whoever reads it sees the old
// contents or the new, never half of them.
func (c *Cache) Save(dir string) error {
	b, err := c.Marshal()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, FileName+".*")
	if err != nil {
		return fmt.Errorf("save host cache: %w", err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	if _, err := f.Write(b); err != nil {
		f.Close()
		return fmt.Errorf("save host cache: %w", err)
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return fmt.Errorf("save host cache: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("save host cache: %w", err)
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, FileName)); err != nil {
		return fmt.Errorf("save host cache: %w", err)
	}
	return nil
}

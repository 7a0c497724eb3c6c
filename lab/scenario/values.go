package scenario

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v4"
)

// Named are things by name, in the order of the file. A key such as sn[1-12]
// stands for sn1 to sn12, each with the same value.
type Named[T any] []Entry[T]

// Entry is one of them.
type Entry[T any] struct {
	Name  string
	Value T
}

// Get returns the entry of a name.
func (ns Named[T]) Get(name string) (T, bool) {
	for _, e := range ns {
		if e.Name == name {
			return e.Value, true
		}
	}
	var none T
	return none, false
}

// Names returns all names in order.
func (ns Named[T]) Names() []string {
	names := make([]string, len(ns))
	for i, e := range ns {
		names[i] = e.Name
	}
	return names
}

func (ns *Named[T]) decodeNode(d *decoder, n *yaml.Node) {
	seen := map[string]int{}
	d.pairs(n, func(key, value *yaml.Node) {
		names, err := expand(key.Value)
		if err != nil {
			d.wrong(key, "%v", err)
			return
		}
		var v T
		d.decodeInto(value, &v)
		for _, name := range names {
			if line, twice := seen[name]; twice {
				d.wrong(key, "%q is already given on line %d", name, line)
				continue
			}
			seen[name] = key.Line
			*ns = append(*ns, Entry[T]{Name: name, Value: v})
		}
	})
}

// maxRange bounds the names of one range; a bridge has no more ports.
const maxRange = 1024

var rangeForm = regexp.MustCompile(`^([^\[\]]*)\[(\d{1,9})-(\d{1,9})\]$`)

// expand gives the names that a key stands for.
func expand(key string) ([]string, error) {
	m := rangeForm.FindStringSubmatch(key)
	if m == nil {
		if strings.ContainsAny(key, "[]") {
			return nil, fmt.Errorf("name %q: a range is written like sn[1-12]", key)
		}
		return []string{key}, nil
	}
	first, _ := strconv.Atoi(m[2])
	last, _ := strconv.Atoi(m[3])
	if last < first {
		return nil, fmt.Errorf("name %q: the range ends before it begins", key)
	}
	if last-first >= maxRange {
		return nil, fmt.Errorf("name %q: a range of %d names; expected at most %d", key, last-first+1, maxRange)
	}
	var names []string
	for i := first; i <= last; i++ {
		names = append(names, m[1]+strconv.Itoa(i))
	}
	return names, nil
}

// Addr is an IPv4 address.
type Addr struct{ netip.Addr }

// UnmarshalText reads an IPv4 address and says so where it is IPv6.
func (a *Addr) UnmarshalText(text []byte) error {
	parsed, err := netip.ParseAddr(string(text))
	if err != nil {
		return fmt.Errorf("%q is not an IPv4 address", text)
	}
	if !parsed.Is4() {
		return fmt.Errorf("%q is an IPv6 address; IPv6 is not offered yet", text)
	}
	a.Addr = parsed
	return nil
}

// JSONSchema describes an address.
func (Addr) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Format: "ipv4"}
}

// Rate is a number of bits per second.
type Rate uint64

var rateUnits = []struct {
	suffix string
	factor float64
}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1}}

// UnmarshalText reads 128kbit, 2.5mbit, 1gbit or 9600bit.
func (r *Rate) UnmarshalText(text []byte) error {
	for _, unit := range rateUnits {
		if number, ok := strings.CutSuffix(string(text), unit.suffix); ok {
			if f, err := strconv.ParseFloat(number, 64); err == nil && f > 0 && f*unit.factor >= 8 {
				*r = Rate(f * unit.factor)
				return nil
			}
			break
		}
	}
	return fmt.Errorf("%q is not a rate such as 128kbit or 2mbit", text)
}

// JSONSchema describes a rate.
func (Rate) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^[0-9.]+(k|m|g)?bit$`}
}

// Share is a part of a whole, from 0 to 1.
type Share float64

// UnmarshalText reads a percentage such as 1%.
func (s *Share) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	f, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || f < 0 || f > 100 {
		return fmt.Errorf("%q is not a percentage such as 1%%", text)
	}
	*s = Share(f / 100)
	return nil
}

// JSONSchema describes a share.
func (Share) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^[0-9.]+%$`}
}

func (r *Raw) decodeNode(d *decoder, n *yaml.Node) {
	var v any
	if err := n.Decode(&v); err != nil {
		d.wrong(n, "%v", err)
		return
	}
	out, err := json.Marshal(v)
	if err != nil {
		d.wrong(n, "settings must be expressible in JSON: %v", err)
		return
	}
	*r = out
}

// MarshalJSON gives what was kept.
func (r Raw) MarshalJSON() ([]byte, error) { return json.RawMessage(r).MarshalJSON() }

// JSONSchema allows anything.
func (Raw) JSONSchema() *jsonschema.Schema { return &jsonschema.Schema{} }

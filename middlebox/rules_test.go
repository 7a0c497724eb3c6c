package middlebox

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// exampleBox is a box with that behaviour in a place of its own. It has few
// inside who may have a block of ports, each of which takes a rule.
func exampleBox(b Behaviour) Box {
	inside := netip.MustParsePrefix("10.0.1.0/24")
	if b.PortBlock > 0 {
		inside = netip.MustParsePrefix("10.0.1.0/29")
	}
	return Box{
		Name: "home", Behaviour: b, WAN: "wan", LAN: "lan",
		WANAddrs: []netip.Addr{netip.MustParseAddr("198.18.1.1")}, LANPrefix: inside,
		Denied:   map[string][]netip.Addr{"login": {netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("198.18.0.10")}},
		LogGroup: 5,
	}
}

func TestRulesGolden(t *testing.T) {
	boxes := map[string]Box{}
	for _, name := range Presets() {
		b, _ := Preset(name)
		boxes[name] = exampleBox(b)
	}
	pool := exampleBox(Behaviour{Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent, Pool: ArbitraryPool})
	pool.WANAddrs = append(pool.WANAddrs, pool.WANAddrs[0].Next())
	boxes["pool-arbitrary"] = pool
	pool.Behaviour = Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, UDPTimeout: 30 * time.Second}
	boxes["pool-paired"] = pool
	boxes["reject"] = exampleBox(Behaviour{
		Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, Unsolicited: RejectUnsolicited,
		Block: []Protocol{UDP, TCP}, Deny: []Deny{{Host: "login"}, {Host: "login", Protocol: UDP, Port: 53}},
	})
	grid := Behaviour{Mapping: MapAddressDependent, Filtering: FilterEndpointIndependent}
	boxes["address-dependent"] = exampleBox(grid)
	boxes["parity"] = exampleBox(with(grid, func(b *Behaviour) { b.Ports = ParityPorts }))
	boxes["outbound"] = exampleBox(with(grid, func(b *Behaviour) { b.Refresh, b.Filtering = RefreshOutbound, FilterAddressDependent }))
	boxes["hairpin"] = exampleBox(with(grid, func(b *Behaviour) {
		b.Mapping, b.Filtering, b.Hairpin = MapEndpointIndependent, FilterAddressDependent, true
	}))
	boxes["hairpin-symmetric"] = exampleBox(with(grid, func(b *Behaviour) { b.Mapping, b.Hairpin = MapAddressAndPortDependent, true }))
	boxes["port-mapping"] = exampleBox(Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent, PortMapping: true})
	boxes["tcp-address-dependent"] = exampleBox(Behaviour{
		Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent, TCPFiltering: FilterAddressDependent,
	})
	boxes["tcp-firewall"] = exampleBox(Behaviour{TCPFiltering: FilterAddressDependent, Unsolicited: RejectUnsolicited})
	boxes["police"] = exampleBox(Behaviour{Filtering: FilterAddressDependent, TCPIdle: time.Minute, UDPRate: 100})
	for name, box := range boxes {
		t.Run(name, func(t *testing.T) {
			rs, err := Rules(box)
			if err != nil {
				t.Fatal(err)
			}
			got, file := rs.String(), filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("rules differ from %s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// Every rule that drops or rejects counts and logs under one name.
func TestEveryDropIsNamed(t *testing.T) {
	for _, name := range Presets() {
		b, _ := Preset(name)
		rs, err := Rules(exampleBox(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range rs.chains {
			for _, r := range c.rules {
				if end := r.terms[len(r.terms)-1].text; end != "drop" && !strings.HasPrefix(end, "reject") {
					continue
				}
				n := len(r.terms)
				if n < 3 {
					t.Fatalf("%s, chain %s: a drop without name", name, c.name)
				}
				var rule string
				for _, counter := range rs.counters {
					if r.terms[n-3].text == count(counter).text {
						rule = counter
					}
				}
				if rule == "" || r.terms[n-2].text != record(rule, 5).text {
					t.Errorf("%s, chain %s: drop after %q and %q, want counter and log of one name", name, c.name, r.terms[n-3].text, r.terms[n-2].text)
				}
			}
		}
	}
}

func TestRulesRefusals(t *testing.T) {
	good := exampleBox(Behaviour{})
	cases := []struct {
		name   string
		change func(*Box)
		want   string
	}{
		{"behaviour", func(b *Box) { b.Behaviour.Hairpin = true }, "hairpin: true without mapping means nothing"},
		{"no address", func(b *Box) { b.WANAddrs = nil }, "no external address"},
		{"IPv6", func(b *Box) { b.WANAddrs = []netip.Addr{netip.MustParseAddr("2001:db8::1")} }, "expected IPv4"},
		{"gap", func(b *Box) {
			b.WANAddrs = []netip.Addr{netip.MustParseAddr("198.18.1.1"), netip.MustParseAddr("198.18.1.3")}
		}, "expected one that follows it"},
		{"address inside", func(b *Box) { b.LANPrefix = netip.MustParsePrefix("198.18.1.0/24") }, "is inside, in 198.18.1.0/24"},
		{"no prefix", func(b *Box) { b.LANPrefix = netip.Prefix{} }, "inside prefix"},
		{"denied unknown", func(b *Box) { b.Behaviour.Deny = []Deny{{Host: "update"}} }, `host "update" has no known address`},
		{"interfaces", func(b *Box) { b.LAN = b.WAN }, "expected two"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			box := good
			box.WANAddrs = slices.Clone(good.WANAddrs)
			c.change(&box)
			if _, err := Rules(box); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "home") {
				t.Errorf("error %v; want it to name the box and %q", err, c.want)
			}
		})
	}
}

package middlebox

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// defaultBuffer is net.core.rmem_max and wmem_max of a Linux that nobody has
// told otherwise, in bytes.
const defaultBuffer = 212992

// Rules whose answers are no more than MaxAnswers load with the buffers that
// everybody has:
// those of boxes with as many external addresses as can be, and of blocks for
// many inside.
func TestRulesFitDefaultBuffers(t *testing.T) {
	nat := Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent}
	provider, _ := Preset("cgnat")
	for name, c := range map[string]struct {
		behaviour         Behaviour
		addresses, inside int
	}{
		"addresses":           {with(nat, func(b *Behaviour) { b.Hairpin = true }), 253, 0},
		"arbitrary":           {with(nat, func(b *Behaviour) { b.Mapping, b.Pool = MapAddressAndPortDependent, ArbitraryPool }), 253, 0},
		"blocks, addresses":   {provider, 253, 0},
		"small blocks":        {with(provider, func(b *Behaviour) { b.PortBlock = 64 }), 10, 80},
		"sequential":          {with(nat, func(b *Behaviour) { b.Ports = SequentialPorts }), 50, 0},
		"parity, port_mapped": {with(nat, func(b *Behaviour) { b.Ports, b.PortMapping = ParityPorts, true }), 253, 0},
	} {
		t.Run(name, func(t *testing.T) {
			box := exampleBox(c.behaviour)
			box.LANPrefix, box.Inside = netip.MustParsePrefix("10.0.0.0/22"), c.inside
			for len(box.WANAddrs) < c.addresses {
				box.WANAddrs = append(box.WANAddrs, box.WANAddrs[len(box.WANAddrs)-1].Next())
			}
			rs, err := Rules(box)
			if err != nil {
				t.Fatal(err)
			}
			if n := rs.Answers(); n > MaxAnswers {
				t.Fatalf("answers of %d bytes, more than %d", n, MaxAnswers)
			}
			loadByDefault(t, rs)
		})
	}
	for _, wide := range []int{1, 2, 3, 5, 8, 16, 40} {
		t.Run(fmt.Sprintf("the most rules of %d terms", wide), func(t *testing.T) {
			one := rule{}
			for range wide {
				one.terms = append(one.terms, established())
			}
			rs := &Ruleset{chains: []chain{{name: "many", rules: []rule{one}}}}
			for each := rs.Answers(); rs.Answers()+each < MaxAnswers; {
				rs.chains[0].rules = append(rs.chains[0].rules, one)
			}
			loadByDefault(t, rs)
		})
	}
}

// loadByDefault loads rules as Loader does, through a socket that has no larger
// buffers than everybody may have.
func loadByDefault(t *testing.T, rs *Ruleset) {
	t.Helper()
	h := space(t)
	var conn *nftables.Conn
	if err := h.Do(func() (err error) {
		conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *mdnetlink.Conn) error {
			return errors.Join(c.SetReadBuffer(defaultBuffer), c.SetWriteBuffer(defaultBuffer))
		}))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.CloseLasting()
	l := &Loader{h: h, conn: conn}
	if err := l.Load(rs); err != nil {
		if errors.Is(err, unix.ENOBUFS) {
			t.Errorf("answers of about %d bytes: %v", rs.Answers(), err)
			return
		}
		t.Fatal(err)
	}
}

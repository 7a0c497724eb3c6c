package model

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// turning draws a sequence of two hosts inside that have sent outward, and then
// call each other by the external endpoints that are known, and answer.
func turning() *rapid.Generator[[]step] {
	return rapid.Custom(func(t *rapid.T) []step {
		tcp := rapid.Bool().Draw(t, "tcp")
		one := rapid.Custom(func(t *rapid.T) step {
			return step{
				kind: rapid.SampledFrom([]kind{loop, loop, loop, loop, out, answer}).Draw(t, "kind"), tcp: tcp,
				flags:  rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 4, 5}).Draw(t, "flags"),
				near:   rapid.SampledFrom([]int{0, len(insidePorts)}).Draw(t, "near"),
				far:    rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "far"),
				target: rapid.SampledFrom([]int{0, 0, 1, 2, 3}).Draw(t, "target"),
			}
		})
		begun := []step{{kind: out, tcp: tcp}, {kind: out, tcp: tcp, near: len(insidePorts)}}
		return append(begun, rapid.SliceOfN(one, 6, 24).Draw(t, "packets")...)
	})
}

// given reads the external endpoint of a mapping that the kernel has just made,
// though nobody saw it, out of the box's map.
func (c *comparison) given(p middlebox.Protocol, choice Choice) (netip.AddrPort, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(c.net.Namespace("box").FD()))
	if err != nil {
		return netip.AddrPort{}, err
	}
	table := &nftables.Table{Name: middlebox.TableName, Family: nftables.TableFamilyIPv4}
	internal, err := conn.GetSetByName(table, "internal-"+string(p))
	if err != nil {
		return netip.AddrPort{}, err
	}
	elements, err := conn.GetSetElements(internal)
	if err != nil {
		return netip.AddrPort{}, err
	}
	endpoint := func(b []byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[4:]))
	}
	var found []netip.AddrPort
	for _, e := range elements {
		if external := endpoint(e.Key); endpoint(e.Val) == choice.Inside && c.box.mapped(p, external) == nil {
			found = append(found, external)
		}
	}
	if len(found) != 1 {
		return netip.AddrPort{}, errHidden
	}
	return found[0], nil
}

// RFC 4787 and 5382, REQ-9 and REQ-8: what turns around in the box, by every
// mapping and filtering that lets it.
func TestKernelHairpin(t *testing.T) {
	r := newRig(t, true, 1)
	for _, b := range tcpGrid() {
		if b.Hairpin = true; b.Mapping != middlebox.MapEndpointIndependent && b.Filtering == middlebox.FilterAddressAndPortDependent {
			b.Filtering = b.TCPFiltering // else there is no such box
		}
		if !b.Translates() {
			continue
		}
		t.Run(fmt.Sprintf("%s TCP %s", name(b), b.TCPFiltering), func(t *testing.T) {
			agree(t, r, b, turning())
			if !t.Failed() && r.count.turned < 10 {
				t.Errorf("%v: too few to say anything", r.count)
			}
		})
	}
}

// What turns around meets the police as what leaves does.
func TestKernelHairpinPolice(t *testing.T) {
	r := newRig(t, true, 1)
	allow := func(services ...middlebox.Service) func(*middlebox.Behaviour) {
		return func(b *middlebox.Behaviour) { b.Allow = services }
	}
	tcp, servers, hosts := middlebox.Service{Protocol: middlebox.TCP}, middlebox.Service{Protocol: middlebox.UDP, Port: outsidePorts[0]}, middlebox.Service{Protocol: middlebox.UDP, Port: insidePorts[0]}
	for label, c := range map[string]struct {
		change  func(*middlebox.Behaviour)
		dropped string
	}{
		"block": {func(b *middlebox.Behaviour) { b.Block = []middlebox.Protocol{middlebox.UDP} }, middlebox.BlockRule(middlebox.UDP)},
		"deny": {func(b *middlebox.Behaviour) {
			b.Deny = []middlebox.Deny{{Host: "anna", Protocol: middlebox.UDP}, {Host: "anna", Protocol: middlebox.TCP}}
		}, middlebox.DenyRule("anna")},
		"allow":     {allow(tcp, servers), middlebox.NotAllowedRule},
		"allow all": {allow(tcp, servers, hosts), middlebox.NotAllowedRule},
		"idle":      {func(b *middlebox.Behaviour) { b.TCPIdle = time.Hour }, middlebox.HairpinRule},
	} {
		for _, m := range []middlebox.Mapping{middlebox.MapEndpointIndependent, middlebox.MapAddressDependent} {
			b := middlebox.Behaviour{Mapping: m, Hairpin: true, Ports: middlebox.PreservePorts, TCPFiltering: middlebox.FilterEndpointIndependent}
			if c.change(&b); len(b.Validate()) > 0 {
				continue
			}
			t.Run(label+" "+name(b), func(t *testing.T) {
				agree(t, r, b, turning())
				if !t.Failed() && r.gone[c.dropped] == 0 {
					t.Errorf("%s dropped nothing", c.dropped)
				}
			})
		}
	}
}

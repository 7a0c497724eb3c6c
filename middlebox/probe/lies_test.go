package probe

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
)

// lie adds a rule of no behaviour's to box a, before those of its own.
func (l *lab) lie(hook *nftables.ChainHook, exprs ...expr.Any) {
	l.Helper()
	priority := nftables.ChainPriority(-1)
	if err := l.network.Namespace("a").Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		t := c.AddTable(&nftables.Table{Name: "lie", Family: nftables.TableFamilyIPv4})
		chain := c.AddChain(&nftables.Chain{Name: "lie", Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
		return c.Flush()
	}); err != nil {
		l.Fatal(err)
	}
}

// of matches what comes by an interface, of a protocol.
func of(link string, protocol byte) []expr.Any {
	name := append([]byte(link), make([]byte, unix.IFNAMSIZ-len(link))...)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
}

// to matches a destination as well.
func to(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

// logged is as the box's own rules log.
func logged(rule string) expr.Any {
	return &expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: group, Data: []byte(rule)}
}

// begun matches what belongs to no connection that is known.
var begun = []expr.Any{
	&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
	&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: make([]byte, 4)},
	&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
}

var (
	drop        = &expr.Verdict{Kind: expr.VerdictDrop}
	rejectReset = &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}
	rejectPort  = &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpPortUnreachable}
	rejectHost  = &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 1}
)

// A box that differs from what it declares in what only the full measurement
// sees is caught, by the names of all properties that differ and of no other.
func TestFullLiars(t *testing.T) {
	cone, firewall := preset(t, "port-restricted"), preset(t, "stateful-firewall")
	rejecting := changed(t, "port-restricted", func(b *middlebox.Behaviour) { b.Unsolicited = middlebox.RejectUnsolicited })
	forward, input := nftables.ChainHookForward, nftables.ChainHookInput
	cases := []struct {
		name           string
		declared, does middlebox.Behaviour
		lie            func(l *lab)
		want           []string
	}{
		{"truth", cone, cone, func(*lab) {}, nil},
		{"stops errors from outside", cone, cone, func(l *lab) {
			l.lie(forward, append(of("wan", unix.IPPROTO_ICMP), drop)...)
		}, []string{"icmp_errors"}},
		{"stops errors from inside", cone, cone, func(l *lab) {
			l.lie(forward, append(of("lan", unix.IPPROTO_ICMP), drop)...)
		}, []string{"icmp_errors", "icmp_unrelated_outward"}},
		{"spoils what errors quote", cone, cone, func(l *lab) { // the address of who sent what the error is about
			l.lie(forward, append(of("wan", unix.IPPROTO_ICMP),
				&expr.Immediate{Register: 1, Data: []byte{10, 9, 9, 9}},
				&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: icmpHeader + 12, Len: 4})...)
		}, []string{"icmp_errors"}},
		{"lets errors in about nothing", firewall, changed(t, "stateful-firewall", func(b *middlebox.Behaviour) {
			b.Filtering, b.TCPFiltering = middlebox.FilterEndpointIndependent, middlebox.FilterAddressAndPortDependent
		}), func(*lab) {}, []string{"filtering", "unsolicited", "icmp_unrelated"}},
		{"refuses", cone, rejecting, func(*lab) {}, []string{"unsolicited", "refusal", "tcp_unsolicited", "tcp_refusal", "tcp_stray"}},
		{"refuses nothing", rejecting, cone, func(*lab) {}, []string{"unsolicited", "refusal", "tcp_unsolicited", "tcp_refusal", "tcp_stray"}},
		{"refuses TCP by ICMP", rejecting, rejecting, func(l *lab) {
			l.lie(input, append(of("wan", unix.IPPROTO_TCP), logged(middlebox.UnsolicitedRule), rejectPort)...)
		}, []string{"tcp_refusal", "tcp_stray"}},
		{"refuses UDP for its host", rejecting, rejecting, func(l *lab) {
			l.lie(input, append(of("wan", unix.IPPROTO_UDP), logged(middlebox.UnsolicitedRule), rejectHost)...)
		}, []string{"refusal"}},
		{"refuses what it denies", preset(t, "login-blocked"), preset(t, "login-blocked"), func(l *lab) {
			l.lie(forward, slices.Concat(of("lan", unix.IPPROTO_TCP), to(l.subject.Denied[0].Addr), []expr.Any{logged(middlebox.DenyRule("login")), rejectReset})...)
		}, []string{"tcp_stopped_refusal"}},
		{"refuses what it blocks", preset(t, "udp-blocked"), preset(t, "udp-blocked"), func(l *lab) {
			l.lie(forward, append(of("lan", unix.IPPROTO_UDP), logged(middlebox.BlockRule(middlebox.UDP)), rejectPort)...)
		}, []string{"stopped_refusal"}},
		{"denies nobody", preset(t, "login-blocked"), firewall, func(*lab) {}, []string{"deny", "tcp_deny_inbound"}},
		{"denies somebody", firewall, preset(t, "login-blocked"), func(*lab) {}, []string{"deny", "tcp_deny_inbound"}},
		{"takes up no connection", cone, changed(t, "port-restricted", func(b *middlebox.Behaviour) { b.TCPIdle = time.Hour }),
			func(*lab) {}, []string{"tcp_stray_outward"}},
		{"takes up connections", changed(t, "port-restricted", func(b *middlebox.Behaviour) { b.TCPIdle = time.Hour }), cone,
			func(*lab) {}, []string{"tcp_stray_outward"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, c.does)
			l.subject.Denied[0].Space = l.network.Namespace("login")
			c.lie(l)
			m, err := Full(t.Context(), l.watch, l.subject)
			if err != nil {
				t.Fatal(err)
			}
			if differences := Compare(c.declared, m); !slices.Equal(names(differences), sorted(c.want)) {
				t.Errorf("caught by %q, want %q", differences, c.want)
			}
		})
	}
}

// That a SYN to an endpoint which has not asked for it is stopped is found not to
// be so where it is let in, nor where nothing shows it.
func TestTCPPerEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		does middlebox.Behaviour
		lie  []expr.Any
		want bool
	}{
		"stops":              {preset(t, "port-restricted"), nil, true},
		"a firewall stops":   {preset(t, "stateful-firewall"), nil, true},
		"lets in":            {preset(t, "cgnat"), nil, false},
		"stops, says so not": {preset(t, "stateful-firewall"), append(append(of("wan", unix.IPPROTO_TCP), begun...), drop), false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, c.does)
			if c.lie != nil {
				l.lie(nftables.ChainHookForward, c.lie...)
			}
			p := begin(t.Context(), l.watch, l.subject)
			got := p.tcpPerEndpoint()
			if err := p.end(); err != nil || got != c.want {
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
		})
	}
}

package probe

import (
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"gauntlet/middlebox"
)

// What firewalls let through by service, by host and port, and at what rate.
func TestFirewalls(t *testing.T) {
	stateful := preset(t, "stateful-firewall")
	with := func(change func(b *middlebox.Behaviour)) middlebox.Behaviour {
		b := stateful
		change(&b)
		return b
	}
	tcp := func(port uint16) middlebox.Service {
		return middlebox.Service{Protocol: middlebox.TCP, Port: port}
	}
	cases := map[string]middlebox.Behaviour{
		"web":     with(func(b *middlebox.Behaviour) { b.Allow = []middlebox.Service{tcp(80), tcp(443)} }),
		"all tcp": with(func(b *middlebox.Behaviour) { b.Allow = []middlebox.Service{{Protocol: middlebox.TCP}} }),
		"dns, web": with(func(b *middlebox.Behaviour) {
			b.Allow = []middlebox.Service{tcp(80), {Protocol: middlebox.UDP, Port: 53}}
		}),
		"one port": with(func(b *middlebox.Behaviour) {
			b.Deny = []middlebox.Deny{{Host: "login", Protocol: middlebox.UDP, Port: 53}}
		}),
		"a whole host": with(func(b *middlebox.Behaviour) { b.Deny = []middlebox.Deny{{Host: "login"}} }),
		"rejecting":    with(func(b *middlebox.Behaviour) { b.Unsolicited = middlebox.RejectUnsolicited }),
		"all blocked":  with(func(b *middlebox.Behaviour) { b.Block = []middlebox.Protocol{middlebox.UDP, middlebox.TCP} }),
	}
	for name, b := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, b)
			l.subject.Services = []middlebox.Service{tcp(25), tcp(80), tcp(443), {Protocol: middlebox.UDP, Port: 53}}
			l.subject.Denied[0].Ports = []uint16{53}
			m, err := Full(t.Context(), l.watch, l.subject)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range Compare(b, m) {
				t.Error(d)
			}
			if doubts := l.watch.Close(); len(doubts) > 0 {
				t.Error(doubts)
			}
		})
	}
}

func TestRate(t *testing.T) {
	const rate = 200
	for _, limit := range []int{rate, 0} {
		b := changed(t, "port-restricted", func(b *middlebox.Behaviour) { b.UDPRate = limit })
		l := newLab(t, b)
		if limit > 0 {
			l.subject.Pace = time.Second / rate * 11 / 10
		}
		m, err := Full(t.Context(), l.watch, l.subject)
		if err != nil {
			t.Fatal(err)
		}
		if m.UDPRate, m.UDPRateInward, err = Rate(t.Context(), l.watch, l.subject, rate); err != nil {
			t.Fatal(err)
		}
		for _, d := range Compare(b, m) {
			t.Errorf("limit %d: %s", limit, d)
		}
		b.UDPRate = rate - limit // the other one
		if got := names(Compare(b, m)); !slices.Equal(got, []string{"udp_rate", "udp_rate_inward"}) {
			t.Errorf("limit %d, said to be %d: differences in %q, want both rates", limit, b.UDPRate, got)
		}
	}
}

func TestIdle(t *testing.T) {
	const short = time.Second
	for want, idle := range map[string]time.Duration{cut: short, kept: 10 * time.Second} {
		for _, name := range []string{"stateful-firewall", "port-restricted"} {
			b := changed(t, name, func(b *middlebox.Behaviour) { b.TCPIdle = idle })
			l := newLab(t, b)
			got, err := Idle(t.Context(), l.watch, l.subject, short)
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("%s that cuts after %v: %s after %v, want %s", name, idle, got, short, want)
			}
		}
	}
}

// A box that cuts off connections that aren't silent either is told apart.
func TestIdleCutsBusy(t *testing.T) {
	declared := changed(t, "port-restricted", func(b *middlebox.Behaviour) { b.TCPIdle = time.Hour })
	l := newLab(t, declared)
	pushed := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flagPSH}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
	}
	l.lie(nftables.ChainHookForward, slices.Concat(of("lan", unix.IPPROTO_TCP), pushed, []expr.Any{logged(middlebox.TCPIdleRule), drop})...)
	got, err := Idle(t.Context(), l.watch, l.subject, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if differences := Compare(declared, Properties{TCPIdle: got}); got != cutBusy || !slices.Contains(names(differences), "tcp_idle") {
		t.Errorf("%q, and differences in %q; want %s", got, differences, cutBusy)
	}
}

package probe

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

// changed returns a preset with a change.
func changed(t *testing.T, name string, change func(*middlebox.Behaviour)) middlebox.Behaviour {
	b := preset(t, name)
	change(&b)
	return b
}

// A box whose rules are of another behaviour than it declares is caught, by
// the names of all properties that differ and of no other.
func TestLiars(t *testing.T) {
	confirming := preset(t, "confirming-router")
	rejecting := changed(t, "port-restricted", func(b *middlebox.Behaviour) { b.Unsolicited = middlebox.RejectUnsolicited })
	cases := []struct {
		name           string
		declared, does middlebox.Behaviour
		want           []string
	}{
		{"too open", preset(t, "port-restricted"), preset(t, "full-cone"), []string{"filtering"}},
		{"half open", preset(t, "port-restricted"), preset(t, "restricted-cone"), []string{"filtering"}},
		{"too closed", preset(t, "full-cone"), preset(t, "port-restricted"), []string{"filtering"}},
		{"symmetric", preset(t, "port-restricted"), preset(t, "symmetric"), []string{"mapping", "punch_first", "ports"}},
		{"not symmetric", preset(t, "symmetric"), preset(t, "port-restricted"), []string{"mapping", "punch_first", "ports"}},
		// A STUN test sees no difference between these two.
		{"confirms", preset(t, "port-restricted"), confirming, []string{"punch_first", "unsolicited"}},
		{"does not confirm", confirming, preset(t, "port-restricted"), []string{"punch_first", "unsolicited"}},
		{"lets TCP in", preset(t, "port-restricted"), changed(t, "port-restricted", func(b *middlebox.Behaviour) {
			b.TCPFiltering = middlebox.FilterEndpointIndependent
		}), []string{"tcp_filtering"}},
		{"lets TCP half in", preset(t, "port-restricted"), changed(t, "port-restricted", func(b *middlebox.Behaviour) {
			b.TCPFiltering = middlebox.FilterAddressDependent
		}), []string{"tcp_filtering"}},
		{"keeps TCP out", preset(t, "cgnat"), changed(t, "cgnat", func(b *middlebox.Behaviour) {
			b.TCPFiltering = middlebox.FilterAddressDependent
		}), []string{"tcp_filtering"}},
		{"rejects", preset(t, "port-restricted"), rejecting, []string{"unsolicited"}},
		{"rejects, does not confirm", confirming, rejecting, []string{"punch_first", "unsolicited"}},
		{"no firewall", preset(t, "stateful-firewall"), preset(t, "open"), []string{"filtering", "unsolicited", "tcp_filtering"}},
		{"a firewall", preset(t, "open"), preset(t, "stateful-firewall"), []string{"filtering", "unsolicited", "tcp_filtering"}},
		{"lets UDP pass", preset(t, "udp-blocked"), preset(t, "stateful-firewall"), []string{"block"}},
		{"stops UDP", preset(t, "stateful-firewall"), preset(t, "udp-blocked"), []string{"block", "mapping", "filtering", "punch_first"}},
		{"lets TCP pass", preset(t, "tcp-blocked"), preset(t, "stateful-firewall"), []string{"block"}},
		{"stops TCP", preset(t, "stateful-firewall"), preset(t, "tcp-blocked"), []string{"block", "tcp_filtering"}},
		{"denies nobody", preset(t, "login-blocked"), preset(t, "stateful-firewall"), []string{"deny"}},
		{"denies somebody", preset(t, "stateful-firewall"), preset(t, "login-blocked"), []string{"deny"}},
		{"denies more", preset(t, "login-blocked"), changed(t, "stateful-firewall", func(b *middlebox.Behaviour) {
			b.Deny = []middlebox.Deny{{Host: "login"}}
		}), []string{"deny"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, c.does)
			differences := Compare(c.declared, l.quick())
			if got := names(differences); !slices.Equal(got, sorted(c.want)) {
				t.Errorf("caught by %q, want %q", differences, c.want)
			}
			if doubts := l.watch.Close(); len(doubts) > 0 {
				t.Error(doubts)
			}
		})
	}
}

// names returns the properties that differences are about.
func names(differences []string) (list []string) {
	for _, d := range differences {
		property, _, _ := strings.Cut(d, ":")
		list = append(list, property)
	}
	return sorted(list)
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// A timer that is not what is declared is caught twice: by the kernel's own
// number, and by packets.
func TestLiarTimers(t *testing.T) {
	const told = 2 * time.Second
	declared := changed(t, "port-restricted", func(b *middlebox.Behaviour) {
		b.UDPTimeout, b.TCPEstablished, b.TCPTransitory = told, told, told
	})
	for _, c := range []struct {
		name   string
		change func(*middlebox.Behaviour)
		want   []string
	}{
		{"none", func(*middlebox.Behaviour) {}, nil},
		{"UDP", func(b *middlebox.Behaviour) { b.UDPTimeout = 2 * told }, []string{"udp_timeout", "udp_timeout_seconds"}},
		{"established too long", func(b *middlebox.Behaviour) { b.TCPEstablished = 2 * told }, []string{"tcp_established", "tcp_established_seconds"}},
		{"established too short", func(b *middlebox.Behaviour) { b.TCPEstablished = told / 2 }, []string{"tcp_established", "tcp_established_seconds"}},
		{
			"transitory too long", func(b *middlebox.Behaviour) { b.TCPTransitory = 2 * told },
			[]string{"tcp_transitory, half-open", "tcp_transitory, half-closed", "tcp_transitory_seconds"},
		},
		{
			"transitory too short", func(b *middlebox.Behaviour) { b.TCPTransitory = told / 2 },
			[]string{"tcp_transitory, half-open", "tcp_transitory, half-closed", "tcp_transitory_seconds"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			does := declared
			c.change(&does)
			l := newLab(t, does)
			m := l.quick()
			if err := Lifetimes(t.Context(), l.watch, l.subject, l.network.Namespace("a"), &m); err != nil {
				t.Fatal(err)
			}
			if err := Timers(t.Context(), l.watch, l.subject, Told{told, told, told}, &m); err != nil {
				t.Fatal(err)
			}
			if got := names(Compare(declared, m)); !slices.Equal(got, sorted(c.want)) {
				t.Errorf("differences in %q, want %q", got, c.want)
			}
		})
	}
}

// A box whose connection tracking goes by other timers than its rules is caught
// by packets, of a half-closed connection alone.
func TestLiarHalfClosed(t *testing.T) {
	const told = time.Second
	b := changed(t, "stateful-firewall", func(b *middlebox.Behaviour) { b.TCPTransitory = told })
	l := newLab(t, b)
	if err := l.network.Namespace("a").Do(func() error {
		return ns.WriteSysctl("net.netfilter.nf_conntrack_tcp_timeout_fin_wait", "3")
	}); err != nil {
		t.Fatal(err)
	}
	m := l.quick()
	if err := Timers(t.Context(), l.watch, l.subject, Told{TCPTransitory: told}, &m); err != nil {
		t.Fatal(err)
	}
	if got := names(Compare(b, m)); !slices.Equal(got, []string{"tcp_transitory, half-closed"}) {
		t.Errorf("differences in %q, want the half-closed connections'", got)
	}
}

// A box whose streams live no longer than other flows is caught if it declares
// that they do, and so is one whose new flows end earlier.
func TestLiarStream(t *testing.T) {
	const told, stream = 30 * time.Second, time.Minute
	l := newLab(t, changed(t, "port-restricted", func(b *middlebox.Behaviour) { b.UDPTimeout, b.UDPUnreplied = stream, told }))
	var m Properties
	if err := Lifetimes(t.Context(), l.watch, l.subject, l.network.Namespace("a"), &m); err != nil {
		t.Fatal(err)
	}
	if err := Stream(t.Context(), l.watch, l.subject, l.network.Namespace("a"), &m); err != nil {
		t.Fatal(err)
	}
	if m.UDPUnreplied != 30 || m.UDPTimeout != 60 {
		t.Errorf("%d s and %d s of a stream, want 30 and 60", m.UDPUnreplied, m.UDPTimeout)
	}
	for want, declared := range map[string]func(*middlebox.Behaviour){
		"udp_timeout_seconds":           func(b *middlebox.Behaviour) { b.UDPTimeout, b.UDPUnreplied = 2*stream, told },
		"udp_unreplied_timeout_seconds": func(b *middlebox.Behaviour) { b.UDPTimeout, b.UDPUnreplied = stream, 2*told },
		"":                              func(b *middlebox.Behaviour) { b.UDPTimeout, b.UDPUnreplied = stream, told },
	} {
		got := slices.DeleteFunc(names(Compare(changed(t, "port-restricted", declared), m)), func(name string) bool {
			return !strings.HasPrefix(name, "udp_")
		})
		if strings.Join(got, " ") != want {
			t.Errorf("differences in %q, want %q", got, want)
		}
	}
}

// Drops that no log tells of are still found, by the fence, and the counters
// give them away.
func TestDropsWithoutLog(t *testing.T) {
	l := newLab(t, preset(t, "port-restricted"))
	l.group = group + 1 // which nobody reads
	l.load("a", preset(t, "port-restricted"))
	if err := l.watch.Reloaded("a"); err != nil {
		t.Fatal(err)
	}
	m := l.quick()
	if got := names(Compare(preset(t, "port-restricted"), m)); !slices.Equal(got, []string{"unsolicited"}) || m.Unsolicited != vanishes {
		t.Errorf("differences in %q, unsolicited packets: %q; want only those to differ, and to vanish", got, m.Unsolicited)
	}
	if err := l.watch.Close()["a"]; err == nil || !strings.Contains(err.Error(), "rule unsolicited") {
		t.Errorf("the watch ended with %v, want a rule that counts and does not log", err)
	}
}

// Chains are what their boxes make of them together.
func TestChains(t *testing.T) {
	cases := [][]string{ // outermost first
		{"port-restricted", "port-restricted"},
		{"symmetric", "port-restricted"},
		{"full-cone", "symmetric"},
		{"full-cone", "restricted-cone"},
		{"full-cone", "confirming-router"},
		{"port-restricted", "confirming-router"},
		{"confirming-router", "full-cone"},
		{"stateful-firewall", "full-cone"},
		{"port-restricted", "stateful-firewall"},
		{"cgnat", "stateful-firewall"},
		{"cgnat", "open", "restricted-cone"},
		{"open", "full-cone"},
		{"udp-blocked", "port-restricted"},
		{"login-blocked", "tcp-blocked"},
		{"restricted-cone", "full-cone", "port-restricted"},
	}
	for _, c := range cases {
		t.Run(strings.Join(c, " "), func(t *testing.T) {
			var chain []middlebox.Behaviour
			for _, name := range c {
				chain = append(chain, preset(t, name))
			}
			l := newLab(t, chain...)
			slices.Reverse(chain)
			for _, d := range Differences(Declared(chain...), l.quick()) {
				t.Error(d)
			}
			if doubts := l.watch.Close(); len(doubts) > 0 {
				t.Error(doubts)
			}
		})
	}
}

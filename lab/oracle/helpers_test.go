package oracle

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// supernodes are twelve, as a suite has.
func supernodes() (names []string) {
	for n := range 12 {
		names = append(names, fmt.Sprintf("sn%d", n+1))
	}
	return names
}

// denying is a host behind a box that denies some hosts.
func denying(t testing.TB, name, box, kind string, deny ...string) End {
	t.Helper()
	e := end(t, name, box+"="+kind)
	for _, d := range deny {
		parsed, err := middlebox.ParseDeny(d)
		if err != nil {
			t.Fatal(err)
		}
		e.Boxes[0].Behaviour.Deny = append(e.Boxes[0].Behaviour.Deny, parsed)
	}
	return e
}

// each is a list of supernodes, with a suffix.
func each(from, to int, suffix string) (names []string) {
	for n := from; n <= to; n++ {
		names = append(names, fmt.Sprintf("sn%d%s", n, suffix))
	}
	return names
}

// TestDeniedSupernodes: who is out of reach relays nothing and says nothing of an
// end, and where that is some of them, what is drawn decides.
func TestDeniedSupernodes(t *testing.T) {
	for _, c := range []struct {
		name                      string
		a, b                      []string // denied to alice and to bob, both behind port-restricted NATs
		login                     string   // alice's
		signalling, search, media string
		tells                     string // in the reasoning of the media, or of the login
	}{
		{"none", nil, nil, "direct tcp", "relayed tcp tcp", "punched udp", "punched udp", ""},
		{"one", each(1, 1, ""), nil, "direct tcp", "relayed tcp tcp", "punched udp | relayed tcp tcp", "punched udp", ""},
		{"three: a call has four relays", each(1, 3, ""), nil, "direct tcp", "relayed tcp tcp", "punched udp | relayed tcp tcp | failed", "punched udp", ""},
		{"four", each(1, 4, ""), nil, "direct tcp", "relayed tcp tcp | failed", "punched udp | relayed tcp tcp | failed", "punched udp | failed", ""},
		{"three each, others", each(1, 3, ""), each(4, 6, ""), "direct tcp", "relayed tcp tcp | failed", "punched udp | relayed tcp tcp | failed", "punched udp | failed", ""},
		{"none in common", each(1, 6, ""), each(7, 12, ""), "direct tcp | failed", "failed", "punched udp | failed", "failed", "no supernode is in reach of both"},
		{"all to one end", each(1, 12, ""), nil, "failed", "failed", "", "failed", "alice reaches no supernode over TCP on port 33033: a denies it"},
		{"all datagrams", each(1, 12, ":udp"), nil, "direct tcp", "relayed tcp tcp", "relayed tcp tcp", "relayed tcp udp", "no datagram of alice reaches sn12"},
		{"some datagrams", each(1, 3, ":udp"), nil, "direct tcp", "relayed tcp tcp", "punched udp | relayed tcp tcp", "punched udp | relayed tcp udp", "takes UDP to be blocked, and which supernode that is, is chance"},
		{"the main port", each(1, 12, ":tcp:33033"), nil, "direct tcp", "relayed tcp tcp", "punched udp", "punched udp", ""},
		{"login", []string{"login"}, nil, "relayed tcp tcp", "relayed tcp tcp", "punched udp", "punched udp", ""},
		{"login and five", append(each(1, 5, ""), "login"), nil, "relayed tcp tcp | failed", "relayed tcp tcp | failed", "punched udp | relayed tcp tcp | failed", "punched udp | failed", ""},
		{"another host", []string{"update"}, nil, "direct tcp", "relayed tcp tcp", "punched udp", "punched udp", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := expect(t, Pair{denying(t, "alice", "a", "port-restricted", c.a...), denying(t, "bob", "b", "port-restricted", c.b...)},
				Options{Supernodes: supernodes()})
			for what, f := range map[string]struct {
				got  Function
				want string
			}{"login": {got.CallerLogin, c.login}, "signalling": {got.Signalling, c.signalling}, "search": {got.Search, c.search}, "media": {got.Media, c.media}} {
				if f.want != "" && text(f.got) != f.want {
					t.Errorf("%s: %s, want %s\n%s", what, text(f.got), f.want, strings.Join(f.got.Reasoning, "\n"))
				}
				if len(f.got.Allowed) > 1 && f.got.Why == "" {
					t.Errorf("%s: %s, and no word why", what, f.got)
				}
			}
			if all := strings.Join(append(got.Media.Reasoning, got.CallerLogin.Reasoning...), "\n"); !strings.Contains(all, c.tells) {
				t.Errorf("%q is not told:\n%s", c.tells, all)
			}
		})
	}
}

// TestDeniedOfAPublicEnd: whether a public end is reached over TCP, a supernode
// finds out that may be one of those denied; of the end that dials nobody asks.
func TestDeniedOfAPublicEnd(t *testing.T) {
	behind := denying(t, "bob", "b", "open", "sn1")
	for want, p := range map[string]Pair{
		"direct tcp | relayed tcp tcp":   {end(t, "alice"), behind},
		"direct tcp":                     {behind, end(t, "alice")},
		"reversed tcp | relayed tcp tcp": {behind, end(t, "alice", "a=port-restricted")},
	} {
		if got := expect(t, p, Options{Supernodes: supernodes()}).Signalling; text(got) != want {
			t.Errorf("%s, want %s\n%s", text(got), want, strings.Join(got.Reasoning, "\n"))
		}
	}
}

// Supernodes that no box denies change nothing, whatever they are called and
// however many there are.
func TestNamesOfSupernodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPair(t)
		plain, err := Expect(p, Options{})
		if err != nil {
			t.Skip(err)
		}
		named, err := Expect(p, Options{Supernodes: supernodes()[:rapid.IntRange(1, 12).Draw(t, "supernodes")]})
		if err != nil {
			t.Fatal(err)
		}
		for what, f := range map[string][2]Function{"login": {plain.CallerLogin, named.CallerLogin}, "signalling": {plain.Signalling, named.Signalling}, "search": {plain.Search, named.Search}, "media": {plain.Media, named.Media}} {
			if text(f[0]) != text(f[1]) {
				t.Errorf("%s: %s, and with names %s", what, f[0], f[1])
			}
		}
	})
}

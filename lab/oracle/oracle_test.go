package oracle

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"gauntlet/lab/path"
	"gauntlet/middlebox"
)

// kinds are the classes of papers.md section 4 with the presets that stand for
// them.
var kinds = []struct{ class, preset string }{
	{"O", "open"}, {"F", "full-cone"}, {"R", "restricted-cone"}, {"P", "port-restricted"},
	{"S", "symmetric"}, {"Sp", "symmetric-sequential"}, {"U", "udp-blocked"},
}

// table is that of papers.md section 4, in its words, without prediction.
var table = map[string]string{
	"O":  "direct  direct  reverse reverse reverse reverse rTCP",
	"F":  "direct  direct  reverse reverse reverse reverse relay",
	"R":  "direct  direct  punched punched punched punched relay",
	"P":  "direct  direct  punched punched relay   relay   relay",
	"S":  "direct  direct  punched relay   relay   relay   relay",
	"Sp": "direct  direct  punched relay   relay   relay   relay",
	"U":  "dTCP    relay   relay   relay   relay   relay   relay",
}

// predicted are the cells that prediction makes punched.
var predicted = []string{"P-Sp", "Sp-P", "Sp-Sp"}

func preset(t testing.TB, box, name string) Box {
	t.Helper()
	b, ok := middlebox.Preset(name)
	if !ok {
		t.Fatalf("no preset %s", name)
	}
	return Box{Name: box, Behaviour: b}
}

// end is a host behind boxes, each as NAME=PRESET, from the host outward.
func end(t testing.TB, name string, boxes ...string) End {
	t.Helper()
	e := End{Name: name}
	for _, b := range boxes {
		name, kind, _ := strings.Cut(b, "=")
		kind, hairpin := strings.CutSuffix(kind, "+hairpin")
		box := preset(t, name, kind)
		box.Behaviour.Hairpin = box.Behaviour.Hairpin || hairpin
		e.Boxes = append(e.Boxes, box)
	}
	return e
}

func expect(t testing.TB, p Pair, o Options) Theory {
	t.Helper()
	theory, err := Expect(p, o)
	if err != nil {
		t.Fatal(err)
	}
	return theory
}

// words of the table, with the transports of the legs.
func cell(word, caller, callee string) string {
	leg := func(class string) string {
		if class == "U" {
			return "tcp"
		}
		return "udp"
	}
	switch word {
	case "reverse":
		return "reversed udp"
	case "dTCP":
		return "direct tcp"
	case "rTCP":
		return "reversed tcp"
	case "relay":
		return "relayed " + leg(caller) + " " + leg(callee)
	}
	return word + " udp"
}

func text(f Function) string {
	var all []string
	for _, r := range f.Allowed {
		all = append(all, strings.Join(append([]string{r.Path}, r.Transports...), " "))
	}
	return strings.Join(all, " | ")
}

func TestTable(t *testing.T) {
	for _, variant := range []struct {
		name string
		o    Options
	}{{"quiet", Options{}}, {"expired", Options{Expired: true}}, {"predict", Options{Predict: true}}, {"predict and expired", Options{Predict: true, Expired: true}}} {
		t.Run(variant.name, func(t *testing.T) {
			for _, a := range kinds {
				words := strings.Fields(table[a.class])
				for i, b := range kinds {
					word := words[i]
					if variant.o.Predict && slices.Contains(predicted, a.class+"-"+b.class) {
						word = "punched"
					}
					theory := expect(t, Pair{end(t, "alice", "home-a="+a.preset), end(t, "bob", "home-b="+b.preset)}, variant.o)
					if want, got := cell(word, a.class, b.class), text(theory.Media); got != want {
						t.Errorf("%s x %s: %s, want %s\n%s", a.class, b.class, got, want, strings.Join(theory.Media.Reasoning, "\n"))
					}
				}
			}
		})
	}
}

// TestNoBox: a host with no box in front is as one behind a router that looks
// at nothing.
func TestNoBox(t *testing.T) {
	for _, k := range kinds {
		behind := end(t, "bob", "home-b="+k.preset)
		bare, open := end(t, "alice"), end(t, "alice", "home-a=open")
		for _, turned := range []bool{false, true} {
			of := func(e End) Theory {
				if turned {
					return expect(t, Pair{behind, e}, Options{})
				}
				return expect(t, Pair{e, behind}, Options{})
			}
			if a, b := of(bare), of(open); text(a.Media) != text(b.Media) || text(a.Signalling) != text(b.Signalling) || text(a.Search) != text(b.Search) {
				t.Errorf("%s: bare %s, %s, %s; open %s, %s, %s", k.class, a.Media, a.Signalling, a.Search, b.Media, b.Signalling, b.Search)
			}
		}
	}
}

// TestNested: chains, shared boxes and firewalls, each with what is known of
// them.
func TestNested(t *testing.T) {
	bare := func(name string) End { return End{Name: name} }
	for _, c := range []struct {
		name                      string
		pair                      Pair
		o                         Options
		media, signalling, search string
	}{
		{
			name:  "double NAT is as strict as its stricter box",
			pair:  Pair{end(t, "alice", "home=full-cone", "isp=port-restricted"), end(t, "bob", "b=symmetric")},
			media: "relayed udp udp", signalling: "relayed tcp tcp", search: "relayed tcp tcp",
		}, {
			name:  "a cone behind a symmetric NAT is symmetric",
			pair:  Pair{end(t, "alice", "home=port-restricted", "isp=symmetric"), end(t, "bob", "b=restricted-cone")},
			media: "punched udp", signalling: "relayed tcp tcp", search: "punched udp",
		}, {
			name:  "a cone behind a provider's NAT is a cone",
			pair:  Pair{end(t, "alice", "home=port-restricted", "isp=cgnat"), end(t, "bob", "b=port-restricted")},
			media: "punched udp", signalling: "relayed tcp tcp", search: "punched udp",
		}, {
			name:  "two homes of one provider reach each other by hairpin",
			pair:  Pair{end(t, "alice", "a=port-restricted", "isp=cgnat"), end(t, "bob", "b=port-restricted", "isp=cgnat")},
			media: "punched udp", signalling: "relayed tcp tcp", search: "punched udp",
		}, {
			name:  "and don't where the provider's NAT has none",
			pair:  Pair{end(t, "alice", "a=port-restricted", "isp=port-restricted"), end(t, "bob", "b=port-restricted", "isp=port-restricted")},
			media: "relayed udp udp", signalling: "relayed tcp tcp", search: "relayed tcp tcp",
		}, {
			name:  "that NAT's own filtering is between two homes that filter nobody",
			pair:  Pair{end(t, "alice", "a=full-cone", "isp=port-restricted+hairpin"), end(t, "bob", "b=full-cone", "isp=port-restricted+hairpin")},
			media: "punched udp", signalling: "relayed tcp tcp", search: "punched udp",
		}, {
			name:  "two clients of one home turn around in the provider's NAT, and come in again as strangers",
			pair:  Pair{end(t, "alice", "home=port-restricted", "isp=cgnat"), end(t, "bob", "home=port-restricted", "isp=cgnat")},
			media: "direct udp", signalling: "direct tcp | relayed tcp tcp", search: "punched udp",
		}, {
			name:  "who are let in where the home filters nobody",
			pair:  Pair{end(t, "alice", "home=full-cone", "isp=cgnat"), end(t, "bob", "home=full-cone", "isp=cgnat")},
			media: "direct udp", signalling: "direct tcp | relayed tcp tcp", search: "direct udp",
		}, {
			name:  "as do two NATs in one home, whose private addresses nobody else reaches",
			pair:  Pair{end(t, "alice", "a=full-cone", "home=port-restricted", "isp=cgnat"), end(t, "bob", "b=full-cone", "home=port-restricted", "isp=cgnat")},
			media: "punched udp", signalling: "relayed tcp tcp", search: "punched udp",
		}, {
			name:  "one LAN: private addresses",
			pair:  Pair{end(t, "alice", "home=symmetric"), end(t, "bob", "home=symmetric")},
			media: "direct udp", signalling: "direct tcp | relayed tcp tcp", search: "direct udp | direct tcp | relayed tcp tcp",
		}, {
			name:  "one LAN without UDP to the internet",
			pair:  Pair{end(t, "alice", "office=udp-blocked"), end(t, "bob", "office=udp-blocked")},
			media: "direct udp | direct tcp", signalling: "direct tcp | relayed tcp tcp", search: "direct udp | direct tcp | relayed tcp tcp",
		}, {
			name:  "a stateful firewall is a port-restricted cone without mapping",
			pair:  Pair{end(t, "alice", "a=stateful-firewall"), end(t, "bob", "b=port-restricted")},
			media: "punched udp", signalling: "relayed tcp tcp", search: "punched udp",
		}, {
			name:  "and its host's port is known even to a symmetric NAT's",
			pair:  Pair{end(t, "alice", "a=stateful-firewall"), end(t, "bob", "b=symmetric")},
			media: "relayed udp udp", signalling: "relayed tcp tcp", search: "relayed tcp tcp",
		}, {
			name:  "a router that confirms: whoever is first decides",
			pair:  Pair{end(t, "alice", "a=confirming-router"), end(t, "bob", "b=port-restricted")},
			media: "punched udp | relayed udp udp", signalling: "relayed tcp tcp", search: "punched udp | relayed tcp tcp",
		}, {
			name:  "two that confirm: only if their first packets cross",
			pair:  Pair{end(t, "alice", "a=confirming-router"), end(t, "bob", "b=confirming-router")},
			media: "punched udp | relayed udp udp", signalling: "relayed tcp tcp", search: "punched udp | relayed tcp tcp",
		}, {
			name:  "it does no harm where the other filters by address alone",
			pair:  Pair{end(t, "alice", "a=confirming-router"), end(t, "bob", "b=restricted-cone")},
			media: "punched udp", signalling: "relayed tcp tcp", search: "punched udp",
		}, {
			name:  "nor where it doesn't filter",
			pair:  Pair{end(t, "alice", "a=confirming-router"), bare("bob")},
			media: "direct udp", signalling: "direct tcp", search: "direct udp",
		}, {
			name:  "the web alone",
			pair:  Pair{end(t, "alice", "a=web-only"), bare("bob")},
			media: "relayed tcp udp", signalling: "relayed tcp tcp", search: "relayed tcp tcp",
		}, {
			name:  "no TCP: nobody is called",
			pair:  Pair{bare("alice"), end(t, "bob", "b=tcp-blocked")},
			media: "failed", signalling: "failed", search: "reversed udp | failed",
		}, {
			name:  "other flows take the predicted port",
			pair:  Pair{end(t, "alice", "a=port-restricted"), end(t, "bob", "b=symmetric-sequential")},
			o:     Options{Predict: true, CrossTraffic: true},
			media: "punched udp | relayed udp udp", signalling: "relayed tcp tcp", search: "relayed tcp tcp",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			theory := expect(t, c.pair, c.o)
			for _, f := range []struct {
				name string
				got  Function
				want string
			}{{"media", theory.Media, c.media}, {"signalling", theory.Signalling, c.signalling}, {"search", theory.Search, c.search}} {
				if text(f.got) != f.want {
					t.Errorf("%s: %s, want %s\n%s", f.name, text(f.got), f.want, strings.Join(f.got.Reasoning, "\n"))
				}
				if len(f.got.Allowed) > 1 && f.got.Why == "" {
					t.Errorf("%s: several paths and no reason", f.name)
				}
			}
		})
	}
}

func TestLogin(t *testing.T) {
	for _, c := range []struct {
		preset, want string
	}{{"open", "direct tcp"}, {"symmetric", "direct tcp"}, {"udp-blocked", "direct tcp"}, {"login-blocked", "relayed tcp tcp"}, {"web-only", "relayed tcp tcp"}, {"tcp-blocked", "failed"}} {
		theory := expect(t, Pair{end(t, "alice", "a="+c.preset), End{Name: "bob"}}, Options{})
		if got := text(theory.CallerLogin); got != c.want {
			t.Errorf("%s: %s, want %s\n%s", c.preset, got, c.want, strings.Join(theory.CallerLogin.Reasoning, "\n"))
		}
		if got := text(theory.CalleeLogin); got != "direct tcp" {
			t.Errorf("%s: the callee's login is %s", c.preset, got)
		}
	}
}

// TestBeyond: what theory doesn't cover has no expectation, and says so.
func TestBeyond(t *testing.T) {
	slow := preset(t, "a", "port-restricted")
	slow.Behaviour.UDPRate = 10
	theory := expect(t, Pair{End{Name: "alice", Boxes: []Box{slow}}, End{Name: "bob"}}, Options{})
	if len(theory.Media.Allowed) != 0 || !strings.Contains(theory.Media.Why, "10 UDP packets") {
		t.Errorf("%v, %s", theory.Media, theory.Media.Why)
	}
	if !theory.Media.Allows(path.Record{Path: path.Relayed}) {
		t.Error("a theory that can't say forbids a path")
	}
}

func TestRefused(t *testing.T) {
	invalid := preset(t, "a", "open")
	invalid.Behaviour.Hairpin = true
	for name, p := range map[string]Pair{
		"two names":    {End{Name: "alice"}, End{Name: "alice"}},
		"comes twice":  {end(t, "alice", "a=open", "a=open"), End{Name: "bob"}},
		"outside it":   {end(t, "alice", "isp=open", "x=open"), end(t, "bob", "isp=open", "y=open")},
		"hairpin":      {End{Name: "alice", Boxes: []Box{invalid}}, End{Name: "bob"}},
		"has no name ": {End{Name: "alice", Boxes: []Box{{}}}, End{Name: "bob"}},
	} {
		if _, err := Expect(p, Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want an error about %q", err, name)
		}
	}
}

// TestAllows: a relayed path's legs count each, other paths' all alike.
func TestAllows(t *testing.T) {
	legs := func(transports ...string) (all []path.Leg) {
		for _, tr := range transports {
			all = append(all, path.Leg{Transport: tr})
		}
		return all
	}
	f := Function{Allowed: []Route{{path.Relayed, []string{"tcp", "udp"}}, {path.Punched, []string{"udp"}}}}
	for _, c := range []struct {
		seen path.Record
		want bool
	}{
		{path.Record{Path: path.Relayed, Legs: legs("tcp", "udp")}, true},
		{path.Record{Path: path.Relayed, Legs: legs("udp", "tcp")}, false},
		{path.Record{Path: path.Relayed, Legs: legs("udp", "udp")}, false},
		{path.Record{Path: path.Punched, Legs: legs("udp")}, true},
		{path.Record{Path: path.Punched, Legs: legs("tcp")}, false},
		{path.Record{Path: path.Direct, Legs: legs("udp")}, false},
		{path.Record{Path: path.Failed}, false},
	} {
		if got := f.Allows(c.seen); got != c.want {
			t.Errorf("%+v: %v", c.seen, got)
		}
	}
}

// TestReasoning: the text names the box, the filter and what is lost.
func TestReasoning(t *testing.T) {
	theory := expect(t, Pair{end(t, "alice", "home-a=port-restricted"), end(t, "bob", "home-b=symmetric")}, Options{})
	all := strings.Join(theory.Media.Reasoning, "\n")
	for _, want := range []string{
		"alice is behind home-a: endpoint-independent mapping, address-and-port-dependent filtering",
		"supernodes see alice at 198.18.1.1:40000, whichever of them it asks",
		"supernodes see bob at another place each",
		"home-b filters (address-and-port-dependent): to 198.18.1.2:15838 it lets in only 198.18.0.12:33033",
		"a relay carries media",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing like %q in\n%s", want, all)
		}
	}
}

func BenchmarkExpect(b *testing.B) {
	p := Pair{end(b, "alice", "home-a=symmetric"), end(b, "bob", "home-b=symmetric-sequential")}
	for b.Loop() {
		expect(b, p, Options{})
	}
}

// TestPool: of a box with several addresses it is chance which one a mapping gets.
// An end that filters by address alone is reached if it is the one that it knows;
// where a host keeps its address, nothing changes, whether two hosts share one or not.
func TestPool(t *testing.T) {
	pool := func(kind middlebox.Pool, e End) End {
		outer := &e.Boxes[len(e.Boxes)-1]
		outer.Addresses, outer.Behaviour.Pool = 3, kind
		return e
	}
	arbitrary := func(e End) End { return pool(middlebox.ArbitraryPool, e) }
	paired := func(e End) End { return pool(middlebox.PairedPool, e) }
	restricted := end(t, "alice", "home-a=restricted-cone")
	symmetric, bob := end(t, "alice", "home-a=symmetric"), end(t, "bob", "home-b=symmetric")
	for _, test := range []struct {
		name           string
		caller, callee End
		want           string
	}{
		{"R x S arbitrary", restricted, arbitrary(end(t, "bob", "home-b=symmetric")), "relayed udp udp | punched udp"},
		{"R x S paired", restricted, paired(end(t, "bob", "home-b=symmetric")), "punched udp"},
		{"S arbitrary x R", arbitrary(end(t, "bob", "home-b=symmetric")), restricted, "relayed udp udp | punched udp"},
		{"S arbitrary x S", arbitrary(end(t, "alice", "home-a=symmetric")), bob, "relayed udp udp"},
		{"S x F arbitrary", symmetric, arbitrary(end(t, "bob", "home-b=full-cone")), "direct udp"},
		{
			"R x S behind one pool, paired",
			paired(end(t, "alice", "home-a=restricted-cone", "isp=full-cone+hairpin")), paired(end(t, "bob", "home-b=symmetric", "isp=full-cone+hairpin")),
			"punched udp",
		},
	} {
		f := expect(t, Pair{test.caller, test.callee}, Options{}).Media
		if text(f) != test.want {
			t.Errorf("%s: %s, want %s\n%s", test.name, text(f), test.want, strings.Join(f.Reasoning, "\n"))
		}
		if chance := f.Why == "which of its addresses a box gives is chance"; chance != strings.Contains(test.want, "|") {
			t.Errorf("%s: %q", test.name, f.Why)
		}
	}
}

// TestTurns: a box that rotates gives one address after the other, one that
// doesn't the same; a host that is paired keeps what it has.
func TestTurns(t *testing.T) {
	for _, test := range []struct {
		rotate bool
		pool   middlebox.Pool
		want   string // the address by host and destination: alice, alice, bob, bob
	}{
		{false, middlebox.ArbitraryPool, "1 1 1 1"}, {true, middlebox.ArbitraryPool, "1 2 3 1"},
		{false, middlebox.PairedPool, "1 1 1 1"}, {true, middlebox.PairedPool, "1 1 2 2"},
	} {
		var ends [2]End
		for i, name := range []string{"alice", "bob"} {
			ends[i] = end(t, name, "home=symmetric")
			ends[i].Boxes[0].Addresses, ends[i].Boxes[0].Behaviour.Pool = 3, test.pool
		}
		w, err := newWorld(Pair{ends[0], ends[1]}, Options{Login: "login", rotate: test.rotate})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range w.hosts {
			for n := range 2 {
				there, _ := w.asks(h, n)
				got = append(got, strconv.Itoa(1+slices.Index(w.boxes[0].wan, there.packet.From.Addr())))
			}
		}
		if text := strings.Join(got, " "); text != test.want {
			t.Errorf("rotate %v, %s: %s, want %s", test.rotate, test.pool, text, test.want)
		}
	}
}

package scenario_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
)

const good = `name: search, symmetric NATs
claims: [P-S3]
topology:
  middleboxes:
    home-a: {preset: symmetric}
    home-b: {preset: port-restricted, udp_timeout: 30s}
    corp: {preset: udp-blocked, deny: ["login:tcp"]}
  hosts: {login: {}, sn1: {ip: 198.18.0.11}, alice: {behind: home-a}, bob: {behind: home-b}, carol: {behind: corp}, "x[1-3]": {}}
nodes:
  login: {role: login}
  sn1: {role: supernode}
  alice: {role: client}
  bob: {exec: [python3, my-node.py], settings: {a: [1, 2]}}
steps:
  - login: alice
    expect: {path: direct, transport: tcp}
  - search: {caller: alice, callee: bob}
    expect: {path: relayed, hops: 1, relays: 2, transport: tcp}
    within: 10s
  - change: {box: home-a, preset: tcp-blocked, block: [udp]}
  - call: {caller: alice, callee: bob, for: 3s}
    expect: {signalling: {path: failed}, media: {path: failed}}
`

func TestParse(t *testing.T) {
	s, err := scenario.Parse("dir/search.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if s.ID != "search" || s.Profile != "nec2006" {
		t.Errorf("ID %q, profile %q", s.ID, s.Profile)
	}
	want := []string{"login", "sn1", "alice", "bob", "carol", "x1", "x2", "x3"}
	if diff := cmp.Diff(want, s.Topology.Hosts.Names()); diff != "" {
		t.Error("hosts:", diff)
	}
	if got := s.Steps[0].Login; !cmp.Equal(got, []string{"alice"}) {
		t.Errorf("login %q", got)
	}
	if got := s.Steps[3].Call.For.Seconds(); got != 3 {
		t.Errorf("call lasts %v s", got)
	}
	n, _ := s.Nodes.Get("bob")
	if string(n.Settings) != `{"a":[1,2]}` {
		t.Errorf("settings %s", n.Settings)
	}
	corp, _ := s.Topology.Middleboxes.Get("corp")
	b, err := corp.Behaviour()
	if err != nil || len(b.Deny) != 1 || b.Deny[0].String() != "login:tcp" || len(b.Block) != 1 {
		t.Errorf("corp: %+v, %v", b, err)
	}
}

// Each mistake is reported with its place, all of them at once.
func TestMistakes(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"unknown keys", "topology:\n  hosts: {a: {}}\n  hots: {}\nsteps: []\nfoo: 1\n",
			"f.yaml:3:3: unknown key \"hots\"; expected middleboxes or hosts\n" +
				"f.yaml:5:1: unknown key \"foo\"; expected name, claims, profile, topology, nodes or steps"},
		{"a cycle", "topology:\n  middleboxes:\n    a: {preset: symmetric, behind: b}\n    b: {preset: symmetric, behind: a}\n  hosts: {h: {behind: a}}\n",
			"f.yaml:3:36: is behind itself: a -> b -> a"},
		{"an address clash", "topology:\n  hosts:\n    a: {ip: 198.18.0.9}\n    b: {ip: 198.18.0.9}\n", "f.yaml:4:13: "},
		{"hosts that do not exist", "topology:\n  hosts:\n    a: {behind: nowhere}\nnodes:\n  b: {role: client}\nsteps:\n  - login: [c]\n    expect: {path: direct}\n",
			"f.yaml:3:17: "},
		{"not YAML", "topology: [\n", "f.yaml:2:1: not YAML: "},
		{"empty", "", "f.yaml: empty"},
		{"a list", "- a\n- b\n", "f.yaml: not a scenario"},
		{"a scalar", "hello", "f.yaml: not a scenario"},
		{"a key twice", "topology:\n  hosts:\n    a: {}\n    a: {}\n", "f.yaml:4:5: key \"a\" stands here for the second time; the first is on line 3"},
		{"a range over a name", "topology:\n  hosts:\n    a2: {}\n    a[1-3]: {}\n", "f.yaml:4:5: \"a2\" is already given on line 3"},
		{"values that can't be read", box("preset: symmetric, udp_timeout: 30, addresses: two"),
			"f.yaml:2:53: \"30\" is not a duration such as 500ms, 3s or 2m\nf.yaml:2:68: \"two\" is not a whole number"},
		{"no caller", "topology: {hosts: {a: {}, b: {}}}\nnodes: {a: {role: client}, b: {role: client}}\nsteps:\n  - search: {caler: a, callee: b}\n    expect: {path: direct}\n",
			"f.yaml:4:5: no caller; expected a or b\nf.yaml:4:14: unknown key \"caler\""},
		{"a long range", "topology:\n  hosts:\n    a[1-2000]: {}\n", "f.yaml:3:5: name \"a[1-2000]\": a range of 2000 names; expected at most 1024"},
		{"a range longer still", "topology:\n  hosts:\n    a[1-20000]: {}\n", "f.yaml:3:5: name \"a[1-20000]\": a range of 20000 names; expected at most 1024"},
		{"IPv6", "topology:\n  hosts: {a: {ip: \"fd00::1\"}}\n", "IPv6 is not offered yet"},
		{"a preset that is none", "topology:\n  middleboxes: {b: {preset: magic}}\n  hosts: {a: {behind: b}}\n", "f.yaml:2:29: unknown preset \"magic\"; expected open"},
		{"nothing to do", "topology:\n  middleboxes: {b: {}}\n  hosts: {a: {behind: b}}\n", "f.yaml:2:17: a middlebox without behaviour"},
		{"a bad duration", "topology:\n  middleboxes: {b: {preset: symmetric, udp_timeout: soon}}\n  hosts: {a: {behind: b}}\n", "f.yaml:2:53: \"soon\" is not a duration"},
		{"two actions", "topology: {hosts: {a: {}}}\nnodes: {a: {role: client}}\nsteps:\n  - login: [a]\n    change: {box: b}\n", "exactly one of"},
		{"no expectation", "topology: {hosts: {a: {}, l: {}}}\nnodes: {a: {role: client}, l: {role: login}}\nsteps:\n  - login: [a]\n", "f.yaml:4:5: step login expects nothing"},
		{"nobody", "topology: {hosts: {a: {}, l: {}}}\nnodes: {a: {role: client}, l: {role: login}}\nsteps:\n  - login: []\n    expect: {path: direct}\n", "f.yaml:4:5: nobody logs in"},
		{"no members", "topology: {hosts: {a: {}, l: {}}}\nnodes: {a: {role: client}, l: {role: login}}\nsteps:\n  - conference: {starter: a}\n    expect: {path: direct}\n", "f.yaml:4:5: a conference without members"},
		{"an unknown box", "topology: {hosts: {a: {}}}\nnodes: {a: {role: client}}\nsteps:\n  - expire: {box: b}\n", "f.yaml:4:19: unknown middlebox \"b\""},
		{"a name for nothing", "topology: {middleboxes: {b: {preset: open}}, hosts: {a: {}}}\nnodes: {a: {role: client}}\nsteps:\n  - expire: {box: b}\n    name: x\n", "f.yaml:5:11: step expire has no checks to name"},
		{"a name that is a path", "topology: {hosts: {a: {}, l: {}}}\nnodes: {a: {role: client}, l: {role: login}}\nsteps:\n  - login: [a]\n    name: a/b\n    expect: {path: direct}\n", "f.yaml:5:11: \"a/b\"; expected letters"},
		{"an event of nothing", event("{at: 1s}", "after: {path: relayed}"), "f.yaml:6:17: an event does one thing; expected exactly one of change, reboot, expire, readdress, kill, stall, resume or lose, found 0"},
		{"an event too late", event("{at: 3s, kill: {node: carrying}}", "after: {path: relayed}"), "f.yaml:6:30: 3s is not before the call's end; expected less than 2s"},
		{"events out of order", event("[{at: 1s, kill: {node: carrying}}, {at: 500ms, stall: {node: s}}]", "after: {path: relayed}"), "f.yaml:6:65: 500ms is before the event above"},
		{"an event of nobody", event("{stall: {node: n}}", "after: {path: relayed}"), `f.yaml:6:40: unknown node "n"; expected a, b or s`},
		{"the caller killed", event("[{kill: {node: a}}]", "after: {path: relayed}"), "f.yaml:6:40: a is who calls"},
		{"a relay that nothing was done to", event("{resume: {node: carrying}}", "after: {path: relayed}"), "f.yaml:6:41: no event before says which relay"},
		{"an event that nothing is expected after", event("{kill: {node: carrying}}", ""), "f.yaml:6:74: something happens during the call; expected after"},
		{"nothing that it is expected after", "topology: {hosts: {a: {}, b: {}}}\nnodes: {a: {role: client}, b: {role: client}}\nsteps:\n  - call: {caller: a, callee: b}\n    expect: {signalling: {path: direct}, media: {path: direct}, after: {path: direct}}\n", "f.yaml:5:65: nothing happens during the call"},
		{"a gap of signalling", "topology: {hosts: {a: {}, b: {}}}\nnodes: {a: {role: client}, b: {role: client}}\nsteps:\n  - call: {caller: a, callee: b}\n    expect: {signalling: {path: direct, gap: 1s}, media: {path: direct, moved: true}}\n", "f.yaml:5:14: gap, lost, size, rate, first and moved are expected of a call's media, not of signalling\nf.yaml:5:80: nothing has happened yet"},
		{"a gap of no length", "topology: {hosts: {a: {}, b: {}}}\nnodes: {a: {role: client}, b: {role: client}}\nsteps:\n  - call: {caller: a, callee: b}\n    expect: {signalling: {path: direct}, media: {path: direct, gap: soon}}\n", `f.yaml:5:69: "soon" is not a duration such as 500ms, 3s or 2m`},
		{"the relay that carries no call", "topology: {hosts: {a: {}}}\nnodes: {a: {role: client}}\nsteps:\n  - kill: {node: carrying}\n", "f.yaml:4:18: no call goes on"},
		{"a node by that word", "topology: {hosts: {a: {}, b: {}, carrying: {}}}\nnodes: {a: {role: client}, b: {role: client}, carrying: {role: supernode}}\nsteps:\n  - call: {caller: a, callee: b, during: {lose: {node: carrying, loss: 5%}}}\n    expect: {signalling: {path: direct}, media: {path: direct}, after: {path: direct}}\n", `f.yaml:4:56: "carrying" is both a node and the word`},
		{"no time for a function, and time for what takes none", "topology: {hosts: {a: {}, b: {}}}\nnodes: {a: {role: client}, b: {role: client}}\nsteps:\n  - search: {caller: a, callee: b}\n    expect: {path: direct}\n    within: 0s\n  - kill: {node: a}\n    within: 5s\n",
			"f.yaml:6:13: 0s; expected a time for the function, or no within\nf.yaml:8:13: a kill waits for nothing; expected no within"},
		{"a fault of nobody", "topology: {hosts: {a: {}}}\nnodes: {a: {role: client}}\nsteps:\n  - lose: {node: x, loss: much}\n    expect: {path: direct}\n", "f.yaml:4:18: unknown node \"x\"; expected a\nf.yaml:4:27: \"much\" is not a percentage such as 1%\nf.yaml:5:5: nothing can be expected of a lose"},
		{"a host behind the box that denies it", boxes("f: {preset: stateful-firewall, deny: [a, \"s:udp\"]}", "a: {behind: f}, s: {}", ""),
			"f.yaml:3:44: host \"a\" is behind f itself; expected one outside"},
		{"a denied host that another box translates", boxes("n: {preset: symmetric}, f: {preset: login-blocked, deny: a}", "login: {behind: n}, a: {behind: n}", ""),
			"f.yaml:3:42: preset login-blocked denies a host: host \"login\" is behind n, whose address is all that f sees of it; expected one that no box translates, or both behind n\nf.yaml:3:57: host \"a\" is behind n"},
		{"a host that a box is changed to deny", boxes("n: {preset: symmetric}", "a: {behind: n}", "change: {box: n, preset: symmetric, deny: [a]}"), "f.yaml:7:48: host \"a\" is behind n itself"},
		{"a denied host that another box comes to translate", boxes("n: {preset: open}, f: {preset: open, deny: a}", "a: {behind: n}", "change: {box: n, preset: symmetric}"),
			"f.yaml:7:5: f denies a host: host \"a\" is behind n, whose"},
		{"a change to what the translation that stays doesn't go with", boxes("n: {preset: symmetric, hairpin: true, filtering: address-dependent}", "a: {behind: n}", "change: {box: n, preset: stateful-firewall}"),
			"f.yaml:7:5: n goes on translating, and then: hairpin: true with mapping"},
		{"a change of what is there by then", boxes("n: {preset: open}", "a: {behind: n}", "change: {box: n, preset: symmetric, hairpin: true, filtering: address-dependent}\n  - change: {box: n, preset: stateful-firewall}"),
			"f.yaml:8:5: n goes on translating"},
		{"more hosts than blocks of ports", boxes("n: {preset: cgnat}", "a: {}, \"h[1-64]\": {behind: n}", ""),
			"f.yaml:3:6: 64 addresses in 10.0.1.0/24 need a block of 1024 ports each, and there are 63; expected fewer hosts there, or a smaller port_block"},
		{"more hosts than blocks in one of several networks", boxes("n: {preset: cgnat}, f: {preset: open, behind: n}", "a: {}, \"h[1-32]\": {behind: f}", ""),
			"f.yaml:3:6: 32 addresses in 10.0.2.0/24 need a block of 1024 ports each, and there are 63, or 31 for each of the 2 networks"},
		{"more boxes than blocks", boxes("n: {preset: cgnat}, b: {preset: symmetric, addresses: 64, behind: n}", "a: {behind: b}", ""), "f.yaml:3:6: 64 addresses in 10.0.1.0/24"},
		{"a change to blocks too few", boxes("n: {preset: open}", "a: {}, \"h[1-64]\": {behind: n}", "change: {box: n, preset: cgnat}"), "f.yaml:7:5: 64 addresses"},
		{"a box that is moved to where no block is", boxes("n: {preset: cgnat}, b: {preset: symmetric, addresses: 60, behind: n}", "a: {behind: b}", "readdress: {box: b}"),
			"f.yaml:3:6: 60 addresses in 10.0.1.0/24, and 60 that boxes there get anew"},
		{"more rules than the kernel takes", boxes("n: {preset: symmetric-sequential, addresses: 253}", "a: {behind: n}", ""), "f.yaml:3:6: rules to which the kernel's answers take"},
		{"zeros", box("preset: symmetric, udp_timeout: 0s, tcp_idle: 0s, udp_rate: 0, port_block: 0, addresses: 0"),
			"f.yaml:2:53: 0s; expected at least 1s, or no udp_timeout\nf.yaml:2:67: 0s; expected at least 1s, or no tcp_idle\nf.yaml:2:81: 0; expected at least 1, or no udp_rate\nf.yaml:2:96: 0; expected at least 1, or no port_block\nf.yaml:2:110: 0; expected at least 1, or no addresses"},
		{"blocks too small to measure", box("preset: cgnat, port_block: 63"), "f.yaml:2:48: 63 ports; expected 64 to 4096"},
		{"blocks too large to tell", box("preset: cgnat, port_block: 4097"), "f.yaml:2:48: 4097 ports"},
		{"a rate too low to measure", box("preset: symmetric, udp_rate: 2"), "f.yaml:2:50: 2 packets per second; expected at least 10"},
		{"a pool of one", box("preset: symmetric, pool: arbitrary"), "f.yaml:2:46: arbitrary, and there is nothing to choose from"},
		{"a firewall with a pool", box("preset: open, addresses: 4"), "f.yaml:2:46: 4 addresses of a box that doesn't translate"},
		{"settings of what is blocked", box("preset: udp-blocked, udp_rate: 90, udp_timeout: 9s, block: [tcp], tcp_idle: 9s"),
			"f.yaml:2:52: udp_rate means nothing with block: udp; expected one of them\nf.yaml:2:69: udp_timeout means nothing with block: udp; expected one of them\nf.yaml:2:97: tcp_idle means nothing with block: tcp"},
		{"outbound refreshing of what is blocked", box("preset: symmetric, refresh: outbound, block: [udp]"), "f.yaml:2:49: refresh means nothing with block: udp"},
		{"settings beside a proxy", box("preset: port-restricted, proxy: http-connect, hairpin: true, ports: random, refresh: both"),
			"f.yaml:2:76: hairpin means nothing with proxy: http-connect, since nothing else gets through the box; expected one of them\nf.yaml:2:89: ports means nothing with proxy: http-connect, since nothing else gets through the box; expected one of them\nf.yaml:2:106: refresh means"},
		{"a host that is denied twice", box("preset: open, deny: [a, \"a:tcp\", s, s]"), "f.yaml:2:45: \"a:tcp\" is denied by deny: \"a\" already; expected it once\nf.yaml:2:57: \"s\" is denied by deny: \"s\" already"},
		{"a host that the preset denies", box("preset: login-blocked, deny: \"login:tcp:80\""), "\"login:tcp:80\" is denied by preset login-blocked already"},
		{"a word for a path", "topology: {hosts: {a: {}, l: {}}}\nnodes: {a: {role: client}, l: {role: login}}\nsteps:\n  - login: [a]\n    expect: {path: straight}\n", "f.yaml:5:20: \"straight\"; expected direct"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := scenario.Parse("f.yaml", []byte(test.file))
			var mistakes scenario.Mistakes
			if !errors.As(err, &mistakes) {
				t.Fatalf("got %v, want mistakes", err)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
		})
	}
}

// box is a topology of one box, and hosts outside.
func box(settings string) string {
	return "topology:\n  middleboxes: {b: {" + settings + "}}\n  hosts: {a: {}, s: {}, login: {}, h: {behind: b}}\n"
}

// What is of a preset alone is no mistake, and may be lifted or tightened.
func TestPresetsSetOver(t *testing.T) {
	for _, settings := range []string{
		"preset: openwrt, block: [udp, tcp]", "preset: azure-load-balancer, block: [tcp]", "preset: azure-load-balancer, tcp_idle: 0s",
		"preset: login-blocked, deny: [login]", "preset: pf, proxy: http-connect", "preset: stateful-firewall, addresses: 1",
		"preset: symmetric, addresses: 2, pool: arbitrary", "preset: cgnat, port_block: 4096", "preset: cgnat, port_block: 64",
	} {
		if _, err := scenario.Parse("f.yaml", []byte(box(settings))); err != nil {
			t.Errorf("%s\n%v", settings, err)
		}
	}
	for _, preset := range middlebox.Presets() {
		if _, err := scenario.Parse("f.yaml", []byte(box("preset: "+preset))); err != nil {
			t.Errorf("%s\n%v", preset, err)
		}
	}
}

// A box may have as many hosts as blocks of ports.
func TestBlocks(t *testing.T) {
	for _, file := range []string{
		boxes("n: {preset: cgnat}", "\"h[1-63]\": {behind: n}", ""),
		boxes("n: {preset: cgnat, addresses: 32}", "a: {behind: n}", ""),
		boxes("n: {preset: port-restricted, hairpin: true, addresses: 253}", "a: {behind: n}", ""),
		boxes("n: {preset: cgnat, port_block: 64, addresses: 10}", "\"h[1-70]\": {behind: n}", ""),
	} {
		if _, err := scenario.Parse("f.yaml", []byte(file)); err != nil {
			t.Errorf("%s\n%v", file, err)
		}
	}
}

// Hosts are denied where the box sees their addresses.
func TestDenied(t *testing.T) {
	for _, file := range []string{
		boxes("n: {preset: symmetric}, f: {preset: stateful-firewall, behind: n, deny: [a]}", "a: {behind: n}, b: {behind: f}", ""),
		boxes("n: {preset: symmetric}, f: {preset: stateful-firewall, deny: [a]}", "a: {}, b: {behind: n}", ""),
		boxes("n: {preset: stateful-firewall}, f: {preset: symmetric, deny: [a]}", "a: {behind: n}, b: {behind: f}", ""),
	} {
		if _, err := scenario.Parse("f.yaml", []byte(file)); err != nil {
			t.Errorf("%s\n%v", file, err)
		}
	}
}

// boxes is a scenario of some boxes and hosts, and a step if there is one.
func boxes(middleboxes, hosts, step string) string {
	file := "topology:\n  middleboxes:\n    {" + middleboxes + "}\n  hosts: {" + hosts + "}\n"
	if step != "" {
		file += "nodes: {a: {role: client}}\nsteps:\n  - " + step + "\n"
	}
	return file
}

// event is a scenario whose call has something happen to it.
func event(during, after string) string {
	return "topology: {hosts: {a: {}, b: {}, s: {}}}\nnodes:\n  a: {role: client}\n  b: {role: client}\n  s: {role: supernode}\n" +
		"steps: [{call: {during: " + during + ", caller: a, callee: b}, expect: {signalling: {path: relayed}, media: {path: relayed}, " + after + "}}]\n"
}

// The uplinks of those whose packets will be lost are made so that they can be: of
// the node that is named, or of all that may carry a call.
func TestLossyLinks(t *testing.T) {
	for during, want := range map[string][]string{
		"{lose: {node: s, loss: 50%}}":        {"s"},
		"{lose: {node: b, loss: 50%}}":        {"b"},
		"{lose: {node: carrying, loss: 50%}}": {"s"},
		"{kill: {node: carrying}}":            nil,
	} {
		s, err := scenario.Parse("f.yaml", []byte(event(during, "after: {path: relayed}")))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range s.Topology.Description().Hosts {
			if h.Link.Varies {
				got = append(got, h.Name)
			}
		}
		if !cmp.Equal(got, want) {
			t.Errorf("%s: the links of %q vary, want %q", during, got, want)
		}
	}
}

func TestMistakesAllAtOnce(t *testing.T) {
	_, err := scenario.Parse("f.yaml", []byte(`topology:
  middleboxes:
    a: {preset: magic}
    b: {preset: symmetric, behind: c}
  hosts:
    h: {behind: d, colour: red}
nodes:
  x: {role: client}
steps:
  - search: {caller: y, callee: z}
    expect: {path: sideways}
    within: -1s
`))
	var mistakes scenario.Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatal(err)
	}
	var lines []int
	for _, m := range mistakes {
		if m.Column == 0 {
			t.Errorf("no column: %v", m)
		}
		lines = append(lines, m.Line)
	}
	if diff := cmp.Diff([]int{3, 4, 6, 6, 8, 10, 10, 11, 12}, lines); diff != "" {
		t.Errorf("lines: %s\n%v", diff, err)
	}
}

// A step that names no claims has none, whatever the file claims.
func TestNoClaims(t *testing.T) {
	s, err := scenario.Parse("f.yaml", []byte("claims: [P-C4]\ntopology: {hosts: {a: {}, l: {}}}\nnodes: {a: {role: client}, l: {role: login}}\nsteps:\n"+
		"  - {login: [a], claims: [], expect: {path: direct}}\n  - {login: [a], expect: {path: direct}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Claimed(&s.Steps[0]); len(got) != 0 {
		t.Errorf("no claims: %q", got)
	}
	if got := s.Claimed(&s.Steps[1]); len(got) != 1 {
		t.Errorf("the file's claims: %q", got)
	}
}

// What a file stops comes beside what the preset stops.
func TestBlockAndDenyAdd(t *testing.T) {
	udp := scenario.Overrides{Block: []middlebox.Protocol{"udp", "tcp"}, Deny: []string{"login:tcp", "x:udp:53"}}
	b, err := scenario.Behaviour("tcp-blocked", udp)
	if err != nil || len(b.Block) != 2 {
		t.Errorf("blocks %v, %v", b.Block, err)
	}
	b, err = scenario.Behaviour("login-blocked", udp)
	if err != nil || len(b.Deny) != 2 {
		t.Errorf("denies %v, %v", b.Deny, err)
	}
	if preset, _ := middlebox.Preset("tcp-blocked"); len(preset.Block) != 1 {
		t.Errorf("the preset itself has changed: %v", preset.Block)
	}
	_, err = scenario.Parse("f.yaml", []byte("topology:\n  middleboxes: {b: {preset: login-blocked}}\n  hosts: {a: {behind: b}}\n"))
	if err == nil || !strings.Contains(err.Error(), `f.yaml:2:29: preset login-blocked denies the host "login", which does not exist`) {
		t.Errorf("no login server: %v", err)
	}
}

// What all names of a range share is said once.
func TestMistakeOfRange(t *testing.T) {
	_, err := scenario.Parse("f.yaml", []byte("topology: {hosts: {\"a[1-1000]\": {behind: q}}}\n"))
	var mistakes scenario.Mistakes
	if !errors.As(err, &mistakes) || len(mistakes) != 1 {
		t.Errorf("%d mistakes, want 1", len(mistakes))
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.yaml")
	if _, err := scenario.Read(file); err == nil || err.Error() != file+": no such file" {
		t.Errorf("missing file: %v", err)
	}
	if _, err := scenario.Read(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a folder: %v", err)
	}
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := scenario.Read(file)
	if err != nil || s.Dir != dir {
		t.Errorf("%v, dir %q", err, s.Dir)
	}
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(elsewhere)
	if s, err := scenario.Read("../x.yaml"); err != nil || s.Dir != dir {
		t.Errorf("by a relative path: %v, dir %q", err, s.Dir)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("topology: {hosts: {\"a[1-3]\": {ip: [198.18.0.1]}}}"))
	f.Add([]byte("a: &x [*x]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := scenario.Parse("f.yaml", data)
		var mistakes scenario.Mistakes
		if err != nil && !errors.As(err, &mistakes) {
			t.Errorf("not mistakes: %v", err)
		}
		if err == nil && len(s.Topology.Hosts) == 0 {
			t.Error("accepted without a host")
		}
	})
}

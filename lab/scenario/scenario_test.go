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
		{"a long range", "topology:\n  hosts:\n    a[1-2000]: {}\n", "f.yaml:3:5: name \"a[1-2000]\": a range of 2000 names; expected at most 1024"},
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

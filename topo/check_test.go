package topo

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCheckFindsAllProblemsAtOnce(t *testing.T) {
	d := Description{
		Boxes: []BoxDescription{
			{Name: "a", Behind: "b"},
			{Name: "b", Behind: "c"},
			{Name: "c", Behind: "b"},
			{Name: "self", Behind: "self"},
			{Name: "home", Behind: "nowhere", Addresses: 254},
			{Name: "internet"},
			{Name: "home"},
		},
		Hosts: []HostDescription{
			{Name: "Alice"},
			{Name: "home"},
			{Name: "bob", Behind: "carol"},
			{Name: "carol", Behind: "a", IPs: addrs("198.18.5.5")},
			{Name: "dan", IPs: addrs("198.18.0.1")},
			{Name: "eve", IPs: addrs("198.18.9.9", "198.19.0.9", "198.18.9.9")},
			{Name: "fred", IPs: addrs("198.18.9.9"), Link: Link{Up: Shape{Loss: 1.5}, Down: Shape{Jitter: time.Second, Rate: 1}}},
		},
	}
	var got []string
	for _, p := range Check(d) {
		got = append(got, strings.Join(p.Path, ".")+": "+p.Message)
	}
	boxes := "a, b, c, self, home, internet, home"
	want := []string{
		`middleboxes.home.behind: no middlebox is named "nowhere"; expected one of ` + boxes,
		`middleboxes.home.addresses: 254 external addresses; expected 1 to 253`,
		`middleboxes.internet: name "internet" is already the internet's own name; expected a name of its own`,
		`middleboxes.home: name "home" is already a middlebox; expected a name of its own`,
		`hosts.Alice: name "Alice"; expected 1 to 32 characters of a-z, 0-9 and -`,
		`hosts.home: name "home" is already a middlebox; expected a name of its own`,
		`hosts.bob.behind: "carol" is a host, not a middlebox; expected one of ` + boxes,
		`hosts.fred.link: up: loss 1.5; expected 0 to 1 (100%)`,
		`hosts.fred.link: down: jitter 1s; expected at most the delay, 0s, since no packet arrives before it is sent`,
		`hosts.fred.link: down: rate 1 bit/s; expected 1000 to 10000000000`,
		`hosts.carol.ip: 198.18.5.5 given to a host behind "a"; expected no address there, since the plan gives hosts behind a middlebox theirs`,
		`hosts.dan.ip: address 198.18.0.1; expected one of 198.18.0.0/16 other than its first, its last and the gateway 198.18.0.1`,
		`hosts.eve.ip.1: address 198.19.0.9; expected one of 198.18.0.0/16 other than its first, its last and the gateway 198.18.0.1`,
		`hosts.eve.ip.2: address 198.18.9.9 is already host "eve"'s; expected an address of its own`,
		`hosts.fred.ip: address 198.18.9.9 is already host "eve"'s; expected an address of its own`,
		`middleboxes.b.behind: is behind itself: b -> c -> b; expected a way out to the internet`,
		`middleboxes.self.behind: is behind itself: self -> self; expected a way out to the internet`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	_, err := NewPlan(d)
	if err == nil {
		t.Fatal("NewPlan made a plan")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error of NewPlan lacks %q", w)
		}
	}
}

func TestCheckCounts(t *testing.T) {
	many := func(n int, behind string) (hosts []HostDescription) {
		for i := range n {
			hosts = append(hosts, HostDescription{Name: fmt.Sprintf("h%d", i), Behind: behind})
		}
		return hosts
	}
	// 64 boxes of 253 addresses, each a /22, are more than 198.19.0.0/16 less its
	// first /24 holds.
	exhausted := Description{}
	for i := range 64 {
		name := fmt.Sprintf("fw%d", i)
		exhausted.Boxes = append(exhausted.Boxes, BoxDescription{Name: name}, BoxDescription{Name: name + "-in", Behind: name, Translates: true, Addresses: 253}, BoxDescription{Name: name + "-more", Behind: name, Translates: true})
	}
	cases := []struct {
		name string
		d    Description
		want string
	}{
		{"internet full", Description{Hosts: many(1024, "")}, "hosts: on the internet, 1024 hosts and boxes are attached to it directly; expected at most 1023, the ports of a bridge"},
		{"LAN full", Description{Boxes: []BoxDescription{{Name: "a", Translates: true}}, Hosts: many(1024, "a")}, "middleboxes.a: 1024 hosts and boxes are attached to it directly; expected at most 1023, the ports of a bridge"},
		{"LANs exhausted", exhausted, "middleboxes.fw63: no /22 is left of 198.19.0.0/16 for its LAN; expected fewer or smaller LANs"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			problems := Check(c.d)
			if len(problems) != 1 {
				t.Fatalf("problems: %v, want one", problems)
			}
			if got := strings.Join(problems[0].Path, ".") + ": " + problems[0].Message; got != c.want {
				t.Errorf("problem %q, want %q", got, c.want)
			}
		})
	}
	for _, d := range []Description{{}, {Hosts: many(1023, "")}} {
		if problems := Check(d); len(problems) != 0 {
			t.Errorf("problems: %v, want none", problems)
		}
	}
}

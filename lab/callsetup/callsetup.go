// Package callsetup is where the time that a call takes to set up is measured:
// the internet in which different ways of doing it are compared.
//
// A comparison builds Topology with internet.Up, certifies it if it likes,
// starts what it compares in the namespaces of Caller and Callee, and takes the
// time from the callee's accepting to the first datagram that either of the two
// gets from the other.
package callsetup

import (
	"time"

	"gauntlet/lab/scenario"
)

// The hosts that every topology has, each behind a box of its own.
const (
	Caller = "alice"
	Callee = "bob"
)

// Box is the preset of both boxes: the strictest that two can punch through.
const Box = "port-restricted"

// Topology is two hosts behind a box each, and servers, such as "login" or
// "sn[1-12]", on the internet:
//
//	alice --- [port-restricted] ---+--- [port-restricted] --- bob
//	                               |
//	                             servers
//
// The round trip between any two of caller, callee and servers takes rtt: a
// quarter of it is each way's delay at the uplinks of boxes and servers, without
// jitter or loss. Hosts are on their box's LAN without delay.
func Topology(rtt time.Duration, servers ...string) scenario.Topology {
	var link *scenario.Link
	if rtt > 0 {
		link = &scenario.Link{Shape: scenario.Shape{Delay: rtt / 4}}
	}
	t := scenario.Topology{
		Middleboxes: scenario.Named[scenario.Middlebox]{
			{Name: "home-a", Value: scenario.Middlebox{Preset: Box, Link: link}},
			{Name: "home-b", Value: scenario.Middlebox{Preset: Box, Link: link}},
		},
		Hosts: scenario.Named[scenario.Host]{
			{Name: Caller, Value: scenario.Host{Behind: "home-a"}},
			{Name: Callee, Value: scenario.Host{Behind: "home-b"}},
		},
	}
	for _, name := range servers {
		t.Hosts = append(t.Hosts, scenario.Entry[scenario.Host]{Name: name, Value: scenario.Host{Link: link}})
	}
	return t
}

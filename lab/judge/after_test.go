package judge

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gauntlet/lab/certify"
	"gauntlet/lab/evidence"
	"gauntlet/lab/evidence/evidencetest"
	"gauntlet/lab/media"
	"gauntlet/lab/path"
	"gauntlet/lab/verdict"
)

const killed = `topology: {hosts: {alice: {}, bob: {}, sn1: {}, sn2: {}}}
nodes: {alice: {exec: [x]}, bob: {exec: [x]}, sn1: {exec: [x]}, sn2: {exec: [x]}}
steps:
  - call: {caller: alice, callee: bob, for: 5s, during: [{at: 2s, kill: {node: carrying}}]}
    expect:
      signalling: {path: relayed}
      media: {path: relayed, transport: tcp}
      after: {path: relayed, transport: tcp, gap: 500ms, moved: true}
`

// relayedCall is a call of two open hosts over two relays, with TCP.
type relayedCall struct {
	*evidencetest.Recording
	conns map[string]map[string]*evidencetest.Conn // by relay and end
	begun time.Time
	ticks int
}

// pass lets time pass, in which media goes over a relay, "" for none, and a
// standby message to each relay three times a second, unless both ends starve.
func (c *relayedCall) pass(d time.Duration, relay string, starve bool) {
	ends := []string{"alice", "bob"}
	for until := c.Now.Add(d); c.Now.Before(until); {
		next := c.Now.Add(time.Second / media.Rate)
		for n, end := range ends {
			if relay != "" {
				c.conns[relay][end].Send(end, media.PacketSize+media.Framing)
				c.conns[relay][ends[1-n]].Send(relay, media.PacketSize+media.Framing)
			}
			if c.ticks%(media.Rate/3) == 0 && !starve && relay != "sn2" {
				c.conns["sn2"][end].Send(end, 19)
			}
		}
		c.ticks++
		c.Now = next
	}
}

// An overlay that takes its time to go on after its relay has died over TCP, when
// nothing can be written any more, fails: its standby messages show that it did not
// starve. Whether one that says nothing at all did can't be told.
func TestDawdling(t *testing.T) {
	for _, test := range []struct {
		name         string
		gap          time.Duration
		starve       bool
		verdict, say string
	}{
		{"at once", 100 * time.Millisecond, false, verdict.Pass, "relayed"},
		{"dawdles", 650 * time.Millisecond, false, verdict.Fail, "expected a gap of 500ms at most, the wire shows 6"},
		{"starves", 650 * time.Millisecond, true, verdict.Inconclusive, "which sent nothing at all for so long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &relayedCall{conns: map[string]map[string]*evidencetest.Conn{}}
			addresses := map[string]string{"alice": "198.18.1.2", "bob": "198.18.1.3", "sn1": "198.18.0.11", "sn2": "198.18.0.12"}
			var hosts []evidence.Host
			for _, name := range []string{"alice", "bob", "sn1", "sn2"} {
				hosts = append(hosts, evidencetest.Host(name, addresses[name], ""))
			}
			c.Recording = evidencetest.New(t, evidence.World{Hosts: hosts})
			c.begun = c.Now
			for n, relay := range []string{"sn1", "sn2"} {
				c.conns[relay] = map[string]*evidencetest.Conn{}
				for _, end := range []string{"alice", "bob"} {
					to := netip.AddrPortFrom(netip.MustParseAddr(addresses[relay]), 5000)
					c.conns[relay][end] = c.Connect(end, uint16(4001+n), to)
				}
			}
			c.conns["sn1"]["alice"].Send("alice", 3000) // the subject of the call
			c.conns["sn1"]["bob"].Send("sn1", 3000)
			ex := evidence.Exchange{Caller: "alice", Callee: "bob", Since: c.begun, From: c.begun, To: c.Now, Payload: 3000}
			c.exchange(ex, "signalling")
			ex.From, ex.BothWays = c.Now, true
			c.pass(2*time.Second, "sn1", false)
			ex.To, ex.Payload = c.Now, loadBytes(c.Now.Sub(ex.From))
			c.exchange(ex, "media")
			ex.From = c.Now
			ex.Events = []evidence.Event{{Action: "kill", Target: "sn1", Began: c.Now, Done: c.Now}}
			for _, end := range []string{"alice", "bob"} {
				c.conns["sn1"][end].Close("sn1")
			}
			c.pass(test.gap, "", test.starve)
			c.pass(3*time.Second, "sn2", false)
			ex.To, ex.Payload = c.Now, loadBytes(c.Now.Sub(ex.From))
			c.exchange(ex, "after")

			dir := c.Write()
			d := Driven{Recorded: true, Stood: true}
			for n, part := range []string{"signalling", "media", "after"} {
				check := DrivenCheck{ID: "x/call/" + part, Exchange: n}
				if part == "after" {
					check.Claimed = &path.Record{Path: path.Relayed, Hops: 1, Relays: 1, Carrying: 1}
				}
				d.Checks = append(d.Checks, check)
			}
			for _, err := range []error{
				os.WriteFile(filepath.Join(dir, ScenarioFile), []byte(killed), 0o644),
				WriteDriven(dir, d), WriteJSON(dir, CertificatesFile, []certify.Certificate{}),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			judged, err := Scenario(dir, "x", "")
			if err != nil {
				t.Fatal(err)
			}
			for n, want := range []string{verdict.Pass, verdict.Pass, test.verdict} {
				if c := judged.Checks[n]; c.Verdict != want || n == 2 && !strings.Contains(c.Reason, test.say) {
					t.Errorf("%s: %s: %s; want %s: %s\n%+v", c.ID, c.Verdict, c.Reason, want, test.say, c.Media)
				}
			}
		})
	}
}

func (c *relayedCall) exchange(ex evidence.Exchange, part string) {
	ex.ID, ex.Function = "x/call/"+part, "call media"
	c.Exchange(ex)
}

// loadBytes is three quarters of what media takes in a time.
func loadBytes(d time.Duration) int64 {
	return int64(d.Seconds() * media.Rate * media.PacketSize * 3 / 4)
}

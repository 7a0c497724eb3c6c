package judge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gauntlet/lab/certify"
	"gauntlet/lab/evidence"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
	"gauntlet/middlebox"
)

// Canary is what the lab sent from a host through the boxes before it, to an
// address on the internet that nobody has: datagrams, each of a size that no
// other of the recording's canaries has.
type Canary struct {
	Host        string         `json:"host"`
	Boxes       []string       `json:"boxes"` // that it has to pass, innermost first
	Source      netip.AddrPort `json:"source"`
	Destination netip.AddrPort `json:"destination"`
	Sizes       []int          `json:"sizes"` // bytes of payload
	Sent        time.Time      `json:"sent"`
	// Step is the step after which it was sent, counted from 1, since that
	// changed Changed, one of Boxes; 0 and "" for one that was sent before all
	// steps.
	Step    int    `json:"step,omitempty"`
	Changed string `json:"changed,omitempty"`
}

// controls are those of one recording; none where nothing was recorded.
func (r *Recording) controls(checks []report.Check) []report.Control {
	if r.Evidence == nil {
		return nil
	}
	w := newWatch(r, checks)
	w.err = w.scan(filepath.Join(r.dir, evidence.CaptureFile))
	var all []report.Control
	for _, c := range r.Driven.Canaries {
		all = append(all, w.canary(c)...)
	}
	all = append(all, w.unsent()...)
	for n, c := range checks {
		if d := r.Driven.Checks[n]; c.Verdict == verdict.Pass && between(c.Observed) {
			all = append(all, w.silent(c, r.window(d)))
		}
	}
	return all
}

// between says whether no node stands between the ends of the path.
func between(p *path.Record) bool {
	return p != nil && (p.Path == path.Direct || p.Path == path.Reversed || p.Path == path.Punched)
}

// watch counts packets by the taps that saw them, without joining anything: the
// controls are of the joining too.
type watch struct {
	*Recording
	folder  string
	passed  map[string]map[int]int // canaries by tap and size
	sizes   map[int]netip.AddrPort // of the canaries, with the destination of each
	windows []window
	err     error
}

// window is an exchange whose relays must be silent.
type window struct {
	exchange evidence.Exchange
	caller   []netip.Addr // as anybody may see the caller
	callee   []netip.Addr
	brought  map[connection]int64
}

// connection is one between an end and another host, in one direction.
type connection struct {
	host      string
	transport string
	tuple     evidence.Tuple
}

func newWatch(r *Recording, checks []report.Check) *watch {
	w := &watch{
		Recording: r, folder: filepath.Base(r.dir),
		passed: map[string]map[int]int{}, sizes: map[int]netip.AddrPort{},
	}
	for _, c := range r.Driven.Canaries {
		for _, size := range c.Sizes {
			w.sizes[size] = c.Destination
		}
	}
	for n, c := range checks {
		if c.Verdict != verdict.Pass || !between(c.Observed) {
			continue
		}
		e := r.window(r.Driven.Checks[n])
		w.windows = append(w.windows, window{
			exchange: e, caller: r.addresses(e.Caller), callee: r.addresses(e.Callee), brought: map[connection]int64{},
		})
	}
	return w
}

// addresses are a host's own and those of all boxes before it.
func (r *Recording) addresses(host string) []netip.Addr {
	var all []netip.Addr
	if h := r.Evidence.World.Host(host); h != nil {
		all = append(all, h.Addresses...)
	}
	for _, box := range r.Evidence.World.Chain(host) {
		all = append(all, r.Evidence.World.Box(box).WAN...)
	}
	return all
}

// scan counts all packets of a capture. One that ends inside a packet counts up
// to there; that it does is a loss, which the evidence tells of.
func (w *watch) scan(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = evidence.ReadCapture(f, func(c evidence.CapturedPacket) error {
		if p, ok := evidence.ParseFrame(c.Data); ok {
			w.packet(c, p)
		}
		return nil
	})
	if len(w.Evidence.Losses.Reasons()) > 0 {
		return nil
	}
	return err
}

func (w *watch) packet(c evidence.CapturedPacket, p evidence.Packet) {
	if to, ok := w.sizes[p.Payload]; ok && p.Transport == evidence.UDP && p.Tuple.Dst == to {
		if w.passed[c.Tap] == nil {
			w.passed[c.Tap] = map[int]int{}
		}
		w.passed[c.Tap][p.Payload]++
		return
	}
	place, _, _ := strings.Cut(c.Tap, "/")
	host := w.Evidence.World.Host(place)
	if p.Payload == 0 || host == nil {
		return
	}
	src, dst := p.Tuple.Src.Addr(), p.Tuple.Dst.Addr()
	if !slices.Contains(host.Addresses, src) && !slices.Contains(host.Addresses, dst) {
		return // of others, where a bridge doesn't know yet who is at which port
	}
	for n := range w.windows {
		e := &w.windows[n]
		if place == e.exchange.Caller || place == e.exchange.Callee || c.Time.Before(e.exchange.From) || c.Time.After(e.exchange.To) {
			continue
		}
		there := slices.Contains(e.caller, src) || slices.Contains(e.callee, dst)
		back := slices.Contains(e.callee, src) || slices.Contains(e.caller, dst)
		if there || back && e.exchange.BothWays {
			e.brought[connection{host: place, transport: p.Transport, tuple: p.Tuple}] += int64(p.Payload)
		}
	}
}

// canary judges a canary at each of the boxes that it came to, or at the one
// that was changed before it was sent.
func (w *watch) canary(c Canary) (all []report.Control) {
	dropped := map[string]string{} // by box, the rule
	for _, f := range w.Evidence.All() {
		if f.A.Host == c.Host && f.A.Local == c.Source {
			for _, d := range f.Drops {
				dropped[d.Router] = d.Rule
			}
		}
	}
	for _, box := range c.Boxes {
		k := report.Control{Control: report.Canary, Scenario: w.folder, Subject: box, Step: c.Step, Verdict: verdict.Pass}
		in, out := w.count(box+"/lan", c), w.count(box+"/wan", c)
		rule, logged := dropped[box]
		switch {
		case out > 0:
			k.Observed = fmt.Sprintf("%d of %d went out", out, in)
		case logged:
			k.Observed = "dropped by " + rule
		default:
			k.Observed = "gone, and nothing logged"
		}
		blocks, err := w.blocks(box, c.Step)
		k.Expected = "let through"
		if blocks {
			k.Expected = "stopped and logged"
		}
		doubts := slices.Concat(w.Driven.Unsure, w.Evidence.Losses.Reasons(), certify.Failed(w.Certificates, []string{box}, c.Step+1))
		switch {
		case err != nil || w.err != nil:
			k.Verdict, k.Reason = verdict.Inconclusive, errors.Join(err, w.err).Error()
		case len(doubts) > 0:
			k.Verdict, k.Reason = verdict.Inconclusive, strings.Join(doubts, "; ")
		case in == 0 && w.held(c) != "":
			k.Verdict, k.Reason = verdict.Inconclusive, w.held(c)
		case in == 0: // it wasn't sent, or the box's own tap sees nothing
			k.Verdict, k.Reason = verdict.Fail, "no canary was seen to come to the box"
		case blocks && (out > 0 || !logged), !blocks && out == 0:
			k.Verdict, k.Reason = verdict.Fail, k.Observed
		}
		if c.Changed == "" || c.Changed == box {
			all = append(all, k)
		}
		if blocks || out == 0 {
			return all
		}
	}
	return all
}

// held says why a canary need not have come to a box in time, "" if it must have:
// the driving ended early, or a link on its way loses packets. One that was sent
// after a step may be the last packet of all, and a link may be slow.
func (w *watch) held(c Canary) string {
	if w.Driven.Broken != "" {
		return "the driving ended early: " + w.Driven.Broken
	}
	bad := func(s *scenario.Shape) bool {
		return s != nil && (s.Loss > 0 || c.Step > 0 && (s.Delay > 0 || s.Rate > 0))
	}
	host, _ := w.Scenario.Topology.Hosts.Get(c.Host)
	links := []*scenario.Link{host.Link}
	for _, box := range c.Boxes {
		b, _ := w.Scenario.Topology.Middleboxes.Get(box)
		links = append(links, b.Link)
	}
	varies := slices.ContainsFunc(w.Scenario.Steps, func(st scenario.Step) bool {
		return slices.ContainsFunc(st.Interventions(), func(v *scenario.Intervention) bool {
			return v.Lose != nil && (v.Target() == c.Host || v.Target() == scenario.Carrying)
		})
	})
	if varies || slices.ContainsFunc(links, func(l *scenario.Link) bool { return l != nil && (bad(&l.Shape) || bad(l.Up) || bad(l.Down)) }) {
		return "no canary came to the box, and a link on its way loses packets or is slow"
	}
	return ""
}

// unsent are the controls of boxes that a canary should have been sent through,
// as the lab begins or after a step changed one, and was not.
func (w *watch) unsent() (all []report.Control) {
	missing := func(box string, step int) {
		k := report.Control{
			Control: report.Canary, Scenario: w.folder, Subject: box, Step: step,
			Expected: "sent", Observed: "no canary", Verdict: verdict.Fail, Reason: "no canary was sent through the box",
		}
		if w.Driven.Broken != "" {
			k.Verdict, k.Reason = verdict.Inconclusive, "the driving ended early: "+w.Driven.Broken
		}
		sent := func(c Canary) bool {
			return c.Step == step && slices.Contains(c.Boxes, box) && (step == 0 || c.Changed == box)
		}
		if len(w.Evidence.World.HostsBehind(box)) > 0 && !slices.ContainsFunc(w.Driven.Canaries, sent) {
			all = append(all, k)
		}
	}
	for _, b := range w.Evidence.World.Boxes {
		missing(b.Name, 0)
	}
	for n, st := range w.Scenario.Steps {
		if st.Change != nil { // in a call, which may end before, the check after it says so
			missing(st.Change.Box, n+1)
		}
	}
	return all
}

// count is how many datagrams of a canary a tap saw.
func (w *watch) count(tap string, c Canary) (n int) {
	for _, size := range c.Sizes {
		n += w.passed[tap][size]
	}
	return n
}

// blocks says whether a box stops UDP after so many steps, as the scenario
// declares it.
func (w *watch) blocks(box string, steps int) (bool, error) {
	b, err := w.Scenario.BehaviourAfter(box, steps)
	if err != nil {
		return false, err
	}
	allowed := len(b.Allow) == 0
	for _, s := range b.Allow {
		allowed = allowed || s.Protocol == middlebox.UDP && (s.Port == 0 || s.Port == CanaryPort)
	}
	return slices.Contains(b.Block, middlebox.UDP) || b.Proxy != middlebox.NoProxy || !allowed, nil
}

// CanaryPort is where canaries are sent: discard, RFC 863.
const CanaryPort = 9

// silentShare is the part of the payload that a connection with a relay must
// stay below: what package path allows a flow that doesn't carry.
const silentShare = 4

// silent counts what relays carried in a check's window.
func (w *watch) silent(c report.Check, e evidence.Exchange) report.Control {
	i := slices.IndexFunc(w.windows, func(x window) bool { return x.exchange.ID == e.ID })
	brought := w.windows[i].brought
	var worst connection
	var most, sum int64
	hosts := map[string]bool{}
	for k, n := range brought {
		sum += n
		hosts[k.host] = true
		if n > most || n == most && k.host < worst.host {
			worst, most = k, n
		}
	}
	k := report.Control{
		Control: report.Silent, Scenario: w.folder, Subject: c.ID, Verdict: verdict.Pass,
		Expected: fmt.Sprintf("less than %d bytes over any other host", (e.Payload+silentShare-1)/silentShare),
		Observed: "0 bytes over other hosts",
	}
	if most > 0 {
		k.Observed = fmt.Sprintf("%d bytes with %d other hosts, at most %d on one connection (%s)", sum, len(hosts), most, worst.host)
	}
	switch {
	case w.err != nil:
		k.Verdict, k.Reason = verdict.Inconclusive, w.err.Error()
	case most*silentShare >= e.Payload:
		k.Verdict, k.Reason = verdict.Fail, k.Observed
	}
	return k
}

// The lab's own control scenario: a datagram from caller to callee, and another
// once the box between them has begun to block UDP. Both are expected to be
// direct, so that the second must fail.
const (
	ControlFolder   = "lab-control"
	ControlScenario = `name: the lab's own control, a direct path and the same path cut
topology:
  middleboxes: {wall: {preset: port-restricted}}
  hosts: {caller: {behind: wall}, callee: {}}
nodes: {caller: {exec: [the, lab, itself]}, callee: {exec: [the, lab, itself]}}
steps:
  - exchange: {function: datagram, caller: caller, callee: callee, payload: 901}
    expect: {path: direct, transport: udp}
  - change: {box: wall, preset: udp-blocked}
  - exchange: {function: datagram, caller: caller, callee: callee, payload: 907}
    expect: {path: direct, transport: udp}
`
)

// LabControl judges the folder of the lab's own control scenario. Its error is
// Scenario's.
func LabControl(dir string) ([]report.Control, error) {
	judged, err := Scenario(dir, ControlFolder, "")
	if fatal(err) {
		return nil, err
	}
	return []report.Control{CutControl(judged.Checks)}, err
}

// CutControl makes the control of the two checks of the control scenario.
func CutControl(checks []report.Check) report.Control {
	k := report.Control{
		Control: report.Cut, Scenario: ControlFolder, Subject: "a direct path",
		Expected: "pass while it is whole, fail once it is cut", Verdict: verdict.Pass,
	}
	if len(checks) != 2 {
		k.Verdict, k.Reason = verdict.Fail, fmt.Sprintf("%d checks; expected 2", len(checks))
		return k
	}
	tell := func(c report.Check) string {
		if c.Observed == nil {
			return c.Verdict + ", nothing seen"
		}
		return c.Verdict + ", " + report.Describe(*c.Observed)
	}
	whole, cut := checks[0], checks[1]
	k.Observed = fmt.Sprintf("whole: %s; cut: %s", tell(whole), tell(cut))
	if whole.Verdict != verdict.Pass {
		k.Verdict, k.Reason = verdict.Fail, "whole: "+whole.Reason
	} else if cut.Verdict != verdict.Fail || cut.Observed == nil || cut.Observed.Path != path.Failed {
		k.Verdict, k.Reason = verdict.Fail, "cut: "+cut.Reason
	}
	return k
}

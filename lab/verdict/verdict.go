package verdict

import (
	"fmt"
	"slices"
	"strings"

	"gauntlet/lab/evidence"
	"gauntlet/lab/media"
	"gauntlet/lab/path"
)

// The verdicts.
const (
	Pass         = "pass"
	Fail         = "fail"
	Inconclusive = "inconclusive"
	NotOffered   = "not-offered"
)

// Check is one function to be judged.
type Check struct {
	// Expected is what the scenario asks.
	Expected Expectation
	// Claimed is what the node says of its path, nil if it says nothing.
	Claimed *path.Record
	// NodeError is the error that the node reported, "" if it reported
	// success.
	NodeError string
	// NotOffered says that the node does not have the function.
	NotOffered bool
	// Unseen says what could not be seen for reasons outside the evidence,
	// one sentence each: a kernel feature that a link needs and that is
	// missing, a router that failed its certificate.
	Unseen []string
	// Evidence is what was recorded, Exchange the function in it, and Finding
	// the path that was found there.
	Evidence *evidence.Evidence
	Exchange evidence.Exchange
	Finding  path.Finding
	// Media is what was measured of a call's load, nil if nothing was; Before is
	// the path that it took until something was done to a relay, nil if nothing
	// was.
	Media  *media.Measure
	Before *path.Record
}

// Judge gives the verdict on a check and, in one sentence, its reason; a pass
// has the path as its reason. What decides, in this order: the function is not
// offered; something could not be seen; a gap after something was done is too long,
// and not the sender's own; the path can't be told; the wire shows another path than
// expected; the node claims another path than the wire shows; a flow pattern
// is not met; a gap may be the sender's own; the load is not as expected; the node's
// success or error contradicts the wire.
func Judge(c Check) (verdict, reason string) {
	if c.NotOffered {
		return NotOffered, "the node does not offer this function"
	}
	if reasons := c.unseen(); len(reasons) > 0 {
		return Inconclusive, some(reasons)
	}
	stream, wire := c.Expected.Stream, c.Finding.Record
	if len(c.Exchange.Events) > 0 && stream.paused(c.Media) == "" {
		// While the overlay looks for another path, flows carry by halves: a gap that
		// is too long is, over whichever they are.
		if problem := stream.late(c.Media); problem != "" {
			return Fail, problem
		}
	}
	if reasons := c.untold(); len(reasons) > 0 {
		return Inconclusive, some(reasons)
	}
	if !c.Expected.meets(wire) {
		reason := fmt.Sprintf("expected %s, the wire shows %s", c.Expected, describe(wire))
		if c.Claimed != nil && contradiction(*c.Claimed, wire) != "" {
			reason += "; the node claims " + describe(*c.Claimed)
		}
		return Fail, reason
	}
	if c.Claimed != nil {
		if difference := contradiction(*c.Claimed, wire); difference != "" {
			return Fail, difference
		}
	}
	if problem := unmet(c.Expected, c.Evidence, c.Exchange); problem != "" {
		return Fail, problem
	}
	if reason := stream.paused(c.Media); reason != "" {
		return Inconclusive, reason
	}
	if problem := stream.unmet(c.Media, c.Before, wire); problem != "" {
		return Fail, problem
	}
	switch failed := wire.Path == path.Failed; {
	case c.NodeError != "" && !failed:
		return Fail, fmt.Sprintf("the node reports an error (%s) but the wire shows %s", c.NodeError, describe(wire))
	case c.NodeError == "" && failed && c.Claimed == nil:
		return Fail, "the node reports success but the wire shows failed"
	}
	return Pass, describe(wire)
}

// unseen lists what of the check could not be seen.
func (c Check) unseen() []string {
	if c.Evidence == nil {
		return append(slices.Clone(c.Unseen), "there is no evidence")
	}
	return append(slices.Clone(c.Unseen), c.Evidence.Losses.Reasons()...)
}

// untold lists why the path can't be told from what was seen.
func (c Check) untold() (reasons []string) {
	if c.Finding.Inconclusive != "" {
		reasons = append(reasons, c.Finding.Inconclusive)
	}
	if c.Finding.Record.Path == path.Failed && c.Expected.Path == path.Failed && !c.attempted() {
		reasons = append(reasons, "nothing was tried: no packet left "+c.Exchange.Caller)
	}
	return reasons
}

// attempted says whether the caller sent anything at all in the window.
func (c Check) attempted() bool {
	return slices.ContainsFunc(c.Evidence.Flows(c.Exchange.From, c.Exchange.To), func(f *evidence.Flow) bool {
		return f.OutOf(c.Exchange.Caller).SentPackets > 0
	})
}

// some joins the first few reasons.
func some(reasons []string) string {
	const most = 3
	if len(reasons) > most {
		return fmt.Sprintf("%s; and %d more", strings.Join(reasons[:most], "; "), len(reasons)-most)
	}
	return strings.Join(reasons, "; ")
}

// contradiction says where a claim differs from the wire, "" if it does not.
// Of a leg the node may leave out the hosts that it does not know.
func contradiction(claimed, wire path.Record) string {
	differ := claimed.Path != wire.Path
	if !differ && wire.Path != path.Failed {
		differ = claimed.Hops != wire.Hops || claimed.Carrying != wire.Carrying || claimed.Relays != wire.Relays
	}
	if differ {
		return fmt.Sprintf("the node claims %s but the wire shows %s", describe(claimed), describe(wire))
	}
	for _, leg := range claimed.Legs {
		if !slices.ContainsFunc(wire.Legs, func(w path.Leg) bool {
			return leg.Transport == w.Transport && (leg.From == "" || leg.From == w.From) && (leg.To == "" || leg.To == w.To)
		}) {
			return fmt.Sprintf("the node claims a leg %s but the wire shows %s", describeLeg(leg), describe(wire))
		}
	}
	return ""
}

// describe writes a record as part of a sentence.
func describe(r path.Record) string {
	var b strings.Builder
	b.WriteString(r.Path)
	if r.Path == path.Failed {
		return b.String()
	}
	var about []string
	if r.Path == path.Relayed {
		about = append(about, plural(r.Hops, "hop"))
	}
	if r.Relays > 0 {
		about = append(about, fmt.Sprintf("%s, %d carrying", plural(r.Relays, "relay"), r.Carrying))
	}
	for _, leg := range r.Legs {
		about = append(about, describeLeg(leg))
	}
	if len(about) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(about, ", "))
	}
	return b.String()
}

func describeLeg(l path.Leg) string {
	name := func(host string) string {
		if host == "" {
			return "?"
		}
		return host
	}
	return fmt.Sprintf("%s -> %s over %s", name(l.From), name(l.To), l.Transport)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

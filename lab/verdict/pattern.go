package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gauntlet/lab/evidence"
)

// FlowPattern describes flows of an exchange, TCP connections that are new in it
// and UDP flows that have packets in it, and says how many there must be and
// what became of them between the exchange's beginning and its window's end. Where no number is asked at all, there must be one flow at
// least.
type FlowPattern struct {
	// From is who sent the flow's first packet, To whom that was meant for: the
	// name of a host or a role of its nodes. Empty means anybody. A packet that
	// reached nobody was meant for all hosts behind the address it was sent to.
	// Of a UDP flow that is older than the exchange, it is the first packet in
	// the window.
	From string `yaml:"from,omitempty" json:"from,omitempty"`
	To   string `yaml:"to,omitempty" json:"to,omitempty"`
	// Transport is udp or tcp, empty for either.
	Transport string `yaml:"transport,omitempty" json:"transport,omitempty" jsonschema:"enum=udp,enum=tcp"`
	// Port is the port that the first packet was sent to, 0 for any.
	Port int `yaml:"port,omitempty" json:"port,omitempty" jsonschema:"minimum=0,maximum=65535"`
	// As gives a name to the host that the pattern's first flow was meant for,
	// and Except leaves out the flows from or towards the host that an earlier
	// pattern named so: "a supernode other than the one held".
	As     string `yaml:"as,omitempty" json:"as,omitempty"`
	Except string `yaml:"except,omitempty" json:"except,omitempty"`
	// Flows is how many flows match, Peers how many different hosts they were
	// meant for.
	Flows Count `yaml:"flows,omitempty" json:"flows,omitzero"`
	Peers Count `yaml:"peers,omitempty" json:"peers,omitzero"`
	// Opened is how many TCP connections were established, Left how many of
	// them are still open at the end.
	Opened Count `yaml:"opened,omitempty" json:"opened,omitzero"`
	Left   Count `yaml:"left,omitempty" json:"left,omitzero"`
	// Delivered is how many of the flows' packets, of both directions, arrived
	// at the other end, Dropped how many boxes dropped.
	Delivered Count `yaml:"delivered,omitempty" json:"delivered,omitzero"`
	Dropped   Count `yaml:"dropped,omitempty" json:"dropped,omitzero"`
}

func (p FlowPattern) validate(named map[string]bool) []error {
	var errs []error
	if err := checkTransport(p.Transport); err != nil {
		errs = append(errs, err)
	}
	if p.Port < 0 || p.Port > 65535 {
		errs = append(errs, fmt.Errorf("port %d: expected 1 to 65535, or 0 for any", p.Port))
	}
	if p.Transport == evidence.UDP && (p.Opened.Asked() || p.Left.Asked()) {
		errs = append(errs, fmt.Errorf("opened and left are of TCP connections, and the transport is udp"))
	}
	switch {
	case p.Except == "":
	case p.Except == p.As:
		errs = append(errs, errSame)
	case !named[p.Except]:
		errs = append(errs, fmt.Errorf("except %q: expected the name that an earlier flow has in as", p.Except))
	}
	return errs
}

// seenFlows is what matched a pattern.
type seenFlows struct {
	first                                          time.Time
	peer                                           string
	flows, peers, opened, left, delivered, dropped int
}

// match counts the flows that match. names are the hosts named so far.
func (p FlowPattern) match(w *evidence.World, flows []*evidence.Flow, names map[string]string) seenFlows {
	var s seenFlows
	peers := map[string]bool{}
	for _, f := range flows {
		peer, ok := p.matches(w, f, names[p.Except])
		if !ok {
			continue
		}
		if s.flows++; s.flows == 1 {
			s.first, s.peer = f.Began, peer
		}
		peers[peer] = true
		if f.Transport == evidence.TCP && !f.Opened.IsZero() {
			s.opened++
			if f.Closed.IsZero() {
				s.left++
			}
		}
		s.delivered += f.Forward.ReceivedPackets + f.Backward.ReceivedPackets
		s.dropped += len(f.Drops)
	}
	s.peers = len(peers)
	return s
}

// matches says whether a flow matches, and the host it was meant for: the
// first that To names.
func (p FlowPattern) matches(w *evidence.World, f *evidence.Flow, except string) (peer string, ok bool) {
	initiator, toward, port := f.Initiator(), f.Toward, f.B.Seen.Port()
	if f.Turned && f.Transport == evidence.UDP {
		initiator, toward, port = f.B.Host, []string{f.A.Host}, f.A.Seen.Port()
	}
	if p.Transport != "" && p.Transport != f.Transport || p.Port != 0 && p.Port != int(port) || except != "" && initiator == except {
		return "", false
	}
	if p.From != "" {
		from := w.Host(initiator)
		if from == nil || !from.Is(p.From) {
			return "", false
		}
	}
	i := slices.IndexFunc(toward, func(name string) bool {
		h := w.Host(name)
		return h != nil && (p.To == "" || h.Is(p.To)) && (except == "" || name != except)
	})
	switch {
	case i >= 0:
		return toward[i], true
	case p.To == "" && len(toward) == 0:
		return f.B.Seen.Addr().String(), true
	}
	return "", false
}

// unmet names what of the pattern does not hold, "" if all does.
func (p FlowPattern) unmet(s seenFlows) string {
	asked := []struct {
		name string
		want Count
		have int
	}{
		{"flows", p.Flows, s.flows}, {"peers", p.Peers, s.peers}, {"opened", p.Opened, s.opened},
		{"left", p.Left, s.left}, {"delivered", p.Delivered, s.delivered}, {"dropped", p.Dropped, s.dropped},
	}
	any := false
	for _, a := range asked {
		any = any || a.want.Asked()
		if !a.want.Holds(a.have) {
			return fmt.Sprintf("expected %s %s, the wire shows %d", a.name, a.want, a.have)
		}
	}
	if !any && s.flows == 0 {
		return "expected at least one, the wire shows none"
	}
	return ""
}

// String names the flows that the pattern is about.
func (p FlowPattern) String() string {
	var b strings.Builder
	if p.Transport != "" {
		b.WriteString(p.Transport + " ")
	}
	b.WriteString("flows")
	if p.From != "" {
		b.WriteString(" from " + p.From)
	}
	if p.To != "" {
		b.WriteString(" to " + p.To)
	}
	if p.Port != 0 {
		fmt.Fprintf(&b, " port %d", p.Port)
	}
	if p.Except != "" {
		b.WriteString(" except " + p.Except)
	}
	return b.String()
}

// unmet says in a sentence which flow pattern does not hold, "" if all do.
func unmet(e Expectation, ev *evidence.Evidence, ex evidence.Exchange) string {
	if len(e.Flows) == 0 {
		return ""
	}
	since := ex.Since
	if since.IsZero() || since.After(ex.From) {
		since = ex.From
	}
	flows := slices.DeleteFunc(ev.Flows(since, ex.To), func(f *evidence.Flow) bool {
		return f.Transport == evidence.TCP && f.First.Before(since)
	})
	names := map[string]string{}
	var before FlowPattern
	var last time.Time
	for _, p := range e.Flows {
		s := p.match(&ev.World, flows, names)
		if problem := p.unmet(s); problem != "" {
			return fmt.Sprintf("%s: %s", p, problem)
		}
		if s.flows == 0 {
			continue
		}
		if p.As != "" {
			names[p.As] = s.peer
		}
		if e.Ordered && s.first.Before(last) {
			return fmt.Sprintf("expected %s before %s, the wire shows them %v later",
				before, p, last.Sub(s.first).Round(time.Microsecond))
		}
		before, last = p, s.first
	}
	return ""
}

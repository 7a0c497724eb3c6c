package path

import (
	"slices"

	"gauntlet/lab/evidence"
)

// maxDropNotes bounds the drops that are told one by one.
const maxDropNotes = 8

// between says whether a flow is, or was meant to be, one between the two ends.
func (f *finder) between(flow *evidence.Flow) bool {
	a, b := f.ex.Caller, f.ex.Callee
	if flow.Between(a, b) {
		return true
	}
	return flow.B.Host == "" &&
		(flow.A.Host == a && slices.Contains(flow.Toward, b) || flow.A.Host == b && slices.Contains(flow.Toward, a))
}

// maxDrops bounds the drops that a finding has.
const maxDrops = 64

// dropped is a packet with the flow that it is of.
type dropped struct {
	evidence.Drop
	flow *evidence.Flow
}

// drops returns the packets between the two ends that boxes dropped since the
// function began, and how many more there are than may be told. Of a function
// that failed without any, they are those of either end.
func (f *finder) drops() (list []Drop, more int) {
	all := f.dropsOf(f.between)
	if len(all) == 0 && f.found.Record.Path == Failed {
		all = f.dropsOf(func(flow *evidence.Flow) bool {
			return slices.ContainsFunc([]string{f.ex.Caller, f.ex.Callee}, func(end string) bool {
				_, is := flow.End(end)
				return is || flow.B.Host == "" && slices.Contains(flow.Toward, end)
			})
		})
	}
	if len(all) > maxDrops {
		all, more = all[:maxDrops], len(all)-maxDrops
	}
	for _, d := range all {
		list = append(list, Drop{
			Offset: d.Time.Sub(f.ex.Since).Seconds(), From: d.From, To: d.to(),
			Transport: d.flow.Transport, Source: d.Source.String(), Destination: d.Destination.String(),
			Router: d.Router, Rule: d.Rule, LetIn: f.letIn(d),
		})
	}
	return list, more
}

func (f *finder) dropsOf(wanted func(*evidence.Flow) bool) (all []dropped) {
	for _, flow := range f.all {
		if wanted(flow) {
			for _, d := range flow.Drops {
				all = append(all, dropped{d, flow})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b dropped) int { return a.Time.Compare(b.Time) })
	return all
}

// to is the host that the packet was meant for, "" if there are several.
func (d dropped) to() string {
	switch {
	case d.From == "":
		return ""
	case d.flow.Peer(d.From) != "":
		return d.flow.Peer(d.From)
	case d.From == d.flow.A.Host && len(d.flow.Toward) == 1:
		return d.flow.Toward[0]
	}
	return ""
}

// noteDrops tells for each flow between the two ends what became of its first
// dropped packet.
func (f *finder) noteDrops() {
	told := 0
	for _, flow := range f.all {
		if !f.between(flow) || len(flow.Drops) == 0 {
			continue
		}
		if told++; told > maxDropNotes {
			f.note("and more flows with dropped packets")
			return
		}
		d := flow.Drops[0]
		f.note("%s: %d dropped, the first of %s at %s by %s: %s", flow, len(flow.Drops), or(d.From, "nobody known"), d.Router, d.Rule, f.letIn(dropped{d, flow}))
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

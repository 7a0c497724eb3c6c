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

// drops returns the packets between the two ends that boxes dropped since the
// function began.
func (f *finder) drops() []evidence.Drop {
	var all []evidence.Drop
	for _, flow := range f.all {
		if f.between(flow) {
			all = append(all, flow.Drops...)
		}
	}
	slices.SortStableFunc(all, func(a, b evidence.Drop) int { return a.Time.Compare(b.Time) })
	return all
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
		f.note("%s: %d dropped, the first of %s at %s by %s", flow, len(flow.Drops), or(d.From, "nobody known"), d.Router, d.Rule)
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

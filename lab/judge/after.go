package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gauntlet/lab/evidence"
	"gauntlet/lab/media"
	"gauntlet/lab/path"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

// settledShare is the part of the time after an event, at its end, in which media
// must have gone over one path: a quarter.
const settledShare = 4

// window is the part of a check's exchange in which its path is looked for. After
// an event that is the time from when media went over no other flows any more than
// it did in the end; the payload is as much less.
func (r *Recording) window(d DrivenCheck) evidence.Exchange {
	ex := r.Evidence.Exchanges[d.Exchange]
	if len(ex.Events) == 0 {
		return ex
	}
	settled := media.Settled(r.Evidence, ex)
	whole := ex.To.Sub(ex.From)
	if !settled.After(ex.From) || whole <= 0 {
		return ex
	}
	ex.Payload = int64(float64(ex.Payload) * float64(ex.To.Sub(settled)) / float64(whole))
	ex.From = settled
	return ex
}

// after adds what is judged of media after something was done: where it went
// before, and whether it was the relay that carried that something was done to. It
// returns that media hasn't settled on a path since, "" if it has.
func (r *Recording) after(v *verdict.Check, d DrivenCheck) (problem string) {
	whole := r.Evidence.Exchanges[d.Exchange]
	n := slices.IndexFunc(r.Driven.Checks, func(c DrivenCheck) bool { return c.ID == d.ID })
	before := r.Driven.Checks[n-1] // the check of the media until then
	if len(whole.Events) == 0 || before.Exchange == NotDriven {
		return ""
	}
	found := path.Find(r.Evidence, r.Evidence.Exchanges[before.Exchange])
	v.Before = &found.Record
	if found.Inconclusive != "" {
		v.Unseen = append(v.Unseen, "where media went before can't be told: "+found.Inconclusive)
	}
	if e, ok := r.meant(d.ID, whole); ok && !slices.Contains(found.Record.RelayNames(), e.Target) {
		v.Unseen = append(v.Unseen, fmt.Sprintf("%s of %s: the relays that carried then were %s", e.Action, e.Target, strings.Join(found.Record.RelayNames(), ", ")))
	}
	if late := v.Exchange.From.Sub(whole.From); late*settledShare > whole.To.Sub(whole.From)*(settledShare-1) {
		return fmt.Sprintf("media still went over another path %v before the end", whole.To.Sub(v.Exchange.From).Round(time.Millisecond))
	}
	return ""
}

// meant is the first event of those during a call that was done to whichever relay
// carried.
func (r *Recording) meant(id string, ex evidence.Exchange) (evidence.Event, bool) {
	for i, planned := range Plan(r.Scenario) {
		if !slices.ContainsFunc(planned, func(p Planned) bool { return p.Check.ID == id }) {
			continue
		}
		for n, e := range r.Scenario.Steps[i].Call.During {
			if n < len(ex.Events) && e.Target() == scenario.Carrying {
				return ex.Events[n], n == 0
			}
		}
	}
	return evidence.Event{}, false
}

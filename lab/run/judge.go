package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gauntlet/lab/certify"
	"gauntlet/lab/evidence"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
	"gauntlet/lab/verdict"
)

// evidenceFiles are what a report keeps of each scenario.
var evidenceFiles = []string{
	evidence.WorldFile, evidence.CaptureFile, evidence.ConntrackFile,
	evidence.DropsFile, evidence.LossesFile, evidence.ExchangesFile, certificatesFile,
}

// judge reads the recording back and gives every check its verdict. broken is
// why the driving ended early, if it did.
func (r *single) judge(dir string, broken error) []report.Check {
	ev, err := evidence.Read(dir)
	var checks []report.Check
	for _, d := range slices.Concat(r.planned...) {
		c := d.check
		switch {
		case d.claim.NotOffered:
			c.Verdict, c.Reason = verdict.NotOffered, "the node does not offer it"
		case d.exchange == notDriven && d.problem == "" && len(r.nodes.running) == 0:
			c.Verdict, c.Reason = verdict.Inconclusive, fmt.Sprintf("the lab does not stand: %v", broken)
		case d.exchange == notDriven && d.problem == "":
			c = failed(c, "not driven: %v", broken)
		case d.exchange == notDriven:
			c = failed(c, "%s", d.problem)
		case err != nil:
			c.Verdict, c.Reason = verdict.Inconclusive, "the evidence can't be read: "+err.Error()
		default:
			c = r.verdict(ev, d, c)
		}
		if r.options.Report != "" && d.exchange >= 0 {
			for _, f := range evidenceFiles {
				c.Evidence = append(c.Evidence, filepath.Join(r.name, f))
			}
		}
		checks = append(checks, c)
	}
	return checks
}

func (r *single) verdict(ev *evidence.Evidence, d *driven, c report.Check) report.Check {
	v := d.claim
	v.Expected, v.Evidence, v.Exchange = c.Expected, ev, r.exchanges[d.exchange]
	v.Finding = path.Find(ev, v.Exchange)
	hosts := []string{d.caller, d.callee}
	for _, leg := range v.Finding.Record.Legs {
		hosts = append(hosts, leg.From, leg.To)
	}
	v.Unseen = slices.Concat(v.Unseen, r.unsure, r.uncertified(hosts))
	c.Observed, c.Claimed, c.Notes = &v.Finding.Record, v.Claimed, v.Finding.Notes
	if d.problem != "" { // whatever could be seen
		return failed(c, "%s", d.problem)
	}
	c.Verdict, c.Reason = verdict.Judge(v)
	if v.NodeError != "" {
		c.Reason += "; the node says: " + v.NodeError
	}
	return c
}

// uncertified says why the boxes in front of some hosts can't be relied on, none
// if all of them are what they say.
func (r *single) uncertified(hosts []string) []string {
	var boxes []string
	for _, host := range hosts {
		boxes = append(boxes, r.internet.Plan.Chain(host)...)
	}
	return certify.Failed(r.certificates, boxes)
}

// silent is the end of a node's log where the node gave no answer in time; the
// errors of a broken stream hold it already.
func (r *single) silent(node string, err error) string {
	if strings.Contains(err.Error(), "on stderr") || errors.Is(err, context.Canceled) {
		return ""
	}
	return r.nodes.tail(node)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

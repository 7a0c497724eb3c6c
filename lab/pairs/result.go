package pairs

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"gauntlet/lab/oracle"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
	"gauntlet/lab/verdict"
)

// Results are a run's, with the cells beside the checks.
type Results struct {
	report.Results
	Pairs []Result `json:"pairs"`

	table *Table
}

// Result is a cell after its call.
type Result struct {
	Caller   string        `json:"caller"`
	Callee   string        `json:"callee"`
	Expected *oracle.Route `json:"expected"` // of media; nil where several paths are right
	Observed *path.Record  `json:"observed"`
	Theory   oracle.Theory `json:"theory"`
	// Verdict is the worse one of media and signalling, Reasons are those of
	// what did not pass.
	Verdict string   `json:"verdict"`
	Reasons []string `json:"reasons,omitempty"`
}

// Results puts the checks of a run into the table. The names of the checks lose
// the number of the lab that they were driven in, and come in the table's order.
func (t *Table) Results(r report.Results) (Results, error) {
	out := Results{Results: r, table: t}
	byID := map[string]*report.Check{}
	for i := range r.Checks {
		byID[r.Checks[i].ID] = &r.Checks[i]
	}
	out.Checks = nil
	for _, c := range r.Checks {
		if c.Function == "login" {
			c.ID = ID + strings.TrimPrefix(c.ID, c.Scenario)
			out.Checks = append(out.Checks, c)
		}
	}
	for _, cell := range t.Cells {
		one := Result{Caller: cell.Caller, Callee: cell.Callee, Expected: cell.Expected, Theory: cell.Theory}
		for _, part := range []string{"signalling", "media"} {
			c := byID[cell.lab+"/"+cell.Name()+"/"+part]
			if c == nil {
				return Results{}, fmt.Errorf("pairs: no check of the %s of %s", part, cell.Name())
			}
			judged := *c
			judged.ID = ID + "/" + cell.Name() + "/" + part
			out.Checks = append(out.Checks, judged)
			if part == "media" {
				one.Observed = judged.Observed
			}
			if one.Verdict == "" || worse(judged.Verdict, one.Verdict) {
				one.Verdict = judged.Verdict
			}
			if judged.Verdict != verdict.Pass {
				one.Reasons = append(one.Reasons, part+": "+judged.Reason)
			}
		}
		out.Pairs = append(out.Pairs, one)
	}
	out.Run.Verdicts = report.Count(out.Checks)
	return out, nil
}

// worse says whether one verdict weighs more than another.
func worse(a, b string) bool {
	order := []string{verdict.Pass, verdict.NotOffered, verdict.Inconclusive, verdict.Fail}
	return slices.Index(order, a) > slices.Index(order, b)
}

// WriteJSON writes the results for programs.
func (r Results) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the table for a person: in each cell what is expected above
// what was observed, and below the table why each cell differs that does.
func (r Results) WriteTable(w io.Writer, colour bool) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options.SeparateRows = true
	t.Style().Format.Header = text.FormatDefault
	header := table.Row{"caller \\ callee"}
	for _, label := range r.table.Callees {
		header = append(header, label)
	}
	t.AppendHeader(header)
	for _, caller := range r.table.Callers {
		row := table.Row{caller}
		for _, callee := range r.table.Callees {
			i := slices.IndexFunc(r.Pairs, func(p Result) bool { return p.Caller == caller && p.Callee == callee })
			if i < 0 {
				row = append(row, "")
				continue
			}
			row = append(row, r.Pairs[i].text(colour))
		}
		t.AppendRow(row)
	}
	fmt.Fprintln(w, t.Render())
	fmt.Fprintln(w, "in each cell: what is expected, and below it what the wire showed; = as expected, ! otherwise, ? could not be told")
	r.writeDifferences(w)
	r.WriteLimits(w)
	n := map[string]int{}
	for _, p := range r.Pairs {
		n[p.Verdict]++
	}
	fmt.Fprintf(w, "%d pairs in %.1f s: %d as expected, %d differ, %d inconclusive, %d not offered\n",
		len(r.Pairs), r.Run.Seconds, n[verdict.Pass], n[verdict.Fail], n[verdict.Inconclusive], n[verdict.NotOffered])
}

// text is a cell.
func (p Result) text(colour bool) string {
	expected, observed := p.Theory.Media.String(), "-"
	if p.Expected != nil {
		expected = short(p.Expected.Path, p.Expected.Transports)
	}
	if p.Observed != nil {
		var transports []string
		for _, leg := range p.Observed.Legs {
			transports = append(transports, leg.Transport)
		}
		observed = short(p.Observed.Path, transports)
	}
	mark, paint := "? ", text.FgYellow
	switch p.Verdict {
	case verdict.Pass:
		mark, paint = "= ", text.FgGreen
	case verdict.Fail:
		mark, paint = "! ", text.FgRed
		observed = strings.ToUpper(observed)
	}
	if colour {
		return expected + "\n" + paint.Sprint(mark+observed)
	}
	return expected + "\n" + mark + observed
}

// short writes a path for a cell. UDP goes without saying, except on relays.
func short(kind string, transports []string) string {
	legs := slices.Clone(transports)
	if kind != path.Relayed {
		legs = slices.Compact(legs)
		if len(legs) == 1 && legs[0] == "udp" {
			return kind
		}
	}
	if len(legs) == 0 {
		return kind
	}
	return kind + " " + strings.Join(legs, "+")
}

// writeDifferences tells of everything that did not pass, what has one reason
// together, and of each cell that differs what theory says.
func (r Results) writeDifferences(w io.Writer) {
	var reasons []string
	names := map[string][]string{}
	for _, c := range r.Checks {
		if c.Verdict == verdict.Pass || c.Verdict == verdict.NotOffered {
			continue
		}
		reason := c.Verdict + ": " + c.Reason
		if names[reason] == nil {
			reasons = append(reasons, reason)
		}
		names[reason] = append(names[reason], c.ID)
	}
	for _, reason := range reasons {
		fmt.Fprintf(w, "%s: %s\n", few(names[reason]), reason)
	}
	for _, p := range r.Pairs {
		if p.Verdict != verdict.Fail {
			continue
		}
		fmt.Fprintf(w, "theory of %s-%s: %s, because\n", p.Caller, p.Callee, p.Theory.Media)
		for _, line := range p.Theory.Media.Reasoning {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
}

// few joins the first names.
func few(names []string) string {
	const most = 4
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// WriteTheory writes how theory comes to the path of each function of a pair.
func WriteTheory(w io.Writer, t oracle.Theory) {
	for _, f := range []struct {
		name string
		of   oracle.Function
	}{{"call media", t.Media}, {"call signalling", t.Signalling}, {"search", t.Search}, {"login of the caller", t.CallerLogin}, {"login of the callee", t.CalleeLogin}} {
		fmt.Fprintf(w, "%s: %s\n", f.name, f.of)
		if f.of.Why != "" {
			fmt.Fprintf(w, "  (%s)\n", f.of.Why)
		}
		for _, line := range f.of.Reasoning {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}

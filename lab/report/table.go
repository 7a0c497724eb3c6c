package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"gauntlet/lab/path"
	"gauntlet/lab/verdict"
)

// marks are the verdicts as the table shows them.
var marks = map[string]struct {
	word   string
	colour text.Color
}{
	verdict.Pass:         {"pass", text.FgGreen},
	verdict.Fail:         {"FAIL", text.FgRed},
	verdict.Inconclusive: {"inconclusive", text.FgYellow},
	verdict.NotOffered:   {"not offered", text.FgHiBlack},
}

// WriteTable writes the checks for a person, the reasons of those that did not
// pass below it, and a line that counts.
func (r Results) WriteTable(w io.Writer, colour bool) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options.SeparateRows = false
	t.Style().Format.Header = text.FormatLower
	header := table.Row{"check", "claim", "caller's box", "callee's box", "on the wire", "verdict", "s"}
	repeated := r.Run.Repeat > 1
	if repeated {
		header = append(header, "passed (95 %), first/best path")
	}
	t.AppendHeader(header)
	scenario := ""
	for _, c := range r.Checks {
		if scenario != "" && c.Scenario != scenario {
			t.AppendSeparator()
		}
		scenario = c.Scenario
		m := marks[c.Verdict]
		word := m.word
		if colour {
			word = m.colour.Sprint(word)
		}
		wire := "-"
		if c.Observed != nil {
			wire = Describe(*c.Observed)
		}
		if c.Media != nil {
			wire += fmt.Sprintf(", gap %.0f ms", 1000*c.Media.Gap)
		}
		row := table.Row{c.ID, strings.Join(c.Claims, " "), c.CallerBox, c.CalleeBox, wire, word, fmt.Sprintf("%.2f", c.Seconds)}
		if repeated && c.Rates != nil {
			row = append(row, c.Rates.String())
		}
		t.AppendRow(row)
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 7, Align: text.AlignRight}})
	fmt.Fprintln(w, t.Render())
	for _, c := range r.Checks {
		if c.Verdict != verdict.Pass && c.Verdict != verdict.NotOffered {
			fmt.Fprintf(w, "%s: %s: %s\n", c.ID, marks[c.Verdict].word, c.Reason)
			for _, note := range c.Notes {
				fmt.Fprintf(w, "    %s\n", note)
			}
		}
	}
	r.WriteLimits(w)
	n := Count(r.Checks)
	fmt.Fprintf(w, "%s in %.1f s: %d pass, %d fail, %d inconclusive, %d not offered\n",
		plural(len(r.Checks), "check"), r.Run.Seconds, n[verdict.Pass], n[verdict.Fail], n[verdict.Inconclusive], n[verdict.NotOffered])
}

// WriteLimits writes what the checks rest on, below any table of them: which
// controls held, and of which checks theory says nothing.
func (r Results) WriteLimits(w io.Writer) {
	for _, line := range slices.Concat(describeControls(r.Controls), describeSilence(r.Checks)) {
		fmt.Fprintln(w, line)
	}
}

// describeSilence says of which checks theory says nothing, a line for each
// reason: whatever they expect is their scenario's word alone.
func describeSilence(checks []Check) (lines []string) {
	count := map[string]int{}
	var reasons []string
	for _, c := range checks {
		if c.NoTheory == "" || c.Verdict == verdict.NotOffered {
			continue
		}
		if count[c.NoTheory]++; count[c.NoTheory] == 1 {
			reasons = append(reasons, c.NoTheory)
		}
	}
	for _, reason := range reasons {
		lines = append(lines, fmt.Sprintf("no theory of %s, held against the scenario alone: %s", plural(count[reason], "check"), reason))
	}
	return lines
}

// Describe puts a path into words: "relayed, 1 hop, udp, 1 of 4 relays".
func Describe(r path.Record) string {
	parts := []string{r.Path}
	if r.Path == path.Relayed {
		parts = append(parts, plural(r.Hops, "hop"))
	}
	seen := map[string]bool{}
	for _, leg := range r.Legs {
		if !seen[leg.Transport] {
			seen[leg.Transport] = true
			parts = append(parts, leg.Transport)
		}
	}
	if r.Relays > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s", r.Carrying, plural(r.Relays, "relay")))
	}
	return strings.Join(parts, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

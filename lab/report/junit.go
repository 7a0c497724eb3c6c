package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"gauntlet/lab/verdict"
)

// WriteJUnit writes the checks as JUnit XML: a scenario is a suite, a check a
// test case. What is inconclusive is an error, what is not offered a skip. The
// rates of a check are properties of its suite, named after the check; the
// negative controls are a suite of their own.
func (r Results) WriteJUnit(w io.Writer) error {
	var all junit.Testsuites
	suites := map[string]*junit.Testsuite{}
	var order []string
	for _, c := range r.Checks {
		s, ok := suites[c.Scenario]
		if !ok {
			s = &junit.Testsuite{Name: c.Scenario}
			s.SetTimestamp(r.Run.Started)
			suites[c.Scenario] = s
			order = append(order, c.Scenario)
		}
		tc := junit.Testcase{Name: c.ID, Classname: "gauntlet." + c.Scenario, Time: fmt.Sprintf("%.3f", c.Seconds)}
		switch c.Verdict {
		case verdict.Fail:
			tc.Failure = &junit.Result{Message: c.Reason, Type: c.Verdict}
		case verdict.Inconclusive:
			tc.Error = &junit.Result{Message: c.Reason, Type: c.Verdict}
		case verdict.NotOffered:
			tc.Skipped = &junit.Result{Message: c.Reason, Type: c.Verdict}
		}
		if lines := c.dropLines(); len(lines) > 0 {
			tc.SystemOut = &junit.Output{Data: "dropped on the way:\n" + strings.Join(lines, "\n") + "\n"}
		}
		for _, p := range c.properties() {
			s.AddProperty(p.Name, p.Value)
		}
		s.AddTestcase(tc)
	}
	if controls := r.controlSuite(); len(controls.Testcases) > 0 {
		all.AddSuite(controls)
	}
	for _, name := range order {
		all.AddSuite(*suites[name])
	}
	return all.WriteXML(w)
}

// properties are a check's rates and times.
func (c Check) properties() (all []junit.Property) {
	add := func(name, format string, args ...any) {
		all = append(all, junit.Property{Name: c.ID + "." + name, Value: fmt.Sprintf(format, args...)})
	}
	if c.Rates == nil {
		if c.Times != nil {
			add("first_path_seconds", "%.6f", c.Times.First)
			add("best_path_seconds", "%.6f", c.Times.Best)
		}
		if c.Media != nil {
			add("gap_seconds", "%.6f", c.Media.Gap)
		}
		return all
	}
	add("runs", "%d", c.Rates.Runs)
	add("passes", "%d", c.Rates.Passes)
	add("inconclusive", "%d", c.Rates.Inconclusive)
	add("wilson_95", "%.4f-%.4f", c.Rates.Interval[0], c.Rates.Interval[1])
	if c.Rates.FirstPath != nil {
		add("first_path_seconds.p50", "%.6f", c.Rates.FirstPath.P50)
		add("first_path_seconds.p95", "%.6f", c.Rates.FirstPath.P95)
		add("best_path_seconds.p50", "%.6f", c.Rates.BestPath.P50)
		add("best_path_seconds.p95", "%.6f", c.Rates.BestPath.P95)
	}
	if c.Rates.Gap != nil {
		add("gap_seconds.p50", "%.6f", c.Rates.Gap.P50)
		add("gap_seconds.max", "%.6f", c.Rates.Gap.Max)
	}
	return all
}

// controlSuite has a test case for each negative control.
func (r Results) controlSuite() junit.Testsuite {
	s := junit.Testsuite{Name: "negative controls"}
	s.SetTimestamp(r.Run.Started)
	for _, c := range r.Controls {
		tc := junit.Testcase{Name: c.String(), Classname: "gauntlet." + c.Control}
		switch c.Verdict {
		case verdict.Fail:
			tc.Failure = &junit.Result{Message: c.Reason, Type: c.Verdict}
		case verdict.Inconclusive:
			tc.Error = &junit.Result{Message: c.Reason, Type: c.Verdict}
		}
		s.AddTestcase(tc)
	}
	return s
}

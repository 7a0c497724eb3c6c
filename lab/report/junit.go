package report

import (
	"fmt"
	"io"

	"github.com/jstemmer/go-junit-report/v2/junit"

	"gauntlet/lab/verdict"
)

// WriteJUnit writes the checks as JUnit XML: a scenario is a suite, a check a
// test case. What is inconclusive is an error, what is not offered a skip.
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
		s.AddTestcase(tc)
	}
	for _, name := range order {
		all.AddSuite(*suites[name])
	}
	return all.WriteXML(w)
}

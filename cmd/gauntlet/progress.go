package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"gauntlet/lab/report"
	"gauntlet/lab/run"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

// progress shows what a run is doing: a bar on a terminal, else a line for
// each scenario that is done.
type progress struct {
	w       io.Writer
	started time.Time
	total   int
	done    int
	working []string // scenarios, with what each is at
	pool    *mpb.Progress
	bar     *mpb.Bar
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func newProgress(f *os.File, scenarios []*scenario.Scenario, repeat int) *progress {
	p := &progress{w: f, started: time.Now(), total: len(scenarios) * repeat}
	if isTerminal(f) {
		p.pool = mpb.New(mpb.WithOutput(f), mpb.WithWidth(30))
		p.bar = p.pool.AddBar(int64(p.total),
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.CountersNoUnit("%d of %d scenarios")),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return strings.Join(p.working, "  ") })),
		)
	}
	return p
}

// watch takes one event; the run calls it one at a time.
func (p *progress) watch(e run.Event) {
	p.working = slices.DeleteFunc(slices.Clone(p.working), func(s string) bool { return strings.HasPrefix(s, e.Scenario+": ") })
	if e.Stage != "done" {
		p.working = append(p.working, e.Scenario+": "+e.Stage)
		return
	}
	p.done++
	if p.bar != nil {
		p.bar.Increment()
		return
	}
	n := report.Count(e.Checks)
	line := fmt.Sprintf("[%5.1fs] %d/%d %-16s %d pass", time.Since(p.started).Seconds(), p.done, p.total, e.Scenario, n[verdict.Pass])
	for _, v := range report.Verdicts[1:] {
		if n[v] > 0 {
			line += fmt.Sprintf(", %d %s", n[v], v)
		}
	}
	fmt.Fprintln(p.w, line)
}

// finish leaves the terminal as it was.
func (p *progress) finish() {
	if p.pool == nil {
		return
	}
	if p.done < p.total {
		p.bar.Abort(true)
	}
	p.pool.Wait()
}

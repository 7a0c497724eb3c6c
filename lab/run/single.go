package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"gauntlet/lab/capture"
	"gauntlet/lab/certify"
	"gauntlet/lab/evidence"
	"gauntlet/lab/internet"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/lab/verdict"
)

// Time limits of the lab itself. What it drives has the limits of its scenario.
const (
	upTimeout    = 15 * time.Second // nodes prepared and in service
	restTimeout  = 5 * time.Second  // the overlay at rest before a step
	restQuiet    = 150 * time.Millisecond
	syncTimeout  = 5 * time.Second // the capture has caught up
	defaultLimit = 10 * time.Second
	defaultCall  = 2 * time.Second
)

// certificatesFile is where the measurements of the boxes are kept.
const certificatesFile = "certificates.json"

// single is one run of one scenario.
type single struct {
	*scenario.Scenario
	name    string // of this run: the scenario's ID, and the repetition if there are several
	options Options
	tell    func(Event)
	random  *rand.Rand

	internet     *internet.Internet
	certificates []certify.Certificate
	recorder     *capture.Recorder
	nodes        *nodes
	exchanges    []evidence.Exchange
	planned      [][]*driven // by step
	// unsure says why everything in this run is inconclusive.
	unsure []string
}

// notDriven stands in place of an exchange's index.
const notDriven = -1

// driven is a check before it is judged.
type driven struct {
	check          report.Check
	caller, callee string        // hosts
	exchange       int           // index of its exchange, or notDriven
	claim          verdict.Check // what the node says; the wire's side comes with the judging
	problem        string        // a failure that the wire knows nothing of
}

// run drives the scenario and returns its checks, always the same number of
// them, whatever happens.
func (r *single) run(ctx context.Context) []report.Check {
	seen := map[string]int{}
	for i := range r.Steps {
		checks := r.plan(&r.Steps[i])
		for _, d := range checks { // a step that comes again is the second, third, …
			if seen[d.check.ID]++; seen[d.check.ID] > 1 {
				d.check.ID = fmt.Sprintf("%s.%d", d.check.ID, seen[d.check.ID])
			}
		}
		r.planned = append(r.planned, checks)
	}
	dir, err := r.evidenceDir()
	if err == nil {
		err = r.record(ctx, dir)
	}
	r.tell(Event{Scenario: r.name, Stage: "judge"})
	checks := r.judge(dir, err)
	if r.options.Hold != nil && r.internet != nil && ctx.Err() == nil {
		r.options.Hold(ctx, r.Scenario, r.internet)
	}
	r.down(ctx)
	if r.options.Report == "" && dir != "" {
		os.RemoveAll(dir)
	}
	return checks
}

func (r *single) evidenceDir() (string, error) {
	parent := r.options.Report
	if parent == "" {
		parent = filepath.Join(r.options.Work, "evidence")
	}
	dir := filepath.Join(parent, r.name)
	if err := os.RemoveAll(dir); err != nil { // of an earlier run
		return "", fmt.Errorf("evidence folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("evidence folder: %w", err)
	}
	return dir, nil
}

// record stands everything up, drives the steps and closes the recording.
func (r *single) record(ctx context.Context, dir string) (err error) {
	r.tell(Event{Scenario: r.name, Stage: "build"})
	r.nodes = newNodes(r, dir)
	if err := r.nodes.makeLogs(); err != nil {
		return err
	}
	given, err := r.nodes.backend.spaces(ctx, r.nodes)
	if err != nil {
		return err
	}
	if r.internet, err = internet.UpIn(ctx, r.Topology, given); err != nil {
		return err
	}
	r.unsure = append(r.unsure, r.internet.Missing()...)

	// No node's packet passes a box before the box has been measured.
	r.tell(Event{Scenario: r.name, Stage: "certify"})
	if r.certificates, err = certify.Boxes(ctx, r.internet); err != nil {
		return fmt.Errorf("certify the boxes: %w", err)
	}

	if r.recorder, err = capture.Start(ctx, r.captureConfig(dir)); err != nil {
		return fmt.Errorf("start the capture: %w", err)
	}
	defer func() {
		_, closing := r.recorder.Close() // the losses are in the evidence
		closing = errors.Join(closing, r.writeRecords(dir))
		if closing != nil {
			r.unsure = append(r.unsure, closing.Error())
		}
		err = errors.Join(err, closing)
	}()

	r.tell(Event{Scenario: r.name, Stage: "start"})
	if err := r.nodes.up(ctx); err != nil {
		return err
	}
	for i := range r.Steps {
		r.tell(Event{Scenario: r.name, Stage: r.Steps[i].Kind()})
		if err := r.step(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (r *single) captureConfig(dir string) capture.Config {
	c := capture.Config{Dir: dir}
	for _, name := range r.internet.Names() {
		for _, i := range r.internet.Interfaces(name) {
			c.Taps = append(c.Taps, capture.Tap{Name: name + "/" + i, Namespace: r.internet.Namespace(name), Interface: i})
		}
	}
	for _, b := range r.internet.Plan.Boxes {
		c.Routers = append(c.Routers, capture.Router{
			Name: b.Name, Namespace: r.internet.Namespace(b.Name), LogGroup: internet.LogGroup,
			Counters: func() (map[string]uint64, error) { return r.internet.Dropped(b.Name) },
		})
	}
	return c
}

// writeRecords stores what the judging needs beside the capture itself.
func (r *single) writeRecords(dir string) error {
	world := r.internet.World(func(host string) []string {
		if n, ok := r.Nodes.Get(host); ok && n.Role != "" {
			return []string{n.Role}
		}
		return nil
	})
	return errors.Join(
		evidence.WriteWorld(dir, world),
		evidence.WriteExchanges(dir, r.exchanges),
		writeJSON(filepath.Join(dir, certificatesFile), r.certificates),
	)
}

func writeJSON(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// down ends the nodes and gives the internet up.
func (r *single) down(ctx context.Context) {
	if r.nodes != nil {
		r.nodes.down(ctx)
	}
	if r.internet != nil {
		r.internet.Close()
	}
}

package run

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gauntlet/lab/capture"
	"gauntlet/lab/certify"
	"gauntlet/lab/evidence"
	"gauntlet/lab/internet"
	"gauntlet/lab/judge"
	"gauntlet/lab/scenario"
)

// Time limits of the lab itself. What it drives has the limits of its scenario.
const (
	upTimeout    = 30 * time.Second // nodes prepared and in service
	restTimeout  = 5 * time.Second  // the overlay at rest before a step
	restQuiet    = 150 * time.Millisecond
	syncTimeout  = 5 * time.Second // the capture has caught up
	defaultLimit = 10 * time.Second
)

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
	canaries     []judge.Canary
	// drive stands in for nodes that are started and driven, nil for those.
	drive func(ctx context.Context, dir string) error
	// stood says that the lab stood, so that drive could begin.
	stood bool
	// done says that it was driven and judged before ctx ended.
	done bool
	// unsure says why everything in this run is inconclusive.
	unsure []string
}

// driven is a check that is being driven.
type driven struct {
	judge.Planned
	record judge.DrivenCheck
}

// run drives the scenario, has what it recorded judged, and returns its checks,
// always the same number of them, whatever happens.
func (r *single) run(ctx context.Context) judge.Judged {
	r.plan()
	dir, err := r.evidenceDir()
	if err == nil {
		err = r.record(ctx, dir)
	}
	r.tell(Event{Scenario: r.name, Stage: "judge"})
	judged := r.judge(dir, err)
	if ctx.Err() == nil { // else the checks say nothing of the scenario
		r.done = true
		r.tell(Event{Scenario: r.name, Stage: "done", Checks: judged.Checks})
		if r.options.Hold != nil && r.internet != nil {
			r.options.Hold(ctx, r.Scenario, r.internet)
		}
	}
	r.down(ctx)
	if r.options.Report == "" && dir != "" {
		os.RemoveAll(dir)
	}
	return judged
}

// plan makes the checks as they are if nothing is driven.
func (r *single) plan() {
	for _, step := range judge.Plan(r.Scenario) {
		var checks []*driven
		for _, p := range step {
			checks = append(checks, &driven{Planned: p, record: judge.DrivenCheck{ID: p.Check.ID, Exchange: judge.NotDriven}})
		}
		r.planned = append(r.planned, checks)
	}
}

// judge writes down what was driven and has the folder judged. broken is why
// the driving ended early, if it did.
func (r *single) judge(dir string, broken error) judge.Judged {
	d := judge.Driven{Recorded: r.recorder != nil, Stood: r.stood || r.nodes != nil && len(r.nodes.running) > 0, Unsure: r.unsure, Canaries: r.canaries}
	if broken != nil {
		d.Broken = broken.Error()
	}
	for _, one := range slices.Concat(r.planned...) {
		d.Checks = append(d.Checks, one.record)
	}
	kept := ""
	if r.options.Report != "" {
		kept = r.name
	}
	err := errors.New("there is no folder")
	if dir != "" {
		err = errors.Join(
			os.WriteFile(filepath.Join(dir, judge.ScenarioFile), r.Source, 0o644),
			judge.WriteDriven(dir, d),
		)
	}
	var judged judge.Judged
	if err == nil {
		judged, err = judge.Scenario(dir, r.ID, kept)
	}
	if len(judged.Checks) == 0 { // the folder can't be written or read
		memory := judge.Recording{Scenario: r.Scenario, Driven: d, Unreadable: err}
		judged.Checks = memory.Judge(kept)
	}
	return judged
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
	r.internet, err = internet.Up(ctx, r.Topology, internet.Seed(r.random.Uint64()), internet.Given(given),
		internet.Logs(filepath.Join(dir, "gateways")))
	if err != nil {
		return err
	}
	r.unsure = append(r.unsure, r.internet.Missing()...)

	if r.options.Built != nil {
		if err := r.options.Built(r.internet); err != nil {
			return err
		}
	}

	// No node's packet passes a box before the box has been measured.
	r.tell(Event{Scenario: r.name, Stage: "certify"})
	if err := r.certify(ctx); err != nil {
		return fmt.Errorf("certify the boxes: %w", err)
	}

	if r.options.Certified != nil {
		if err := r.options.Certified(r.internet); err != nil {
			return err
		}
	}
	if r.recorder, err = capture.Start(ctx, r.captureConfig(dir)); err != nil {
		return fmt.Errorf("start the capture: %w", err)
	}
	defer func() {
		r.unsure = append(r.unsure, r.internet.Doubts()...)
		_, closing := r.recorder.Close() // the losses are in the evidence
		closing = errors.Join(closing, r.writeRecords(dir))
		if closing != nil {
			r.unsure = append(r.unsure, closing.Error())
		}
		err = errors.Join(err, closing)
	}()

	if err := r.sendCanaries(); err != nil {
		return err
	}
	if r.drive != nil {
		r.stood = true
		return r.drive(ctx, dir)
	}
	return r.driveNodes(ctx, dir)
}

// certify measures the boxes, and what the steps will change them into.
func (r *single) certify(ctx context.Context) error {
	var changes []certify.Certificate
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		changes, err = certify.Changes(ctx, r.Scenario, r.options.Changed)
		return err
	})
	group.Go(func() (err error) {
		r.certificates, err = certify.Boxes(ctx, r.internet)
		return err
	})
	err := group.Wait()
	r.certificates = append(r.certificates, changes...)
	return err
}

// driveNodes starts the nodes and drives the steps.
func (r *single) driveNodes(ctx context.Context, dir string) error {
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
	c := capture.Config{Dir: dir, RingBytes: r.options.RingBytes}
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
		judge.WriteJSON(dir, judge.CertificatesFile, slices.Concat(r.certificates, certify.Unserved(r.internet))),
	)
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

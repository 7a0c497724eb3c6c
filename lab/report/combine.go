package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"gauntlet/lab/verdict"
)

// ReadResults reads a results.json.
func ReadResults(file string) (Results, error) {
	all, err := ReadShards(file)
	if err != nil {
		return Results{}, err
	}
	if len(all) > 1 {
		return Results{}, fmt.Errorf("%s: the results of %d runs; expected those of one", file, len(all))
	}
	return all[0], nil
}

// ReadShards reads the results of one run or of several: a results.json, or what
// the containers of some shards wrote, one after the other, with the two streams
// of each mixed as logs have them.
func ReadShards(file string) ([]Results, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	all, err := decode(text)
	if logged := ofLog(text); err != nil && len(logged) > 0 {
		all, err = decode(logged)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: not the results of a run: %w", file, err)
	}
	return all, nil
}

func decode(text []byte) (all []Results, err error) {
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var r Results
		if err := d.Decode(&r); errors.Is(err, io.EOF) && len(all) > 0 {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if r.Run.Repeat < 1 {
			return nil, errors.New("it says nothing of a run")
		}
		all = append(all, r)
	}
}

// ofLog keeps what [Results.WriteJSON] wrote, a brace to a brace with all lines
// between indented, and leaves out what stderr got before, after or meanwhile.
func ofLog(text []byte) (results []byte) {
	inside := false
	for line := range bytes.Lines(text) {
		bare := bytes.TrimRight(line, "\r\n")
		begins, ends := string(bare) == "{", string(bare) == "}"
		if begins || inside && (ends || bytes.HasPrefix(line, []byte(indent))) {
			results = append(results, line...)
		}
		inside = (inside || begins) && !ends
	}
	return results
}

// Combine makes the results of all shards of a suite those of the whole, equal
// to those of one run but for times. Its error says which shard is missing, is
// there twice, or is not of the same suite, or which scenario is not in exactly one.
func Combine(shards []Results) (Results, error) {
	if len(shards) == 0 {
		return Results{}, errors.New("combine: no shard")
	}
	whole := Results{Run: shards[0].Run}
	if err := complete(shards); err != nil {
		return whole, err
	}
	checks := map[string][]Check{}
	controls := map[string][]Control{}
	var cuts []Control
	for _, s := range shards {
		whole.Run.Seconds = max(whole.Run.Seconds, s.Run.Seconds)
		if s.Run.Started.Before(whole.Run.Started) {
			whole.Run.Started = s.Run.Started
		}
		for _, c := range s.Checks {
			checks[c.Scenario] = append(checks[c.Scenario], c)
		}
		for _, c := range s.Controls {
			if c.Control == Cut {
				cuts = append(cuts, c)
			} else {
				controls[c.Scenario] = append(controls[c.Scenario], c)
			}
		}
	}
	// A run has one control that is nobody's: the worst of the shards'.
	slices.SortStableFunc(cuts, func(a, b Control) int { return cmp.Compare(severity(b.Verdict), severity(a.Verdict)) })
	whole.Controls = append(whole.Controls, cuts[:min(1, len(cuts))]...)
	for _, id := range whole.Run.Suite {
		for n := range whole.Run.Repeat { // a control names the folder of its repetition
			name := id
			if whole.Run.Repeat > 1 {
				name = fmt.Sprintf("%s.%d", id, n+1)
			}
			whole.Controls = append(whole.Controls, controls[name]...)
		}
	}
	doubt := Doubt(whole.Controls)
	for _, id := range whole.Run.Suite {
		for _, c := range checks[id] {
			whole.Checks = append(whole.Checks, c.Doubted(doubt))
		}
	}
	whole.Run.Shard, whole.Run.Suite, whole.Run.Scenarios = "", nil, nil
	whole.Run.Verdicts = Count(whole.Checks)
	return whole, nil
}

// severity orders verdicts of controls.
func severity(v string) int {
	return slices.Index([]string{verdict.Pass, verdict.Inconclusive, verdict.Fail}, v)
}

// complete checks that each shard of one suite is there once.
func complete(shards []Results) error {
	first := shards[0].Run
	seen := map[int]bool{}
	total := 0
	for _, s := range shards {
		var i, n int
		if _, err := fmt.Sscanf(s.Run.Shard, "%d/%d", &i, &n); err != nil {
			return fmt.Errorf("combine: results of a whole run, not of a shard; expected a run with --shard I/N")
		}
		switch {
		case total != 0 && n != total:
			return fmt.Errorf("combine: shard %s beside shard %s; expected shards of one split", s.Run.Shard, first.Shard)
		case seen[i]:
			return fmt.Errorf("combine: shard %s twice", s.Run.Shard)
		case !slices.Equal(s.Run.Suite, first.Suite):
			return fmt.Errorf("combine: shard %s is of another suite than shard %s", s.Run.Shard, first.Shard)
		case s.Run.Seed != first.Seed || s.Run.Repeat != first.Repeat || s.Run.Version != first.Version:
			return fmt.Errorf("combine: shard %s was run otherwise than shard %s: expected the same seed, repetitions and version", s.Run.Shard, first.Shard)
		}
		seen[i], total = true, n
	}
	for i := 1; i <= total; i++ {
		if !seen[i] {
			return fmt.Errorf("combine: shard %d/%d is missing", i, total)
		}
	}
	return partition(shards)
}

// partition checks that each scenario of the suite is in exactly one shard, and no
// other in any. The shards of runs with different durations are of different splits.
func partition(shards []Results) error {
	in := map[string][]string{}
	for _, s := range shards {
		for _, id := range s.Run.Scenarios {
			if !slices.Contains(s.Run.Suite, id) {
				return fmt.Errorf("combine: scenario %s of shard %s is not in its suite", id, s.Run.Shard)
			}
			in[id] = append(in[id], s.Run.Shard)
		}
	}
	for _, id := range shards[0].Run.Suite {
		where := "no shard"
		switch {
		case len(in[id]) == 1:
			continue
		case len(in[id]) > 1:
			slices.Sort(in[id])
			where = strings.Join(in[id], " and ")
		}
		return fmt.Errorf("combine: scenario %s is in %s: expected shards of one split, made with the same --durations", id, where)
	}
	return nil
}

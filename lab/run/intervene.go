package run

import (
	"errors"
	"fmt"

	"gauntlet/lab/scenario"
)

// intervene does something to a box or a node, whose name is target, in a step,
// counted from 1.
func (r *single) intervene(v *scenario.Intervention, target string, step int) error {
	switch {
	case v.Change != nil:
		return r.change(v.Change, step)
	case v.Reboot != nil:
		return errors.Join(r.recorder.BeforeChange(target), r.internet.Reset(target))
	case v.Expire != nil:
		// Counters stay, so that there is nothing to add up; flows are looked at once
		// more while they are there.
		return errors.Join(r.recorder.Conntrack(target), r.internet.ExpireUDP(target))
	case v.Readdress != nil:
		return errors.Join(r.recorder.BeforeChange(target), r.internet.Readdress(target))
	case v.Lose != nil:
		return r.internet.Lose(target, float64(v.Lose.Loss))
	}
	node, ok := r.nodes.running[target]
	switch {
	case !ok:
		return fmt.Errorf("%s %s: no such node", v.Action(), target)
	case v.Kill != nil:
		node.Kill()
		return nil
	case v.Stall != nil:
		return node.Stall()
	}
	return node.Resume()
}

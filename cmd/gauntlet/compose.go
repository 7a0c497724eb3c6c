package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gauntlet/compose"
	"gauntlet/compose/file"
	"gauntlet/lab/gateway"
	"gauntlet/lab/internet"
	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/topo"
)

func composeCommand() *cobra.Command {
	image := compose.Latest
	c := &cobra.Command{
		Use:   "compose FILE",
		Short: "Write a compose file for a topology: every node and every box a container",
		Long: `Write a compose file for a scenario's topology and nodes to stdout, for looking
around in. Every node is a container, every box one that routes and translates,
every LAN a network that leads nowhere else. gauntlet drive logs clients in and
has them call each other; its steps are left aside, and nothing is judged.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := composeFile(args[0], image)
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			stdout.Write(text)
			return nil
		},
	}
	c.Flags().StringVar(&image, "image", image, "the image of the gauntlet binary (make image builds it)")
	return c
}

// composeFile makes a compose file of a scenario file.
func composeFile(name, image string) ([]byte, error) {
	s, err := scenario.Read(name)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	plan, err := topo.NewPlan(s.Topology.Description())
	if err != nil {
		return nil, err
	}
	o := file.Overlay{
		Source: filepath.Base(name), Text: string(text), Image: image, Plan: plan,
		Parameters: map[string]map[string]string{}, Programs: map[string][]string{}, Profile: s.Profile,
	}
	for _, b := range plan.Boxes {
		described, _ := s.Topology.Middleboxes.Get(b.Name)
		behaviour, err := described.Behaviour()
		if err != nil {
			return nil, err
		}
		rules, err := internet.Rules(plan, b, behaviour, "wan", "lan") // the names don't matter here
		if err != nil {
			return nil, err
		}
		o.Parameters[b.Name] = rules.Parameters()
		for _, p := range gateway.Needs(behaviour) {
			o.Programs[b.Name] = append(o.Programs[b.Name], p.Does)
		}
	}
	for _, e := range s.Nodes {
		o.Nodes = append(o.Nodes, file.Node{
			Name: e.Name, Role: e.Value.Role, Exec: len(e.Value.Exec) > 0, Image: e.Value.Image,
			Settings: json.RawMessage(e.Value.Settings),
		})
	}
	var wrong []error
	for _, p := range o.Check() {
		wrong = append(wrong, scenario.MistakeAt(name, text, p.Path, p.Message))
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	written, err := o.Write()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return written, nil
}

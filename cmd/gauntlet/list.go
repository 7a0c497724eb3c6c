package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"gauntlet/middlebox"
	"gauntlet/tests"
)

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List scenarios, the claims that they reproduce, and presets",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			suite, err := tests.Seed()
			if err != nil {
				return status(1, err)
			}
			t := table.NewWriter()
			t.SetStyle(table.StyleLight)
			t.AppendHeader(table.Row{"scenario", "shows", "claims", "boxes"})
			for _, s := range suite {
				var boxes []string
				for _, b := range s.Topology.Middleboxes {
					if label := b.Value.Label(); len(boxes) == 0 || boxes[len(boxes)-1] != label {
						boxes = append(boxes, label)
					}
				}
				t.AppendRow(table.Row{s.ID, s.Name, strings.Join(s.AllClaims(), " "), strings.Join(boxes, " ")})
			}
			fmt.Println(t.Render())
			p := table.NewWriter()
			p.SetStyle(table.StyleLight)
			p.AppendHeader(table.Row{"preset", "mapping", "filtering", "stops"})
			for _, name := range middlebox.Presets() {
				b, _ := middlebox.Preset(name)
				var stops []string
				for _, proto := range b.Block {
					stops = append(stops, string(proto))
				}
				for _, d := range b.Deny {
					stops = append(stops, d.String())
				}
				if len(b.Allow) > 0 {
					stops = append(stops, "all but")
				}
				for _, service := range b.Allow {
					stops = append(stops, service.String())
				}
				if b.Proxy != middlebox.NoProxy {
					stops = append(stops, "all but by proxy: "+string(b.Proxy))
				}
				p.AppendRow(table.Row{name, none(string(b.Mapping)), none(string(b.Filtering)), strings.Join(stops, " ")})
			}
			fmt.Fprintln(os.Stdout, p.Render())
			for _, name := range middlebox.Presets() {
				b, _ := middlebox.Preset(name)
				for _, note := range b.Fidelity() {
					fmt.Printf("%s: unlike a device: %s\n", name, note)
				}
			}
			return nil
		},
	}
}

func none(word string) string {
	if word == "" {
		return "none"
	}
	return word
}

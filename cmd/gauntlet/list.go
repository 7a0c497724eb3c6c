package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"gauntlet/lab/report"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
	"gauntlet/tests"
)

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List scenarios, the claims that they reproduce, and presets",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			t := table.NewWriter()
			t.SetStyle(table.StyleLight)
			t.AppendHeader(table.Row{"suite", "scenario", "shows", "claims", "boxes"})
			for _, name := range tests.Suites {
				suite, err := tests.Suite(name)
				if err != nil {
					return status(report.ExitBadUsage, err)
				}
				t.AppendSeparator()
				for _, s := range suite {
					t.AppendRow(table.Row{name, s.ID, s.Name, strings.Join(s.AllClaims(), " "), boxes(s)})
				}
			}
			fmt.Fprintln(stdout, t.Render())
			fmt.Fprintln(stdout, generalPresets())
			fmt.Fprintln(stdout, devicePresets())
			for _, d := range dissimilarities() {
				fmt.Fprintln(stdout, d)
			}
			return nil
		},
	}
}

// boxes names the behaviours of a scenario's boxes.
func boxes(s *scenario.Scenario) string {
	var labels []string
	for _, b := range s.Topology.Middleboxes {
		if label := b.Value.Label(); len(labels) == 0 || labels[len(labels)-1] != label {
			labels = append(labels, label)
		}
	}
	return strings.Join(labels, " ")
}

// generalPresets is a table of the presets of no device.
func generalPresets() string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"preset", "mapping", "filtering", "stops"})
	for _, name := range middlebox.Presets() {
		if slices.Contains(middlebox.Devices(), name) {
			continue
		}
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
		t.AppendRow(table.Row{name, none(string(b.Mapping)), none(string(b.Filtering)), strings.Join(stops, " ")})
	}
	return t.Render()
}

// devicePresets is a table of those of real devices and services, all of which
// translate. What is marked has no source and is the RFCs'.
func devicePresets() string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"device", "mapping", "filtering", "ports", "udp timeout", "tcp", "tcp transitory"})
	timer := func(d, otherwise time.Duration) string {
		if d == 0 {
			return fmt.Sprintf("%.0f s (RFC)", otherwise.Seconds())
		}
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	for _, name := range middlebox.Devices() {
		b, _ := middlebox.Preset(name)
		ports, tcp := string(b.Ports), b.TCPEstablished
		if b.PortBlock > 0 {
			ports = fmt.Sprintf("%s of %d", ports, b.PortBlock)
		}
		if b.TCPIdle > 0 {
			tcp = b.TCPIdle
		}
		udp := timer(b.UDPTimeout, middlebox.DefaultUDPTimeout)
		if b.UDPUnreplied > 0 {
			udp = fmt.Sprintf("%.0f s, stream %s", b.UDPUnreplied.Seconds(), udp)
		}
		t.AppendRow(table.Row{name, string(b.Mapping), string(b.Filtering), ports,
			udp, timer(tcp, middlebox.DefaultTCPEstablished),
			timer(b.TCPTransitory, middlebox.DefaultTCPTransitory)})
	}
	return t.Render()
}

// dissimilarities say in what boxes differ from devices, each once, with all
// the presets that it is true of.
func dissimilarities() (lines []string) {
	var notes []string
	of := map[string][]string{}
	for _, name := range middlebox.Presets() {
		b, _ := middlebox.Preset(name)
		for _, note := range append(b.Fidelity(), middlebox.Unlike(name)...) {
			if of[note] == nil {
				notes = append(notes, note)
			}
			of[note] = append(of[note], name)
		}
	}
	for _, note := range notes {
		lines = append(lines, fmt.Sprintf("%s: unlike a device: %s", strings.Join(of[note], ", "), note))
	}
	return lines
}

func none(word string) string {
	if word == "" {
		return "none"
	}
	return word
}

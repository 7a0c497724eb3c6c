package certify

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"gauntlet/middlebox/probe"
)

// column is a property as a table shows it; "" is that there is none.
type column struct {
	name string
	of   func(probe.Properties) string
}

// tables are the columns of the tables of certificates, which together show
// every property.
var tables = [][]column{
	{
		{"mapping", func(p probe.Properties) string { return p.Mapping }},
		{"filtering", func(p probe.Properties) string { return p.Filtering }},
		{"ports", func(p probe.Properties) string { return p.Ports }},
		{"tcp mapping", func(p probe.Properties) string { return p.TCPMapping }},
		{"tcp filtering", func(p probe.Properties) string { return p.TCPFiltering }},
		{"hairpin", func(p probe.Properties) string { return answer(p.Hairpin) }},
		{"punch first", func(p probe.Properties) string { return answer(p.PunchFirst) }},
		{"unsolicited", func(p probe.Properties) string { return p.Unsolicited }},
		{"pool", func(p probe.Properties) string { return p.Pool }},
		{"udp timeout", func(p probe.Properties) string { return number(p.UDPTimeout, " s") }},
		{"unreplied", func(p probe.Properties) string { return number(p.UDPUnreplied, " s") }},
		{"refresh", func(p probe.Properties) string { return p.Refresh }},
		{"stops", func(p probe.Properties) string { return stops(p.Block, p.Deny, p.Allow, p.Proxy) }},
		{"port mapping", func(p probe.Properties) string { return strings.Join(p.PortMapping, " ") }},
		{"tcp port mapping", func(p probe.Properties) string { return strings.Join(p.TCPPortMapping, " ") }},
	},
	{
		{"port collision", func(p probe.Properties) string { return p.PortCollision }},
		{"port block", func(p probe.Properties) string { return number(p.PortBlock, "") }},
		{"tcp ports", func(p probe.Properties) string { return p.TCPPorts }},
		{"per endpoint", func(p probe.Properties) string { return answer(p.PerEndpoint) }},
		{"tcp per endpoint", func(p probe.Properties) string { return answer(p.TCPPerEndpoint) }},
		{"hairpin source", func(p probe.Properties) string { return p.HairpinSource }},
		{"inbound source", func(p probe.Properties) string { return p.Inbound }},
		{"block inbound", func(p probe.Properties) string { return strings.Join(p.BlockInbound, " ") }},
		{"deny inbound", func(p probe.Properties) string { return strings.Join(p.DenyInbound, " ") }},
		{"tcp deny inbound", func(p probe.Properties) string { return strings.Join(p.TCPDenyInbound, " ") }},
		{"udp rate", func(p probe.Properties) string { return number(p.UDPRate, "/s") }},
		{"udp rate inward", func(p probe.Properties) string { return number(p.UDPRateInward, "/s") }},
	},
	{
		{"refusal", func(p probe.Properties) string { return p.Refusal }},
		{"tcp unsolicited", func(p probe.Properties) string { return p.TCPUnsolicited }},
		{"tcp refusal", func(p probe.Properties) string { return p.TCPRefusal }},
		{"stray", func(p probe.Properties) string { return p.TCPStray }},
		{"stray outward", func(p probe.Properties) string { return p.TCPStrayOutward }},
		{"stopped", func(p probe.Properties) string { return p.StoppedRefusal }},
		{"tcp stopped", func(p probe.Properties) string { return p.TCPStoppedRefusal }},
		{"icmp errors", func(p probe.Properties) string { return strings.Join(p.ICMPErrors, ", ") }},
		{"icmp unrelated", func(p probe.Properties) string { return p.ICMPUnrelated }},
		{"outward", func(p probe.Properties) string { return p.ICMPUnrelatedOutward }},
	},
	{
		{"udp lives", func(p probe.Properties) string { return timing(p.Timing) }},
		{"tcp established", func(p probe.Properties) string { return number(p.TCPEstablished, " s") }},
		{"lives", func(p probe.Properties) string { return timing(p.TCPEstablishedTiming) }},
		{"tcp transitory", func(p probe.Properties) string { return number(p.TCPTransitory, " s") }},
		{"half-open lives", func(p probe.Properties) string { return timing(p.TCPHalfOpenTiming) }},
		{"half-closed lives", func(p probe.Properties) string { return timing(p.TCPHalfClosedTiming) }},
		{"tcp idle", func(p probe.Properties) string { return p.TCPIdle }},
	},
}

// WriteTables shows one line for each box in each table: what was measured
// where that is what is declared, both where not. A column that says nothing of
// any box is left out, and so is a table of such.
func WriteTables(w io.Writer, certificates []Certificate) {
	for i, columns := range tables {
		columns = slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
			return !slices.ContainsFunc(certificates, func(b Certificate) bool { return c.of(b.Declared) != "" || c.of(b.Measured) != "" })
		})
		if len(columns) == 0 && i > 0 {
			continue
		}
		t := table.NewWriter()
		t.SetStyle(table.StyleLight)
		t.Style().Format.Header = text.FormatLower
		header := table.Row{"box"}
		for _, c := range columns {
			header = append(header, c.name)
		}
		if i == 0 {
			header = append(header, "verdict")
		}
		t.AppendHeader(header)
		for _, b := range certificates {
			row := table.Row{abbreviations.Replace(b.Label)}
			for _, c := range columns {
				row = append(row, beside(c.of(b.Declared), c.of(b.Measured)))
			}
			if i == 0 {
				row = append(row, b.Verdict())
			}
			t.AppendRow(row)
		}
		fmt.Fprintln(w, t.Render())
	}
	for _, c := range certificates {
		for _, d := range c.Differences {
			fmt.Fprintf(w, "%s: %s\n", c.Label, d)
		}
	}
}

// abbreviations keep the table within a screen.
var abbreviations = strings.NewReplacer("endpoint-independent", "endpoint", "address-and-port-dependent", "address+port", "address-dependent", "address")

func beside(declared, measured string) string {
	declared, measured = abbreviations.Replace(declared), abbreviations.Replace(measured)
	switch {
	case measured == "":
		return "-" // means nothing here, or could not be measured
	case declared == measured || declared == "":
		return measured
	}
	return measured + " (declared " + declared + ")"
}

func answer(b *bool) string {
	switch {
	case b == nil:
		return ""
	case *b:
		return "yes"
	}
	return "no"
}

func number(n int, unit string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n) + unit
}

// timing is between which times something ended.
func timing(t *probe.Timing) string {
	switch {
	case t == nil:
		return ""
	case t.Dead == 0:
		return "for good"
	}
	return fmt.Sprintf("%.2f to %.2f of %g s", t.Alive, t.Dead, t.Set)
}

func stops(block, deny, allow []string, proxy string) string {
	list := append(append([]string{}, block...), deny...)
	if len(allow) > 0 {
		list = append(list, "all but "+strings.Join(allow, " "))
	}
	if proxy != "" {
		list = append(list, "but by proxy: "+proxy)
	}
	return strings.Join(list, " ")
}

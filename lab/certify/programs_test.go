package certify

import (
	"os"
	"testing"

	"gauntlet/lab/gateway"
)

// installed skips the test without a program, or fails it if GAUNTLET_NO_SKIP
// is 1.
func installed(t *testing.T, programs ...gateway.Program) {
	t.Helper()
	for _, p := range programs {
		if _, err := p.Find(); err != nil {
			if os.Getenv("GAUNTLET_NO_SKIP") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// Boxes with programs are measured to do what they say, alone and behind each
// other.
func TestPrograms(t *testing.T) {
	installed(t, gateway.Programs...)
	i := up(t, `
topology:
  middleboxes:
    corp:  {preset: http-connect}
    dmz:   {preset: http-connect, behind: corp}
    site:  {preset: port-restricted, proxy: http-connect}
    home:  {preset: port-restricted, port_mapping: true}
    sym:   {preset: symmetric, port_mapping: true}
    full:  {preset: full-cone, port_mapping: true}
    isp:   {preset: cgnat, port_mapping: true}
    out:   {preset: restricted-cone, port_mapping: true}
    odd:   {mapping: address-dependent, filtering: endpoint-independent, port_mapping: true}
    pool:  {preset: symmetric, addresses: 3, pool: arbitrary, port_mapping: true, behind: isp}
  hosts:
    login: {}
    a: {behind: dmz}
    b: {behind: site}
    c: {behind: home}
    d: {behind: pool}
`)
	for range 2 { // the second time after all programs were started anew
		certificates, err := Boxes(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range certificates {
			t.Logf("%s: %.0f ms; proxy %q, port mapping %q", c.Box, c.Seconds*1e3, c.Measured.Proxy, c.Measured.PortMapping)
			for _, d := range c.Differences {
				t.Errorf("%s (%s): %s", c.Box, c.Label, d)
			}
		}
	}
}

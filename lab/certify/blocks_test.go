package certify

import "testing"

// A box with as many hosts as blocks of ports is measured, by points that have
// blocks too: beside firewalls as well, whose hosts come as they are.
func TestFullBlocks(t *testing.T) {
	for name, topology := range map[string]string{
		"one network": `
topology:
  middleboxes: {isp: {preset: cgnat, addresses: 2}}
  hosts: {"h[1-63]": {behind: isp}}
`,
		"two networks": `
topology:
  middleboxes: {isp: {preset: cgnat}, wall: {preset: stateful-firewall, behind: isp}}
  hosts: {"h[1-31]": {behind: isp}, "i[1-31]": {behind: wall}}
`,
	} {
		t.Run(name, func(t *testing.T) {
			certificates, err := Boxes(t.Context(), up(t, topology))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range certificates {
				if !c.Certified() {
					t.Errorf("%s: %q", c.Box, c.Differences)
				}
			}
		})
	}
}

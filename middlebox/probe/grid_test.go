package probe

import (
	"fmt"
	"testing"

	"gauntlet/middlebox"
)

// Every combination of the grid that Validate accepts is measured to be what
// it declares.
func TestGrid(t *testing.T) {
	tried := 0
	for _, b := range grid() {
		if len(b.Validate()) > 0 {
			continue
		}
		tried++
		t.Run(fmt.Sprintf("%s,%s,%s,%s,hairpin=%v", b.Mapping, b.Filtering, b.Ports, b.Unsolicited, b.Hairpin), func(t *testing.T) {
			l := newLab(t, b)
			m, err := Full(t.Context(), l.watch, l.subject)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range Compare(b, m) {
				t.Error(d)
			}
			if doubts := l.watch.Close(); len(doubts) > 0 {
				t.Error(doubts)
			}
		})
	}
	if tried < 10 {
		t.Errorf("only %d combinations are accepted", tried)
	}
}

// grid are all combinations of mapping, filtering and ports, and of each of
// them with hairpin and with the ways to treat unsolicited packets.
func grid() (all []middlebox.Behaviour) {
	for _, mapping := range []middlebox.Mapping{middlebox.MapEndpointIndependent, middlebox.MapAddressDependent, middlebox.MapAddressAndPortDependent} {
		for _, filtering := range []middlebox.Filtering{middlebox.FilterEndpointIndependent, middlebox.FilterAddressDependent, middlebox.FilterAddressAndPortDependent} {
			for _, ports := range []middlebox.Ports{middlebox.PreservePorts, middlebox.RandomPorts, middlebox.SequentialPorts, middlebox.ParityPorts, middlebox.BlockPorts} {
				plain := middlebox.Behaviour{Mapping: mapping, Filtering: filtering, Ports: ports}
				hairpin, reject, confirm := plain, plain, plain
				hairpin.Hairpin = true
				reject.Unsolicited = middlebox.RejectUnsolicited
				confirm.Unsolicited = middlebox.ConfirmUnsolicited
				all = append(all, plain, hairpin, reject, confirm)
			}
		}
	}
	return all
}

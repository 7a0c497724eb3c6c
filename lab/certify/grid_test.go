package certify

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"gauntlet/lab/gateway"
	"gauntlet/middlebox"
)

// Every cell of the grid is what it declares, in one run.
func TestGrid(t *testing.T) {
	permitted(t)
	checkCells(t, slices.DeleteFunc(Grid(), func(c Cell) bool { return len(gateway.Needs(c.Behaviour)) > 0 }), 60)
}

// So are those whose boxes run programs.
func TestGridPrograms(t *testing.T) {
	permitted(t)
	installed(t, gateway.Programs...)
	checkCells(t, slices.DeleteFunc(Grid(), func(c Cell) bool { return len(gateway.Needs(c.Behaviour)) == 0 }), 10)
}

// checkCells certifies cells, of which at least some number must be buildable.
func checkCells(t *testing.T, cells []Cell, least int) {
	certificates, err := Cells(t.Context(), cells)
	if err != nil {
		t.Fatal(err)
	}
	slowest := 0.0
	for _, c := range certificates {
		slowest = max(slowest, c.Seconds)
		if c.Verdict() != "pass" {
			t.Errorf("%s: %s: %q", c.Label, c.Verdict(), c.Differences)
		}
	}
	refused := 0
	for _, c := range cells {
		if len(c.Refused) > 0 {
			refused++
			t.Logf("refused: %s: %v", c.Name, c.Refused)
		}
	}
	if len(certificates)+refused != len(cells) || len(certificates) < least {
		t.Errorf("%d certificates and %d refusals of %d cells", len(certificates), refused, len(cells))
	}
	t.Logf("%d cells, the slowest %.1f s", len(certificates), slowest)
}

// The name of a cell has every property that its behaviour sets.
func TestGridNames(t *testing.T) {
	set := map[string]bool{}
	for _, c := range Grid() {
		b := reflect.ValueOf(c.Behaviour)
		for i := range b.NumField() {
			name := b.Type().Field(i).Name
			if b.Field(i).IsZero() {
				continue
			}
			set[name] = true
			// With the property taken away, the name is another.
			without := c.Behaviour
			reflect.ValueOf(&without).Elem().Field(i).SetZero()
			if words(without, c.Addresses) == c.Name {
				t.Errorf("%q says nothing of %s", c.Name, name)
			}
		}
	}
	for i := range reflect.TypeFor[middlebox.Behaviour]().NumField() {
		if name := reflect.TypeFor[middlebox.Behaviour]().Field(i).Name; !set[name] {
			t.Errorf("no cell has %s", name)
		}
	}
	for _, want := range []string{"proxy: http-connect", "tcp_filtering: endpoint-independent, port_mapping: true"} {
		found := false
		for _, c := range Grid() {
			found = found || strings.Contains(c.Name, want) && len(c.Refused) == 0
		}
		if !found {
			t.Errorf("no cell is %q", want)
		}
	}
}

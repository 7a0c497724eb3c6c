package certify

import (
	"testing"
)

// Every cell of the grid is what it declares, in one run.
func TestGrid(t *testing.T) {
	permitted(t)
	cells := Grid()
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
	if len(certificates)+refused != len(cells) || len(certificates) < 60 {
		t.Errorf("%d certificates and %d refusals of %d cells", len(certificates), refused, len(cells))
	}
	t.Logf("%d cells, the slowest %.1f s", len(certificates), slowest)
}

package report

import (
	"io"
)

// WriteDrops writes, for each check that has any, the packets that boxes
// dropped between its ends.
func (r Results) WriteDrops(w io.Writer) {
}

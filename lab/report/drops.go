package report

import (
	"fmt"
	"io"

	"gauntlet/lab/path"
)

// WriteDrops writes, for each check that has any, the packets that boxes
// dropped between its ends, and what would have let each in.
func (r Results) WriteDrops(w io.Writer) {
	for _, c := range r.Checks {
		lines := c.dropLines()
		if len(lines) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s: %s dropped on the way\n", c.ID, plural(len(c.Drops)+c.MoreDrops, "packet"))
		for _, line := range lines {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
}

// dropLines tell the dropped packets in the order of the first of each kind;
// those alike but for their time share a line.
func (c Check) dropLines() (lines []string) {
	var kinds []path.Drop
	times, last := map[path.Drop]int{}, map[path.Drop]float64{}
	for _, d := range c.Drops {
		kind := d
		kind.Offset = 0
		if times[kind]++; times[kind] == 1 {
			kinds = append(kinds, d)
		}
		last[kind] = d.Offset
	}
	for _, d := range kinds {
		kind := d
		kind.Offset = 0
		when := fmt.Sprintf("+%.4f s", d.Offset)
		if n := times[kind]; n > 1 {
			when = fmt.Sprintf("%d from +%.4f s to +%.4f s", n, d.Offset, last[kind])
		}
		lines = append(lines, fmt.Sprintf("%s: %s %s (%s) -> %s (%s) at %s by %s: %s",
			when, d.Transport, known(d.From), d.Source, known(d.To), d.Destination, d.Router, d.Rule, d.LetIn))
	}
	if c.MoreDrops > 0 {
		lines = append(lines, fmt.Sprintf("and %d packets more", c.MoreDrops))
	}
	return lines
}

func known(host string) string {
	if host == "" {
		return "?"
	}
	return host
}

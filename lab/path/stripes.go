package path

import (
	"fmt"
	"strings"

	"gauntlet/lab/evidence"
)

// maxStripes bounds the flows that are named of those a payload may be striped
// over.
const maxStripes = 3

// stripes are flows too small to carry each, which may have carried the payload
// together: whoever cuts it into enough pieces must not be judged by what
// remains.
type stripes struct {
	bytes int64
	flows []*evidence.Flow
}

func (s *stripes) add(flow *evidence.Flow, bytes int64) {
	if bytes > 0 {
		s.bytes += bytes
		s.flows = append(s.flows, flow)
	}
}

// whole says whether they brought as much as the payload. What the reference
// overlay has beside a payload (handshakes, keep-alive and standby of relays) was
// at most a third of it, over ten flows.
func (s *stripes) whole(payload int64) bool { return len(s.flows) > 1 && s.bytes >= payload }

func (s *stripes) String() string {
	var names []string
	for _, flow := range s.flows[:min(len(s.flows), maxStripes)] {
		names = append(names, flow.String())
	}
	text := fmt.Sprintf("%d flows, each too small to carry it: %s", len(s.flows), strings.Join(names, ", "))
	if more := len(s.flows) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

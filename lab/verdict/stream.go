package verdict

import (
	"fmt"
	"math"
	"time"

	"github.com/invopop/jsonschema"

	"gauntlet/lab/media"
	"gauntlet/lab/path"
)

// Stream is what a scenario says of the load of a call, both ways. What is left
// out is not asked.
type Stream struct {
	// Gap is the longest silence at either end that is allowed.
	Gap *Duration `yaml:"gap,omitempty" json:"gap,omitempty"`
	// Lost is how many packets never came, over all flows together and the whole
	// call.
	Lost Count `yaml:"lost,omitempty" json:"lost,omitzero"`
	// Size is that of a packet in bytes of transport payload, over TCP with the
	// length before it.
	Size *int `yaml:"size,omitempty" json:"size,omitempty" jsonschema:"minimum=1"`
	// Rate is how many packets a second each end sends, within 2 %, in either half
	// of the time as in all of it.
	Rate *int `yaml:"rate,omitempty" json:"rate,omitempty" jsonschema:"minimum=1"`
	// First is whence the first packet of the call came to the callee: relayed,
	// from a relay, or straight, from the caller.
	First string `yaml:"first,omitempty" json:"first,omitempty" jsonschema:"enum=relayed,enum=straight"`
	// Moved says that none of the relays that carried before carries any more, or
	// that all of them still do.
	Moved *bool `yaml:"moved,omitempty" json:"moved,omitempty"`
}

// The words for where the first packet came from.
const (
	FirstRelayed  = "relayed"
	FirstStraight = "straight"
)

// rateTolerance is that of claim M2 (reference/papers.md section 3).
const rateTolerance = 0.02

func (s Stream) validate() (errs []error) {
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Gap != nil && *s.Gap <= 0 {
		say("gap %v: expected a duration above 0", *s.Gap)
	}
	if s.Size != nil && *s.Size < 1 {
		say("size %d: expected 1 or more bytes", *s.Size)
	}
	if s.Rate != nil && *s.Rate < 1 {
		say("rate %d: expected 1 or more packets a second", *s.Rate)
	}
	if s.First != "" && s.First != FirstRelayed && s.First != FirstStraight {
		say("first %q: expected %s or %s", s.First, FirstRelayed, FirstStraight)
	}
	return errs
}

// unmet says in a sentence what of the load is not as asked, "" if all is. before
// is the path until something was done to a relay, nil where nothing was.
func (s Stream) unmet(m *media.Measure, before *path.Record, wire path.Record) string {
	if s == (Stream{}) {
		return ""
	}
	if m == nil {
		return "no media came to the callee"
	}
	if problem := s.late(m); problem != "" {
		return problem
	}
	if s.Size != nil && m.Size != *s.Size {
		return fmt.Sprintf("expected media packets of %d bytes, the wire shows %d", *s.Size, m.Size)
	}
	for _, d := range []struct {
		to string
		media.Direction
	}{{"callee", m.ToCallee}, {"caller", m.ToCaller}} {
		if lost := d.Lost(); !s.Lost.Holds(max(lost, 0)) || s.Lost.Asked() && lost < 0 {
			return fmt.Sprintf("expected lost %s, the wire shows %d packets sent to the %s and %d received", s.Lost, d.Sent, d.to, d.Received)
		}
		if s.Rate != nil && max(math.Abs(d.Rate-float64(*s.Rate)), float64(*s.Rate)-d.Least) > rateTolerance*float64(*s.Rate) {
			return fmt.Sprintf("expected %d packets a second within 2 %%, the wire shows %.1f to the %s, and %.1f in one half", *s.Rate, d.Rate, d.to, d.Least)
		}
	}
	if first := m.First; s.First != "" && (s.First == FirstRelayed) != (first != "") {
		if first == "" {
			first = "the caller"
		}
		return fmt.Sprintf("expected the first packet to be %s, it came from %s", s.First, first)
	}
	if s.Moved != nil {
		return moved(*s.Moved, before, wire)
	}
	return ""
}

// late says where a gap is longer than is allowed, "" if none is.
func (s Stream) late(m *media.Measure) string {
	if s.Gap == nil || m == nil || m.Gap <= time.Duration(*s.Gap).Seconds() {
		return ""
	}
	return fmt.Sprintf("expected a gap of %v at most, the wire shows %.0f ms towards the callee and %.0f ms towards the caller",
		*s.Gap, 1000*m.ToCallee.Gap, 1000*m.ToCaller.Gap)
}

// paused says where a gap is longer than is allowed, and would not be without what
// the sender itself paused, on all its flows: it may be the machine that held it up.
// "" if there is none.
func (s Stream) paused(m *media.Measure) string {
	if s.Gap == nil || m == nil {
		return ""
	}
	bound := time.Duration(*s.Gap).Seconds()
	for _, d := range []media.Direction{m.ToCallee, m.ToCaller} {
		if d.Gap > bound && d.Gap-d.Pause > bound {
			return "" // too long whatever the other one is
		}
	}
	for _, d := range []struct {
		sender string
		media.Direction
	}{{"caller", m.ToCallee}, {"callee", m.ToCaller}} {
		if d.Gap > bound {
			return fmt.Sprintf("of a gap of %.0f ms, %.0f ms may be the %s's own, which sent nothing at all for so long", 1000*d.Gap, 1000*d.Pause, d.sender)
		}
	}
	return ""
}

// moved says where the relays that carry are not others than before, or not the
// same.
func moved(expected bool, before *path.Record, wire path.Record) string {
	if before == nil {
		return "nothing is known of the path before"
	}
	old, now, common := before.RelayNames(), wire.RelayNames(), 0
	for _, name := range now {
		for _, other := range old {
			if name == other {
				common++
			}
		}
	}
	switch {
	case expected && common > 0, !expected && (common < len(old) || common < len(now)):
		word := "others than"
		if !expected {
			word = "the same as"
		}
		return fmt.Sprintf("expected the relays that carry to be %s before, the wire shows %q, and %q before", word, now, old)
	}
	return ""
}

// Duration is one that files write as 500ms.
type Duration time.Duration

// UnmarshalText reads 500ms, 3s or 2m.
func (d *Duration) UnmarshalText(text []byte) error {
	t, err := time.ParseDuration(string(text))
	if err != nil || t < 0 {
		return fmt.Errorf("%q is not a duration such as 500ms, 3s or 2m", text)
	}
	*d = Duration(t)
	return nil
}

// MarshalText gives String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes it as files do.
func (d Duration) String() string { return time.Duration(d).String() }

// JSONSchema describes a duration for editors.
func (Duration) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^([0-9.]+(ns|us|ms|s|m|h))+$`, Description: "a duration such as 500ms"}
}

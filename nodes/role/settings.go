package role

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"gauntlet/nodes/media"
	"gauntlet/nodes/profile"
	"gauntlet/nodes/relay"
)

// clientSettings are what a scenario may set of a client.
type clientSettings struct {
	// Predict has a client behind a symmetric NAT that gives its ports out in
	// order say which come next, and others try these (papers.md §4).
	Predict bool `json:"predict"`
	// PunchTimeout is how long, in seconds, a direct path of a call is looked for,
	// in place of the profile's.
	PunchTimeout *float64 `json:"punch_timeout"`
}

// apply changes a client's numbers.
func (s clientSettings) apply(p *profile.Profile) error {
	if t := s.PunchTimeout; t != nil {
		if *t <= 0 || *t > maxPunchTimeout.Seconds() {
			return fmt.Errorf("settings: punch_timeout: %v; expected seconds, %v at most", *t, maxPunchTimeout)
		}
		p.PunchTimeout = time.Duration(*t * float64(time.Second))
	}
	return nil
}

// maxPunchTimeout bounds what a scenario may set: the call itself is not to be
// given up meanwhile.
const maxPunchTimeout = time.Minute

// supernodeSettings are what a scenario may set of a supernode: what it gives
// as a relay. What is left out is as relay.Default has it.
type supernodeSettings struct {
	RelaySessions *int `json:"relay_sessions"` // at once; one more is refused
	RelayRate     *int `json:"relay_rate"`     // bytes/s of media of one end of a session
}

// apply changes a relay's bounds.
func (s supernodeSettings) apply(c *relay.Config) error {
	if n := s.RelaySessions; n != nil {
		if *n < 0 {
			return fmt.Errorf("settings: relay_sessions: %d", *n)
		}
		c.MaxSessions = *n
	}
	if n := s.RelayRate; n != nil {
		if *n < 1 {
			return fmt.Errorf("settings: relay_rate: %d", *n)
		}
		c.MediaRate, c.MediaBurst = *n, max(*n/2, media.MaxPacket)
	}
	return nil
}

// readSettings reads the settings of a node of the scenario. Unknown ones are
// an error, so that a slip of the pen isn't passed over.
func readSettings(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

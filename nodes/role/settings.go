package role

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// clientSettings are what a scenario may set of a client.
type clientSettings struct {
	// Predict has a client behind a symmetric NAT that gives its ports out in
	// order say which come next, and others try these (papers.md §4).
	Predict bool `json:"predict"`
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

package evidence

import (
	"errors"
	"fmt"
)

// check finds names that mean nothing or two things, and boxes in a circle.
func (w *World) check() error {
	known := map[string]bool{}
	for _, h := range w.Hosts {
		if h.Name == "" || known[h.Name] {
			return fmt.Errorf("host name %q is empty or taken", h.Name)
		}
		known[h.Name] = true
	}
	boxes := map[string]bool{}
	for _, b := range w.Boxes {
		if b.Name == "" || known[b.Name] {
			return fmt.Errorf("box name %q is empty or taken", b.Name)
		}
		known[b.Name], boxes[b.Name] = true, true
	}
	for _, h := range w.Hosts {
		if h.Behind != "" && !boxes[h.Behind] {
			return fmt.Errorf("host %q is behind the unknown box %q", h.Name, h.Behind)
		}
	}
	for _, b := range w.Boxes {
		if b.Behind != "" && !boxes[b.Behind] {
			return fmt.Errorf("box %q is behind the unknown box %q", b.Name, b.Behind)
		}
		if len(w.Chain(b.Name)) >= len(w.Boxes) {
			return errors.New("boxes stand behind each other in a circle")
		}
	}
	for _, c := range w.Behaviours {
		if !boxes[c.Box] {
			return fmt.Errorf("behaviour of the unknown box %q", c.Box)
		}
		switch c.Filtering {
		case NoFiltering, EndpointIndependent, AddressDependent, AddressAndPortDependent:
		default:
			return fmt.Errorf("box %q has the unknown filtering %q", c.Box, c.Filtering)
		}
	}
	return nil
}

package model

import (
	"fmt"
	"sync"
	"testing"

	"gauntlet/middlebox"
)

// counts are of what went through a kernel and a model.
type counts struct {
	behaviours, sequences, differences int
	retried                            int // sequences of those, since a packet of the one before got lost
	udp, tcp                           int // packets
	arrived                            int // of both
	turned                             int // of those, what turned around in the box
	errors, conveyed                   int // ICMP errors, and those that got through
}

func (c *counts) packet(p Packet, got seen) {
	if p.Protocol == middlebox.TCP {
		c.tcp++
	} else {
		c.udp++
	}
	if got.arrived {
		c.arrived++
	}
}

func (c counts) String() string {
	return fmt.Sprintf("%d sequences (%d of them again, after a packet got lost), %d packets (%d UDP, %d TCP; %d got through, %d of them by hairpin), %d ICMP errors (%d got through), %d differences",
		c.sequences, c.retried, c.udp+c.tcp, c.udp, c.tcp, c.arrived, c.turned, c.errors, c.conveyed, c.differences)
}

// sum is of all tests of the package.
type sum struct {
	mu sync.Mutex
	counts
}

var total sum

func (s *sum) add(c counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviours++
	s.sequences += c.sequences
	s.retried += c.retried
	s.differences += c.differences
	s.udp += c.udp
	s.tcp += c.tcp
	s.arrived += c.arrived
	s.turned += c.turned
	s.errors += c.errors
	s.conveyed += c.conveyed
}

// Sequences may be retried once in so many, and a few times anyway: what gets
// lost more often than a machine loses packets is lost by the rules.
const (
	retriedOnceIn  = 50
	retriedAllowed = 2
)

// tooManyRetried says why they are, "" if they aren't.
func (c counts) tooManyRetried() string {
	if most := max(retriedAllowed, c.sequences/retriedOnceIn); c.retried > most {
		return fmt.Sprintf("%d of %d sequences were retried since a packet got lost; expected %d at most", c.retried, c.sequences, most)
	}
	return ""
}

func TestTooManyRetried(t *testing.T) {
	for _, c := range []struct {
		sequences, retried int
		many               bool
	}{{40, 0, false}, {40, 2, false}, {40, 3, true}, {1000, 20, false}, {1000, 21, true}} {
		if why := (counts{sequences: c.sequences, retried: c.retried}).tooManyRetried(); (why != "") != c.many {
			t.Errorf("%d of %d sequences: %q", c.retried, c.sequences, why)
		}
	}
}

package model

import (
	"fmt"
	"sync"

	"gauntlet/middlebox"
)

// counts are of what went through a kernel and a model.
type counts struct {
	behaviours, sequences, differences int
	udp, tcp                           int // packets
	arrived                            int // of both
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
	return fmt.Sprintf("%d sequences, %d packets (%d UDP, %d TCP; %d got through), %d ICMP errors (%d got through), %d differences",
		c.sequences, c.udp+c.tcp, c.udp, c.tcp, c.arrived, c.errors, c.conveyed, c.differences)
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
	s.differences += c.differences
	s.udp += c.udp
	s.tcp += c.tcp
	s.arrived += c.arrived
	s.errors += c.errors
	s.conveyed += c.conveyed
}

package evidence

// countOnce sets the payload of each TCP packet to the bytes that its place,
// the sender's or the receiver's interface, had not seen before, so that bytes
// that were sent again count once.
func countOnce(packets []packet) {
	var ranges [2][2]sequences // by sender and place
	for n := range packets {
		p := &packets[n]
		if p.flags&RST != 0 {
			p.payload = 0 // a RST's text is no part of the stream, RFC 9293 section 3.5.3
		}
		if p.payload == 0 {
			continue
		}
		place := 0
		if p.arrived {
			place = 1
		}
		seq := p.seq
		if p.flags&SYN != 0 {
			seq++ // SYN takes one number before the data
		}
		p.payload = uint16(ranges[p.from][place].add(seq, int64(p.payload)))
	}
}

// sequences are the parts of a byte stream that were seen, as sorted ranges
// that do not touch.
type sequences struct {
	parts []part
	at    int64 // the position that sequence numbers are unwrapped around
	begun bool
}

type part struct{ from, to int64 }

// add notes length bytes from seq on and returns how many of them are new.
func (s *sequences) add(seq uint32, length int64) (fresh int64) {
	if !s.begun {
		s.begun, s.at = true, int64(seq)
	}
	from := s.at + int64(int32(seq-uint32(s.at)))
	to := from + length
	s.at = max(s.at, to)
	fresh = length
	n := 0
	for n < len(s.parts) && s.parts[n].to < from {
		n++
	}
	end := n
	merged := part{from, to}
	for end < len(s.parts) && s.parts[end].from <= to {
		old := s.parts[end]
		if overlap := min(to, old.to) - max(from, old.from); overlap > 0 {
			fresh -= overlap
		}
		merged = part{min(merged.from, old.from), max(merged.to, old.to)}
		end++
	}
	s.parts = append(s.parts[:n], append([]part{merged}, s.parts[end:]...)...)
	return fresh
}

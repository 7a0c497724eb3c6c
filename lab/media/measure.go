package media

import (
	"slices"
	"time"

	"gauntlet/lab/evidence"
)

// Measure is what was counted of an exchange's media.
type Measure struct {
	// Size is that of a media packet in bytes of transport payload: over TCP with
	// the length before it.
	Size int `json:"size"`
	// First is the relay that the first packet came to the callee from, "" if it
	// came from the caller itself.
	First string `json:"first_relay,omitempty"`
	// Gap is the longest silence at either end, in seconds.
	Gap float64 `json:"gap_seconds"`
	// ToCallee and ToCaller are the two directions.
	ToCallee Direction `json:"to_callee"`
	ToCaller Direction `json:"to_caller"`
}

// Direction is what one end sent and the other got.
type Direction struct {
	// Sent and Received are counts of packets from the function's beginning to its
	// end, over all flows together.
	Sent     int `json:"sent"`
	Received int `json:"received"`
	// Rate is how many packets a second were sent in the window, Least how many
	// in that half of it in which there were fewer.
	Rate  float64 `json:"packets_per_second"`
	Least float64 `json:"least_packets_per_second"`
	// Gap is the longest silence at the receiver, in seconds: between two packets
	// in the window, or from the last of them to the window's end. Where the lab did
	// something meanwhile, it is from the last packet before the first of that on.
	Gap float64 `json:"gap_seconds"`
	// Pause is for how much longer the sender sent nothing at all, of no flow any
	// payload, than it does where media goes over none. A node that gets no
	// processor pauses; one that only has no path goes on with what it has to say
	// beside media. Of one that never says anything it is the whole silence.
	Pause float64 `json:"pause_seconds"`
}

// Lost is how many packets never came.
func (d Direction) Lost() int { return d.Sent - d.Received }

// Of measures an exchange of media, nil if none came to the callee.
func Of(ev *evidence.Evidence, ex evidence.Exchange) *Measure {
	size := sizeOf(ev, ex)
	if size == 0 {
		return nil
	}
	both := streams(ev, ex, size)
	m := &Measure{Size: size, ToCallee: both[0].measure(ex), ToCaller: both[1].measure(ex)}
	m.Gap = max(m.ToCallee.Gap, m.ToCaller.Gap)
	if came := both[0].came; len(came) > 0 {
		if from := came[0].flow.Peer(ex.Callee); from != ex.Caller {
			m.First = from
		}
	}
	if came := within(both[0].came, ex.From, ex.To); len(came) > 0 && came[len(came)-1].flow.Transport == evidence.TCP {
		m.Size += Framing
	}
	return m
}

func (s stream) measure(ex evidence.Exchange) (d Direction) {
	d.Sent, d.Received = count(s.sent), count(s.came)
	half := ex.From.Add(ex.To.Sub(ex.From) / 2)
	d.Rate = s.rate(ex.From, ex.To)
	d.Least = min(s.rate(ex.From, half), s.rate(half, ex.To))
	d.Gap = silence(s.came, ex).Seconds()
	d.Pause = max(0, silence(s.said, ex)-s.habit()).Seconds()
	return d
}

// habit is how long the sender is silent as a rule where media goes over no flow:
// half of the time is in silences of that length or less. It is 0 for one that says
// nothing beside media.
func (s stream) habit() time.Duration {
	var silences []time.Duration
	var all time.Duration
	for n := 1; n < len(s.beside); n++ {
		silences = append(silences, s.beside[n].time.Sub(s.beside[n-1].time))
		all += silences[n-1]
	}
	slices.Sort(silences)
	half := time.Duration(0)
	for _, d := range silences {
		if half += d; 2*half >= all {
			return d
		}
	}
	return 0
}

// rate is how many packets a second were sent in a window.
func (s stream) rate(from, to time.Time) float64 {
	if !to.After(from) {
		return 0
	}
	return float64(count(within(s.sent, from, to))) / to.Sub(from).Seconds()
}

// silence is the longest time without any of the moments.
func silence(all []moment, ex evidence.Exchange) (longest time.Duration) {
	last := ex.From
	if len(ex.Events) > 0 {
		begin := ex.Events[0].Began
		last = begin
		for _, m := range all {
			if m.time.After(begin) {
				break
			}
			last = m.time
		}
	}
	for _, m := range all {
		if m.time.After(last) && !m.time.After(ex.To) {
			longest, last = max(longest, m.time.Sub(last)), m.time
		}
	}
	return max(longest, ex.To.Sub(last))
}

func count(all []moment) (n int) {
	for _, m := range all {
		n += m.packets
	}
	return n
}

// Settled is since when media has gone, at both ends and both ways, over no other
// flows than at the window's end: the window's beginning, or a moment after the
// last packet on any other.
func Settled(ev *evidence.Evidence, ex evidence.Exchange) time.Time {
	since := ex.From
	for _, s := range streams(ev, ex, sizeOf(ev, ex)) {
		for _, all := range [][]moment{within(s.sent, ex.From, ex.To), within(s.came, ex.From, ex.To)} {
			for n := len(all) - 1; n >= 0; n-- {
				if all[n].flow != all[len(all)-1].flow {
					if after := all[n].time.Add(1); after.After(since) {
						since = after
					}
					break
				}
			}
		}
	}
	return since
}

// Package evidence holds what was recorded of one scenario and joins it into
// flows.
//
// It is a pure function over the files of a folder. It knows hosts, boxes and
// packets, and nothing of any overlay, so the same folder always gives the
// same flows.
//
// # The folder
//
//   - world.json: one [World]: who stood where, and how each box behaved when.
//   - capture.pcapng: the packets of all taps, one interface description for
//     each, named "alice/eth0", "home-a/wan", "home-a/lan"; Ethernet frames,
//     nanosecond times, little-endian.
//   - conntrack.jsonl: one [Dump] a line: a router's connection tracking table
//     at one moment.
//   - drops.jsonl: one [DroppedPacket] a line: a packet that a box dropped.
//   - losses.json: one [Losses]: what the recording itself missed.
//   - exchanges.jsonl: one [Exchange] a line: a function that was driven.
//
// All times are RFC 3339 with nanoseconds in JSON, and of one clock.
//
// # The join
//
// A packet at a host's own interface has that host's tuple. Outward, at each
// box that translates, the conntrack entry with that tuple gives the tuple on
// the other side; a box that does not translate leaves it alone. Two hosts'
// views that end in the same tuple, mirrored, are one [Flow]. Where no entry
// says how a tuple went on, the flow ends there: nothing is guessed.
package evidence

// The file names inside a recorded folder.
const (
	WorldFile     = "world.json"
	CaptureFile   = "capture.pcapng"
	ConntrackFile = "conntrack.jsonl"
	DropsFile     = "drops.jsonl"
	LossesFile    = "losses.json"
	ExchangesFile = "exchanges.jsonl"
)

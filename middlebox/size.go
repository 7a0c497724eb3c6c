package middlebox

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// MaxAnswers is the most that Answers may be: twice what Linux lets an ordinary
// user ask for (net.core.rmem_max, 212992 bytes unless told otherwise), since
// the kernel doubles what it is asked for (socket(7), SO_RCVBUF).
const MaxAnswers = 2 * 212992

// What the kernel's answers to the messages of a transaction take of the
// socket's buffer, at most, as measured with Linux 6.18: to each an
// acknowledgment, and each rule comes back whole, with some room lost.
const (
	acknowledgment = 1250 // bytes
	lost           = 0.75 // of what comes back
)

// Answers is about how many bytes of the socket's buffer the kernel's answers
// take when the rules are loaded, rather more than less. None is read before all
// are there.
func (rs *Ruleset) Answers() int {
	messages, rules := 3+len(rs.counters)+len(rs.sets)+len(rs.chains), 0 // three for the table
	for _, c := range rs.chains {
		for _, r := range c.rules {
			messages++
			rules += 64 // the headers of a message, the names of table and chain
			for _, e := range r.exprs() {
				if data, err := expr.Marshal(byte(nftables.TableFamilyIPv4), e); err == nil { // else loading says so
					rules += 4 + len(data)
				}
			}
		}
	}
	return messages*acknowledgment + int(float64(rules)*(1+lost))
}

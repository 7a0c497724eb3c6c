package evidence

import "time"

// Exchange is one function that was driven between a caller and a callee.
type Exchange struct {
	ID       string `json:"id"`
	Function string `json:"function"`
	// Caller and Callee are host names. For login the callee is the host of
	// the login server.
	Caller string `json:"caller"`
	Callee string `json:"callee"`
	// Since is when the function began: a flow is new in the exchange if its
	// first packet is not before it.
	Since time.Time `json:"since"`
	// From and To bound, both included, the packets whose bytes count.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Payload is how many bytes the caller sent to the callee; for media the
	// least that the load must have brought.
	Payload int64 `json:"payload"`
	// BothWays says that the callee sent as much to the caller.
	BothWays bool `json:"both_ways,omitempty"`
	// Ended is when the function was over and all that was under way had come,
	// the zero time where that is To.
	Ended time.Time `json:"ended,omitzero"`
	// Events are what the lab did while the function went on, in order.
	Events []Event `json:"events,omitempty"`
}

// Event is something that the lab did to a host or a box: it had not begun
// before Began, and was done at Done.
type Event struct {
	Action string    `json:"action"`
	Target string    `json:"target"`
	Began  time.Time `json:"began"`
	Done   time.Time `json:"done"`
}

// Until is when all of the function was over.
func (e Exchange) Until() time.Time {
	if e.Ended.IsZero() {
		return e.To
	}
	return e.Ended
}

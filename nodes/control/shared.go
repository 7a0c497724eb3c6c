package control

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// shared is one of several drivers of the same node: all write to its stdin,
// and each reads all that it writes to stdout. The ids of a driver's requests
// begin with its tag, so that it knows the answers that are its own; the
// others', and those of a driver that went away before its answer came, are
// passed over.
type shared struct {
	*lines
	tag string
	// begun is set after the first line, which may be the end of one that was
	// being written when this driver came.
	begun bool
}

func (s *shared) Send(msg []byte) error {
	var request map[string]json.RawMessage
	if json.Unmarshal(msg, &request) == nil && len(request["id"]) > 0 {
		id, err := json.Marshal(s.tag + string(request["id"]))
		if err != nil {
			return err
		}
		request["id"] = id
		if msg, err = json.Marshal(request); err != nil {
			return err
		}
	}
	return s.lines.Send(msg)
}

func (s *shared) Recv() ([]byte, error) {
	for {
		msg, err := s.lines.Recv()
		first := !s.begun
		s.begun = true
		if err != nil {
			var torn *notMessage
			if first && errors.As(err, &torn) {
				continue
			}
			return nil, err
		}
		var answer map[string]json.RawMessage
		if json.Unmarshal(msg, &answer) != nil {
			continue // a batch, which no driver asks for
		}
		if _, isCall := answer["method"]; isCall {
			return msg, nil
		}
		var id string
		if json.Unmarshal(answer["id"], &id) != nil || !strings.HasPrefix(id, s.tag) {
			continue
		}
		answer["id"] = json.RawMessage(strings.TrimPrefix(id, s.tag))
		return json.Marshal(answer)
	}
}

// NewSharedClient is NewClient for a node that others may drive too, before,
// after and at the same time, such as one in a container that stays up. The tag
// tells its requests from theirs; each driver has one of its own.
func NewSharedClient(out io.Reader, in io.WriteCloser, tag string, onEvent func(Event)) *Client {
	return newClient(&shared{lines: newLines(out, in), tag: tag + "."}, onEvent)
}

package conduct

import (
	"context"
	"testing"

	"gauntlet/nodes/control"
)

// Who failed at what is said once, whatever the node says of it.
func TestFailure(t *testing.T) {
	for reason, want := range map[string]string{
		"login: login: alice is logged in already": "alice: login: alice is logged in already",
		"no answer": "alice: login: no answer",
	} {
		_, err := Login(t.Context(), func(context.Context, string, string, any, any) error { return &control.Failed{Reason: reason} }, "alice", "secret")
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

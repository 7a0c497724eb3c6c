package conduct

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"gauntlet/nodes/control"
)

// payloadSize is how many bytes a function carries, in the range that a run
// uses too.
const payloadSize = 40 << 10

func payload() []byte {
	p := make([]byte, payloadSize)
	rand.Read(p)
	return p
}

// Login has a client log in.
func Login(ctx context.Context, call Call, user, password string) (control.LoginResult, error) {
	var result control.LoginResult
	err := call(ctx, user, control.MethodLogin, control.LoginParams{User: user, Password: password, Payload: payload()}, &result)
	return result, failure(user, "login", err)
}

// Search has a caller find a callee and be authorized.
func Search(ctx context.Context, call Call, caller, callee string) (control.PeerResult, error) {
	var result control.PeerResult
	err := call(ctx, caller, control.MethodSearch, control.PeerParams{Callee: callee, Payload: payload()}, &result)
	return result, failure(caller, "search", err)
}

// Talk has a caller call a callee, lets the call last, and hangs up, also where
// ctx ends meanwhile.
func Talk(ctx context.Context, call Call, caller, callee string, length, hangup time.Duration) (control.CallResult, control.HangupResult, error) {
	var begun control.CallResult
	var end control.HangupResult
	if err := call(ctx, caller, control.MethodCall, control.PeerParams{Callee: callee, Payload: payload()}, &begun); err != nil {
		return begun, end, failure(caller, "call", err)
	}
	over := time.NewTimer(length)
	defer over.Stop()
	var broken error
	select {
	case <-over.C:
	case <-ctx.Done():
		broken = context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), hangup, fmt.Errorf("no answer to hangup within %v", hangup))
	defer cancel()
	err := call(ctx, caller, control.MethodHangup, control.HangupParams{Call: begun.Call}, &end)
	return begun, end, errors.Join(broken, failure(caller, "hangup", err))
}

// failure names the function in an error, once: nodes do so too.
func failure(who, function string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, control.ErrNotOffered) {
		return fmt.Errorf("%s does not offer %s", who, function)
	}
	var failed *control.Failed
	if errors.As(err, &failed) {
		reason := failed.Reason
		for own := true; own; {
			reason, own = strings.CutPrefix(reason, function+": ")
		}
		err = &control.Failed{Reason: reason}
	}
	return fmt.Errorf("%s: %s: %w", who, function, err)
}

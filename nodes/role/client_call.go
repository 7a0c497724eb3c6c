package role

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
)

// hookCall offers call and hangup.
func (n *client) hookCall() {
	n.plain = func(c net.Conn) {
		f := n.held.get()
		if f == nil {
			c.Close()
			return
		}
		if err := f.call.ServeMedia(c); err != nil {
			n.log.Info("media connection refused", "from", c.RemoteAddr(), "error", err)
		}
	}
	n.offer(control.MethodCall, control.Do(func(ctx context.Context, p control.PeerParams) (*control.CallResult, error) {
		f := n.held.get()
		if f == nil {
			return nil, errLoggedOut
		}
		c, err := f.call.Call(ctx, p.Callee, p.Payload)
		if err != nil {
			return nil, err
		}
		id, signalling, media := c.ID(), c.Signalling(), c.Media()
		n.log.Info("call is up", "callee", p.Callee, "signalling", signalling.Path, "media", media.Path, "relays", media.Relays)
		return &control.CallResult{Call: hex.EncodeToString(id[:]), Signalling: &signalling, Media: &media}, nil
	}))
	n.offered[control.MethodHangup] = control.Do(func(ctx context.Context, p control.HangupParams) (*control.HangupResult, error) {
		f := n.held.get()
		if f == nil {
			return nil, errLoggedOut
		}
		raw, err := hex.DecodeString(p.Call)
		if err != nil || len(raw) != len(directory.Session{}) {
			return nil, fmt.Errorf("hang up: %q names no call", p.Call)
		}
		id := directory.Session(raw)
		c, ok := f.call.Find(id)
		if !ok {
			if past, ok := f.call.Past(id); ok {
				return nil, fmt.Errorf("hang up: the call was over: %w", past.Reason)
			}
			return nil, fmt.Errorf("hang up: no call %s is going on", p.Call)
		}
		s := c.Hangup(ctx)
		return &control.HangupResult{Media: &s.Media, Sent: s.Sent, Received: s.Received, Rejected: s.Rejected}, nil
	})
}

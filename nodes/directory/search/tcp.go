package search

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gauntlet/nodes/control"
	"gauntlet/nodes/directory"
	"gauntlet/nodes/directory/reach"
	"gauntlet/nodes/identity"
	"gauntlet/nodes/link"
	"gauntlet/nodes/wire"
)

// methodGreet delivers the greeting over an end-to-end connection, whose
// mutual TLS has proved both ends.
const methodGreet = "search.greet"

type greetRequest struct {
	_        struct{} `cbor:",toarray"`
	Greeting []byte
}

// overTCP reaches the callee over TCP and delivers the greeting there.
func (s *Service) overTCP(ctx context.Context, r *directory.Record, greeting []byte) (*control.Path, error) {
	conn, err := s.reach.Connect(ctx, r, identity.ALPNSearch, s.client.Profile.SearchRelays)
	if err != nil {
		return nil, err
	}
	for {
		// The connection outlives the search where it goes over relays.
		l := link.New(s.ctx, conn, conn.Peer, nil)
		err := l.Call(ctx, methodGreet, greetRequest{Greeting: greeting}, nil)
		if err == nil {
			path := conn.Path
			if conn.Group == nil {
				l.Close()
				l.Wait()
				return &path, nil
			}
			path.Relays = conn.Group.Held(ctx)
			conn.Group.Hold(l.Wait)
			return &path, nil
		}
		l.Close()
		l.Wait()
		if conn.Group == nil {
			return nil, fmt.Errorf("greeting: %w", err)
		}
		var answered *link.Error
		if errors.As(err, &answered) || ctx.Err() != nil {
			conn.Group.Close()
			return nil, fmt.Errorf("greeting: %w", err)
		}
		group := conn.Group // the relay died under the greeting: over the next one
		if conn, err = group.Connect(ctx); err != nil {
			group.Close()
			return nil, err
		}
	}
}

// serve takes the greeting of a caller that connected.
func (s *Service) serve(ctx context.Context, conn *reach.Conn) {
	group := conn.Group
	if group != nil {
		defer group.Close()
	}
	for {
		greeted := make(chan struct{}, 1)
		l := link.New(ctx, conn, conn.Peer, func(_ context.Context, _ *link.Conn, method string, body []byte) (any, error) {
			if method != methodGreet {
				return nil, link.ErrUnknown
			}
			var request greetRequest
			if err := wire.Unmarshal(body, &request); err != nil {
				return nil, err
			}
			if len(request.Greeting) > MaxGreeting {
				return nil, link.Refused("a greeting of %d bytes is too large", len(request.Greeting))
			}
			if err := s.accept(conn.Peer, request.Greeting); err != nil {
				return nil, link.Refused("%v", err)
			}
			s.client.Log.Info("greeting received over TCP", "from", conn.Peer.Name, "path", conn.Path.Path)
			select {
			case greeted <- struct{}{}:
			default:
			}
			return struct{}{}, nil
		})
		again := s.attend(ctx, l, greeted, group)
		l.Close()
		l.Wait()
		if !again {
			return
		}
		next, err := group.Connect(ctx)
		if err != nil {
			s.client.Log.Info("caller lost", "caller", conn.Peer.Name, "error", err)
			return
		}
		conn = next
	}
}

// attend waits until a caller's connection is done with, and says whether it
// broke before the greeting and may come again over the next relay.
func (s *Service) attend(ctx context.Context, l *link.Conn, greeted <-chan struct{}, group *reach.Group) (again bool) {
	patience := time.NewTimer(s.client.Profile.SearchTimeout)
	defer patience.Stop()
	select {
	case <-greeted:
	case <-l.Done():
		select {
		case <-greeted:
		default:
			return group != nil && ctx.Err() == nil
		}
	case <-patience.C:
		return false
	}
	if group == nil {
		select { // the caller closes once it has the answer
		case <-l.Done():
		case <-patience.C:
		}
		return false
	}
	group.Keep(ctx)
	return false
}

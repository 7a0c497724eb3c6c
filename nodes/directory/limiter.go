package directory

import (
	"sync"

	"golang.org/x/time/rate"
)

// A user may be introduced to others so often: 5 a second on average, 20 at
// once.
const (
	introductionRate  = 5
	introductionBurst = 20
	maxLimited        = 4096 // users that are limited one by one
)

// limiter bounds the introductions that each user asks for, since each makes
// another user do something.
type limiter struct {
	mu    sync.Mutex
	users map[string]*rate.Limiter
}

func newLimiter() *limiter { return &limiter{users: map[string]*rate.Limiter{}} }

// allow says whether a user may have one more introduction now.
func (l *limiter) allow(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	user := l.users[name]
	if user == nil {
		if len(l.users) >= maxLimited {
			clear(l.users)
		}
		user = rate.NewLimiter(introductionRate, introductionBurst)
		l.users[name] = user
	}
	return user.Allow()
}

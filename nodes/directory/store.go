package directory

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"gauntlet/nodes/identity"
	"gauntlet/nodes/membership"
)

// maxRecords bounds the users that one supernode keeps, about 1 KB each.
const maxRecords = 20000

// maxSkew is how far in the future a record may be signed, for clocks that
// run ahead.
const maxSkew = 2 * time.Minute

// ErrStale means that a newer record of the user is known.
var ErrStale = errors.New("a newer record is known")

// Store keeps the newest record of each user for a time.
type Store struct {
	roots identity.Roots
	life  time.Duration

	mu      sync.Mutex
	records map[string]stored
	swept   time.Time
}

type stored struct {
	signed   Signed
	sequence uint64
	expires  time.Time
}

// NewStore keeps records for life after they were signed.
func NewStore(roots identity.Roots, life time.Duration) *Store {
	return &Store{roots: roots, life: life, records: map[string]stored{}}
}

// Put checks a record and keeps it, if it is newer than what is known of its
// user (else ErrStale; the same record again is no error).
func (s *Store) Put(signed Signed, now time.Time) error {
	r, err := signed.Open(s.roots)
	if err != nil {
		return err
	}
	at := time.UnixMilli(r.Time)
	switch {
	case at.After(now.Add(maxSkew)):
		return fmt.Errorf("%w: %s signed it in the future", ErrRecord, r.Name())
	case !now.Before(at.Add(s.life)):
		return fmt.Errorf("%w: %s was last seen %v ago", ErrRecord, r.Name(), now.Sub(at))
	}
	name := membership.Normal(r.Name())
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.records[name]
	switch {
	case known && old.expires.After(now) && old.sequence > r.Sequence:
		return fmt.Errorf("record %d of %s: %w", r.Sequence, r.Name(), ErrStale)
	case known && old.sequence == r.Sequence && string(old.signed.Body) != string(signed.Body):
		return fmt.Errorf("another record %d of %s: %w", r.Sequence, r.Name(), ErrStale)
	}
	if !known {
		if len(s.records) >= maxRecords || now.Sub(s.swept) > s.life/8 {
			s.sweep(now)
		}
		if len(s.records) >= maxRecords {
			return fmt.Errorf("store record of %s: %d are kept already", r.Name(), maxRecords)
		}
	}
	s.records[name] = stored{signed: signed, sequence: r.Sequence, expires: at.Add(s.life)}
	return nil
}

// Get returns the newest record of a user who was seen within the store's
// life.
func (s *Store) Get(name string, now time.Time) (Signed, bool) {
	name = membership.Normal(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[name]
	if !ok || !now.Before(r.expires) {
		delete(s.records, name)
		return Signed{}, false
	}
	return r.signed, true
}

// Len is how many users the store knows, some perhaps for too long.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}

// sweep forgets who was not seen for too long.
func (s *Store) sweep(now time.Time) {
	for name, r := range s.records {
		if !now.Before(r.expires) {
			delete(s.records, name)
		}
	}
	s.swept = now
}

package directory

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func supernodes(n int) []Supernode {
	list := make([]Supernode, n)
	for i := range list {
		list[i].Name = fmt.Sprintf("sn%d", i)
	}
	return list
}

func TestEachDoesNotWaitForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		well, err := each(t.Context(), 300*time.Millisecond, supernodes(3), func(ctx context.Context, to Supernode) error {
			if to.Name == "sn1" {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		})
		if well != 2 || err == nil {
			t.Errorf("went well with %d, %v", well, err)
		}
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestEachWaitsWhileNoneIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		well, _ := each(t.Context(), 300*time.Millisecond, supernodes(2), func(ctx context.Context, to Supernode) error {
			if to.Name == "sn1" {
				return errors.New("no")
			}
			select {
			case <-time.After(2 * time.Second):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		if took := time.Since(start); well != 1 || took != 2*time.Second {
			t.Errorf("went well with %d after %v", well, took)
		}
		if _, err := each(t.Context(), time.Second, nil, nil); err == nil {
			t.Error("nobody to ask is no error")
		}
	})
}

func TestIntroductionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		allowed := func() (n int) {
			for l.allow("eve") {
				n++
			}
			return n
		}
		if n := allowed(); n != introductionBurst {
			t.Errorf("%d at once", n)
		}
		time.Sleep(time.Second)
		if n := allowed(); n != introductionRate {
			t.Errorf("%d a second later", n)
		}
		if !l.allow("alice") {
			t.Error("one user's limit holds for another")
		}
	})
}

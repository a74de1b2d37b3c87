package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// The schedules with an odd seed have windows: their values are past their TTL within moments, and are loaded anew in the background, before
// that and after it, or stand in for a load that fails or is slow. None of this excuses an invalidation, so the rule knows nothing of it.
type windows struct {
	TTL          time.Duration `json:"ttl"`
	Stale        time.Duration `json:"stale"`
	StaleIfError time.Duration `json:"staleIfError"`
	SoftTimeout  time.Duration `json:"softTimeout"`
	RefreshAhead float64       `json:"refreshAhead"`
}

func windowsOf(seed uint64) *windows {
	if seed%2 == 0 {
		return nil
	}
	random := rand.New(rand.NewPCG(seed, 1<<32)) // of their own: what else a seed decides does not depend on them
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(random.Int64N(int64(most-least)))
	}
	w := &windows{
		TTL: between(50*time.Millisecond, 500*time.Millisecond), Stale: between(100*time.Millisecond, time.Second),
		SoftTimeout: between(150*time.Millisecond, 500*time.Millisecond), RefreshAhead: 0.1 + 0.4*random.Float64(),
	}
	w.StaleIfError = w.Stale + between(100*time.Millisecond, time.Second)
	return w
}

// errSource is how a load fails in a schedule with windows.
var errSource = errors.New("the source has failed")

// failOneIn is how many loads there are for one that fails.
const failOneIn = 25

// blindOneIn is how many loads there are for one that takes each previous value for not modified.
const blindOneIn = 3

// fails decides whether a load is one that fails. In the end none does.
func (w *worker) fails() bool {
	select {
	case <-w.stop:
		return false
	default:
		return w.Windows != nil && rand.IntN(failOneIn) == 0
	}
}

// A caller is a call that may begin a load. The context of that load has it.
type caller struct {
	began    int64
	answered atomic.Int64 // when it got a value
}

type callerKey struct{}

// calling is the context of a call in a schedule with windows.
func (t *tape) calling() (context.Context, *caller) {
	if t.w.Windows == nil {
		return t.ctx, new(caller)
	}
	c := &caller{began: now()}
	return context.WithValue(t.ctx, callerKey{}, c), c
}

// behind reports whether a load that ends now is one in the background: whoever has begun it has got a value meanwhile. Who has got it
// only after SoftTimeout has waited for the load.
func (w *worker) behind(ctx context.Context) (asked int64, ok bool) {
	c, _ := ctx.Value(callerKey{}).(*caller)
	if c == nil {
		return 0, false
	}
	at := c.answered.Load()
	return c.began, at > 0 && at-c.began < int64(w.Windows.SoftTimeout)
}

// A refresh is a load in the background, of one key.
type refresh struct {
	asked int64 // when the call began that has begun it
	read  int64 // when the source was asked
	done  int64 // when the loader returned
	key   uint8
	proc  uint16
	same  bool // the source said that the value is not modified
}

// A place is where a refresh was when an invalidation of its key was called and completed.
type place int

const (
	beforeSource place = iota // after the call that has begun it, before the source was asked
	afterSource               // after the source was asked, before the loader returned: what it has read must not be stored
	places
)

var placeNames = [places]string{"refreshes overtaken before they read the source", "refreshes overtaken after they read the source"}

// overtaken counts the refreshes that an invalidation overtook, by place; same are those of them whose value was not modified.
func (h *history) overtaken() (n, same [places]uint64) {
	byKey := make([][]*invalidation, keyCount)
	for i := range h.invalidations {
		h.invalidations[i].keys.each(func(k int) { byKey[k] = append(byKey[k], &h.invalidations[i]) })
	}
	for _, list := range byKey {
		slices.SortFunc(list, func(a, b *invalidation) int { return int(a.call - b.call) })
	}
	within := func(r *refresh, from, to int64) bool {
		list := byKey[r.key]
		at, _ := slices.BinarySearchFunc(list, from, func(i *invalidation, t int64) int { return int(i.call - t) })
		for _, i := range list[at:] {
			if i.call >= to {
				return false
			}
			done := i.confirmed
			if i.proc == r.proc {
				done = i.ret
			}
			if done != 0 && done < to {
				return true
			}
		}
		return false
	}
	for i := range h.refreshes {
		r := &h.refreshes[i]
		for at, was := range [places]bool{beforeSource: within(r, r.asked, r.read), afterSource: within(r, r.read, r.done)} {
			if was {
				n[at]++
			}
			if was && r.same {
				same[at]++
			}
		}
	}
	return n, same
}

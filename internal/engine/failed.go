package engine

import (
	"context"
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/near"
)

// loadFailed counts a load that has failed. It may hold back the next loads of the key: see backoff.Table. before is the number of the last
// failure when the load began.
//
// A loader that works with the context of the call around it, and not with its own, fails when that caller has left. The source has
// not failed: see endedWithCaller.
func (e *Engine) loadFailed(a *attempt, err error, before uint64) {
	a.Policy.Counters.LoadErrors.Add(1)
	if e.opts.Backoff < 0 || a.endedWithCaller(err, e.Clock.Now()) {
		return
	}
	e.failures.Note(a.Key, a.Policy.Owner, before, func() error { return e.opts.ErrorOf(err, a.Key) })
}

// holdBack fails those attempts whose last loads have failed not long ago, and returns the others. A Refresh is not held back.
func (e *Engine) holdBack(attempts []*attempt) (others []*attempt) {
	for _, a := range attempts {
		left, err := e.failures.HeldBack(a.Key, a.Policy.Owner)
		if err == nil || a.Replace {
			others = append(others, a)
			continue
		}
		left = left.Round(time.Millisecond)
		a.call.Resolve(Outcome{}, &Error{
			Code: CodeBackoff, Key: a.Key, RetryAfter: max(left, time.Millisecond), Err: err,
			Message: "the last loads failed, the next one may begin in " + left.String(),
		})
	}
	return others
}

// ownEnd is how soon after the end of its caller's context a load fails that works with that context.
const ownEnd = 250 * time.Millisecond

// leave notes when the caller who leads a has found its context ended.
func (a *attempt) leave(clock *near.Clock) {
	defer func() { _ = recover() }() // of the program's context
	if a.caller != nil && guard.Context(a.caller).Err() != nil {
		a.left.CompareAndSwap(0, max(clock.Now(), 1))
	}
}

// endedWithCaller reports whether a load has failed with err, now, for the end of its leading caller's own context. A source has time
// limits too, and their errors look the same. So only what comes back when that context ends counts, and soon after it:
//
//  1. A caller leads a load, and has a second. The source hangs; its HTTP client has two.
//  2. The caller leaves. The load goes on.
//  3. The client fails, with an error that is context.DeadlineExceeded. That is the source's: were it taken for the caller's, nobody
//     would ever be held back.
func (a *attempt) endedWithCaller(err error, now int64) (yes bool) {
	if a.caller == nil {
		return false
	}
	defer func() { _ = recover() }() // of the program's context
	end := guard.Context(a.caller).Err()
	if end == nil || !errors.Is(err, end) && !errors.Is(err, context.Cause(a.caller)) {
		return false
	}
	left := a.left.Load() // 0 where the caller has not looked yet: it has ended just now
	return left == 0 || now-left <= int64(ownEnd)
}

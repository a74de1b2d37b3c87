package engine

import (
	"context"
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/near"
)

// loadFailed counts a failed load, which may put the key into backoff: see backoff.Table. before is the number of the last failure when the
// load began.
//
// A loader that uses the context of the call around it instead of its own fails when that caller leaves. The source has not failed then: see
// endedWithCaller.
//
// pause is what the loader has said of the next load, 0 if nothing. It holds even where there is no backoff.
func (e *Engine) loadFailed(a *attempt, err error, before uint64, pause time.Duration) {
	a.Policy.Counters.LoadErrors.Add(1)
	if e.opts.Backoff < 0 && pause == 0 || a.endedWithCaller(err, e.Clock.Now()) {
		return
	}
	e.failures.NoteUntil(a.Key, a.Policy.Owner, before, pause, func() error { return e.opts.ErrorOf(err, a.Key) })
}

// refuseBackedOff fails the attempts whose key is in backoff, and returns the others. A Refresh bypasses backoff.
func (e *Engine) refuseBackedOff(attempts []*attempt) (others []*attempt) {
	others = listOf(attempts)
	for _, a := range attempts {
		left, err := e.failures.HeldBack(a.Key, a.Policy.Owner)
		if err == nil || a.Replace {
			others = append(others, a)
			continue
		}
		left = left.Round(time.Millisecond)
		a.call.Resolve(a.missed(), &Error{
			Code: CodeBackoff, Key: a.Key, RetryAfter: max(left, time.Millisecond), Err: err,
			Message: "the last loads failed, the next one may begin in " + left.String(),
		})
	}
	return others
}

// callerEndWindow is how soon after the end of its caller's context a load fails that uses that context.
const callerEndWindow = 250 * time.Millisecond

// noteCallerLeft notes when the caller of a leader has found its context ended.
func (a *attempt) noteCallerLeft(clock *near.Clock) {
	defer func() { _ = recover() }() // the program's context may panic
	if a.caller != nil && guard.Context(a.caller).Err() != nil {
		a.callerLeft.CompareAndSwap(0, max(clock.Now(), 1))
	}
}

// endedWithCaller reports whether a load has just failed with err because the context of its leading caller has ended. A source has time limits
// too, and their errors look the same. So an error counts only within callerEndWindow after the end of that context:
//
//  1. A caller leads a load, and its context ends after one second. The source hangs. Its HTTP client has a limit of two seconds.
//  2. After one second the caller leaves. The load goes on.
//  3. After two seconds the client fails with context.DeadlineExceeded. This is a failure of the source. If it counted as the end of the
//     caller's context, the key would never be put into backoff.
func (a *attempt) endedWithCaller(err error, now int64) (yes bool) {
	if a.caller == nil {
		return false
	}
	defer func() { _ = recover() }() // the program's context may panic
	end := guard.Context(a.caller).Err()
	if end == nil || !errors.Is(err, end) && !errors.Is(err, context.Cause(a.caller)) {
		return false
	}
	left := a.callerLeft.Load() // 0 if the caller has not noticed yet: its context has ended just now
	return left == 0 || now-left <= int64(callerEndWindow)
}

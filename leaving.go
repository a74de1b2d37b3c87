package aside

import (
	"context"
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/near"
)

// ownEnd is how soon after the end of its caller's context a load fails that works with that context.
const ownEnd = 250 * time.Millisecond

// leave notes when the caller who leads s has found its context ended.
func (s *slot) leave(clock *near.Clock) {
	defer func() { _ = recover() }() // of the program's context
	if s.caller != nil && guard.Context(s.caller).Err() != nil {
		s.left.CompareAndSwap(0, max(clock.Now(), 1))
	}
}

// endedWithCaller reports whether a load has failed with err, now, for the end of its leading caller's own context. A source has time
// limits too, and their errors look the same. So only what comes back when that context ends counts, and soon after it:
//
//  1. A caller leads a load, and has a second. The source hangs; its HTTP client has two.
//  2. The caller leaves. The load goes on.
//  3. The client fails, with an error that is context.DeadlineExceeded. That is the source's: were it taken for the caller's, nobody
//     would ever be held back.
func (s *slot) endedWithCaller(err error, now int64) (yes bool) {
	if s.caller == nil {
		return false
	}
	defer func() { _ = recover() }() // of the program's context
	end := guard.Context(s.caller).Err()
	if end == nil || !errors.Is(err, end) && !errors.Is(err, context.Cause(s.caller)) {
		return false
	}
	left := s.left.Load() // 0 where the caller has not looked yet: it has ended just now
	return left == 0 || now-left <= int64(ownEnd)
}

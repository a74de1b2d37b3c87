package engine

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/stats"
)

// Cause returns why an outcome of r is a miss: its reason says the same in more words. An error comes with the outcome that says how far the
// call had come.
//
// Strong is no cause, since what Redis holds for a Strong call is a hit. A lease that another process has held for too long is none either: what
// is to be stored under it is not there.
func (r *Request) Cause(out *Outcome) stats.Cause {
	switch {
	case r.Replace:
		return stats.Asked
	case out.Status == StatusFallback:
		return stats.Unavailable
	}
	switch strings.TrimPrefix(out.Reason, ReasonSharedLoad+": ") {
	case ReasonExpired:
		return stats.Expired
	case ReasonInvalidated:
		return stats.Invalidated
	case ReasonUnusable, ReasonIncomplete, ReasonFewerFields, ReasonOtherBuild, ReasonNewerBuild, ReasonOlderVersion, ReasonOtherPolicy:
		return stats.Unusable
	}
	return stats.Absent
}

// missed is the outcome beside an error: it says why there was no hit.
func (a *attempt) missed() Outcome { return Outcome{Status: a.status, Reason: a.reason} }

// countEnd counts how a call of the loader ended: when it returns, or at the end of its time, whichever comes first.
func (e *Engine) countEnd(l *Load, start int64, how stats.Ending) {
	if l.counted.CompareAndSwap(false, true) {
		l.attempts[0].Policy.Counters.CountEnd(how, time.Duration(e.Clock.Now()-start))
	}
}

// endingOf returns how the call of the loader ended whose results attempts have.
func (e *Engine) endingOf(ctx context.Context, attempts []*attempt) (last stats.Ending) {
	for _, a := range attempts {
		last = max(last, e.endingOfOne(ctx, a))
	}
	return last
}

func (e *Engine) endingOfOne(ctx context.Context, a *attempt) stats.Ending {
	_, panicked := a.Err.(*flight.PanicError)
	switch {
	case panicked || a.Err == flight.ErrGoexit:
		return stats.EndedPanic
	case a.NotFound:
		return stats.EndedNotFound
	case a.NotModified:
		return stats.EndedNotModified
	case a.Err == nil:
		return stats.EndedOK
	case errors.Is(context.Cause(ctx), flight.ErrTimeout):
		return stats.EndedTimeout
	case ctx.Err() != nil || a.endedWithCaller(a.Err, e.Clock.Now()):
		return stats.EndedCanceled
	}
	return stats.EndedError
}

// valuesOfCaller returns the context for a log line about a: that of the caller that leads its flight, for a handler that adds the trace of the
// call. Other attempts have none.
func (a *attempt) valuesOfCaller() context.Context {
	if a.caller != nil {
		return a.caller
	}
	return context.Background()
}

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
	case r.Replace || r.Bypass:
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

// A FailedLoad is a call of a loader that has failed.
type FailedLoad struct {
	Policy string
	Key    string // the first one that failed
	Keys   int    // how many failed
	How    stats.Ending
	Took   time.Duration
	Error  string // as the log has it
}

// An end is how a call of the loader ended.
type end struct {
	how  stats.Ending
	of   *attempt // the first attempt that ended so
	keys int      // how many did
	err  error    // its error
}

// countEnd counts how a call of the loader ended: when it returns, or at the end of its time, whichever comes first.
func (e *Engine) countEnd(l *Load, start int64, as end) {
	if !l.counted.CompareAndSwap(false, true) {
		return
	}
	policy, took := l.attempts[0].Policy, time.Duration(e.Clock.Now()-start)
	policy.Counters.CountEnd(as.how, took)
	e.endLoad(l, as)
	e.reportEnd(l, as, took)
}

// endOf returns how the call of the loader ended whose results attempts have.
func (e *Engine) endOf(ctx context.Context, attempts []*attempt) (worst end) {
	for _, a := range attempts {
		switch how := e.endingOfOne(ctx, a); {
		case worst.of == nil || how > worst.how:
			worst = end{how, a, 1, a.Err}
		case how == worst.how:
			worst.keys++
		}
	}
	if worst.how.Failed() {
		worst.err = loadError(ctx, worst.err)
	}
	return worst
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

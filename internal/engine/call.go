package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/stats"
)

// call calls the loader in its place of the bulkhead, and counts how the call ends. A panic becomes the error of the attempts, which other
// keys of the flight do not share. runtime.Goexit is not stopped: it ends the flight.
func (e *Engine) call(ctx context.Context, l *Load, load LoadFunc, leave func()) (start int64) {
	defer leave()
	counts := l.attempts[0].Policy.Counters
	counts.Loads.Add(1)
	if l.attempts[0].old != nil {
		counts.Refreshes.Add(1)
	}
	before := e.failures.Last()
	// A loader may ignore the end of its context, and return late or never: its callers have got their error by then, and others need its place.
	late := &lateReturn{engine: e, attempts: l.attempts, ctx: ctx, before: before, leave: leave}
	defer late.returned()
	loading := e.beginLoad(ctx, l)
	start = e.Clock.Now()
	late.load, late.start = l, start
	l.attempts[0].call.NotifyEnd(late)
	defer func() {
		// Nothing, unless a method of the caller's context, which endOf may call, ends the goroutine.
		defer e.countEnd(l, start, end{stats.EndedPanic, l.attempts[0], len(l.attempts), flight.ErrGoexit})
		l.end()
		took := time.Duration(e.Clock.Now() - start)
		counts.LoadTime.Add(int64(took))
		if p := recover(); p != nil {
			for _, a := range l.attempts {
				a.Loaded = Loaded{Err: safePanic(&flight.PanicError{Value: p, Stack: debug.Stack()})}
			}
		}
		for _, a := range l.attempts {
			if a.took = took; a.Err == nil && !a.NotModified {
				a.Policy.observeLoad(took)
			}
		}
		applyDecisions(l)
		e.countEnd(l, start, e.endOf(ctx, l.attempts))
		e.logPanics(ctx, l.attempts)
		// The context is looked at too: where nobody waits any more, the loader can return before late is notified of it.
		if l.attempts[0].call.IgnoreEnd(late) && (ctx.Err() == nil || errors.Is(context.Cause(ctx), flight.ErrTimeout)) {
			e.countResults(l, before)
		}
	}()
	indexes := l.attempts[0].room().index[:0]
	for _, a := range l.attempts {
		indexes = append(indexes, a.index)
		a.Err = flight.ErrGoexit // until the loader returns a result
	}
	InLoader(func() {
		within := l.begin(loading)
		defer within.end()
		load(within, indexes, func(index int, g Loaded) {
			at, _ := slices.BinarySearchFunc(l.attempts, index, func(a *attempt, index int) int { return a.index - index })
			l.attempts[at].Loaded = g
		})
		for _, a := range l.attempts {
			e.keepPrior(ctx, a)
		}
	})
	return start
}

// applyDecisions sets the windows of the loaded values, and fails the attempts whose loader has chosen some, or named tags or an ETag, that no entry
// takes.
func applyDecisions(l *Load) {
	for i, a := range l.attempts {
		if a.Err != nil && !a.NotFound {
			continue
		}
		d := l.decision(i)
		if err := cmp.Or(a.refusedTags(d.tags), a.refusedETag(d.etag), a.chooseWindows(d)); err != nil {
			a.Loaded = Loaded{Err: err}
		}
	}
}

// countResults counts the failed loads, and ends the backoff of the keys whose load succeeded.
func (e *Engine) countResults(l *Load, before uint64) {
	for i, a := range l.attempts {
		if a.Err != nil && !a.NotFound {
			a.retryAfter = l.decision(i).retryAfter
			e.loadFailed(a, a.Err, before, a.retryAfter)
		} else {
			e.failures.ForgetOwn(a.Key, a.Policy.Owner)
		}
	}
}

// loadError returns the error for the callers of a failed load. A loader that returned because its time was up has timed out, whatever its
// own error says.
func loadError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, flight.ErrTimeout) && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return cause
	}
	return err
}

const (
	longestPanic = 1 << 10 // bytes of the text of a panic in the log
	longestStack = 8 << 10 // bytes of its stack: the frames of the cache's callers come last, and are cut off
)

// logPanics logs the first panic among the results of a loader, at most once in ten seconds a policy. The error that callers get does not show the
// stack.
func (e *Engine) logPanics(ctx context.Context, attempts []*attempt) {
	for _, a := range attempts {
		if p, ok := a.Err.(*flight.PanicError); ok {
			if suppressed, ok := a.Policy.logs.panics.Allow(e.Clock.Now()); ok {
				e.opts.Logger.LogAttrs(ctx, slog.LevelError, "aside: loader panicked, its callers get an error or an older value",
					slog.String("policy", a.Policy.Name), slog.String("key", a.Key), slog.String("error", cut(p.Error(), longestPanic)),
					slog.String("stack", cut(string(p.Stack), longestStack)), loglimit.Suppressed(suppressed))
			}
			return
		}
	}
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

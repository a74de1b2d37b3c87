package engine

import (
	"context"
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/stats"
	"github.com/gatewayz/aside/internal/wire"
)

// What Options.Observer is told of. Each operation ends exactly once, also where the program's code ends a goroutine or panics.

// errUnended is the error of an operation whose goroutine has ended in it.
var errUnended = errors.New("the program's code has panicked, or ended the goroutine")

// Observer returns Options.Observer.
func (e *Engine) Observer() *observe.Observer { return e.opts.Observer }

// opOf describes an operation on so many keys, of which a is the first.
func (e *Engine) opOf(kind observe.Kind, a *attempt, keys int) observe.Op {
	return observe.Op{Kind: kind, Policy: a.Policy.Name, Label: a.Policy.Label, Key: e.named(a.Key), Keys: keys}
}

// OpOf describes an operation on the key of a request.
func (e *Engine) OpOf(kind observe.Kind, r Request) observe.Op { return e.opOf(kind, newAttempt(r), 1) }

// ObserveHit tells of a hit in memory, which was answered before.
func (e *Engine) ObserveHit(ctx context.Context, key string, p *Policy, out Outcome) {
	a := newAttempt(Request{Key: key, Policy: p})
	e.opts.Observer.Tell(ctx, e.opOf(observe.Call, a, 1), e.endOfCall(a, out, nil))
}

// answerObserved is Answer that the Observer is told of.
func (e *Engine) answerObserved(ctx context.Context, a *attempt, load LoadFunc) (out Outcome, err error) {
	ctx, op := e.opts.Observer.Begin(ctx, e.opOf(observe.Call, a, 1))
	last, err := a, errUnended
	defer func() { op.End(e.endOfCall(last, out, err)) }()
	out, last, err = e.answer(ctx, a, load)
	err = e.opts.ErrorOf(err, a.Key) // here, so that the caller gets the error that the Observer is told of
	return out, err
}

// endOfCall is the end of a call for one key.
func (e *Engine) endOfCall(a *attempt, out Outcome, err error) (end observe.End) {
	if out.Status != StatusHit && out.Status != StatusStale {
		end.Cause = a.Cause(&out).String()
	}
	if a.call != nil && !a.leader {
		end.Shared = a.call.Loading()
	}
	if err != nil {
		end.Err = err
		return end
	}
	now := e.Clock.Now()
	end.Status, end.Tier = string(out.Status), string(out.Tier)
	end.Age, end.TTL = time.Duration(max(0, now-out.LoadedAt)), time.Duration(max(0, out.FreshUntil-now))
	end.NotFound, end.Err = out.Value == nil, out.Absent
	return end
}

// endOfPeek is the end of a Get. A miss is its answer, and no error.
func (e *Engine) endOfPeek(a *attempt, out Outcome, ok bool) observe.End {
	if ok {
		return e.endOfCall(a, out, nil)
	}
	missed := a.missed()
	return observe.End{Status: string(missed.Status), Cause: a.Cause(&missed).String()}
}

// An observedBatch is a batch that the Observer is told of. It ends as the worst of its keys.
type observedBatch struct {
	engine *Engine
	op     observe.Operation
	left   int // keys without an answer
	worst  int
	as     observe.End
	shared context.Context // of the first key that has joined a load
}

func (e *Engine) beginBatch(ctx context.Context, left []*attempt) (context.Context, *observedBatch) {
	b := &observedBatch{engine: e, left: len(left)}
	ctx, b.op = e.opts.Observer.Begin(ctx, e.opOf(observe.Batch, left[0], len(left)))
	return ctx, b
}

// badness orders the answers to the keys of a batch.
func badness(out Outcome, err error) int {
	switch {
	case err != nil:
		return 5
	case out.Status == StatusFallback:
		return 4
	case out.Status == StatusMiss:
		return 3
	case out.Status == StatusStale:
		return 2
	}
	return 1
}

// note notes the answer to one key. Those of memory are no part of the operation.
func (b *observedBatch) note(a *attempt, out Outcome, err error) {
	if a.here(err) {
		return
	}
	b.left--
	end := b.engine.endOfCall(a, out, err)
	if b.shared == nil {
		b.shared = end.Shared
	}
	if how := badness(out, err); how > b.worst {
		b.worst, b.as = how, end
	}
}

func (b *observedBatch) end() {
	if b.left > 0 {
		b.as = observe.End{Err: errUnended}
	}
	b.as.Shared = b.shared
	b.op.End(b.as)
}

// beginLoad returns the context for the loader.
func (e *Engine) beginLoad(ctx context.Context, l *Load) context.Context {
	if e.opts.Observer == nil {
		return ctx
	}
	l.observed = new(observe.Operation)
	ctx, *l.observed = e.opts.Observer.Begin(ctx, e.opOf(observe.Load, l.attempts[0], len(l.attempts)))
	for _, a := range l.attempts {
		a.call.LoadOn(l.observed.Context())
	}
	return ctx
}

// endLoad is called once, with how the call of the loader ended.
func (e *Engine) endLoad(l *Load, as end) {
	if l.observed == nil {
		return
	}
	end := observe.End{Outcome: as.how.String(), NotFound: as.how == stats.EndedNotFound}
	if as.how != stats.EndedNotModified && as.err != nil {
		end.Err = e.opts.ErrorOf(as.err, as.of.Key)
	}
	end.Waiters = l.waiters()
	l.observed.End(end)
}

// waiters is how many calls wait for the load, or have got its result.
func (l *Load) waiters() (n int) {
	for _, a := range l.attempts {
		n += a.call.Callers()
	}
	return n
}

// endOfSet is the end of a Set. It does not fail because Redis does, and then has stored nothing.
func (e *Engine) endOfSet(a *attempt, err error) observe.End {
	switch err {
	case nil:
		return observe.End{TTL: time.Duration(a.out.FreshUntil - a.out.LoadedAt), Bytes: a.size}
	case errNotWritten:
		return observe.End{Cause: stats.Unavailable.String()}
	}
	return observe.End{Err: e.opts.ErrorOf(err, a.Key)}
}

// endOfRefresh is the end of a load in the background.
func (e *Engine) endOfRefresh(ctx context.Context, attempts []*attempt) (end observe.End) {
	for _, a := range attempts {
		err := a.refused
		if err == nil && !a.NotFound {
			err = a.Err
		}
		if err != nil {
			end.Err = e.opts.ErrorOf(loadError(ctx, err), a.Key)
			break
		}
	}
	return end
}

// An observedFill is a fill that the Observer is told of. The zero value is one that nobody is told of.
type observedFill struct {
	op    observe.Operation
	as    observe.End
	ended bool // fill has returned
}

// beginFill returns the context for what is sent to Redis, which does not end with ctx: the callers of the load have left.
func (e *Engine) beginFill(ctx context.Context, attempts []*attempt) (context.Context, observedFill) {
	if e.opts.Observer == nil {
		return context.Background(), observedFill{}
	}
	ctx, op := e.opts.Observer.Begin(context.WithoutCancel(ctx), e.opOf(observe.Fill, attempts[0], len(attempts)))
	return ctx, observedFill{op: op}
}

// stored notes the size of a value that Redis has taken.
func (f *observedFill) stored(a *attempt) { f.as.Bytes += a.size }

// rejected notes that a value was invalidated during its load.
func (f *observedFill) rejected() { f.as.Cause = stats.Invalidated.String() }

// failed notes why a value could not be stored.
func (f *observedFill) failed(err error) {
	if f.as.Err == nil {
		f.as.Err = err
	}
	if !errors.As(err, new(*wire.CodecError)) && !isInvalid(err) {
		f.as.Cause = stats.Unavailable.String()
	}
}

func (f *observedFill) end() {
	if !f.ended {
		f.as.Err = errUnended
	}
	f.op.End(f.as)
}

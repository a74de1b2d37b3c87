package engine

import (
	"context"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/lease"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// A named warming is done by one process of a fleet. It holds a lease of a key of its own, which is renewed like that of a load. A warming that has
// succeeded leaves a value under that key, for as long as no other one is to begin. Loads are released in the background, since callers wait for
// their values. A warming waits for the release of its name:
//
//  1. A warming ends. The release of its lease is on its way.
//  2. The program warms again under that name, in this process or in another one, such as for the ids that have failed.
//  3. That warming must not find the lease, and return as if another process warmed.

// warmingLost is the cause of a warming's end whose lease is no longer held: another process may have begun it.
func warmingLost(name string) error {
	return &Error{Code: CodeUnavailable, Message: "the lease of the warming " + strconv.Quote(name) + " was lost, and another process may have begun it: call Warm again, it goes on where it was"}
}

// warmingKey is the key of a named warming. No key of a policy begins with a percent sign.
func warmingKey(name string) string { return "%w:" + name }

// warmings are the named warmings of a cache in memory mode: until when no other one begins, on the cache's clock; forever while one runs.
type warmings map[string]int64

const forever = 1<<63 - 1

// A warming is a run of WarmOnce, which ends when it has lost its lease.
type warming struct{ end func() }

func (w warming) LeaseLost()    { w.end() }
func (w warming) LeaseDoubted() {}

// WarmOnce calls run, unless another process is warming under the same name, or has completed that less than every ago. It reports whether it did not
// call run. The context of run ends if the lease is lost.
func (e *Engine) WarmOnce(ctx context.Context, name string, every time.Duration, run func(context.Context) (complete bool, err error)) (elsewhere bool, err error) {
	if e.Store == nil {
		return e.warmOnceHere(ctx, name, every, run)
	}
	nonce := wire.NewNonce().String()
	request := redisstore.Request{Key: warmingKey(name), Nonce: nonce}
	if granted, err := e.acquireName(ctx, request); err != nil || !granted {
		return err == nil, err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	lost := warmingLost(name)
	held := e.leases.Hold(&lease.Lease{Key: request.Key, Nonce: nonce, LoadTimeout: time.Minute, Holder: warming{func() { end(lost) }}})
	defer context.AfterFunc(ctx, held.ContextEnded)()
	marked, over := false, make(chan struct{})
	defer func() { // also after a panic in run
		if cause := context.Cause(ctx); !marked && cause != lost {
			e.leases.ReleaseNow(request) // before over, for which Close waits
		}
		held.Stored()
		close(over)
	}()
	e.Calls.Go(func() {
		select {
		case <-over:
		case <-ctx.Done(): // at the latest when the cache is closed, whatever run waits for
			select {
			case <-over:
			default:
				e.leases.ReleaseNow(request)
			}
		}
	})
	complete, err := run(ctx)
	held.Loaded()
	if context.Cause(ctx) == lost {
		return false, lost
	}
	marked = complete && err == nil && every > 0 && e.markWarmed(name, nonce, every)
	return false, err
}

// acquireName asks for the lease of a named warming until Redis answers. It reports whether the lease was granted.
func (e *Engine) acquireName(ctx context.Context, request redisstore.Request) (granted bool, err error) {
	asked := false // and not answered: Redis may have granted the lease
	defer func() {
		if err != nil && asked {
			e.leases.ReleaseNow(request)
		}
	}()
	for {
		if err := e.AwaitUp(ctx, request.Key); err != nil {
			return false, err
		}
		budget, cancel := e.Store.Detached(ctx, 0, 1)
		grants, _ := e.Store.Acquire(budget, nil, request)
		if asked && grants[0].Err == nil && grants[0].Present { // a request whose reply was lost may have taken the lease beside the value
			cancel()
			e.leases.ReleaseNow(request)
			return false, nil
		}
		held, errs := []bool{false}, []error{nil}
		if grants[0].Err == nil && !grants[0].Granted && asked { // it may be ours that is held
			held, errs = e.Store.Renew(budget, request)
		}
		cancel()
		if grants[0].Err == nil && errs[0] == nil {
			return grants[0].Granted || held[0], nil
		}
		asked = true
		if err := pauseFor(ctx, slowestPoll); err != nil {
			return false, err
		}
	}
}

// markWarmed leaves a value for later starters. It reports whether Redis has taken it, and the lease with it.
func (e *Engine) markWarmed(name, nonce string, every time.Duration) bool {
	now, _, ok := e.Store.Now(warmingKey(name))
	if !ok {
		return false
	}
	ctx, cancel := e.Store.Budget(context.Background(), 0, 1)
	defer cancel()
	_, errs := e.Store.Fill(ctx, redisstore.Filling{
		Key: warmingKey(name), Nonce: nonce, Value: []byte(strconv.FormatInt(now, 10)), Until: now + every.Microseconds(),
	})
	return errs[0] == nil
}

func (e *Engine) warmOnceHere(ctx context.Context, name string, every time.Duration, run func(context.Context) (complete bool, err error)) (elsewhere bool, err error) {
	e.warming.Lock()
	if e.warmed[name] > e.Clock.Now() {
		e.warming.Unlock()
		return true, nil
	}
	if e.warmed == nil {
		e.warmed = make(warmings)
	}
	e.warmed[name] = forever
	e.warming.Unlock()
	next := int64(0)
	defer func() {
		e.warming.Lock()
		defer e.warming.Unlock()
		e.warmed[name] = next
	}()
	complete, err := run(ctx)
	if complete && err == nil {
		next = e.Clock.Now() + int64(every)
	}
	return false, err
}

// AwaitUp waits until the servers of keys are there, without keys all of them.
func (e *Engine) AwaitUp(ctx context.Context, keys ...string) error {
	up := func() bool {
		for _, key := range keys {
			if !e.Store.UpFor(key) {
				return false
			}
		}
		return len(keys) > 0 || e.Store.AllUp()
	}
	for e.Store != nil && !up() {
		if e.Closed() {
			return e.opts.ErrClosed
		}
		if err := pauseFor(ctx, slowestPoll); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// UntilClosed returns a context that ends when the cache is closed, with Options.ErrClosed as its cause.
func (e *Engine) UntilClosed(ctx context.Context) (until context.Context, end context.CancelCauseFunc) {
	until, end = context.WithCancelCause(ctx)
	go func() {
		select {
		case <-e.closes:
			end(e.opts.ErrClosed)
		case <-until.Done():
		}
	}()
	return until, end
}

// AwaitStored waits until the loads of requests have stored their values, or given up. It ends with ctx.
func (e *Engine) AwaitStored(ctx context.Context, requests []Request) {
	for _, r := range requests {
		left := e.flights.Left(newAttempt(r).flightKey())
		if left == nil {
			continue
		}
		select {
		case <-left:
		case <-ctx.Done():
			return
		}
	}
}

// pauseFor waits for about as long as d. It fails if ctx ends.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(jittered(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// mostLate bounds how often Fresh asks a server that does not answer such a question in time, and counts as available.
const mostLate = 2

// Fresh reports which requests have a value within its TTL: in Redis, or in memory in memory mode. It asks Redis until Redis answers: connections
// break before the cache sees that Redis is unavailable, and what is loaded then is not stored. If Redis answers with an error, or never in time, none
// has. Fresh fails if ctx or the cache has ended.
func (e *Engine) Fresh(ctx context.Context, requests []Request) ([]bool, error) {
	fresh := make([]bool, len(requests))
	var keys []string
	for i, r := range requests {
		if e.Store != nil && r.Place != PlaceMemory {
			keys = append(keys, r.Key)
			continue
		}
		entry := e.Near.Get(r.Key)
		fresh[i] = entry != nil && newAttempt(r).sameOwner(entry)
	}
	if len(keys) == 0 {
		return fresh, ctx.Err()
	}
	infos, err := e.Scanner.Infos(ctx, keys)
	for late := 0; redisstore.IsUnanswered(err); infos, err = e.Scanner.Infos(ctx, keys) {
		if redisstore.IsTimeout(err) {
			late++
		}
		if late == mostLate {
			break
		}
		if err := pauseFor(ctx, slowestPoll); err != nil {
			return fresh, err
		}
		if err := e.AwaitUp(ctx); err != nil {
			return fresh, err
		}
	}
	if err != nil {
		return fresh, ctx.Err()
	}
	for i, r := range requests {
		if r.Place == PlaceMemory {
			continue
		}
		info, there := infos[r.Key]
		fresh[i] = there && info.TTL > 0 && info.Owner == r.Policy.Owner
	}
	return fresh, ctx.Err()
}

package engine

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/lease"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// A named warming is done by one process of a fleet. It holds a lease of a key of its own, which is renewed like that of a load. A warming that has
// succeeded leaves a value under that key, for as long as no other one is to begin.

// ErrWarmingLost ends a warming whose lease is no longer held: another process may have begun it.
var ErrWarmingLost = errors.New("the lease of the warming was lost")

// warmingKey is the key of a named warming. No key of a policy begins with a percent sign.
func warmingKey(name string) string { return "%w:" + name }

// warmings are the named warmings of a cache in memory mode: until when no other one begins, on the cache's clock; forever while one runs.
type warmings map[string]int64

const forever = 1<<63 - 1

// WarmOnce calls run, unless another process is warming under the same name, or has done so less than every ago. It reports whether it did not call
// run. The context of run ends if the lease is lost.
func (e *Engine) WarmOnce(ctx context.Context, name string, every time.Duration, run func(context.Context) error) (elsewhere bool, err error) {
	if e.Store == nil {
		return e.warmOnceHere(ctx, name, every, run)
	}
	nonce, granted := wire.NewNonce().String(), false
	for !granted {
		if err := e.AwaitUp(ctx, warmingKey(name)); err != nil {
			return false, err
		}
		budget, cancel := e.Store.Budget(context.WithoutCancel(ctx), 0, 1)
		grants, _ := e.Store.Acquire(budget, nil, redisstore.Request{Key: warmingKey(name), Nonce: nonce})
		cancel()
		switch {
		case grants[0].Err != nil:
			if err := pauseFor(ctx, slowestPoll); err != nil { // Redis may have granted it: the nonce is the same
				return false, err
			}
		case !grants[0].Granted:
			return true, nil
		default:
			granted = true
		}
	}
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	held := e.leases.Hold(ctx, []*lease.Lease{{
		Key: warmingKey(name), Nonce: nonce, LoadTimeout: time.Minute,
		Lost: func() { lost(ErrWarmingLost) }, Doubted: func() {},
	}})
	defer close(held.Stored)
	err = run(ctx)
	close(held.Loaded)
	if cause := context.Cause(ctx); errors.Is(cause, ErrWarmingLost) {
		return false, cause
	}
	if err == nil && every > 0 && e.markWarmed(name, nonce, every) {
		return false, nil
	}
	e.leases.Release([]redisstore.Request{{Key: warmingKey(name), Nonce: nonce}})
	return false, err
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

func (e *Engine) warmOnceHere(ctx context.Context, name string, every time.Duration, run func(context.Context) error) (elsewhere bool, err error) {
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
	if err = run(ctx); err == nil {
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

// Warm reports which requests have a fresh value: in Redis, or in memory in memory mode.
func (e *Engine) Warm(ctx context.Context, requests []Request) ([]bool, error) {
	warm := make([]bool, len(requests))
	if e.Store == nil {
		for i, r := range requests {
			entry := e.Near.Get(r.Key)
			warm[i] = entry != nil && newAttempt(r).sameOwner(entry)
		}
		return warm, nil
	}
	keys := make([]string, len(requests))
	for i, r := range requests {
		keys[i] = r.Key
	}
	infos, err := e.Scanner.Infos(ctx, keys)
	if err != nil {
		return nil, err
	}
	for i, r := range requests {
		info, there := infos[r.Key]
		warm[i] = there && info.TTL > 0 && info.Owner == r.Policy.Owner
	}
	return warm, nil
}

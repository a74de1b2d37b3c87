package engine

import (
	"context"
	"errors"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// Set stores a value under a request's key, and replaces what is cached: see write and put.
func (e *Engine) Set(ctx context.Context, r Request, l Loaded) error {
	if !e.Calls.Enter() {
		return e.opts.ErrClosed
	}
	defer e.Calls.Leave()
	a := newAttempt(r)
	a.Loaded = l
	err := errUnended
	if e.opts.Observer != nil {
		var op observe.Operation
		ctx, op = e.opts.Observer.Begin(ctx, e.opOf(observe.Set, a, 1))
		defer func() { op.End(e.endOfSet(a, err)) }()
	}
	if err = e.set(ctx, a); errors.Is(err, errNotWritten) {
		return nil // Set does not fail because Redis does
	}
	return err
}

// set is Set that nobody is told of. It fails with errNotWritten because of Redis.
func (e *Engine) set(ctx context.Context, a *attempt) error {
	if a.Bypass {
		e.failures.Forget(a.Key)
		e.removeOld(ctx, a)
		return nil
	}
	e.awaitFirst(ctx, a)
	start := e.Clock.Now()
	a.ownTTL = a.TTL != a.Policy.TTL
	a.setWindows(a.askedWindows(), a.Request.Windows != nil)
	a.out = Outcome{Value: a.Value, LoadedAt: start, FreshUntil: start + int64(shortened(a.TTL, a.Policy.Jitter))}
	a.Replace = true
	var err error
	if a.Policy.CloneOnRead {
		err = a.encodeOwn(e.limits())
	}
	m := e.tags.Snapshot()
	defer m.End()
	m.Add(a.Tags...)
	switch {
	case err != nil:
	case e.elsewhere(a), e.Store == nil && a.Place == PlaceRedis:
		e.removeOld(ctx, a) // see Place
	case e.Store == nil:
		err = e.put(m, a)
	default:
		// The key is deleted from memory before the write and after it. Without the second delete:
		//
		//  1. This call deletes the old value from memory.
		//  2. A read of the key begins, and finds the old value in Redis.
		//  3. The write replaces the value in Redis. Redis pushes that, and the push is still on its way.
		//  4. The read keeps the old value in memory.
		//  5. This call returns. Until the push arrives, callers get the old value.
		e.Near.Delete(a.Key)
		err = e.write(ctx, m, a)
		e.Near.Delete(a.Key)
	}
	e.failures.Forget(a.Key)
	if err == nil {
		return nil
	}
	// The cached value is out of date, although the new one could not be stored.
	e.removeOld(ctx, a)
	if errors.Is(err, errNotWritten) {
		return errNotWritten
	}
	return &Error{Code: CodeInvalidArgument, Key: a.Key, Message: "Set: value rejected; previous value removed", Err: err}
}

// put is Set in memory mode.
func (e *Engine) put(m *tags.Snapshot, a *attempt) error {
	if e.forgetful {
		e.Near.Break(a.Key) // as a Set does, without a value
		return nil
	}
	for ok := false; !ok; {
		m.Renew(true)
		m.Local()
		m.Capture(&a.captured, a.Tags)
		var list []*near.Validity
		if list, ok = a.captured.Validities(nil); ok { // otherwise a tag was invalidated since Capture: take its new generation
			entry := a.asEntry(list, wire.Nonce{})
			if !e.roomFor(a, entry) {
				return e.uncached(a, e.noRoom(entry))
			}
			e.Near.Put(a.Key, entry)
			a.size = entry.Size
			a.Policy.Counters.ValueBytes.Observe(a.size)
		}
	}
	e.deleteIfClosed(a)
	return nil
}

// errNotWritten is the error of write where Redis failed or refused the value. It has been counted.
var errNotWritten = errors.New("not written")

// write stores a.out in Redis for Set, under a lease that it takes from any other holder. A plain SET would not do:
//
//  1. Set sends its command, which waits in the socket of a hung server.
//  2. Set times out. The key is invalidated, and the invalidation is carried out.
//  3. The server runs the SET. The key has a value from before the invalidation.
//
// The invalidation in step 2 removes the lease, and without the lease the fill is refused.
func (e *Engine) write(ctx context.Context, m *tags.Snapshot, a *attempt) error {
	payload, codec, err := a.encode(e.limits())
	if err == nil && len(payload) > e.opts.MaxValueBytes {
		err = e.tooLarge(int64(len(payload)))
	}
	if err != nil {
		e.unstorable(a, err)
		return err
	}
	ctx, cancel := e.detachedBudget(ctx, a)
	defer cancel()
	m.Renew(true)
	if mine, _, _ := e.takeLeases(ctx, m, []*attempt{a}); len(mine) == 0 || !a.leased() {
		return errNotWritten
	}
	filling, err := e.sealEnvelope(a, payload, codec)
	if err != nil {
		e.unstorable(a, err)
		return err
	}
	ctx, cancel = e.Store.More(ctx, filling.Size(), 1+len(filling.Chunks))
	defer cancel()
	outcomes, errs := e.Store.Fill(ctx, filling)
	if errs[0] != nil {
		a.Policy.Counters.RedisErrors.Add(1)
		return errNotWritten
	}
	if outcomes[0] == redisstore.Refused {
		// Another Set, whose value must stay, or an invalidation came later. Or the lease has expired, and Redis holds an older value:
		// discard removes that.
		a.Policy.Counters.FillsRejected.Add(1)
		if e.discard(a) != nil {
			return errNotWritten
		}
	}
	return nil
}

package engine

import (
	"context"
	"errors"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// Set stores a value under a request's key, in place of what is cached: see write and put.
func (e *Engine) Set(ctx context.Context, r Request, l Loaded) error {
	if !e.Calls.Enter() {
		return e.opts.ErrClosed
	}
	defer e.Calls.Leave()
	a := newAttempt(r)
	a.Loaded = l
	e.awaitFirst(ctx, a)
	start := e.Clock.Now()
	a.ownTTL = a.TTL != a.Policy.TTL
	a.out = Outcome{Value: a.Value, LoadedAt: start, FreshUntil: start + int64(shortened(a.TTL, a.Policy.Jitter))}
	a.Replace = true
	var err error
	if a.Policy.Private {
		err = a.encodeOwn(e.limits())
	}
	m := e.tags.Snapshot()
	defer m.End()
	m.Add(a.Tags...)
	switch {
	case err != nil:
	case e.Store == nil:
		err = e.put(m, a)
	default:
		// Before and after: a load that begins in between may still read what is there.
		e.Near.Delete(a.Key)
		err = e.write(ctx, m, a)
		e.Near.Delete(a.Key)
	}
	e.failures.Forget(a.Key)
	if err == nil {
		return nil
	}
	// What is cached is out of date, whether or not its successor could be stored.
	e.removeOld(ctx, a)
	if errors.Is(err, errNotWritten) {
		return nil // Redis' trouble is never the caller's
	}
	return &Error{Code: CodeInvalidArgument, Key: a.Key, Message: "the value cannot be stored, and what was cached for its key is removed", Err: err}
}

// put is Set in memory mode.
func (e *Engine) put(m *tags.Snapshot, a *attempt) error {
	for ok := false; !ok; {
		m.Renew(true)
		m.Local()
		m.Capture(&a.captured, a.Tags)
		var list []*near.Validity
		if list, ok = a.captured.Validities(nil); ok { // else a tag was invalidated in between: there is a new generation
			entry := a.asEntry(list)
			if !e.roomFor(a, entry) {
				return e.unkept(a, wire.ErrTooLarge)
			}
			e.Near.Put(a.Key, entry)
		}
	}
	e.closedMeanwhile(a)
	return nil
}

// errNotWritten is what write returns where Redis failed or refused; it has been counted.
var errNotWritten = errors.New("not written")

// write stores a.out for Set. A plain SET could be held up in a hung server's socket and run after an invalidation
// that came later; so Set takes a lease too, from whoever holds it, and its fill is refused once that is gone.
func (e *Engine) write(ctx context.Context, m *tags.Snapshot, a *attempt) error {
	payload, codec, err := a.encode(e.limits())
	if err == nil && len(payload) > e.opts.MaxValueBytes {
		err = wire.ErrTooLarge
	}
	if err != nil {
		e.unstorable(a, err)
		return err
	}
	ctx, cancel := e.budget(context.WithoutCancel(ctx), a)
	defer cancel()
	m.Renew(true)
	if mine, _, _ := e.takeLeases(ctx, m, []*attempt{a}); len(mine) == 0 || !a.leased() {
		return errNotWritten
	}
	filling, err := e.sealEnvelope(a, payload, codec, 0)
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
		// Somebody came later: another Set, whose value must stay, or an invalidation. Or the lease has run out on the
		// way, and what is there is older than this.
		a.Policy.Counters.RefusedFills.Add(1)
		if e.discard(a) != nil {
			return errNotWritten
		}
	}
	return nil
}

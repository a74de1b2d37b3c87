package engine

import (
	"context"
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// fill stores loaded values in Redis under their leases. Their callers have them by then.
func (e *Engine) fill(m *tags.Snapshot, attempts []*attempt) {
	var fills []redisstore.Filling
	var filling, stored, failed []*attempt
	var size int64
	keys := 0
	for _, a := range attempts {
		f, err := e.newFilling(m, a)
		switch {
		case errors.Is(err, errOutdated):
			a.Policy.Counters.FillsRejected.Add(1)
			e.release(a)
			if a.Replace && e.discard(a) != nil {
				failed = append(failed, a)
			}
		case err != nil:
			failed = append(failed, a)
			if encoding := (*wire.CodecError)(nil); errors.As(err, &encoding) && !a.Replace && !a.lost.Load() {
				a.quiet = true // the value cannot be stored in Redis, but in memory
				e.keepWithoutLease(m, a, a.out.LoadedAt, time.Duration(a.out.FreshUntil-a.out.LoadedAt))
			}
		default:
			fills, filling = append(fills, f), append(filling, a)
			size += f.Size()
			keys += 1 + len(f.Chunks)
		}
	}
	if len(fills) > 0 {
		// The flight's context may have ended with its last caller. The value is stored all the same.
		ctx, cancel := e.Store.Budget(context.Background(), size, keys)
		defer cancel()
		underWay := &storing{over: make(chan struct{})}
		for _, a := range filling {
			e.storing.Store(a.Key, underWay)
		}
		defer func() {
			for _, a := range filling {
				e.storing.CompareAndDelete(a.Key, underWay)
			}
			close(underWay.over)
		}()
		outcomes, errs := e.Store.Fill(ctx, fills...)
		underWay.err = errs[0]
		for i, a := range filling {
			switch {
			case errs[i] != nil:
				a.Policy.Counters.RedisErrors.Add(1)
				failed = append(failed, a)
				if !a.Replace && !a.lost.Load() && !redisstore.IsMoving(errs[i]) {
					a.quiet = true
					e.keepWithoutLease(m, a, a.out.LoadedAt, time.Duration(a.out.FreshUntil-a.out.LoadedAt))
				}
			case outcomes[i] == redisstore.Refused:
				a.Policy.Counters.FillsRejected.Add(1)
				if a.Replace && e.discard(a) != nil {
					failed = append(failed, a)
				}
			case outcomes[i] == redisstore.Stored:
				stored = append(stored, a)
			}
		}
		if err := e.keepStored(ctx, stored); err != nil {
			underWay.err = err
		}
	}
	e.release(failed...)
	for _, a := range failed {
		if a.Replace {
			// The value that the caller wanted replaced must not come back.
			e.removeOld(context.Background(), a)
		}
	}
	for _, a := range attempts {
		a.call.Forget() // callers that come later read Redis
	}
}

// A storing is a fill under way. Callers that ask for one of its values wait for its end.
type storing struct {
	over chan struct{} // closed when the values are in memory too, or will not be
	err  error         // why Redis did not confirm the fill; written before over is closed
}

// errOutdated is the error of newFilling for a value that was invalidated during the load, and of readChunks for one that was invalidated
// before.
var errOutdated = errors.New("invalidated during the load")

// newFilling makes the stored form of a loaded value, unless the value was invalidated during the load.
func (e *Engine) newFilling(m *tags.Snapshot, a *attempt) (redisstore.Filling, error) {
	payload, codec, err := a.encode(e.limits())
	if err == nil && len(a.lateNames) > 0 {
		ctx, cancel := e.Store.Budget(context.Background(), 0, len(a.lateNames)+1)
		unmoved, lateErr := e.addLateTags(ctx, m, a)
		cancel()
		switch {
		case isInvalid(lateErr):
			err = lateErr
		case lateErr != nil:
			a.Policy.Counters.RedisErrors.Add(1)
			return redisstore.Filling{}, lateErr
		case !unmoved:
			return redisstore.Filling{}, errOutdated
		}
	}
	var f redisstore.Filling
	if err == nil {
		if unmoved, lifeErr := e.extendTagLife(a); lifeErr != nil {
			a.Policy.Counters.RedisErrors.Add(1)
			return f, lifeErr
		} else if !unmoved {
			return f, errOutdated
		}
		f, err = e.sealEnvelope(a, payload, codec)
	}
	if err != nil {
		a.call.Forget()
		e.unstorable(a, err)
		return f, err
	}
	// An invalidation by this process may not have reached Redis: Redis may be unavailable for the call that invalidates, and not for this
	// one.
	if a.fence.BrokenHere() {
		return f, errOutdated
	}
	if a.lost.Load() {
		return f, errOutdated
	}
	if m.InvalidatedHere(a.Tags) {
		return f, errOutdated
	}
	return f, nil
}

// keepStored keeps in memory the values that fill has just stored. Redis notifies a client of changes of what it has read, and not of what it
// has written:
//
//  1. The head of the value is read back, so that Redis tracks the key for this process.
//  2. The nonce in the head proves that Redis still holds the value that fill has written.
//  3. The loaded value itself is kept in memory. Nothing is decoded.
//
// It returns the error of the read.
func (e *Engine) keepStored(ctx context.Context, attempts []*attempt) (err error) {
	var looks []redisstore.Get
	var fences []*near.Fence
	for _, a := range attempts {
		f := e.Near.Fence(a.Key, nil)
		defer f.End()
		fences = append(fences, f)
		looks = append(looks, redisstore.Get{Key: a.Key, Fence: f, Head: wire.HeadLen})
	}
	if len(attempts) == 0 {
		return nil
	}
	reads := e.Store.Get(ctx, looks...)
	for i, a := range attempts {
		r := reads[i]
		if r.Err != nil {
			err = r.Err
		}
		nonce, ok := wire.HeadNonce(r.Value)
		if r.Err != nil || r.Validity == nil || !ok || nonce != a.nonce || a.fence.BrokenHere() {
			continue
		}
		list, ok := a.captured.Validities(r.Validity)
		entry := a.asEntry(list, a.nonce)
		if !ok || !e.Near.Fits(a.Key, entry.Size) {
			continue
		}
		e.Near.Insert(a.Key, entry, fences[i])
	}
	return err
}

// sealEnvelope puts a payload into its envelope, and splits a large one into chunks.
func (e *Engine) sealEnvelope(a *attempt, payload []byte, codec uint32) (redisstore.Filling, error) {
	until := a.granted + (a.out.FreshUntil-a.out.LoadedAt)/int64(time.Microsecond)
	dead, stale := until, int64(0)
	if a.out.Value != nil {
		dead += a.windows.Rest().Microseconds()
		if a.ownWindows {
			stale = until + a.windows.Stale.Microseconds()
		}
	}
	tags := make([]wire.Tag, len(a.captured.Tags))
	for i, t := range a.captured.Tags {
		tags[i] = wire.Tag{Name: t.Tag, Generation: t.Value}
	}
	if own, ok := wire.Builtin(codec); ok && a.out.Value != nil && !e.limits().Fits(own, a.Type, payload) {
		return redisstore.Filling{}, errTooWide // readers would refuse it
	}
	a.Policy.types.LoadOrStore(a.Type, nil)
	e.checkFirst(a, payload, codec)
	value, err := wire.Encode(e.named(a.Key), wire.Header{
		Codec:        codec,
		Negative:     a.out.Value == nil,
		Policy:       a.Policy.Owner,
		LoadStart:    a.granted,
		FreshUntil:   until,
		DeadUntil:    dead,
		StaleUntil:   stale,
		OwnTTL:       a.ownTTL,
		LoadDuration: a.took,
		Nonce:        a.nonce,
		Tags:         tags,
	}, payload, e.limits())
	f := redisstore.Filling{Key: a.Key, Nonce: a.nonce.String(), Value: value, Until: dead}
	if e.opts.ChunkFrom >= 0 && len(value) > e.opts.ChunkFrom {
		f.Value, f.Chunks = wire.Split(value, redisstore.ChunkSize)
	}
	a.Policy.observeSize(int64(len(f.Value)))
	return f, err
}

// unstorable counts and logs a value that cannot be stored. Its callers still get it.
func (e *Engine) unstorable(a *attempt, err error) {
	a.refused = err
	a.Policy.Counters.EncodeErrors.Add(1)
	if a.Policy.valueLog.Allow(e.Clock.Now()) {
		e.opts.Logger.Warn("aside: value not cached", "policy", a.Policy.Name, "key", a.Key, "error", err)
	}
}

// discard removes the value that a was to replace, unless a newer one is there by now. It deletes from memory twice: see Set.
func (e *Engine) discard(a *attempt) error {
	ctx, cancel := e.Store.Budget(context.Background(), 0, 1)
	defer cancel()
	e.Near.Delete(a.Key)
	err := e.Store.Discard(ctx, a.Key, a.granted)
	e.Near.Delete(a.Key)
	if err != nil {
		a.Policy.Counters.RedisErrors.Add(1)
	}
	return err
}

// removeOld removes the cached value of an attempt's key, because its new value could not be stored.
func (e *Engine) removeOld(ctx context.Context, a *attempt) {
	if err := e.Invalidator.Discard(ctx, a.Key, a.Tags); err != nil {
		a.Policy.Counters.RedisErrors.Add(1)
	}
}

// named is the name of a key in Redis. The name is part of the stored value, so a value that was copied to another name is refused.
func (e *Engine) named(key string) string { return e.opts.Prefix + key }

func (e *Engine) limits() wire.Limits {
	return wire.Limits{MaxValue: e.opts.MaxValueBytes, CompressFrom: e.opts.CompressFrom}
}

package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// fill stores loaded values in Redis under their leases. Their callers have them by then. It returns those that were to be kept in Redis, as they
// are not modified, and are not there any more: they are to be stored in full.
func (e *Engine) fill(ctx context.Context, m *tags.Snapshot, attempts []*attempt) (gone []*attempt) {
	ctx, observed := e.beginFill(ctx, attempts)
	defer observed.end()
	sending := newShipment()
	var failed []*attempt
	for _, a := range attempts {
		err := e.pack(m, a, sending)
		switch {
		case errors.Is(err, errOutdated):
			a.Policy.Counters.FillsRejected.Add(1)
			observed.rejected()
			e.release(a)
			if a.Replace && e.discard(a) != nil {
				failed = append(failed, a)
			}
		case err != nil:
			failed = append(failed, a)
			observed.failed(err)
			if encoding := (*wire.CodecError)(nil); errors.As(err, &encoding) && !a.Replace && !a.lost.Load() {
				a.quiet = true // the value cannot be stored in Redis, but in memory
				e.keepWithoutLease(m, a, a.out.LoadedAt, time.Duration(a.out.FreshUntil-a.out.LoadedAt))
				a.call.Forget() // not earlier: a caller that comes before the value is in memory, and does not join, loads it again
			}
		}
	}
	if len(sending.of) > 0 {
		// The flight's context may have ended with its last caller. The value is stored all the same.
		ctx, cancel := e.Store.Budget(ctx, sending.size, sending.keys)
		defer cancel()
		underWay := &sending.underWay
		e.storing.begin(underWay, sending.of)
		defer e.storing.end(underWay, sending.of)
		for _, a := range sending.of {
			sending.fences = append(sending.fences, e.Near.Fence(a.Key, nil))
		}
		defer sending.endFences()
		outcomes, reads, errs := sending.send(ctx, e.Store)
		underWay.err = errs[0]
		for i, a := range sending.of {
			switch {
			case errs[i] != nil:
				a.Policy.Counters.RedisErrors.Add(1)
				failed = append(failed, a)
				observed.failed(errs[i])
				if !a.Replace && !a.lost.Load() && !redisstore.IsMoving(errs[i]) {
					a.quiet = true
					e.keepWithoutLease(m, a, a.out.LoadedAt, time.Duration(a.out.FreshUntil-a.out.LoadedAt))
				}
			case outcomes[i] == redisstore.Gone:
				a.prior.head = nil
				gone = append(gone, a)
			case outcomes[i] == redisstore.Refused:
				a.Policy.Counters.FillsRejected.Add(1)
				observed.rejected()
				if a.Replace && e.discard(a) != nil {
					failed = append(failed, a)
				}
			case outcomes[i] == redisstore.Stored:
				observed.stored(a)
				if e.keepStored(a, reads[i], sending.fences[i]); reads[i].Err != nil {
					underWay.err = reads[i].Err
				}
			}
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
		if !slices.Contains(gone, a) {
			a.call.Forget() // callers that come later read Redis
		}
	}
	observed.ended = true
	return gone
}

// keepStored keeps in memory a value that fill has just stored. Redis notifies a client of changes of what it has read, and not of what it
// has written:
//
//  1. The head of the value is read back, so that Redis tracks the key for this process.
//  2. The nonce in the head proves that Redis still holds the value that fill has written.
//  3. The loaded value itself is kept in memory. Nothing is decoded.
func (e *Engine) keepStored(a *attempt, head redisstore.Read, f *near.Fence) {
	nonce, ok := wire.HeadNonce(head.Value)
	if a.Place == PlaceRedis || head.Err != nil || head.Validity == nil || !ok || nonce != a.nonce || a.fence.BrokenHere() {
		return
	}
	var room [fewValidities]*near.Validity
	list, ok := a.captured.Validities(append(room[:0], head.Validity))
	entry := a.asEntry(list, a.nonce)
	if entry.Plan != nil {
		entry.Plan.Payload = a.payload
	}
	if ok && e.Near.Fits(a.Key, entry.Size) {
		e.Near.Insert(a.Key, a.bound(entry, e.Clock.Now()), f)
	}
}

// sealEnvelope puts a payload into its envelope, and splits a large one into chunks.
func (e *Engine) sealEnvelope(a *attempt, payload []byte, codec uint32) (redisstore.Filling, error) {
	if own, ok := wire.Builtin(codec); ok && a.out.Value != nil && !e.limits().Fits(own, a.Type, payload) {
		return redisstore.Filling{}, errTooWide // readers would refuse it
	}
	a.Policy.types.LoadOrStore(a.Type, nil)
	e.checkFirst(a, payload, codec)
	h := a.header()
	h.Codec, h.Negative, h.Policy = codec, a.out.Value == nil, a.Policy.Owner
	value, err := wire.Encode(e.named(a.Key), h, payload, e.limits())
	f := redisstore.Filling{Key: a.Key, Nonce: a.nonceText, Value: value, Until: h.DeadUntil, Empty: a.empty}
	if e.opts.ChunkFrom >= 0 && len(value) > e.opts.ChunkFrom {
		f.Value, f.Chunks = wire.Split(value, redisstore.ChunkSize)
		a.payload = a.nonce
	}
	a.Policy.observeSize(int64(len(f.Value)))
	a.size = int64(len(value))
	a.Policy.Counters.ValueBytes.Observe(a.size)
	return f, err
}

// header makes the header of a's value, but for what describes the payload.
func (a *attempt) header() wire.Header {
	until := a.granted + (a.out.FreshUntil-a.out.LoadedAt)/int64(time.Microsecond)
	h := wire.Header{
		LoadStart: a.granted, FreshUntil: until, DeadUntil: until, OwnTTL: a.ownTTL, LoadDuration: a.took, Nonce: a.nonce, ETag: a.etag,
		Tags: a.room().tags[:0],
	}
	if a.out.Value != nil {
		h.DeadUntil += a.windows.Rest().Microseconds()
		h.Extended = !a.windows.None()
		if a.ownWindows {
			h.StaleUntil = until + a.windows.Stale.Microseconds()
		}
	}
	for _, t := range a.captured.Tags {
		h.Tags = append(h.Tags, wire.Tag{Name: t.Tag, Generation: t.Value})
	}
	return h
}

// unstorable counts and logs a value that cannot be stored. Its callers still get it.
func (e *Engine) unstorable(a *attempt, err error) {
	a.refused = err
	a.Policy.Counters.EncodeErrors.Add(1)
	if suppressed, ok := a.Policy.logs.unstorable.Allow(e.Clock.Now()); ok {
		e.opts.Logger.LogAttrs(a.valuesOfCaller(), slog.LevelWarn, "aside: value not cached",
			slog.String("policy", a.Policy.Name), slog.String("key", a.Key), slog.Any("error", err), loglimit.Suppressed(suppressed))
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
	return wire.Limits{MaxValue: e.opts.MaxValueBytes, CompressFrom: e.opts.CompressFrom, JSON: e.opts.JSON}
}

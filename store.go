package aside

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"time"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

func (c *Cache) limits() wire.Limits {
	return wire.Limits{MaxValue: c.opts.MaxValueBytes, CompressFrom: c.opts.CompressFrom}
}

// budget bounds what a call may wait for Redis: once for all its operations, with time for values as large as those that
// the policies have met before.
func (c *Cache) budget(ctx context.Context, slots ...*slot) (context.Context, context.CancelFunc) {
	var size int64
	for _, s := range slots {
		known := s.plan.largest.Load()
		if known == 0 {
			known = unknownSize
		}
		size = max(size, known)
	}
	return c.store.Budget(ctx, size, len(slots))
}

// unknownSize is how large a policy's values are taken for until the first one was met: half a second's worth, so that a
// process that has just started reads what is in Redis rather than load it all again.
const unknownSize = 16 << 20

// redisFailed notes that a load of s is not a plain miss. Without an answer from Redis there is no lease, and without
// a lease nothing is stored.
func (c *Cache) redisFailed(ctx context.Context, s *slot, err error) {
	if redisstore.IsWrongType(err) {
		// Something else lives under our key: as bad as a value that cannot be decoded, and replaced like one.
		c.undecodable(s, err)
		return
	}
	if redisstore.CallersOwn(ctx) {
		return // the caller has left: says nothing of Redis
	}
	s.plan.counts.redisErrors.Add(1)
	s.status, s.reason, s.keep = StatusFallback, redisstore.Describe(err), false
	s.timedOut = redisstore.IsTimeout(err)
}

// learnSize finds out how large a value is that Redis could not deliver in time. If that was for its size, the next
// operation is given the time that it needs.
func (c *Cache) learnSize(s *slot) {
	if payload, _, err := s.encode(); err == nil && len(payload) <= c.opts.MaxValueBytes {
		s.plan.met(int64(len(payload)))
	}
}

func (c *Cache) undecodable(s *slot, err error) {
	s.plan.counts.decodeErrors.Add(1)
	s.reason = "the stored value cannot be used"
	if s.plan.complaints.due(c.clock) {
		c.opts.Logger.Warn("aside: a value in Redis cannot be used and counts as a miss", "policy", s.plan.policy.name(), "key", s.key, "error", err)
	}
}

// open makes an outcome of what Redis holds, or notes why that cannot be used.
func (c *Cache) open(s *slot, stored []byte) (outcome, bool) {
	s.plan.met(int64(len(stored)))
	header, payload, err := wire.Decode(s.key, stored, c.limits())
	if errors.Is(err, wire.ErrNewer) {
		// Two builds side by side during a deployment must not overwrite each other's values for ever: the older one
		// gives way.
		s.keep, s.reason = false, "stored by a newer build"
		return outcome{}, false
	}
	s.reject = redisstore.Reject(stored[:min(len(stored), wire.HeadLen)], len(stored))
	if err != nil {
		c.undecodable(s, err)
		return outcome{}, false
	}
	now, within, ok := c.store.Now()
	if !ok || now-within >= header.FreshUntil {
		// Redis' own expiry removes it at that time, unless somebody has changed the key's.
		s.reason = "expired"
		return outcome{}, false
	}
	now = max(now, header.LoadStart) // which is not in the future, whatever our reading of the server's clock says
	local := c.clock.Now()
	out := outcome{
		status:     StatusHit,
		tier:       TierRedis,
		reason:     "fresh",
		loadedAt:   local - (now-header.LoadStart)*int64(time.Microsecond),
		freshUntil: local + (header.FreshUntil-now)*int64(time.Microsecond),
	}
	if header.Negative {
		out.absent = ErrNotFound
		return out, true
	}
	codec, ok := wire.Builtin(header.Codec)
	if own := s.codec(); !ok && wire.ID(own) == header.Codec {
		codec, ok = own, true
	}
	if !ok {
		c.undecodable(s, errors.New("stored by a codec that the policy does not name"))
		return outcome{}, false
	}
	value := reflect.New(s.typ).Interface()
	if err := wire.Unmarshal(codec, payload, value); err != nil {
		c.undecodable(s, err)
		return outcome{}, false
	}
	out.value = value
	return out, true
}

// codec is the policy's, or the one that fits the value's type.
func (s *slot) codec() wire.Codec {
	if codec := s.plan.policy.Codec; codec != nil {
		return codec
	}
	if s.typ == reflect.TypeFor[[]byte]() || s.typ == reflect.TypeFor[json.RawMessage]() {
		return wire.Raw
	}
	return wire.JSON
}

// encode makes the stored form of what was loaded, without its envelope.
func (s *slot) encode() (payload []byte, codec uint32, err error) {
	if s.out.value == nil {
		return nil, 0, nil
	}
	own := s.codec()
	payload, err = wire.Marshal(own, s.out.value)
	return payload, wire.ID(own), err
}

// seal puts a payload into its envelope, under s's lease.
func (c *Cache) seal(s *slot, payload []byte, codec uint32, took time.Duration) (redisstore.Filling, error) {
	until := s.granted + (s.out.freshUntil-s.out.loadedAt)/int64(time.Microsecond)
	value, err := wire.Encode(s.key, wire.Header{
		Codec:        codec,
		Negative:     s.out.value == nil,
		LoadStart:    s.granted,
		FreshUntil:   until,
		DeadUntil:    until,
		LoadDuration: took,
		Nonce:        s.nonce,
	}, payload, c.limits())
	s.plan.met(int64(len(value)))
	return redisstore.Filling{Key: s.key, Nonce: s.nonce.String(), Value: value, Until: until}, err
}

// unstorable notes a value that cannot be stored. Its callers get it all the same.
func (c *Cache) unstorable(s *slot, err error) {
	s.plan.counts.encodeErrors.Add(1)
	if s.plan.complaints.due(c.clock) {
		c.opts.Logger.Warn("aside: a loaded value cannot be cached", "policy", s.plan.policy.name(), "key", s.key, "error", err)
	}
}

// fill stores what was loaded, under the leases, after the callers have their values.
func (c *Cache) fill(slots []*slot, took time.Duration) {
	var fills []redisstore.Filling
	var filled, failed []*slot
	var size int64
	for _, s := range slots {
		payload, codec, err := s.encode()
		if err == nil {
			var f redisstore.Filling
			if f, err = c.seal(s, payload, codec, took); err == nil {
				// Invalidated here, which Redis may not have been told: it may be away for one caller and not for another.
				if s.call.Forgotten() {
					s.plan.counts.refused.Add(1)
					c.release(s)
					if s.supersede && c.discard(s) != nil {
						failed = append(failed, s)
					}
					continue
				}
				fills, filled = append(fills, f), append(filled, s)
				size += int64(len(f.Value))
				continue
			}
		}
		c.unstorable(s, err)
		failed = append(failed, s)
	}
	if len(fills) > 0 {
		// Not the flight's context, which may have ended with its last caller: the value is as good as any.
		ctx, cancel := c.store.Budget(context.Background(), size, len(fills))
		defer cancel()
		outcomes, errs := c.store.Fill(ctx, fills...)
		for i, s := range filled {
			switch {
			case errs[i] != nil:
				s.plan.counts.redisErrors.Add(1)
				failed = append(failed, s)
			case outcomes[i] == redisstore.Refused:
				s.plan.counts.refused.Add(1)
				if s.supersede && c.discard(s) != nil {
					failed = append(failed, s)
				}
			}
		}
	}
	c.release(failed...)
	for _, s := range failed {
		if s.supersede {
			// The value that the caller wanted replaced must not come back.
			_, _ = c.remove(context.Background(), []*slot{s})
		}
	}
	for _, s := range slots {
		s.call.Drop() // from now on Redis has it, or nobody
	}
}

// discard removes what s was to replace, unless something newer is there by now.
func (c *Cache) discard(s *slot) error {
	ctx, cancel := c.store.Budget(context.Background(), 0, 1)
	defer cancel()
	err := c.store.Discard(ctx, s.key, s.granted)
	if err != nil {
		s.plan.counts.redisErrors.Add(1)
	}
	return err
}

// insert keeps s.out in memory, unless the key was invalidated meanwhile. A value that is too large is not kept: its callers
// get it all the same, and are told so.
func (c *Cache) insert(s *slot) error {
	size := near.Size(s.out.value)
	if size > min(int64(c.opts.MaxValueBytes), c.opts.MaxBytes) {
		c.unstorable(s, wire.ErrTooLarge)
		s.out.freshUntil = s.out.loadedAt
		return wire.ErrTooLarge
	}
	e := s.entry
	if s.out.value == nil {
		e = new(near.Entry) // "not found" is not to keep alive what came with it
	}
	*e = near.Entry{Value: s.out.value, Owner: s.plan, LoadedAt: s.out.loadedAt, FreshUntil: s.out.freshUntil, Size: size}
	put := c.near.Insert
	if s.supersede {
		put = c.near.Put
	}
	if !put(s.key, e, s.fence) {
		s.plan.counts.refused.Add(1)
	}
	if c.closed.Load() {
		// A loader that Close has given up on may come back after memory was emptied: nobody may find what it brings.
		c.near.Delete(s.key)
	}
	return nil
}

// set is Set but for the type of its value.
func (c *Cache) set(ctx context.Context, s *slot) error {
	start := c.clock.Now()
	s.out = outcome{value: s.value, loadedAt: start, freshUntil: start + int64(shorten(s.ttl, s.plan.policy.Jitter))}
	s.supersede = true
	// Last: a flight that begins before the value is in place may have seen the old one, and nobody who comes later may
	// join it.
	defer c.forget(s.key)
	var err error
	if c.near != nil {
		err = c.insert(s)
	} else {
		err = c.write(ctx, s)
	}
	if err == nil {
		return nil
	}
	// What is cached is out of date, whether or not its successor could be stored.
	if _, removeErr := c.remove(ctx, []*slot{s}); removeErr != nil && s.plan.complaints.due(c.clock) {
		c.opts.Logger.Warn("aside: Set could neither store nor remove a value", "policy", s.plan.policy.name(), "key", s.key, "error", redisstore.Describe(removeErr))
	}
	if errors.Is(err, errNotWritten) {
		return nil // Redis' trouble is never the caller's
	}
	return &Error{Code: CodeInvalidArgument, Key: s.key, Message: "the value cannot be stored, and what was cached for its key is removed", Err: err}
}

// errNotWritten is what write returns where Redis failed or refused; it has been counted.
var errNotWritten = errors.New("not written")

// write stores s.out for Set. A plain SET could be held up in a hung server's socket and run after an invalidation
// that came later; so Set takes a lease too, from whoever holds it, and its fill is refused once that is gone.
func (c *Cache) write(ctx context.Context, s *slot) error {
	payload, codec, err := s.encode()
	if err == nil && len(payload) > c.opts.MaxValueBytes {
		err = wire.ErrTooLarge
	}
	if err != nil {
		c.unstorable(s, err)
		return err
	}
	s.plan.met(int64(len(payload)))
	ctx, cancel := c.budget(context.WithoutCancel(ctx), s)
	defer cancel()
	s.nonce = wire.NewNonce()
	grant := c.store.Seize(ctx, redisstore.Request{Key: s.key, Nonce: s.nonce.String()})[0]
	if grant.Err != nil {
		s.plan.counts.redisErrors.Add(1)
		return errNotWritten
	}
	s.granted = grant.Now
	filling, err := c.seal(s, payload, codec, 0)
	if err != nil {
		c.unstorable(s, err)
		return err
	}
	outcomes, errs := c.store.Fill(ctx, filling)
	if errs[0] != nil {
		s.plan.counts.redisErrors.Add(1)
		return errNotWritten
	}
	if outcomes[0] == redisstore.Refused {
		// Somebody came later: another Set, whose value must stay, or an invalidation. Or the lease has run out on the
		// way, and what is there is older than this.
		s.plan.counts.refused.Add(1)
		if c.discard(s) != nil {
			return errNotWritten
		}
	}
	return nil
}

// A leaseKeeper renews the leases of one load.
type leaseKeeper struct{ loaded, stored chan struct{} }

// keepLeases renews the leases that slots hold until their values are stored. When ctx ends before they are loaded, because
// the load's time is up or nobody waits for it any more, it gives the leases back: a loader that hangs must not hold up the
// fleet.
func (c *Cache) keepLeases(ctx context.Context, slots []*slot) leaseKeeper {
	k := leaseKeeper{make(chan struct{}), make(chan struct{})}
	if reqs := leaseRequests(slots, (*slot).leased); len(reqs) > 0 {
		c.background.Go(func() { c.renew(ctx, k, reqs) })
	}
	return k
}

func (c *Cache) renew(ctx context.Context, k leaseKeeper, reqs []redisstore.Request) {
	renewals := time.NewTicker(c.opts.LeaseTTL / 3)
	defer renewals.Stop()
	loaded, ended := k.loaded, ctx.Done()
	for {
		select {
		case <-k.stored:
			return
		case <-loaded:
			loaded, ended = nil, nil // from now on the end of the flight says nothing of its values
		case <-ended:
			select {
			case <-loaded:
				continue // both at once
			default:
			}
			c.withBudget(len(reqs), func(ctx context.Context) error { return c.store.Release(ctx, reqs...) })
			return
		case <-renewals.C:
			// A renewal that fails is no reason to stop: the next one may come in time.
			c.withBudget(len(reqs), func(ctx context.Context) error { return c.store.Renew(ctx, reqs...) })
		}
	}
}

// release gives back, in the background, the leases that slots hold or may have been granted.
func (c *Cache) release(slots ...*slot) {
	if reqs := leaseRequests(slots, (*slot).asked); len(reqs) > 0 {
		c.background.Go(func() {
			c.withBudget(len(reqs), func(ctx context.Context) error { return c.store.Release(ctx, reqs...) })
		})
	}
}

func leaseRequests(slots []*slot, which func(*slot) bool) (reqs []redisstore.Request) {
	for _, s := range slots {
		if which(s) {
			reqs = append(reqs, redisstore.Request{Key: s.key, Nonce: s.nonce.String()})
		}
	}
	return reqs
}

// withBudget runs an operation whose failure needs no handling: a lease that is not given back ends by itself.
func (c *Cache) withBudget(keys int, op func(context.Context) error) {
	ctx, cancel := c.store.Budget(context.Background(), 0, keys)
	defer cancel()
	_ = op(ctx)
}

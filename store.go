package aside

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// named is what a key is called in Redis. A value counts only under the name that it was stored under.
func (c *Cache) named(key string) string { return c.opts.prefix() + key }

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
			if known = int64(c.opts.ChunkFrom); known < 0 {
				known = unknownSize
			}
		}
		size = max(size, known)
	}
	return c.store.Budget(ctx, size, len(slots))
}

// unknownSize is how large a policy's values are taken for, where they are not in chunks, until the first one was met: half a
// second's worth, so that a process that has just started reads what is in Redis rather than load it all again.
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
	s.plan.counts.RedisErrors.Add(1)
	if redisstore.IsMoving(err) || redisstore.IsForbidden(err) {
		s.notice.Voucher, s.notice.Untrackable = nil, true // who has vouched for what is missing does not tell of it when it is made elsewhere
	}
	s.status, s.reason, s.keep = StatusFallback, redisstore.Describe(err), false
	s.timedOut = redisstore.IsTimeout(err)
}

// learnSize finds out how large a value is that Redis could not deliver in time. If that was for its size, the next
// operation is given the time that it needs.
func (c *Cache) learnSize(s *slot) {
	if c.opts.ChunkFrom >= 0 {
		return // it was not: what is large is read in chunks, whose number is known
	}
	if payload, _, err := s.encode(c.limits()); err == nil && len(payload) <= c.opts.MaxValueBytes {
		s.plan.met(int64(len(payload)))
	}
}

func (c *Cache) undecodable(s *slot, err error) {
	s.plan.counts.DecodeErrors.Add(1)
	s.reason = "the stored value cannot be used"
	if s.plan.valueLog.Allow(c.clock.Now()) {
		c.opts.Logger.Warn("aside: a value in Redis cannot be used and counts as a miss", "policy", s.plan.policy.name(), "key", s.key, "error", err)
	}
}

// anotherBuild notes a value that is whole, and that this process cannot decode: another one with another type or codec has stored it. Two
// builds side by side must not push out each other's values at each call. So this one keeps what it loads in its own memory; but where
// nobody tells it of changes it keeps nothing there, and has to store what it loads.
func (c *Cache) anotherBuild(s *slot, err error) {
	c.undecodable(s, err)
	s.keep, s.reason = !s.notice.Tracked(), "stored by a build with another type or codec"
}

// sealed is what Redis holds for a slot, before its tags were looked at.
type sealed struct {
	slot    *slot
	header  wire.Header
	payload []byte
}

// unseal reads the envelope of what Redis holds, or notes why that cannot be used.
func (c *Cache) unseal(ctx context.Context, s *slot, r redisstore.Read) (*sealed, bool) {
	stored := r.Value
	s.plan.met(int64(len(stored)))
	var (
		header  wire.Header
		payload []byte
		err     error
	)
	if r.Cut {
		err = wire.ErrTooLarge
	} else if wire.IsChunked(stored) {
		header, payload, err = c.readChunks(ctx, s, stored)
	} else {
		header, payload, err = wire.Decode(c.named(s.key), stored, c.limits())
	}
	if err == nil {
		err = s.foreign(header.Policy)
	}
	if err == nil && !keyspace.OnlyTags(header.Tags) {
		err = errForeignTag
	}
	if errors.Is(err, wire.ErrNewer) {
		// Two builds side by side during a deployment must not overwrite each other's values for ever: the older one
		// gives way.
		s.keep, s.reason = false, "stored by a newer build"
		return nil, false
	}
	s.reject = redisstore.Reject(stored[:min(len(stored), wire.HeadLen)], len(stored), r.Cut)
	switch {
	case errors.Is(err, errNoChunk):
		s.reason = "a part of the stored value is gone"
		return nil, false
	case errors.Is(err, errOutdated):
		s.reason = "invalidated by a tag or its category"
		return nil, false
	case errors.Is(err, errChunksUnread):
		return nil, false
	case errors.Is(err, errOlderVersion):
		s.reason = err.Error()
		return nil, false
	case errors.Is(err, errOtherPolicy):
		c.sharedKey(s, header.Policy)
		return nil, false
	case err != nil:
		c.undecodable(s, err)
		return nil, false
	}
	return &sealed{s, header, payload}, true
}

var (
	errTooWide      = errors.New("decoded, it would take far more memory than MaxValueBytes allows for")
	errForeignTag   = errors.New("it names a key as a tag that is none")
	errNoChunk      = errors.New("a chunk is gone")
	errChunksUnread = errors.New("chunks not delivered by Redis") // and this was noted
)

// readChunks reads a large value by its manifest. Chunks are written before their manifest and never changed, so what the
// connection vouches for is the manifest; but memory may have lost a chunk, or the value has been replaced in between.
func (c *Cache) readChunks(ctx context.Context, s *slot, stored []byte) (h wire.Header, payload []byte, err error) {
	m, err := wire.ReadManifest(c.named(s.key), stored, c.limits())
	if err != nil {
		return h, nil, err
	}
	if s.outdated {
		return h, nil, errOutdated
	}
	ctx, cancel := c.store.More(ctx, int64(m.Size), m.Chunks)
	defer cancel()
	chunks, ok, err := c.store.Chunks(ctx, s.key, m.Nonce.String(), m.Lengths())
	switch {
	case err != nil:
		c.redisFailed(ctx, s, err)
		return h, nil, errChunksUnread
	case !ok:
		return h, nil, errNoChunk
	}
	return m.Join(c.named(s.key), stored, chunks, c.limits())
}

// lacksTags reports whether the generation of a tag of one of these values has yet to be read.
func lacksTags(m *tags.Snapshot, values []*sealed) bool {
	return slices.ContainsFunc(values, func(v *sealed) bool { return m.Lacks(v.header.Tags) })
}

// open makes an outcome of what Redis holds, and keeps it in memory; or it notes why it cannot be used.
func (c *Cache) open(ctx context.Context, m *tags.Snapshot, v *sealed) (outcome, bool) {
	s := v.slot
	carried, is, why := m.Judge(v.header.Tags, s.plan.tags, s.strong, s.plan.degradedTTL)
	switch is {
	case tags.Outdated:
		s.reason = "invalidated by a tag or its category"
		return outcome{}, false
	case tags.Unknown:
		c.redisFailed(ctx, s, why)
		s.unanswered = s.status == StatusFallback
		return outcome{}, false
	}
	now, within, ok := c.store.Now(s.key)
	until := s.plan.until(&v.header)
	if !ok || now-within >= until {
		// Redis' own expiry removes it at that time, unless somebody has changed the key's, or the policy's TTL was longer.
		s.reason = "expired"
		return outcome{}, false
	}
	now = max(now, v.header.LoadStart) // which is not in the future, whatever our reading of the server's clock says
	local := c.clock.Now()
	out := outcome{
		status:     StatusHit,
		tier:       TierRedis,
		reason:     "fresh",
		loadedAt:   local - (now-v.header.LoadStart)*int64(time.Microsecond),
		freshUntil: local + (until-now)*int64(time.Microsecond),
	}
	for _, t := range carried.Tags {
		if !s.has(t.Tag) { // nobody could know while it was read: see tooLate
			out.late, out.tagEvents = true, s.tagEvents.All
		}
	}
	if v.header.Negative {
		out.absent = absentElsewhere(v.payload)
	} else if out.value, ok = c.decode(s, v); !ok {
		return outcome{}, false
	}
	c.keepRead(s, out, carried)
	if is == tags.Lapsed {
		s.plan.counts.RedisErrors.Add(1)
		out.status, out.reason, out.freshUntil = StatusStale, redisstore.Describe(why), out.loadedAt
	}
	return out, true
}

// until is when a stored value is no longer fresh: when its writer says, but no later than the policy's TTL allows now, which may
// have been shortened since. What a loader or a caller has chosen for a value stands.
func (pl *plan) until(h *wire.Header) int64 {
	if h.OwnTTL {
		return h.FreshUntil
	}
	ttl := pl.ttl
	if h.Negative {
		ttl = pl.negativeTTL
	}
	return min(h.FreshUntil, h.LoadStart+ttl.Microseconds())
}

func (c *Cache) decode(s *slot, v *sealed) (any, bool) {
	codec, ok := wire.Builtin(v.header.Codec)
	if own := s.codec(); !ok && wire.ID(own) == v.header.Codec {
		codec, ok = own, true
	}
	if !ok {
		c.anotherBuild(s, errors.New("stored by a codec that the policy does not name"))
		return nil, false
	}
	if !c.limits().Fits(codec, s.typ, v.payload) {
		c.undecodable(s, errTooWide)
		return nil, false
	}
	value := reflect.New(s.typ).Interface()
	if err := wire.Unmarshal(codec, v.payload, value); err != nil {
		c.anotherBuild(s, err)
		return nil, false
	}
	if s.narrower(codec, v.payload) {
		s.reason = reasonNarrower
		return nil, false
	}
	if s.plan.policy.Private {
		return &encoded{v.payload, codec, s.typ}, true
	}
	return value, true
}

// keepRead keeps in memory what was read from Redis, if somebody vouches for it.
func (c *Cache) keepRead(s *slot, out outcome, carried tags.Capture) {
	own := s.notice.Voucher
	if own == nil {
		return
	}
	list, ok := carried.Vouchers(own)
	kept := out.kept()
	size := near.Size(kept)
	if !ok || !c.near.Fits(s.key, size) {
		return
	}
	e := &near.Entry{Value: kept, Scope: s.plan.scope(list, s.tags), LoadedAt: out.loadedAt, FreshUntil: out.freshUntil, Size: size}
	if !c.near.Insert(s.key, e, s.fence) {
		c.near.Keep(s.key, e, s.fence) // as a stale one, where the server of a tag is away
	}
}

// encoded is a value of a policy whose callers each get a copy of their own: they decode it.
type encoded struct {
	payload []byte
	codec   wire.Codec
	typ     reflect.Type // of the value that was encoded, or was once decoded from it
}

// own replaces what was loaded by what each caller can decode.
func (s *slot) own(lim wire.Limits) error {
	codec := s.codec()
	payload, err := lim.Marshal(codec, s.out.value)
	if err != nil {
		return &Error{Code: CodeInvalidArgument, Key: s.key, Message: "the policy gives each caller a copy of its own, and its codec refuses the value", Err: concealed(err)}
	}
	s.out.value = &encoded{slices.Clone(payload), codec, s.typ}
	return nil
}

// copyTo decodes a copy. The codec may keep parts of what it is given.
func (e *encoded) copyTo(value any) error {
	return wire.Unmarshal(e.codec, slices.Clone(e.payload), value)
}

// codec is the policy's, or the one that fits the value's type.
func (s *slot) codec() wire.Codec {
	if codec := s.plan.policy.Codec; codec != nil {
		return codec
	}
	if wire.IsRaw(s.typ) {
		return wire.Raw
	}
	return wire.JSON
}

// encode makes the stored form of what was loaded, without its envelope.
func (s *slot) encode(lim wire.Limits) (payload []byte, codec uint32, err error) {
	if s.out.value == nil {
		return s.out.absenceText(), 0, nil
	}
	if e, ok := s.out.value.(*encoded); ok {
		return e.payload, wire.ID(e.codec), nil
	}
	own := s.codec()
	payload, err = lim.Marshal(own, s.out.value)
	return payload, wire.ID(own), err
}

// seal puts a payload into its envelope, under s's lease.
func (c *Cache) seal(s *slot, payload []byte, codec uint32, took time.Duration) (redisstore.Filling, error) {
	until := s.granted + (s.out.freshUntil-s.out.loadedAt)/int64(time.Microsecond)
	tags := make([]wire.Tag, len(s.captured.Tags))
	for i, t := range s.captured.Tags {
		tags[i] = wire.Tag{Name: t.Tag, Generation: t.Value}
	}
	if own, ok := wire.Builtin(codec); ok && s.out.value != nil && !c.limits().Fits(own, s.typ, payload) {
		return redisstore.Filling{}, errTooWide // no reader would take it
	}
	s.plan.types.LoadOrStore(s.typ, nil)
	c.checkFirst(s, payload, codec)
	value, err := wire.Encode(c.named(s.key), wire.Header{
		Codec:        codec,
		Negative:     s.out.value == nil,
		Policy:       s.plan.owner,
		LoadStart:    s.granted,
		FreshUntil:   until,
		DeadUntil:    until,
		OwnTTL:       s.ownTTL,
		LoadDuration: took,
		Nonce:        s.nonce,
		Tags:         tags,
	}, payload, c.limits())
	f := redisstore.Filling{Key: s.key, Nonce: s.nonce.String(), Value: value, Until: until}
	if c.opts.ChunkFrom >= 0 && len(value) > c.opts.ChunkFrom {
		f.Value, f.Chunks = wire.Split(value, redisstore.ChunkSize)
	}
	s.plan.met(int64(len(f.Value)))
	return f, err
}

// unstorable notes a value that cannot be stored. Its callers get it all the same.
func (c *Cache) unstorable(s *slot, err error) {
	s.plan.counts.EncodeErrors.Add(1)
	if s.plan.valueLog.Allow(c.clock.Now()) {
		c.opts.Logger.Warn("aside: a loaded value cannot be cached", "policy", s.plan.policy.name(), "key", s.key, "error", err)
	}
}

// fill stores what was loaded, under the leases, after the callers have their values.
func (c *Cache) fill(m *tags.Snapshot, slots []*slot, took time.Duration) {
	var fills []redisstore.Filling
	var filling, stored, failed []*slot
	var size int64
	keys := 0
	for _, s := range slots {
		f, err := c.sealLoaded(m, s, took)
		switch {
		case errors.Is(err, errOutdated):
			s.plan.counts.RefusedFills.Add(1)
			c.release(s)
			if s.supersede && c.discard(s) != nil {
				failed = append(failed, s)
			}
		case err != nil:
			failed = append(failed, s)
			if encoding := (*wire.CodecError)(nil); errors.As(err, &encoding) && !s.supersede && !s.lost.Load() {
				s.quiet = true // Redis cannot have it, but this process can
				c.keepWithoutLease(m, s, s.out.loadedAt, time.Duration(s.out.freshUntil-s.out.loadedAt))
			}
		default:
			fills, filling = append(fills, f), append(filling, s)
			size += f.Size()
			keys += 1 + len(f.Chunks)
		}
	}
	if len(fills) > 0 {
		// Not the flight's context, which may have ended with its last caller: the value is as good as any.
		ctx, cancel := c.store.Budget(context.Background(), size, keys)
		defer cancel()
		onTheWay := &filled{over: make(chan struct{})}
		for _, s := range filling {
			c.fills.Store(s.key, onTheWay)
		}
		defer func() {
			for _, s := range filling {
				c.fills.CompareAndDelete(s.key, onTheWay)
			}
			close(onTheWay.over)
		}()
		outcomes, errs := c.store.Fill(ctx, fills...)
		onTheWay.err = errs[0]
		for i, s := range filling {
			switch {
			case errs[i] != nil:
				s.plan.counts.RedisErrors.Add(1)
				failed = append(failed, s)
				if !s.supersede && !s.lost.Load() && !redisstore.IsMoving(errs[i]) {
					s.quiet = true
					c.keepWithoutLease(m, s, s.out.loadedAt, time.Duration(s.out.freshUntil-s.out.loadedAt))
				}
			case outcomes[i] == redisstore.Refused:
				s.plan.counts.RefusedFills.Add(1)
				if s.supersede && c.discard(s) != nil {
					failed = append(failed, s)
				}
			case outcomes[i] == redisstore.Stored:
				stored = append(stored, s)
			}
		}
		if err := c.keepStored(ctx, stored); err != nil {
			onTheWay.err = err
		}
	}
	c.release(failed...)
	for _, s := range failed {
		if s.supersede {
			// The value that the caller wanted replaced must not come back.
			c.removeOld(context.Background(), s)
		}
	}
	for _, s := range slots {
		s.call.Drop() // from now on Redis has it, or nobody
	}
}

// A filled is what those wait for who ask for a value that is being stored.
type filled struct {
	over chan struct{} // closed when the value is in memory too, or will not be
	err  error         // why Redis did not take it, or did not say that it has; written before over is closed
}

// errOutdated is what sealLoaded returns for a value that was invalidated while it was loaded, and readChunks for one that was
// before.
var errOutdated = errors.New("invalidated during the load")

// sealLoaded makes what is to be stored of a loaded value.
func (c *Cache) sealLoaded(m *tags.Snapshot, s *slot, took time.Duration) (redisstore.Filling, error) {
	payload, codec, err := s.encode(c.limits())
	if err == nil && len(s.lateNames) > 0 {
		ctx, cancel := c.store.Budget(context.Background(), 0, len(s.lateNames)+1)
		unmoved, lateErr := c.addLateTags(ctx, m, s)
		cancel()
		switch {
		case isInvalid(lateErr):
			err = lateErr
		case lateErr != nil:
			s.plan.counts.RedisErrors.Add(1)
			return redisstore.Filling{}, lateErr
		case !unmoved:
			return redisstore.Filling{}, errOutdated
		}
	}
	var f redisstore.Filling
	if err == nil {
		if unmoved, lifeErr := c.outlive(s); lifeErr != nil {
			s.plan.counts.RedisErrors.Add(1)
			return f, lifeErr
		} else if !unmoved {
			return f, errOutdated
		}
		f, err = c.seal(s, payload, codec, took)
	}
	if err != nil {
		s.call.Drop()
		c.unstorable(s, err)
		return f, err
	}
	// Invalidated here, which Redis may not have been told: it may be away for one caller and not for another.
	if s.fence.BrokenHere() {
		return f, errOutdated
	}
	if s.lost.Load() {
		return f, errOutdated
	}
	if m.InvalidatedHere(s.tags) {
		return f, errOutdated
	}
	return f, nil
}

func isInvalid(err error) bool { return errors.Is(err, &Error{Code: CodeInvalidArgument}) }

// keepStored keeps in memory what was stored just now. Redis does not tell of changes of what a client has written, only of
// what it has read: so the head of the value is read again, whose nonce proves that the value is still the one that was
// written, and the value itself needs no decoding. It returns why Redis
// could not be asked.
func (c *Cache) keepStored(ctx context.Context, slots []*slot) (err error) {
	var looks []redisstore.Look
	var fences []*near.Fence
	for _, s := range slots {
		f := c.near.Fence(s.key, nil)
		defer f.End()
		fences = append(fences, f)
		looks = append(looks, redisstore.Look{Key: s.key, Fence: f, Head: wire.HeadLen})
	}
	if len(slots) == 0 {
		return nil
	}
	reads := c.store.Look(ctx, looks...)
	for i, s := range slots {
		r := reads[i]
		if r.Err != nil {
			err = r.Err
		}
		nonce, ok := wire.HeadNonce(r.Value)
		if r.Err != nil || r.Voucher == nil || !ok || nonce != s.nonce || s.fence.BrokenHere() {
			continue
		}
		list, ok := s.captured.Vouchers(r.Voucher)
		e := s.asEntry(list)
		if !ok || !c.near.Fits(s.key, e.Size) {
			continue
		}
		c.near.Insert(s.key, e, fences[i])
	}
	return err
}

// asEntry makes the entry in memory of what was loaded.
func (s *slot) asEntry(list []*near.Voucher) *near.Entry {
	e := s.entry
	if e == nil || s.out.value != s.value {
		e = new(near.Entry) // which is not to keep alive what came with it
	}
	kept := s.out.kept()
	*e = near.Entry{
		Value: kept, Scope: s.plan.scope(list, s.tags), LoadedAt: s.out.loadedAt, FreshUntil: s.out.freshUntil,
		Size: near.Size(kept),
	}
	return e
}

// discard removes what s was to replace, unless something newer is there by now.
func (c *Cache) discard(s *slot) error {
	ctx, cancel := c.store.Budget(context.Background(), 0, 1)
	defer cancel()
	c.near.Delete(s.key)
	err := c.store.Discard(ctx, s.key, s.granted)
	c.near.Delete(s.key)
	if err != nil {
		s.plan.counts.RedisErrors.Add(1)
	}
	return err
}

// insertLoaded keeps s.out in memory, in memory mode, unless it was invalidated meanwhile. A value that is too large is not
// kept: its callers get it all the same, and are told so.
func (c *Cache) insertLoaded(ctx context.Context, m *tags.Snapshot, s *slot) error {
	refused := false
	if len(s.lateNames) > 0 {
		unmoved, err := c.addLateTags(ctx, m, s)
		if err == nil && len(s.tags) > wire.MaxTags {
			err = wire.ErrTags
		}
		if err != nil {
			return c.unkept(s, err)
		}
		refused = !unmoved
	}
	list, ok := s.captured.Vouchers(nil)
	e := s.asEntry(list)
	if !c.fits(s, e) {
		return c.unkept(s, wire.ErrTooLarge)
	}
	if refused || !ok || !c.near.Insert(s.key, e, s.fence) {
		s.plan.counts.RefusedFills.Add(1)
	}
	if s.supersede {
		c.near.Discard(s.key, s.out.loadedAt) // where the new value was not stored
	}
	c.closedMeanwhile(s)
	return nil
}

// keepUnvouched keeps in memory what was loaded while Redis could not be asked, for the policy's DegradedTTL: nobody would tell
// if another process invalidated it. What this process invalidates ends it at once.
func (c *Cache) keepUnvouched(m *tags.Snapshot, s *slot, start int64, ttl time.Duration) {
	if s.plan.degradedTTL <= 0 {
		return
	}
	if len(s.lateNames) > 0 {
		tags, err := tagNames(s.lateNames)
		if err != nil || c.tags.Events().All != s.tagEvents.All {
			return
		}
		s.tags = slices.Concat(s.tags, tags)
	}
	list, ok := m.Hold([]*near.Voucher{near.Unvouched}, s.tags)
	if !ok {
		s.plan.counts.RefusedFills.Add(1)
		return
	}
	if c.tags.Events().All != s.tagEvents.All && len(s.lateNames) > 0 {
		return // one of the tags above may be it: their fences are younger than the load
	}
	s.out.freshUntil = start + int64(ttl)
	e := s.asEntry(list)
	s.out.freshUntil = start
	if c.fits(s, e) && !c.near.Keep(s.key, e, s.fence) {
		s.plan.counts.RefusedFills.Add(1)
	}
	c.closedMeanwhile(s)
}

// fits reports whether memory takes an entry that is not in Redis too.
func (c *Cache) fits(s *slot, e *near.Entry) bool {
	return e.Size <= int64(c.opts.MaxValueBytes) && c.near.Fits(s.key, e.Size)
}

func (c *Cache) unkept(s *slot, err error) error {
	c.unstorable(s, err)
	s.out.freshUntil = s.out.loadedAt
	return err
}

// closedMeanwhile keeps what is brought by a loader that Close has given up on from being found.
func (c *Cache) closedMeanwhile(s *slot) {
	if c.closed.Load() {
		c.near.Delete(s.key)
	}
}

// set is Set but for the type of its value.
func (c *Cache) set(ctx context.Context, s *slot) error {
	c.awaitFirst(ctx, s)
	start := c.clock.Now()
	s.ownTTL = s.ttl != s.plan.ttl
	s.out = outcome{value: s.value, loadedAt: start, freshUntil: start + int64(shorten(s.ttl, s.plan.policy.Jitter))}
	s.supersede = true
	var err error
	if s.plan.policy.Private {
		err = s.own(c.limits())
	}
	m := c.tags.Snapshot()
	defer m.End()
	m.Add(s.tags...)
	switch {
	case err != nil:
	case c.store == nil:
		err = c.put(m, s)
	default:
		// Before and after: a load that begins in between may still read what is there.
		c.near.Delete(s.key)
		err = c.write(ctx, m, s)
		c.near.Delete(s.key)
	}
	c.failures.Forget(s.key)
	if err == nil {
		return nil
	}
	// What is cached is out of date, whether or not its successor could be stored.
	c.removeOld(ctx, s)
	if errors.Is(err, errNotWritten) {
		return nil // Redis' trouble is never the caller's
	}
	return &Error{Code: CodeInvalidArgument, Key: s.key, Message: "the value cannot be stored, and what was cached for its key is removed", Err: concealed(err)}
}

// put is Set in memory mode.
func (c *Cache) put(m *tags.Snapshot, s *slot) error {
	for ok := false; !ok; {
		m.Renew(true)
		m.Local()
		m.Capture(&s.captured, s.tags)
		var list []*near.Voucher
		if list, ok = s.captured.Vouchers(nil); ok { // else a tag was invalidated in between: there is a new generation
			e := s.asEntry(list)
			if !c.fits(s, e) {
				return c.unkept(s, wire.ErrTooLarge)
			}
			c.near.Put(s.key, e)
		}
	}
	c.closedMeanwhile(s)
	return nil
}

// errNotWritten is what write returns where Redis failed or refused; it has been counted.
var errNotWritten = errors.New("not written")

// write stores s.out for Set. A plain SET could be held up in a hung server's socket and run after an invalidation
// that came later; so Set takes a lease too, from whoever holds it, and its fill is refused once that is gone.
func (c *Cache) write(ctx context.Context, m *tags.Snapshot, s *slot) error {
	payload, codec, err := s.encode(c.limits())
	if err == nil && len(payload) > c.opts.MaxValueBytes {
		err = wire.ErrTooLarge
	}
	if err != nil {
		c.unstorable(s, err)
		return err
	}
	ctx, cancel := c.budget(context.WithoutCancel(ctx), s)
	defer cancel()
	m.Renew(true)
	if mine, _, _ := c.takeLeases(ctx, m, []*slot{s}); len(mine) == 0 || !s.leased() {
		return errNotWritten
	}
	filling, err := c.seal(s, payload, codec, 0)
	if err != nil {
		c.unstorable(s, err)
		return err
	}
	ctx, cancel = c.store.More(ctx, filling.Size(), 1+len(filling.Chunks))
	defer cancel()
	outcomes, errs := c.store.Fill(ctx, filling)
	if errs[0] != nil {
		s.plan.counts.RedisErrors.Add(1)
		return errNotWritten
	}
	if outcomes[0] == redisstore.Refused {
		// Somebody came later: another Set, whose value must stay, or an invalidation. Or the lease has run out on the
		// way, and what is there is older than this.
		s.plan.counts.RefusedFills.Add(1)
		if c.discard(s) != nil {
			return errNotWritten
		}
	}
	return nil
}

package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// A storedValue is the value that Redis holds for an attempt. Its tags are not checked yet.
type storedValue struct {
	attempt *attempt
	stored  []byte // with its envelope
	header  wire.Header
	payload []byte
	chunked bool
	decoded any // the value of the payload, where memory has it

	few [3]tags.Carried // room for what it carries
}

// openEnvelope opens the envelope of a value that Redis holds, or notes why that cannot be used.
func (e *Engine) openEnvelope(ctx context.Context, a *attempt, r redisstore.Read) (v storedValue, ok bool) {
	stored := r.Value
	a.Policy.observeSize(int64(len(stored)))
	var (
		header  wire.Header
		payload []byte
		decoded any
		err     error
	)
	if r.Cut {
		err = wire.ErrTooLarge
	} else if wire.IsChunked(stored) {
		header, payload, decoded, err = e.readChunks(ctx, a, stored)
	} else {
		header, payload, err = wire.Decode(e.named(a.Key), stored, e.limits())
	}
	if err == nil {
		err = e.unusable(a, &header)
	}
	if errors.Is(err, wire.ErrNewer) {
		// During a deployment two builds run side by side. They must not go on overwriting each other's values, so the older build
		// does not store its own.
		a.storable, a.reason = false, ReasonNewerBuild
		return v, false
	}
	if err == nil {
		return storedValue{attempt: a, stored: stored, header: header, payload: payload, chunked: wire.IsChunked(stored), decoded: decoded}, true
	}
	a.reject(stored, r.Cut)
	switch {
	case errors.Is(err, errNoChunk):
		a.reason = ReasonIncomplete
		a.noteUnfit(stored)
		return v, false
	case errors.Is(err, errExpired):
		a.reason = err.Error()
		e.notePrior(ctx, a, r)
		return v, false
	case errors.Is(err, errKnownUnfit):
		a.reason = a.unfit.reason
		return v, false
	case errors.Is(err, errOutdated):
		a.reason = ReasonInvalidated
		return v, false
	case errors.Is(err, errChunksUnread):
		return v, false
	case errors.Is(err, errOlderVersion):
		a.reason = err.Error()
		return v, false
	case errors.Is(err, errOtherPolicy):
		e.otherPolicy(a, header.Policy)
		return v, false
	}
	e.undecodable(a, err)
	a.noteUnfit(stored)
	return v, false
}

// reject notes that a value that Redis holds cannot be used.
func (a *attempt) reject(stored []byte, cut bool) {
	a.rejected = redisstore.Reject(stored[:min(len(stored), wire.HeadLen)], len(stored), cut)
}

// unusable returns why a value cannot be used, as far as its header shows: of a large value, before its chunks are read.
func (e *Engine) unusable(a *attempt, h *wire.Header) error {
	if err := a.otherOwner(h.Policy); err != nil {
		return err
	}
	if !keyspace.OnlyTags(h.Tags) {
		return errForeignTag
	}
	if a.outdated {
		return errOutdated
	}
	if e.phaseOf(a, h) > a.lastPhase() {
		return errExpired
	}
	return nil
}

// An unfit value is one in chunks whose header shows nothing against it. Who waits for another process's load looks at the value again and
// again, and does not read the chunks each time.
type unfit struct {
	nonce  wire.Nonce // zero if there is none
	reason string
}

// noteUnfit notes that the chunks of a value were of no use, for a's reason.
func (a *attempt) noteUnfit(stored []byte) {
	if nonce, ok := wire.HeadNonce(stored); ok && wire.IsChunked(stored) {
		a.unfit = unfit{nonce, a.reason}
	}
}

var (
	errTooWide      = errors.New("the decoded value would take far more memory than MaxValueBytes allows")
	errForeignTag   = errors.New("the value names a key as a tag that is not a tag")
	errNoChunk      = errors.New("a chunk is missing")
	errKnownUnfit   = errors.New("the chunks were read before, and were of no use")
	errChunksUnread = errors.New("chunks could not be read from Redis") // redisFailed has noted why
)

// readChunks reads the chunks of a large value by its manifest. Chunks are written before their manifest and never changed, so it is enough
// that Redis tracks the manifest. A chunk may still be missing: Redis may have evicted it, or the value was replaced since the manifest was
// read.
//
// Where memory has the decoded value of the same payload, nothing is read: see near.Cache.Pushed.
func (e *Engine) readChunks(ctx context.Context, a *attempt, stored []byte) (h wire.Header, payload []byte, decoded any, err error) {
	m, err := wire.ReadManifest(e.named(a.Key), stored, e.limits())
	if err != nil {
		return h, nil, nil, err
	}
	if err := e.unusable(a, &m.Header); err != nil {
		return m.Header, nil, nil, err
	}
	if m.Header.Nonce == a.unfit.nonce {
		return m.Header, nil, nil, errKnownUnfit
	}
	if decoded = e.Near.Pushed(a.Key, m.Header.Payload); decoded != nil && fits(decoded, a.Type) {
		return m.Header, nil, decoded, nil
	}
	ctx, cancel := e.Store.More(ctx, int64(m.Size), m.Chunks)
	defer cancel()
	chunks, ok, err := e.Store.Chunks(ctx, a.Key, m.Header.Payload.String(), m.Lengths())
	switch {
	case err != nil:
		e.redisFailed(ctx, a, err)
		return h, nil, nil, errChunksUnread
	case !ok:
		return h, nil, nil, errNoChunk
	}
	h, payload, err = m.Join(e.named(a.Key), stored, chunks, e.limits())
	return h, payload, nil, err
}

// usable makes an outcome of a value that Redis holds, and keeps the value in memory. Or it notes why the value is not used.
func (e *Engine) usable(ctx context.Context, m *tags.Snapshot, v *storedValue) (Outcome, bool) {
	a := v.attempt
	carried := tags.Capture{Tags: v.few[:0]}
	is, why := m.Judge(&carried, v.header.Tags, a.Policy.Tags, a.Strong, a.Policy.DegradedTTL)
	switch is {
	case tags.Outdated:
		a.reason = ReasonInvalidated
		return Outcome{}, false
	case tags.Unknown:
		e.redisFailed(ctx, a, why)
		a.unanswered = a.status == StatusFallback
		return Outcome{}, false
	}
	if e.phaseOf(a, &v.header) > a.lastPhase() { // since its header was looked at
		a.reason = ReasonExpired
		return Outcome{}, false
	}
	value, ok := e.valueOf(v)
	if !ok {
		return Outcome{}, false
	}
	return e.outcomeOf(v, value, carried, is, why), true
}

// valueOf decodes a value, nil for "not found". Codecs go deep: what is decoded with little on the stack needs no larger one.
func (e *Engine) valueOf(v *storedValue) (value any, ok bool) {
	switch {
	case v.header.Negative:
		return nil, true
	case v.decoded != nil:
		return v.decoded, true
	}
	a := v.attempt
	if value, ok = e.decode(a, v); !ok && v.chunked {
		a.unfit = unfit{v.header.Nonce, a.reason}
	}
	return value, ok
}

// outcomeOf makes the outcome of a decoded value, and keeps the value in memory.
func (e *Engine) outcomeOf(v *storedValue, value any, carried tags.Capture, is tags.Standing, why error) Outcome {
	a := v.attempt
	out, end, within := e.onThisClock(a, &v.header)
	for _, t := range carried.Tags {
		if !a.has(t.Tag) { // the value names it, its policy does not: see joinedOutdated
			out.late, out.tagEvents = true, a.tagEvents.All
		}
	}
	if out.Value = value; v.header.Negative {
		out.Absent = absentElsewhere(v.payload, a.Policy)
	}
	entry := &near.Entry{Value: out.inMemory(), LoadedAt: out.LoadedAt, Until: out.FreshUntil, LoadTime: out.LoadTime}
	if plan := a.planOf(&out, a.Policy.windowsOf(&v.header), v.header.LoadDuration, v.header.Nonce); plan != nil {
		if plan.DeadUntil > plan.FreshUntil { // the budget is a hard one, and ends early even where it is less than what is unknown of the clock
			plan.DeadUntil = min(plan.DeadUntil-within, end)
			plan.FreshUntil = min(plan.FreshUntil, plan.DeadUntil)
			plan.StaleUntil = max(plan.FreshUntil, min(plan.StaleUntil-within, plan.DeadUntil))
			plan.RefreshAt, out.FreshUntil = min(plan.RefreshAt, plan.FreshUntil), plan.FreshUntil
		}
		if v.chunked {
			plan.Payload = v.header.Payload
		}
		withPlan(entry, plan)
	}
	times := entry.Times()
	out.staleUntil = times.StaleUntil
	e.keepRead(a, entry, carried)
	if is == tags.Lapsed {
		a.Policy.Counters.RedisErrors.Add(1)
		out.Status, out.Reason, out.FreshUntil, out.ttlUntil = StatusStale, redisstore.Describe(why), out.LoadedAt, out.FreshUntil
		return out
	}
	e.markAgeing(a, &out, entry)
	if out.Status == StatusStale {
		out.deadUntil = times.DeadUntil
	}
	return out
}

// onThisClock begins the outcome of a value in Redis: with its times on the cache's clock, which are off by within at most. end is the end of its
// life, on the early side of that.
func (e *Engine) onThisClock(a *attempt, h *wire.Header) (out Outcome, end, within int64) {
	local := e.Clock.Now() // first: a pause between the two lines then shortens the value's life, and does not extend it
	now, within, _ := e.Store.Now(a.Key)
	now = max(now, h.LoadStart) // the load did not begin in the future: our estimate of the server's clock is then wrong
	at := func(t int64) int64 { return local + (t-now)*int64(time.Microsecond) }
	return Outcome{
		Status: StatusHit, Tier: TierRedis, Reason: ReasonFresh, ETag: h.ETag, LoadedAt: at(h.LoadStart), FreshUntil: at(a.Policy.until(h)),
		LoadTime: h.LoadDuration,
	}, at(h.DeadUntil - within), within * int64(time.Microsecond)
}

// undecodable counts and logs a value in Redis that cannot be used.
func (e *Engine) undecodable(a *attempt, err error) {
	a.Policy.Counters.DecodeErrors.Add(1)
	a.reason = ReasonUnusable
	if suppressed, ok := a.Policy.logs.unusable.Allow(e.Clock.Now()); ok {
		e.opts.Logger.LogAttrs(a.valuesOfCaller(), slog.LevelWarn, "aside: unusable value in redis treated as a miss",
			slog.String("policy", a.Policy.Name), slog.String("key", a.Key), slog.Any("error", err), loglimit.Suppressed(suppressed))
	}
}

// otherBuild notes a value that is intact and cannot be decoded here: a process with another type or codec has stored it. Two builds side by
// side must not replace each other's values at each call. So this process keeps what it loads in its own memory. Where Redis does not notify
// it of changes it keeps nothing in memory, or where the policy does not, it has to store what it loads.
func (e *Engine) otherBuild(a *attempt, err error) {
	e.undecodable(a, err)
	a.storable, a.reason = !a.notice.Tracked() || a.Place == PlaceRedis, ReasonOtherBuild
}

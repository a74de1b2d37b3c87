package engine

import (
	"context"
	"errors"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// A storedValue is what Redis holds for an attempt, before its tags were looked at.
type storedValue struct {
	attempt *attempt
	header  wire.Header
	payload []byte
}

// openEnvelope reads the envelope of what Redis holds, or notes why that cannot be used.
func (e *Engine) openEnvelope(ctx context.Context, a *attempt, r redisstore.Read) (*storedValue, bool) {
	stored := r.Value
	a.Policy.observeSize(int64(len(stored)))
	var (
		header  wire.Header
		payload []byte
		err     error
	)
	if r.Cut {
		err = wire.ErrTooLarge
	} else if wire.IsChunked(stored) {
		header, payload, err = e.readChunks(ctx, a, stored)
	} else {
		header, payload, err = wire.Decode(e.named(a.Key), stored, e.limits())
	}
	if err == nil {
		err = a.otherOwner(header.Policy)
	}
	if err == nil && !keyspace.OnlyTags(header.Tags) {
		err = errForeignTag
	}
	if errors.Is(err, wire.ErrNewer) {
		// Two builds side by side during a deployment must not overwrite each other's values for ever: the older one
		// gives way.
		a.storable, a.reason = false, "stored by a newer build"
		return nil, false
	}
	a.reject = redisstore.Reject(stored[:min(len(stored), wire.HeadLen)], len(stored), r.Cut)
	switch {
	case errors.Is(err, errNoChunk):
		a.reason = "a part of the stored value is gone"
		return nil, false
	case errors.Is(err, errOutdated):
		a.reason = "invalidated by a tag or its category"
		return nil, false
	case errors.Is(err, errChunksUnread):
		return nil, false
	case errors.Is(err, errOlderVersion):
		a.reason = err.Error()
		return nil, false
	case errors.Is(err, errOtherPolicy):
		e.otherPolicy(a, header.Policy)
		return nil, false
	case err != nil:
		e.undecodable(a, err)
		return nil, false
	}
	return &storedValue{a, header, payload}, true
}

var (
	errTooWide      = errors.New("decoded, it would take far more memory than MaxValueBytes allows for")
	errForeignTag   = errors.New("it names a key as a tag that is none")
	errNoChunk      = errors.New("a chunk is gone")
	errChunksUnread = errors.New("chunks not delivered by Redis") // and this was noted
)

// readChunks reads a large value by its manifest. Chunks are written before their manifest and never changed, so what the
// connection vouches for is the manifest; but memory may have lost a chunk, or the value has been replaced in between.
func (e *Engine) readChunks(ctx context.Context, a *attempt, stored []byte) (h wire.Header, payload []byte, err error) {
	m, err := wire.ReadManifest(e.named(a.Key), stored, e.limits())
	if err != nil {
		return h, nil, err
	}
	if a.outdated {
		return h, nil, errOutdated
	}
	ctx, cancel := e.Store.More(ctx, int64(m.Size), m.Chunks)
	defer cancel()
	chunks, ok, err := e.Store.Chunks(ctx, a.Key, m.Nonce.String(), m.Lengths())
	switch {
	case err != nil:
		e.redisFailed(ctx, a, err)
		return h, nil, errChunksUnread
	case !ok:
		return h, nil, errNoChunk
	}
	return m.Join(e.named(a.Key), stored, chunks, e.limits())
}

// usable makes an outcome of what Redis holds, and keeps it in memory; or it notes why it cannot be used.
func (e *Engine) usable(ctx context.Context, m *tags.Snapshot, v *storedValue) (Outcome, bool) {
	a := v.attempt
	carried, is, why := m.Judge(v.header.Tags, a.Policy.Tags, a.Strong, a.Policy.DegradedTTL)
	switch is {
	case tags.Outdated:
		a.reason = "invalidated by a tag or its category"
		return Outcome{}, false
	case tags.Unknown:
		e.redisFailed(ctx, a, why)
		a.unanswered = a.status == StatusFallback
		return Outcome{}, false
	}
	now, within, ok := e.Store.Now(a.Key)
	until := a.Policy.until(&v.header)
	if !ok || now-within >= until {
		// Redis' own expiry removes it at that time, unless somebody has changed the key's, or the policy's TTL was longer.
		a.reason = "expired"
		return Outcome{}, false
	}
	now = max(now, v.header.LoadStart) // which is not in the future, whatever our reading of the server's clock says
	local := e.Clock.Now()
	out := Outcome{
		Status:     StatusHit,
		Tier:       TierRedis,
		Reason:     "fresh",
		LoadedAt:   local - (now-v.header.LoadStart)*int64(time.Microsecond),
		FreshUntil: local + (until-now)*int64(time.Microsecond),
	}
	for _, t := range carried.Tags {
		if !a.has(t.Tag) { // nobody could know while it was read: see tooLate
			out.late, out.tagEvents = true, a.tagEvents.All
		}
	}
	if v.header.Negative {
		out.Absent = absentElsewhere(v.payload)
	} else if out.Value, ok = e.decode(a, v); !ok {
		return Outcome{}, false
	}
	e.keepRead(a, out, carried)
	if is == tags.Lapsed {
		a.Policy.Counters.RedisErrors.Add(1)
		out.Status, out.Reason, out.FreshUntil = StatusStale, redisstore.Describe(why), out.LoadedAt
	}
	return out, true
}

func (e *Engine) undecodable(a *attempt, err error) {
	a.Policy.Counters.DecodeErrors.Add(1)
	a.reason = "the stored value cannot be used"
	if a.Policy.valueLog.Allow(e.Clock.Now()) {
		e.opts.Logger.Warn("aside: a value in Redis cannot be used and counts as a miss", "policy", a.Policy.Name, "key", a.Key, "error", err)
	}
}

// anotherBuild notes a value that is whole, and that this process cannot decode: another one with another type or codec has stored it. Two
// builds side by side must not push out each other's values at each call. So this one keeps what it loads in its own memory; but where
// nobody tells it of changes it keeps nothing there, and has to store what it loads.
func (e *Engine) anotherBuild(a *attempt, err error) {
	e.undecodable(a, err)
	a.storable, a.reason = !a.notice.Tracked(), "stored by a build with another type or codec"
}

package engine

import (
	"context"
	"slices"

	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// readStore looks into Redis, in one round trip, and hands each usable value to found. The others are pending. The
// generations that memory does not know come along; a second round trip is for those of tags that nobody but the value
// itself has named.
func (e *Engine) readStore(ctx context.Context, m *tags.Snapshot, attempts []*attempt, found func(*attempt, Outcome)) (pending []*attempt) {
	if len(attempts) == 0 {
		return nil
	}
	attempts, pending = e.readable(m, attempts)
	if len(attempts) == 0 && !slices.ContainsFunc(pending, func(a *attempt) bool { return a.skip == nil }) {
		for _, a := range pending {
			a.read = true // for the time that the load takes, nobody tells this process of anything
			a.setJoinable(e, m)
		}
		return pending
	}
	if len(attempts) > 0 {
		m.Renew(!attempts[0].Strong)
	}
	values := e.readKeys(ctx, m, attempts, pending)
	attempts, values = e.setApart(m, attempts, values)
	var sealed []*storedValue
	for i, a := range attempts {
		r := values[i]
		a.notice.Voucher, a.reject, a.unanswered = r.Voucher, redisstore.Rejected{}, false
		switch {
		case r.Err != nil:
			e.redisFailed(ctx, a, r.Err)
			a.unanswered = a.status == StatusFallback
		case e.journal.Contains(a.Key): // what was confirmed is in doubt since: the reply may be another server's
			a.quarantine()
		case r.Value != nil && !a.Replace:
			if v, ok := e.openEnvelope(ctx, a, r); ok {
				sealed = append(sealed, v)
				m.AddStored(v.header.Tags, !a.Strong)
				continue
			}
		}
		pending = append(pending, a)
	}
	if lacksTags(m, sealed) {
		after, cancel := e.Store.More(ctx, 0, 1) // chunks may have taken longer than was foreseen
		e.readKeys(after, m, nil, nil)
		cancel()
	}
	for _, v := range sealed {
		if out, ok := e.usable(ctx, m, v); ok {
			found(v.attempt, out)
		} else {
			pending = append(pending, v.attempt)
		}
	}
	for _, a := range pending {
		a.read = true
		if err := m.Unanswered(a.Tags); err != nil && a.storable {
			e.redisFailed(ctx, a, err)
		}
		m.Capture(&a.captured, a.Tags)
		a.setJoinable(e, m)
	}
	return pending
}

// lacksTags reports whether the generation of a tag of one of these values has yet to be read.
func lacksTags(m *tags.Snapshot, values []*storedValue) bool {
	return slices.ContainsFunc(values, func(v *storedValue) bool { return m.Lacks(v.header.Tags) })
}

// readable tells those attempts that may be read in Redis from those that must not be, because Redis has not confirmed that they
// were invalidated: neither is what it has of them trusted, nor is anything stored there. Nor are those read that have waited
// for Redis in vain already.
func (e *Engine) readable(m *tags.Snapshot, attempts []*attempt) (readable, others []*attempt) {
	for _, a := range attempts {
		switch {
		case a.quarantined || m.Quarantined(a.Tags):
			a.quarantine()
		case a.skip != nil:
			a.status, a.storable, a.reason = StatusFallback, false, redisstore.Describe(a.skip)
		default:
			readable = append(readable, a)
			continue
		}
		others = append(others, a)
	}
	return readable, others
}

// readKeys reads the values of attempts, and the generations that m does not know. Of quarantined attempts, whose values are not trusted, it
// reads just enough for Redis to tell of their changes: what is loaded for them is kept and shared only if it does.
func (e *Engine) readKeys(ctx context.Context, m *tags.Snapshot, attempts, quarantined []*attempt) []redisstore.Read {
	unread := m.Unread()
	looks := make([]redisstore.Get, 0, len(attempts)+unread+len(quarantined))
	for _, a := range attempts {
		l := redisstore.Get{Key: a.Key, Fence: a.fence}
		if a.Replace {
			l.Head = wire.HeadLen // only so that Redis tells of changes
		}
		looks = append(looks, l)
	}
	looks = m.Looks(looks)
	var others []*attempt
	for _, a := range quarantined {
		if a.skip == nil {
			others = append(others, a)
			looks = append(looks, redisstore.Get{Key: a.Key, Fence: a.fence, Head: 1})
		}
	}
	if len(looks) == 0 {
		return nil
	}
	reads := e.Store.Get(ctx, looks...)
	m.Learn(reads[len(attempts) : len(attempts)+unread])
	for i, a := range others {
		a.notice.Voucher = reads[len(attempts)+unread+i].Voucher
	}
	return reads[:len(attempts)]
}

// budget bounds what a call may wait for Redis: once for all its operations, with time for values as large as those that
// the policies have met before.
func (e *Engine) budget(ctx context.Context, attempts ...*attempt) (context.Context, context.CancelFunc) {
	var size int64
	for _, a := range attempts {
		known := a.Policy.largestSeen.Load()
		if known == 0 {
			if known = int64(e.opts.ChunkFrom); known < 0 {
				known = unknownSize
			}
		}
		size = max(size, known)
	}
	return e.Store.Budget(ctx, size, len(attempts))
}

// unknownSize is how large a policy's values are taken for, where they are not in chunks, until the first one was met: half a
// second's worth, so that a process that has just started reads what is in Redis rather than load it all again.
const unknownSize = 16 << 20

// redisFailed notes that a load of a is not a plain miss. Without an answer from Redis there is no lease, and without
// a lease nothing is stored.
func (e *Engine) redisFailed(ctx context.Context, a *attempt, err error) {
	if redisstore.IsWrongType(err) {
		// Something else lives under our key: as bad as a value that cannot be decoded, and replaced like one.
		e.undecodable(a, err)
		return
	}
	if redisstore.CallersOwn(ctx) {
		return // the caller has left: says nothing of Redis
	}
	a.Policy.Counters.RedisErrors.Add(1)
	if redisstore.IsMoving(err) || redisstore.IsForbidden(err) {
		a.notice.Voucher, a.notice.Untrackable = nil, true // who has vouched for what is missing does not tell of it when it is made elsewhere
	}
	a.status, a.reason, a.storable = StatusFallback, redisstore.Describe(err), false
	a.timedOut = redisstore.IsTimeout(err)
}

// learnSize finds out how large a value is that Redis could not deliver in time. If that was for its size, the next
// operation is given the time that it needs.
func (e *Engine) learnSize(a *attempt) {
	if e.opts.ChunkFrom >= 0 {
		return // it was not: what is large is read in chunks, whose number is known
	}
	if payload, _, err := a.encode(e.limits()); err == nil && len(payload) <= e.opts.MaxValueBytes {
		a.Policy.observeSize(int64(len(payload)))
	}
}

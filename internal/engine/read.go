package engine

import (
	"context"
	"slices"

	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// readStore reads attempts in Redis, and calls found for each usable value. It returns the attempts without one. One round trip reads the
// values, and the generations of tags that memory does not know. There is a second one only if a value carries a tag that its request does not
// name.
func (e *Engine) readStore(ctx context.Context, m *tags.Snapshot, attempts []*attempt, found func(*attempt, Outcome)) (pending []*attempt) {
	if len(attempts) == 0 {
		return nil
	}
	attempts, pending = e.readable(m, attempts)
	if len(attempts) == 0 && !slices.ContainsFunc(pending, func(a *attempt) bool { return a.skip == nil }) {
		for _, a := range pending {
			a.read = true // Redis is not asked, and does not notify this process during the load
			a.setJoinable(e, m)
		}
		return pending
	}
	if len(attempts) > 0 {
		m.Renew(!attempts[0].Strong)
		for _, a := range attempts {
			a.setJoinable(e, m) // now that the known generations are
		}
	}
	values := e.readKeys(ctx, m, attempts, pending)
	attempts, values = e.separateLarge(m, attempts, values)
	if pending == nil {
		pending = listOf(attempts)
	}
	var stored []storedValue
	for i, a := range attempts {
		r := values[i]
		a.notice.Validity, a.rejected, a.unanswered, a.prior = r.Validity, redisstore.Rejected{}, false, nil
		switch {
		case r.Err != nil:
			e.redisFailed(ctx, a, r.Err)
			a.unanswered = a.status == StatusFallback
		case e.journal.Contains(a.Key): // a confirmed invalidation was entered again: after a failover, another server may have replied
			a.quarantine()
		case r.Value != nil && a.headAlone():
			if a.superseded = !a.stillHolds(r.Value); !a.superseded {
				a.reject(r.Value, len(r.Value) >= longestPriorHead)
				a.reason = ReasonStale
				e.notePrior(ctx, a, r)
			}
		case r.Value != nil && !a.Replace:
			if v, ok := e.openEnvelope(ctx, a, r); ok {
				if stored == nil {
					stored = make([]storedValue, 0, len(attempts)-i)
				}
				stored = append(stored, v)
				m.AddStored(v.header.Tags, !a.Strong)
				continue
			}
		}
		if a.prior != nil {
			m.AddStored(a.prior.header.Tags, !a.Strong)
		}
		pending = append(pending, a)
	}
	if lacksTags(m, stored, pending) {
		after, cancel := e.Store.More(ctx, 0, 1) // reading chunks may have used up the budget
		e.readKeys(after, m, nil, nil)
		cancel()
	}
	for i := range stored {
		v := &stored[i]
		if out, ok := e.usable(ctx, m, v); ok {
			found(v.attempt, out)
		} else {
			v.attempt.reject(v.stored, false)
			pending = append(pending, v.attempt)
		}
	}
	for _, a := range pending {
		a.read = true
		if err := m.Unanswered(a.Tags); err != nil && a.storable {
			e.redisFailed(ctx, a, err)
		}
		a.capture(m)
		judgePrior(m, a)
		a.setJoinable(e, m)
	}
	return pending
}

// lacksTags reports whether the generation of a tag of one of these values, or of a previous value, has yet to be read.
func lacksTags(m *tags.Snapshot, values []storedValue, pending []*attempt) bool {
	return slices.ContainsFunc(values, func(v storedValue) bool { return m.Lacks(v.header.Tags) }) ||
		slices.ContainsFunc(pending, func(a *attempt) bool { return a.prior != nil && m.Lacks(a.prior.header.Tags) })
}

// readable splits off the attempts that are not read in Redis: those in quarantine, and those that have waited for Redis in vain already.
// An attempt is in quarantine while Redis has not confirmed an invalidation of its key or of one of its tags. A value that Redis holds for it
// is not trusted, and nothing is stored for it.
func (e *Engine) readable(m *tags.Snapshot, attempts []*attempt) (readable, others []*attempt) {
	readable = listOf(attempts)
	for _, a := range attempts {
		switch {
		case a.quarantined || m.Quarantined(a.Tags):
			a.quarantine()
		case a.skip != nil:
			a.status, a.storable, a.reason = StatusFallback, false, redisstore.Describe(a.skip)
		case a.Place == PlaceMemory:
			a.storable = false // see Place
		default:
			readable = append(readable, a)
			continue
		}
		others = append(others, a)
	}
	return readable, others
}

// readKeys reads the values of attempts, and the generations that m does not know. Of quarantined attempts it reads one byte, so that Redis
// notifies this process of their changes: only then a load of them is kept in memory and shared.
func (e *Engine) readKeys(ctx context.Context, m *tags.Snapshot, attempts, quarantined []*attempt) []redisstore.Read {
	unread := m.Unread()
	var few [4]redisstore.Get
	looks := few[:0]
	if n := len(attempts) + unread + len(quarantined); n > len(few) {
		looks = make([]redisstore.Get, 0, n)
	}
	for _, a := range attempts {
		l := redisstore.Get{Key: a.Key, Fence: a.fence}
		switch {
		case a.Replace:
			l.Head = wire.HeadLen // so that Redis notifies of changes
		case a.headAlone():
			l.Head = longestPriorHead // likewise, and to see whether the value could be kept
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
		a.notice.Answer(reads[len(attempts)+unread+i])
		if e.elsewhere(a) {
			a.notice.Untrackable = a.notice.Untrackable || a.notice.Unnotified()
		}
	}
	return reads[:len(attempts)]
}

// budget bounds how long a call waits for Redis, in all its operations together. It allows time for values as large as the largest ones of
// the policies so far.
func (e *Engine) budget(ctx context.Context, attempts ...*attempt) (context.Context, context.CancelFunc) {
	return e.Store.Budget(ctx, e.largest(attempts), len(attempts))
}

// detachedBudget is budget without the end of ctx.
func (e *Engine) detachedBudget(ctx context.Context, attempts ...*attempt) (context.Context, context.CancelFunc) {
	return e.Store.Detached(ctx, e.largest(attempts), len(attempts))
}

// largest is how large a value of one of attempts may be.
func (e *Engine) largest(attempts []*attempt) (size int64) {
	for _, a := range attempts {
		known := a.Policy.largestSeen.Load()
		if known == 0 {
			if known = int64(e.opts.ChunkFrom); known < 0 {
				known = unknownSize
			}
		}
		size = max(size, known)
	}
	return size
}

// unknownSize is the assumed size of a policy's values until the first one is seen, where values are not in chunks. It allows half a second,
// so that a process that has just started reads the values in Redis and does not load them all again.
const unknownSize = 16 << 20

// redisFailed notes that Redis did not answer for a. So a has no lease, and without a lease nothing is stored in Redis.
func (e *Engine) redisFailed(ctx context.Context, a *attempt, err error) {
	if redisstore.IsWrongType(err) {
		// The key holds another type of Redis: it is treated and replaced like a value that cannot be decoded.
		e.undecodable(a, err)
		return
	}
	if redisstore.CallersOwn(ctx) {
		return // the caller's context has ended, which says nothing about Redis
	}
	a.Policy.Counters.RedisErrors.Add(1)
	if redisstore.IsMoving(err) || redisstore.IsForbidden(err) {
		a.notice.Validity, a.notice.Untrackable = nil, true // the server that was read does not notify when another one creates the key
	}
	a.status, a.reason, a.storable = StatusFallback, redisstore.Describe(err), false
	a.timedOut = redisstore.IsTimeout(err)
}

// learnSize measures a loaded value that Redis could not deliver in time. If its size was the cause, the next operation gets the time that
// this size needs.
func (e *Engine) learnSize(a *attempt) {
	if e.opts.ChunkFrom >= 0 {
		return // size was not the cause: a large value is read in chunks, whose number is known
	}
	if payload, _, err := a.encode(e.limits()); err == nil && len(payload) <= e.opts.MaxValueBytes {
		a.Policy.observeSize(int64(len(payload)))
	}
}

package redisstore

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// rueidis keeps the requests that are on their way on a connection in a ring of a fixed size. Who finds it full waits until
// a reply has come, whatever his context says: with a server that hangs, until the connection is given up. So there are fewer
// places here than there, and those who wait for one heed their context.
//
// Who stops waiting for a reply leaves his request in the ring, and its place is taken until the reply has come. rueidis does not
// tell when; but replies come in the order of the requests. So a request is sent behind those, by nobody's call, and when it is
// answered their places are free: see clear.
type places struct {
	taken     chan struct{} // holds one for each request on its way
	abandoned atomic.Int64  // how many of those nobody waits for
	wake      chan struct{} // wakes who clears those, with room for one
	replies   atomic.Uint64 // how many requests were answered
	over      chan struct{} // closed when the session is not in use any more, and will not be
}

// rings is how many slots a ring has: rueidis' DefaultRingScale, unless the user sets another one.
func ringSize(opt rueidis.ClientOption) int {
	scale := opt.RingScaleEachConn
	if scale <= 0 {
		scale = rueidis.DefaultRingScale
	}
	return 1 << scale
}

// newPlaces leaves an eighth of the ring to what is sent by nobody's call: probes, pings, and what clears places.
func newPlaces(opt rueidis.ClientOption) places {
	size := ringSize(opt)
	return places{
		taken: make(chan struct{}, max(1, size-max(4, size/8))), wake: make(chan struct{}, 1), over: make(chan struct{}),
	}
}

// take waits for a place for one request. It fails when ctx ends, or the session does, before there is one; silent is whether the
// server has answered nothing meanwhile.
func (p *places) take(ctx context.Context) (silent bool, err error) {
	select {
	case p.taken <- struct{}{}:
		return false, nil
	default:
	}
	before := p.replies.Load()
	select {
	case p.taken <- struct{}{}:
		return false, nil
	case <-ctx.Done():
		return p.replies.Load() == before, ctx.Err()
	case <-p.over:
		return false, ErrUnavailable
	}
}

// give gives the place of a request back, or leaves it to be cleared where nobody has waited for the reply.
func (p *places) give(results []rueidis.RedisResult) {
	for _, r := range results {
		if err := r.NonRedisError(); IsTimeout(err) || errors.Is(err, context.Canceled) {
			p.abandoned.Add(1)
			signal(p.wake)
			return
		}
	}
	p.replies.Add(1)
	<-p.taken
}

// place waits for a place on the connection of by. Where a server has said nothing for as long as somebody may wait for it, it
// counts as one that does not answer, though it was not asked.
func (l *link) place(ctx context.Context, now, by *session) error {
	silent, err := by.places.take(ctx)
	switch {
	case err != nil:
		if silent && !CallersOwn(ctx) {
			l.fail(now, err)
		}
		return err
	case l.session.Load() != now: // it was lost while we waited
		by.places.give(nil)
		return ErrUnavailable
	}
	return nil
}

// clear frees the places of requests that nobody waits for, once their replies have come or their connection has broken, until ctx
// ends.
func (l *link) clear(ctx context.Context, s *session) {
	p := &s.places
	defer close(p.over)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		n := p.abandoned.Swap(0)
		// It reads on every connection, without a deadline: one that is silent is given up soon, and then all fail.
		err := l.trackAll(ctx, s.client)
		for range n {
			<-p.taken
		}
		if err == nil {
			p.replies.Add(1)
		}
	}
}

// within does what sends one request, or one pipeline, when there is a place for it.
func (s *session) within(ctx context.Context, send func(rueidis.Client) []rueidis.RedisResult) ([]rueidis.RedisResult, error) {
	if _, err := s.places.take(ctx); err != nil {
		return nil, err
	}
	results := send(s.client)
	s.places.give(results)
	return results, nil
}

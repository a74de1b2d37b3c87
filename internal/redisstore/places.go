package redisstore

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// places bound the requests in progress on a connection. rueidis keeps these in a ring of a fixed size. A caller that finds the
// ring full waits for a reply regardless of its context: with a server that hangs, until the connection is given up. So there are
// fewer places than slots in the ring, and a caller that waits for a place heeds its context.
//
// A caller that stops waiting for a reply leaves its request in the ring, and its place is taken until the reply has come. rueidis
// does not report that. But replies come in the order of requests. So a further request is sent behind the abandoned ones, and
// when it is answered their places are free: see clear.
type places struct {
	taken     chan struct{} // holds one element for each request in progress
	abandoned atomic.Int64  // how many of those requests nobody waits for
	wake      chan struct{} // wakes clear; with room for one
	replies   atomic.Uint64 // how many requests were answered
	over      chan struct{} // closed when the session is no longer in use, and will not be again
}

// ringSize is how many slots a ring has: rueidis' DefaultRingScale, unless the user sets another scale.
func ringSize(opt rueidis.ClientOption) int {
	scale := opt.RingScaleEachConn
	if scale <= 0 {
		scale = rueidis.DefaultRingScale
	}
	return 1 << scale
}

// newPlaces leaves an eighth of the ring to requests of no caller: probes, pings, and those of clear.
func newPlaces(opt rueidis.ClientOption) places {
	size := ringSize(opt)
	return places{
		taken: make(chan struct{}, max(1, size-max(4, size/8))), wake: make(chan struct{}, 1), over: make(chan struct{}),
	}
}

// take waits for a place for one request. It fails when ctx or the session ends before there is one. silent is whether the server
// has answered nothing meanwhile.
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

// give frees the place of a request. If nobody has waited for the reply, clear frees it later.
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

// place waits for a place on the connection of by. A server that answers nothing for as long as a caller may wait for a place
// counts as one that does not answer, though it was not asked.
func (l *link) place(ctx context.Context, now, by *session) error {
	silent, err := by.places.take(ctx)
	switch {
	case err != nil:
		if silent && !CallersOwn(ctx) {
			l.fail(now, err)
		}
		return err
	case l.session.Load() != now: // the session was lost meanwhile
		by.places.give(nil)
		return ErrUnavailable
	}
	return nil
}

// clear frees the places of abandoned requests, once their replies have come or their connection has broken, until ctx ends.
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
		// This reads on every connection, without a deadline: a silent connection is given up soon, and then all reads fail.
		err := l.trackAll(ctx, s.client)
		for range n {
			<-p.taken
		}
		if err == nil {
			p.replies.Add(1)
		}
	}
}

// within sends one request, or one pipeline, when there is a place for it.
func (s *session) within(ctx context.Context, send func(rueidis.Client) []rueidis.RedisResult) ([]rueidis.RedisResult, error) {
	if _, err := s.places.take(ctx); err != nil {
		return nil, err
	}
	results := send(s.client)
	s.places.give(results)
	return results, nil
}

package redisstore

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// patient is a store on a connection with a small ring, which is not given up however long the server says nothing.
func patient(t *testing.T, addr string, change func(*rueidis.ClientOption)) *Store {
	t.Helper()
	o := Options{Client: clientOf(addr), Format: format, OpTimeout: bound}
	o.Client.RingScaleEachConn = 5
	o.Client.ConnWriteTimeout = 4 * bound
	change(&o.Client)
	return up(t, o)
}

// A server that hangs, or answers too late: whoever asks it leaves when his time is over, also where the requests of others who
// have left before fill the connection.
func TestNobodyWaitsLongerThanHeCanForAPlaceAmongTheRequests(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*rueidis.ClientOption){
		"one connection":      func(*rueidis.ClientOption) {},
		"several":             func(o *rueidis.ClientOption) { o.PipelineMultiplex = 2 },
		"one, untracked":      func(o *rueidis.ClientOption) { o.AlwaysRESP2 = true },
		"several, untracked":  func(o *rueidis.ClientOption) { o.AlwaysRESP2, o.PipelineMultiplex = true, 1 },
		"a ring of two slots": func(o *rueidis.ClientOption) { o.RingScaleEachConn = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			s := patient(t, server.Addr(), change)
			server.Pause()
			resumed := sync.OnceFunc(server.Resume)
			defer resumed()
			for range 3 {
				var all sync.WaitGroup
				began := time.Now()
				for range 200 {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
						defer cancel()
						s.Get(ctx, Get{Key: key})
					})
				}
				all.Wait()
				require.Less(t, time.Since(began), bound/2)
			}
			resumed()
			require.Eventually(t, func() bool {
				now := only(s).session.Load()
				return now != nil && len(now.places.taken) == 0
			}, bound, time.Millisecond, "all places are free again")
			require.Eventually(t, func() bool { return s.State().Up && s.Get(t.Context(), Get{Key: key})[0].Err == nil }, bound, time.Millisecond)
		})
	}
}

// Who finds no place in all the time that he has for Redis, while it says nothing, has found out that it does not answer.
func TestAServerIsGivenUpByThoseWhoFindNoPlace(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := patient(t, server.Addr(), func(*rueidis.ClientOption) {})
	l := only(s)
	now := l.session.Load()
	for range cap(now.places.taken) {
		_, err := now.places.take(t.Context())
		require.NoError(t, err)
	}
	fails := func(parent context.Context) {
		ctx, cancel := s.budgetUntil(parent, time.Now().Add(250*time.Millisecond)) // in which a busy machine lets the others answer
		defer cancel()
		require.ErrorIs(t, l.place(ctx, now, now), context.DeadlineExceeded)
	}
	hurry, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	fails(hurry)
	require.Zero(t, l.failed.Load(), "of a caller in a hurry")
	over := make(chan struct{})
	var answers sync.WaitGroup
	answers.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				now.places.replies.Add(1)
			}
		}
	})
	fails(t.Context())
	close(over)
	answers.Wait()
	require.Zero(t, l.failed.Load(), "of a server that answers others")
	for range tripAfter {
		fails(t.Context())
	}
	require.Nil(t, l.session.Load())
	<-now.places.taken
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, l.place(ctx, now, now), ErrUnavailable, "it was given up meanwhile")
}

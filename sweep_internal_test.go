package aside

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/redistest"
)

func swept(list ...*journal.Count) (n int) {
	for _, t := range list {
		select {
		case <-t.Done:
			n++
		default:
		}
	}
	return n
}

// A tag that is invalidated all the time, while a sweep takes long or each of them fails, costs no more and more memory, nor more
// and more time for each value that is removed.
func TestWhatWaitsForSweepsDoesNotGrow(t *testing.T) {
	t.Parallel()
	s := sweeps{wake: make(chan struct{}, 1)}
	first := s.begin("a", 1)
	running := s.take()
	generation := uint64(1)
	var all []*journal.Count
	for range 100 { // a sweep each, and all of them fail
		for range 100 {
			generation++
			all = append(all, s.begin("a", generation))
		}
		s.take()
	}
	require.LessOrEqual(t, len(s.due["a"].tallies), 8)
	s.done(running)
	require.Equal(t, 1, swept(first), "what it was begun for")
	require.Zero(t, swept(all...), "none of those that came later")

	round := s.take()
	generation++
	late := s.begin("a", generation)
	s.done(round)
	left := s.due["a"].tallies
	require.Same(t, late, left[len(left)-1].Count)
	require.Equal(t, uint64(generation), left[len(left)-1].upTo)
	require.Zero(t, swept(late), "it has come too late for the places that were passed")
	s.done(s.take())
	require.Equal(t, len(all)+1, swept(append(all, late)...))
	require.Empty(t, s.due)
}

// Two that wait at the same time share what is counted, and one that comes while its values are removed already does too.
func TestATallyIsSharedByThoseWhoWaitForTheSameSweep(t *testing.T) {
	t.Parallel()
	s := sweeps{wake: make(chan struct{}, 1)}
	waiting := journal.NewCount()
	one := s.begin("a", 5, waiting)
	require.Same(t, waiting, one)
	require.Same(t, one, s.begin("a", 7))
	require.NotSame(t, one, s.begin("b", 1))
	round := s.take()
	require.Same(t, one, s.begin("a", 6), "overtaken by the one after it")
	next := s.begin("a", 8)
	require.NotSame(t, one, next)
	require.Len(t, round, 2)
	require.Len(t, round["a"].tallies, 1)
	require.Same(t, one, round["a"].tallies[0].Count)
	s.done(round)
	require.Equal(t, 1, swept(one))
	require.Zero(t, swept(next))
	require.Len(t, s.take(), 1)
}

// What was in doubt and is sent again is swept and counted like anything else.
func TestWhatIsConfirmedAgainIsSweptAndCounted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c, err := New(Options{
		Redis:     rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, ForceSingleClient: true},
		OpTimeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, c.store.Up, 20*time.Second, time.Millisecond)
	policy := Policy{Name: "items", Category: "items", TTL: time.Hour}
	require.NoError(t, Set(t.Context(), c, policy.Key("a"), "v", WithTags("x")))
	require.NoError(t, Set(t.Context(), c, policy.Key("b"), "v"))
	for _, tt := range []struct {
		bumped     string
		invalidate func() (Receipt, error)
	}{
		{"%t:x", func() (Receipt, error) { return c.InvalidateTags(t.Context(), "x") }},
		{"%c:items", func() (Receipt, error) { return c.InvalidateCategory(t.Context(), "items") }},
	} {
		gate := proxy.HoldReplies(func(args []string) bool {
			return strings.EqualFold(args[0], "EVALSHA") && args[3] == tt.bumped
		})
		receipts := make(chan Receipt, 1)
		go func() {
			r, err := tt.invalidate()
			if err != nil {
				t.Error(err)
			}
			receipts <- r
		}()
		gate.Wait(t)
		c.journal.ConnectionLost()
		gate.Release()
		r := <-receipts
		require.False(t, r.Confirmed, tt.bumped)
		require.NoError(t, r.Wait(t.Context()))
		removed, err := r.Swept(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, removed, tt.bumped)
	}
}

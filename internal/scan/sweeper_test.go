package scan

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
)

// done is how many of the counts are done.
func done(list ...*journal.Count) (n int) {
	for _, c := range list {
		select {
		case <-c.Done:
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
	s := NewSweeper(nil, new(atomic.Uint64))
	first := s.begin("", "a", 1)
	running := s.beginRound()
	generation := uint64(1)
	var all []*journal.Count
	for range 100 { // a sweep each, and all of them fail
		for range 100 {
			generation++
			all = append(all, s.begin("", "a", generation))
		}
		s.beginRound()
	}
	require.LessOrEqual(t, len(s.pending["a"].waiting), 8)
	s.endRound(running)
	require.Equal(t, 1, done(first), "what it was begun for")
	require.Zero(t, done(all...), "none of those that came later")

	r := s.beginRound()
	generation++
	late := s.begin("", "a", generation)
	s.endRound(r)
	require.Equal(t, []waiting{{late, generation}}, s.pending["a"].waiting)
	require.Zero(t, done(late), "it has come too late for the places that were passed")
	s.endRound(s.beginRound())
	require.Equal(t, len(all)+1, done(append(all, late)...))
	require.Empty(t, s.pending)
}

// Two that wait at the same time share a count, and so does one that comes while its values are removed already.
func TestATallyIsSharedByThoseWhoWaitForTheSameSweep(t *testing.T) {
	t.Parallel()
	s := NewSweeper(nil, new(atomic.Uint64))
	count := journal.NewCount()
	one := s.begin("", "a", 5, count)
	require.Same(t, count, one)
	require.Same(t, one, s.begin("", "a", 7))
	require.NotSame(t, one, s.begin("", "b", 1))
	r := s.beginRound()
	require.Same(t, one, s.begin("", "a", 6), "overtaken by the one after it")
	next := s.begin("", "a", 8)
	require.NotSame(t, one, next)
	require.Len(t, r, 2)
	require.Equal(t, []*journal.Count{one}, r["a"].counts)
	s.endRound(r)
	require.Equal(t, 1, done(one))
	require.Zero(t, done(next))
	require.Len(t, s.beginRound(), 1)
}

func TestTagsToSweepAreBounded(t *testing.T) {
	t.Parallel()
	s := NewSweeper(nil, new(atomic.Uint64))
	for i := range mostPending {
		s.begin("", keyspace.NamedPrefix+strconv.Itoa(i), 1)
	}
	_, ok := s.Reserve("outside", []string{keyspace.NamedPrefix + "more"})
	require.False(t, ok)
	count := journal.NewCount()
	own := s.begin("", keyspace.NamedPrefix+"more", 1, count)
	require.Equal(t, 2, done(own, count), "nobody would ever close it")
	require.Len(t, s.pending, mostPending)
	s.begin("", keyspace.NamedPrefix+"1", 2)
	r := s.beginRound()
	require.EqualValues(t, 2, r[keyspace.NamedPrefix+"1"].generation)
	s.endRound(r)
	_, ok = s.Reserve("outside", []string{keyspace.NamedPrefix + "more"})
	require.True(t, ok)
}

// Hazard 79: nothing is to be swept of a tag that had no generation.
func TestATagThatWasMissingIsNotSwept(t *testing.T) {
	t.Parallel()
	s := NewSweeper(nil, new(atomic.Uint64))
	count := journal.NewCount()
	require.Empty(t, s.Begin("", keyspace.NamedPrefix+"x", redisstore.Generation{Value: 1, Missing: true}, count))
	<-count.Done
	require.Empty(t, s.pending)
	require.Len(t, s.Begin("", keyspace.NamedPrefix+"x", redisstore.Generation{Value: 1}), 1)
	require.Len(t, s.pending, 1)
}

// Hazard 141: what one caller has leaves some places to the next one.
func TestOneCallerLeavesRoomForTagsToSweep(t *testing.T) {
	t.Parallel()
	s := NewSweeper(nil, new(atomic.Uint64))
	invalidate := func(caller string, i int) bool {
		tags := []string{keyspace.Sequence}
		for n := range 1000 {
			tags = append(tags, fmt.Sprintf("%s%s%d.%d", keyspace.NamedPrefix, caller, i, n))
		}
		end, ok := s.Reserve(caller, tags)
		if ok {
			for _, tag := range tags[1:] {
				s.begin(caller, tag, 1)
			}
			end()
		}
		return ok
	}
	n := 0
	for invalidate("flood", n) {
		n++
	}
	require.Equal(t, 16, n)
	require.True(t, invalidate("deploy", 0))
	end, ok := s.Reserve("flood", []string{"c:1", keyspace.PatternPrefix + "c:*"})
	require.True(t, ok, "there is nothing to sweep for it")
	end()
	s.endRound(s.beginRound())
	require.True(t, invalidate("flood", n))
	s.endRound(s.beginRound())
	_, all := s.outside.Taken()
	require.Zero(t, all)
	require.Zero(t, s.others)
}

// Hazard 143: what waits in the journal on behalf of others is due to be swept later; some places are the program's all the same.
func TestTheProgramFindsPlacesForTagsToSweep(t *testing.T) {
	t.Parallel()
	s := NewSweeper(nil, new(atomic.Uint64))
	for i := range mostPending {
		s.begin(journal.Resent, keyspace.NamedPrefix+strconv.Itoa(i), 1)
	}
	require.Len(t, s.pending, mostPendingOutside)
	s.begin("", keyspace.NamedPrefix+"own", 1)
	require.Contains(t, s.pending, keyspace.NamedPrefix+"own")
}

// A sweep that fails is logged, and repeated until it does not fail.
func TestASweepThatFailsIsLoggedAndRepeated(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.server.MayDeny()
	f.put(t, "items:a", nil)
	f.server.MustDo(t, "ACL", "SETUSER", "default", "-scan")
	s := NewSweeper(f.Scanner, new(atomic.Uint64))
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	counts := s.Begin("", keyspace.CategoryTag("items"), redisstore.Generation{Value: now + 1})
	require.Eventually(t, func() bool { return f.asked.Load() >= 1 }, bound, time.Millisecond)
	require.Zero(t, done(counts...))
	f.server.MustDo(t, "ACL", "SETUSER", "default", "+scan")
	select {
	case <-counts[0].Done:
	case <-time.After(bound):
		t.Fatal("the sweep is not repeated")
	}
	stop()
	running.Wait()
	require.EqualValues(t, 1, counts[0].Removed.Load())
	require.Empty(t, f.left(t, "items:a"))
	require.Equal(t, 1, strings.Count(f.log.String(), "SCAN failed, will retry"))
}

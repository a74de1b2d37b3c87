package aside

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/outside"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 141: what one caller has of the other rooms leaves some to the next one.
func TestOneCallerLeavesRoomForTagsToSweepAndForWhatIsNotTold(t *testing.T) {
	t.Parallel()
	s := &sweeps{wake: make(chan struct{}, 1)}
	tags := func(caller string, i int) []string {
		return append([]string{keyspace.Sequence}, manyNames(keyspace.NamedPrefix+caller+strconv.Itoa(i)+".", 1000)...)
	}
	invalidate := func(caller string, i int) bool {
		end, ok := s.reserve(caller, tags(caller, i))
		if ok {
			for _, tag := range tags(caller, i)[1:] {
				s.beginFor(caller, tag, 1)
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
	end, ok := s.reserve("flood", []string{"c:1", keyspace.PatternPrefix + "c:*"})
	require.True(t, ok, "there is nothing to sweep for it")
	end()
	s.done(s.take())
	require.True(t, invalidate("flood", n))
	s.done(s.take())
	require.Zero(t, inUse(&s.outside))
	require.Zero(t, s.others)

	told := &told{}
	for n = 0; n < 1000; n++ {
		if _, ok := told.reserve("flood", manyNames("c:", 1000)); !ok {
			break
		}
	}
	require.Less(t, n, 1000)
	_, ok = told.reserve("deploy", manyNames("c:", 1000))
	require.True(t, ok)
}

// Hazard 143: what waits in the journal on behalf of others is due to be swept later; some places are the program's all the same.
func TestTheProgramFindsPlacesForTagsToSweep(t *testing.T) {
	t.Parallel()
	s := &sweeps{wake: make(chan struct{}, 1)}
	for i := range mostDue {
		s.beginFor(journal.Resent, keyspace.NamedPrefix+strconv.Itoa(i), 1)
	}
	require.Len(t, s.due, mostDueOutside)
	s.begin(keyspace.NamedPrefix+"own", 1)
	require.Contains(t, s.due, keyspace.NamedPrefix+"own")
}

// Hazard 142: a pattern has its room as an entry while it is waited for, and not as what was reserved for it too.
func TestAPatternThatIsWaitedForTakesItsRoomOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c, err := New(Options{
		Redis: rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, ForceSingleClient: true}, OpTimeout: inTime, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, c.store.Up, inTime, time.Millisecond)
	policy := Policy{Name: "items", Category: "items", TTL: time.Hour}
	gate := proxy.HoldRequests(func(args []string) bool { return strings.EqualFold(args[0], "SCAN") })
	done := make(chan error, 1)
	go func() {
		_, err := c.InvalidatePattern(outside.With(t.Context(), "one"), policy.Match(Wildcard))
		done <- err
	}()
	gate.Wait(t)
	n := 0 // all callers may have 64 patterns, and one caller no more than it leaves to the others
	for ; n < 64; n++ {
		if _, ok := c.journal.Reserve("one", []string{keyspace.PatternPrefix + "items:" + strconv.Itoa(n)}); !ok {
			break
		}
	}
	gate.Release()
	require.NoError(t, <-done)
	require.Equal(t, 32-1, n)
}

package aside

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/outside"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 121, with orders side by side: what is under way will be confirmed too, and is to be counted before.
//
//  1. One key has fifteen orders of a thousand names confirmed. The record of that is not written yet.
//  2. It sends as many again at once. Each finds room, since none of the others is confirmed yet. All are confirmed.
//  3. The server is replaced by one that knows of none of them.
func TestOrdersSideBySideConfirmNoMoreThanIsRemembered(t *testing.T) {
	t.Parallel()
	j := newJournal()
	type sent struct {
		names []string
		end   func()
	}
	n := 0
	round := func(most int) (list []sent) {
		for range most {
			names := manyNames("c:"+strconv.Itoa(n)+".", 1000)
			n++
			if end, ok := j.reserve("flood", names); ok {
				list = append(list, sent{names, end})
			}
		}
		return list
	}
	confirm := func(list []sent) {
		for _, s := range list {
			confirmedFor(j, "flood", s.names...)
			s.end()
		}
	}
	confirm(round(5))
	j.wrote(j.mark())
	mark := j.mark()
	confirm(round(15)) // 15,000 confirmed ones, not written down
	confirm(round(50)) // at once
	t.Log(j.mark()-mark, "confirmed and not written down;", len(j.recent), "remembered")
	j.found(mark)
	require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
}

// Hazard 121: nor do orders of several callers.
func TestOrdersOfManyCallersConfirmNoMoreThanIsRemembered(t *testing.T) {
	t.Parallel()
	j := newJournal()
	var all []func()
	for i := range 200 { // from several keys at once, none of which Redis has confirmed yet
		caller, names := "key "+strconv.Itoa(i%5), manyNames("c:"+strconv.Itoa(i)+".", 1000)
		if end, ok := j.reserve(caller, names); ok {
			all = append(all, func() { confirmedFor(j, caller, names...); end() })
		}
	}
	for _, confirm := range all {
		confirm()
	}
	t.Log(len(all), "orders", j.mark(), "confirmed", len(j.recent), "remembered")
	j.found(0)
	require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
}

// Hazard 121, after an outage: the journal is full of what a few keys have invalidated, all of it is confirmed as soon as Redis is back, and the
// server fails again before the record is written.
func TestAnOutageThatIsFollowedByAFailoverInvalidatesOnlyWhatWasNamed(t *testing.T) {
	t.Parallel()
	j := newJournal()
	// Before the outage: as much as is remembered at most, written down.
	for i := range 16 {
		names := manyNames("c:before"+strconv.Itoa(i)+".", 1000)
		require.True(t, confirmFor(j, "flood", names...))
	}
	j.wrote(j.mark())
	mark := j.mark()
	for i := range 3000 {
		for _, caller := range []string{"flood", "second", "third"} {
			order(j, caller, manyNames("c:"+caller+strconv.Itoa(i)+".", 100)...)
		}
	}
	t.Log(len(j.entries), "wait")
	for {
		tags, keys, upTo := j.pending()
		if len(tags)+len(keys) == 0 {
			break
		}
		j.confirm(upTo, keys...)
	}
	t.Log(j.mark()-mark, "confirmed and not written down;", len(j.recent), "remembered")
	j.found(mark)
	require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
}

// Hazard 141: of what is confirmed and not written down yet, one caller leaves room to the next, as of what waits.
func TestOneCallersConfirmedNamesLeaveRoomToAnother(t *testing.T) {
	t.Parallel()
	j := newJournal()
	for i := range 40 {
		names := manyNames("c:"+strconv.Itoa(i)+".", 1000)
		confirmFor(j, "flood", names...)
	}
	end, ok := j.reserve("deploy", manyNames("d:", 1000))
	require.True(t, ok, "the first one has left none")
	end()
}

// Hazard 140: a connection that breaks again and again, before anything is written down.
//
//  1. A caller has as much confirmed as it may. It is not written down.
//  2. The connection breaks. The server's record knows of none of it, so it is entered again, and confirmed again. And so on.
func TestWhatIsSentAgainIsRememberedOnce(t *testing.T) {
	t.Parallel()
	j := newJournal()
	for _, caller := range []string{"flood", "second", "third", "fourth", ""} {
		for i := range 16 {
			names := manyNames("c:"+caller+strconv.Itoa(i)+".", 1000)
			if caller == "" {
				j.confirm(j.now(), names...)
			} else {
				confirmFor(j, caller, names...)
			}
		}
	}
	named := len(j.recent)
	for range 5 {
		j.doubt()
		j.found(0)
		require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
		require.Len(t, j.entries, named)
		require.False(t, order(j, "flood", manyNames("more:", 1000)...))
		for len(j.entries) > 0 {
			_, keys, upTo := j.pending()
			j.confirm(upTo, keys...)
		}
		require.Len(t, j.recent, named)
		by, _ := j.outside.Taken()
		require.Equal(t, 16_000, by["flood"].Entries, "it is in the share of whoever has invalidated it")
	}
	j.wrote(j.mark())
	require.Zero(t, inUse(&j.outside))
}

// confirmFor is what an order does to the journal that Redis confirms at once.
func confirmFor(j *journal, caller string, names ...string) bool {
	end, ok := j.reserve(caller, names)
	if ok {
		confirmedFor(j, caller, names...)
		end()
	}
	return ok
}

func confirmedFor(j *journal, caller string, names ...string) {
	now := j.now()
	now.caller = caller
	j.confirm(now, names...)
}

// Hazard 140: an entry that is invalidated again while it is under way stays one, and is remembered when it is confirmed.
func TestWhatIsInvalidatedAgainOnItsWayCountsOnce(t *testing.T) {
	t.Parallel()
	j := newJournal()
	require.True(t, order(j, "a", "c:1"))
	for range 10 {
		_, keys, upTo := j.pending()
		require.True(t, order(j, "b", "c:1"))
		j.confirm(upTo, keys...)
		require.Equal(t, 1, inUse(&j.outside).Entries)
	}
	_, keys, upTo := j.pending()
	j.confirm(j.now(), keys...) // somebody else's order, which the program has given
	j.confirm(upTo, keys...)
	require.Zero(t, inUse(&j.outside))
	require.Len(t, j.recent, 1)
}

// Hazard 121: what is confirmed counts in bytes too.
func TestLongNamesThatAreConfirmedAreRemembered(t *testing.T) {
	t.Parallel()
	j := newJournal()
	accepted := 0
	for i := range 2000 {
		for _, caller := range []string{"flood", "second", "third"} {
			if confirmFor(j, caller, manyNames(caller+strings.Repeat("x", 1000)+strconv.Itoa(i)+".", 60)...) {
				accepted += 60
			}
		}
	}
	require.Less(t, accepted*1000, mostOutside.Bytes)
	require.Greater(t, accepted*1000, mostOutside.Bytes/2)
	for i := range 8 { // the program has as much for itself
		j.confirm(j.now(), manyNames(strings.Repeat("y", 1000)+strconv.Itoa(i)+".", 2000)...)
	}
	j.found(0)
	require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
}

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

// Hazard 141: patterns that a caller has confirmed or waiting are no hindrance to its keys.
func TestPatternsTakeNoRoomOfKeys(t *testing.T) {
	t.Parallel()
	j := newJournal()
	for n := 0; order(j, "flood", keyspace.PatternPrefix+"c:"+strconv.Itoa(n)); n++ {
	}
	for n := 0; order(j, "second", keyspace.PatternPrefix+"d:"+strconv.Itoa(n)); n++ {
	}
	require.True(t, order(j, "flood", "c:1"))
	require.True(t, order(j, "third", keyspace.PatternPrefix+"e:*"))
}

// Hazard 143: what waits in the journal on behalf of others is due to be swept later; some places are the program's all the same.
func TestTheProgramFindsPlacesForTagsToSweep(t *testing.T) {
	t.Parallel()
	s := &sweeps{wake: make(chan struct{}, 1)}
	for i := range mostDue {
		s.beginFor(resent, keyspace.NamedPrefix+strconv.Itoa(i), 1)
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
	by, _ := c.journal.outside.Taken()
	gate.Release()
	require.NoError(t, <-done)
	require.Equal(t, 1, by["one"].Patterns)
	require.Equal(t, 1, by["one"].Entries)
}

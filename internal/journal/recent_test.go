package journal

import (
	"strconv"
	"strings"
	"testing"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/stretchr/testify/require"
)

// Hazard 121, with orders side by side: what is under way will be confirmed too, and is to be counted before.
//
//  1. One key has fifteen orders of a thousand names confirmed. The record of that is not written yet.
//  2. It sends as many again at once. Each finds room, since none of the others is confirmed yet. All are confirmed.
//  3. The server is replaced by one that knows of none of them.
func TestOrdersSideBySideConfirmNoMoreThanIsRemembered(t *testing.T) {
	t.Parallel()
	j := New()
	type sent struct {
		names []string
		end   func()
	}
	n := 0
	round := func(most int) (list []sent) {
		for range most {
			names := manyNames("c:"+strconv.Itoa(n)+".", 1000)
			n++
			if end, ok := j.Reserve("flood", names); ok {
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
	j.Recorded(j.Watermark())
	mark := j.Watermark()
	confirm(round(15)) // 15,000 confirmed ones, not written down
	confirm(round(50)) // at once
	t.Log(j.Watermark()-mark, "confirmed and not written down;", len(j.recent.list), "remembered")
	j.Recover(mark)
	require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
}

// Hazard 121: nor do orders of several callers.
func TestOrdersOfManyCallersConfirmNoMoreThanIsRemembered(t *testing.T) {
	t.Parallel()
	j := New()
	var all []func()
	for i := range 200 { // from several keys at once, none of which Redis has confirmed yet
		caller, names := "key "+strconv.Itoa(i%5), manyNames("c:"+strconv.Itoa(i)+".", 1000)
		if end, ok := j.Reserve(caller, names); ok {
			all = append(all, func() { confirmedFor(j, caller, names...); end() })
		}
	}
	for _, confirm := range all {
		confirm()
	}
	t.Log(len(all), "orders", j.Watermark(), "confirmed", len(j.recent.list), "remembered")
	j.Recover(0)
	require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
}

// Hazard 121, after an outage: the journal is full of what a few keys have invalidated, all of it is confirmed as soon as Redis is back, and the
// server fails again before the record is written.
func TestAnOutageThatIsFollowedByAFailoverInvalidatesOnlyWhatWasNamed(t *testing.T) {
	t.Parallel()
	j := New()
	// Before the outage: as much as is remembered at most, written down.
	for i := range 16 {
		names := manyNames("c:before"+strconv.Itoa(i)+".", 1000)
		require.True(t, confirmFor(j, "flood", names...))
	}
	j.Recorded(j.Watermark())
	mark := j.Watermark()
	for i := range 3000 {
		for _, caller := range []string{"flood", "second", "third"} {
			order(j, caller, manyNames("c:"+caller+strconv.Itoa(i)+".", 100)...)
		}
	}
	t.Log(len(j.entries), "wait")
	for {
		tags, keys, upTo := j.Batch()
		if len(tags)+len(keys) == 0 {
			break
		}
		j.Confirm(upTo, keys...)
	}
	t.Log(j.Watermark()-mark, "confirmed and not written down;", len(j.recent.list), "remembered")
	j.Recover(mark)
	require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
}

// Hazard 141: of what is confirmed and not written down yet, one caller leaves room to the next, as of what waits.
func TestOneCallersConfirmedNamesLeaveRoomToAnother(t *testing.T) {
	t.Parallel()
	j := New()
	for i := range 40 {
		names := manyNames("c:"+strconv.Itoa(i)+".", 1000)
		confirmFor(j, "flood", names...)
	}
	end, ok := j.Reserve("deploy", manyNames("d:", 1000))
	require.True(t, ok, "the first one has left none")
	end()
}

// Hazard 140: a connection that breaks again and again, before anything is written down.
//
//  1. A caller has as much confirmed as it may. It is not written down.
//  2. The connection breaks. The server's record knows of none of it, so it is entered again, and confirmed again. And so on.
func TestWhatIsSentAgainIsRememberedOnce(t *testing.T) {
	t.Parallel()
	j := New()
	for _, caller := range []string{"flood", "second", "third", "fourth", ""} {
		for i := range 16 {
			names := manyNames("c:"+caller+strconv.Itoa(i)+".", 1000)
			if caller == "" {
				j.Confirm(j.Now(""), names...)
			} else {
				confirmFor(j, caller, names...)
			}
		}
	}
	named := len(j.recent.list)
	for range 5 {
		j.ConnectionLost()
		j.Recover(0)
		require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
		require.Len(t, j.entries, named)
		require.False(t, order(j, "flood", manyNames("more:", 1000)...))
		for len(j.entries) > 0 {
			_, keys, upTo := j.Batch()
			j.Confirm(upTo, keys...)
		}
		require.Len(t, j.recent.list, named)
		by, _ := j.outside.Taken()
		require.Equal(t, 16_000, by["flood"].Entries, "it is in the share of whoever has invalidated it")
	}
	j.Recorded(j.Watermark())
	require.Zero(t, inUse(&j.outside))
}

// confirmFor is what an order does to the journal that Redis confirms at once.
func confirmFor(j *Journal, caller string, names ...string) bool {
	end, ok := j.Reserve(caller, names)
	if ok {
		confirmedFor(j, caller, names...)
		end()
	}
	return ok
}

func confirmedFor(j *Journal, caller string, names ...string) {
	now := j.Now(caller)
	j.Confirm(now, names...)
}

// Hazard 140: an entry that is invalidated again while it is under way stays one, and is remembered when it is confirmed.
func TestWhatIsInvalidatedAgainOnItsWayCountsOnce(t *testing.T) {
	t.Parallel()
	j := New()
	require.True(t, order(j, "a", "c:1"))
	for range 10 {
		_, keys, upTo := j.Batch()
		require.True(t, order(j, "b", "c:1"))
		j.Confirm(upTo, keys...)
		require.Equal(t, 1, inUse(&j.outside).Entries)
	}
	_, keys, upTo := j.Batch()
	j.Confirm(j.Now(""), keys...) // somebody else's order, which the program has given
	j.Confirm(upTo, keys...)
	require.Zero(t, inUse(&j.outside))
	require.Len(t, j.recent.list, 1)
}

// Hazard 121: what is confirmed counts in bytes too.
func TestLongNamesThatAreConfirmedAreRemembered(t *testing.T) {
	t.Parallel()
	j := New()
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
		j.Confirm(j.Now(""), manyNames(strings.Repeat("y", 1000)+strconv.Itoa(i)+".", 2000)...)
	}
	j.Recover(0)
	require.Nil(t, j.entries[keyspace.All], "everything is invalidated")
}

// Hazard 141: patterns that a caller has confirmed or waiting are no hindrance to its keys.
func TestPatternsTakeNoRoomOfKeys(t *testing.T) {
	t.Parallel()
	j := New()
	for n := 0; order(j, "flood", keyspace.PatternPrefix+"c:"+strconv.Itoa(n)); n++ {
	}
	for n := 0; order(j, "second", keyspace.PatternPrefix+"d:"+strconv.Itoa(n)); n++ {
	}
	require.True(t, order(j, "flood", "c:1"))
	require.True(t, order(j, "third", keyspace.PatternPrefix+"e:*"))
}

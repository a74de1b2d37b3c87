package aside

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Hazard 121, with orders side by side: what is under way will be confirmed too, and is to be counted before.
//
//  1. One key has fifteen orders of a thousand names confirmed. The record of that is not written yet.
//  2. It sends as many again at once. Each finds room, since none of the others is confirmed yet. All are confirmed.
//  3. The server is replaced by one that knows of none of them.
func TestReviewOrdersSideBySideConfirmNoMoreThanIsRemembered(t *testing.T) {
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
			j.confirm(j.now(), s.names...)
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
	require.Nil(t, j.entries[tagAll], "everything is invalidated")
}

func TestReviewManyOrdersAtOnce(t *testing.T) {
	t.Parallel()
	j := newJournal()
	var ends []func()
	var all [][]string
	for i := range 200 { // from several keys at once, none of which Redis has confirmed yet
		names := manyNames("c:"+strconv.Itoa(i)+".", 1000)
		if end, ok := j.reserve("key "+strconv.Itoa(i%5), names); ok {
			ends, all = append(ends, end), append(all, names)
		}
	}
	for i, names := range all {
		j.confirm(j.now(), names...)
		ends[i]()
	}
	t.Log(len(all), "orders", j.mark(), "confirmed", len(j.recent), "remembered")
	j.found(0)
	require.Nil(t, j.entries[tagAll], "everything is invalidated")
}

// The same after an outage: the journal is full of what a few keys have invalidated, all of it is confirmed as soon as Redis is back, and the
// server fails again before the record is written.
func TestReviewAnOutageThatIsFollowedByAFailover(t *testing.T) {
	t.Parallel()
	j := newJournal()
	// Before the outage: as much as is remembered at most, written down.
	for i := range 16 {
		names := manyNames("c:before"+strconv.Itoa(i)+".", 1000)
		end, ok := j.reserve("flood", names)
		require.True(t, ok)
		j.confirm(j.now(), names...)
		end()
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
	require.Nil(t, j.entries[tagAll], "everything is invalidated")
}

// Of what is confirmed and not written down yet, one caller leaves room to the next, as of what waits.
func TestReviewOneCallersConfirmedNamesLeaveRoomToAnother(t *testing.T) {
	t.Parallel()
	j := newJournal()
	for i := range 20 {
		names := manyNames("c:"+strconv.Itoa(i)+".", 1000)
		if end, ok := j.reserve("flood", names); ok {
			j.confirm(j.now(), names...)
			end()
		}
	}
	end, ok := j.reserve("deploy", manyNames("d:", 1000))
	require.True(t, ok, "the first one has left none")
	end()
}

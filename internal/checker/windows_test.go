package main

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

func TestHalfOfTheSchedulesHaveWindows(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		w := windowsOf(seed)
		require.Equal(t, seed%2 == 1, w != nil)
		require.Equal(t, w, windowsOf(seed), "a seed repeats them")
		if w == nil {
			continue
		}
		require.Less(t, w.TTL+w.StaleIfError, 3*time.Second, "they end within a schedule")
		p := items
		w.open(&p)
		c, err := aside.New(aside.Options{Policies: []aside.Policy{p}, LoadTimeout: 25 * time.Second})
		require.NoError(t, err)
		c.Close()
	}
}

func TestOvertakenRefreshesAreCountedByPlace(t *testing.T) {
	t.Parallel()
	// Process 1 invalidates all keys from 10 to 20 ms, and that is confirmed then; see makeByHand.
	for _, c := range []struct {
		name              string
		proc              uint16
		asked, read, done int64
		confirmed         int64
		want              [places]uint64
	}{
		{"after it", 2, 21, 22, 30, 20, [places]uint64{}},
		{"before it", 2, 1, 2, 9, 20, [places]uint64{}},
		{"around it, before the source is asked", 2, 5, 25, 30, 20, [places]uint64{beforeSource: 1}},
		{"around it, after the source is asked", 2, 5, 7, 30, 20, [places]uint64{afterSource: 1}},
		{"it was called before", 2, 5, 15, 30, 20, [places]uint64{}},
		{"it is not confirmed yet", 2, 5, 7, 30, 40, [places]uint64{}},
		{"it is not confirmed yet, in its own process", 1, 5, 7, 30, 40, [places]uint64{afterSource: 1}},
		{"it is never confirmed", 2, 5, 7, 30, 0, [places]uint64{}},
	} {
		h := makeByHand(func(h byHand) {
			h.invalidations[0].confirmed = c.confirmed * ms
			r := refresh{asked: c.asked * ms, read: c.read * ms, done: c.done * ms, key: 3}
			require.NoError(t, h.addRecords(c.proc, appendRefresh(nil, &r)))
		})
		n, same := h.overtaken()
		require.Equal(t, c.want, n, c.name)
		require.Zero(t, same, c.name)
		h.refreshes[0].same = true
		n, same = h.overtaken()
		require.Equal(t, c.want, n, c.name)
		require.Equal(t, c.want, same, c.name)
		require.EqualValues(t, 1, countHistory(h).behind)
	}
}

func TestARunWithoutOvertakenRefreshesFails(t *testing.T) {
	t.Parallel()
	var sum tally
	require.Contains(t, sum.missing(), "refreshes")
	require.NotContains(t, sum.missing(), placeNames[afterSource], "a few schedules may go without")
	sum.windowed = fewSchedules
	require.Contains(t, sum.missing(), placeNames[afterSource])
	require.Contains(t, sum.missing(), placeNames[beforeSource])
	sum.overtaken[afterSource], sum.Refreshes, sum.behind = 1, 1, 1
	require.NotContains(t, sum.missing(), "refreshes")
	require.NotContains(t, sum.missing(), placeNames[afterSource])
}

func TestARunWithoutHitsOnValuesOfMemoryAloneFails(t *testing.T) {
	t.Parallel()
	const missed = "hits on values of memory alone"
	h := newHistory(scheduleInfo{Placed: true})
	h.reads = []read{{key: groupSize * inMemoryAlone, tier: indexOf(tierNames, "redis")}, {key: 0, tier: indexOf(tierNames, "memory")}}
	sum := countHistory(h)
	require.NotContains(t, sum.missing(), missed, "one schedule may go without")
	sum.placed = fewSchedules
	require.Contains(t, sum.missing(), missed)
	h.reads[0].tier = indexOf(tierNames, "memory")
	require.NotZero(t, countHistory(h).memoryAlone)
	sum.add(countHistory(h))
	require.NotContains(t, sum.missing(), missed)
}

func TestASavedHistoryKeepsItsWindows(t *testing.T) {
	t.Parallel()
	h := newHistory(scheduleInfo{Topology: "by hand", Windows: windowsOf(1)})
	path := filepath.Join(t.TempDir(), "h.jsonl")
	require.NoError(t, h.save(path))
	again, err := load(path)
	require.NoError(t, err)
	require.Equal(t, h.Windows, again.Windows)
}

func TestWhatABatchComesToForOneID(t *testing.T) {
	t.Parallel()
	other := errors.New("another one's")
	batch := &aside.BatchError[string]{Errors: map[string]error{"a": errSource, "b": other}}
	values := map[string]value{"c": {Version: 7}}
	_, err := ofBatch(values, batch, "a")
	require.Equal(t, errSource, err)
	_, err = ofBatch(values, batch, "b")
	require.Equal(t, other, err)
	v, err := ofBatch(values, batch, "c")
	require.NoError(t, err)
	require.EqualValues(t, 7, v.Version)
	_, err = ofBatch(nil, other, "c")
	require.Equal(t, other, err)
}

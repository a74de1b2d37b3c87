package main

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ms = int64(time.Millisecond)

// written by hand: times are in milliseconds, and everything is about key 0 unless it says otherwise.
type byHand struct{ *history }

func (h byHand) update(proc uint16, at int64) {
	h.updates[0] = append(h.updates[0], update{began: at*ms - 1, done: at * ms, proc: proc})
}

func (h byHand) invalidate(proc uint16, call, ret, confirmed int64) {
	h.invalidations = append(h.invalidations, invalidation{call: call*ms + 1, ret: ret * ms, confirmed: confirmed * ms, keys: everyKey, proc: proc, door: doorAll})
}

func (h byHand) read(proc uint16, d door, version uint32, call, ret int64) {
	h.reads = append(h.reads, read{call: call * ms, ret: ret * ms, version: version, proc: proc, door: d})
}

func (h byHand) fault(name string, proc uint16, began, end int64) {
	h.faults = append(h.faults, fault{name: name, proc: proc, began: began * ms, end: end * ms})
}

// In each of them process 1 makes version 1 at 10 ms, and invalidates from then until 20 ms, where it does not say otherwise.
var byHands = []struct {
	name string
	made func(h byHand)

	violates string        // what a read was held to; "" for a legal history
	quiet    time.Duration // the smallest delta
	answered time.Duration
	faulted  time.Duration
}{
	{name: "the new version", made: func(h byHand) {
		h.read(1, doorLoad, 1, 21, 22)
		h.read(2, doorStrong, 1, 21, 22)
		h.read(2, doorLoad, 1, 21, 22)
	}},
	{name: "the old version, then the new one, then the old one while the write is under way", made: func(h byHand) {
		h.read(1, doorLoad, 0, 5, 6)
		h.read(1, doorLoad, 1, 11, 12)
		h.read(1, doorStrong, 0, 13, 14)
		h.read(2, doorLoad, 1, 15, 16)
		h.read(2, doorStrong, 0, 17, 18)
	}},
	{name: "the old version by who has waited since before", made: func(h byHand) {
		h.read(1, doorMany, 0, 19, 500)
		h.read(2, doorStrongMany, 0, 20, 500)
	}},
	{name: "the new version by who has asked before it was made", made: func(h byHand) { h.read(1, doorLoad, 1, 5, 11) }},
	{name: "the old version after the write", made: func(h byHand) { h.read(1, doorLoad, 0, 21, 22) }, violates: "own process"},
	{name: "the old version after the new one", made: func(h byHand) {
		h.read(1, doorLoad, 1, 11, 12)
		h.read(1, doorLoader, 0, 21, 22)
		h.read(1, doorLoad, 1, 21, 22)
	}, violates: "own process"},
	{name: "the old version elsewhere by Strong", made: func(h byHand) { h.read(2, doorStrong, 0, 21, 22) }, violates: "Strong"},
	{name: "the old version elsewhere, 7 ms later", made: func(h byHand) { h.read(2, doorLoad, 0, 27, 28) }, quiet: 7 * time.Millisecond},
	{name: "the old version elsewhere, near a fault", made: func(h byHand) {
		h.read(2, doorLoad, 0, 2020, 2021)
		h.fault("hung", 0, 21, 22)
	}, faulted: 2 * time.Second},
	{name: "the old version elsewhere for good", made: func(h byHand) { h.read(2, doorLoad, 0, 3021, 3022) }, violates: "quiet", quiet: 3001 * time.Millisecond},
	{name: "the same near a fault", made: func(h byHand) {
		h.read(2, doorLoad, 0, 3021, 3022)
		h.fault("hung", 0, 21, 3000)
	}, violates: "faults", faulted: 3001 * time.Millisecond},
	{name: "the same with a DegradedTTL", made: func(h byHand) {
		h.DegradedTTL = time.Second
		h.read(2, doorLoad, 0, 3021, 3022)
		h.fault("hung", 0, 21, 3000)
	}, faulted: 3001 * time.Millisecond},
	{name: "the same near a gentle fault: Redis answers", made: func(h byHand) {
		h.DegradedTTL = time.Second
		h.read(2, doorLoad, 0, 3021, 3022)
		h.fault(faultFull, 0, 21, 3000)
	}, violates: "gentle", answered: 3001 * time.Millisecond},
	{name: "the same, and the process says that Redis is not in use", made: func(h byHand) {
		h.DegradedTTL = time.Second
		h.read(2, doorLoad, 0, 3021, 3022)
		h.fault(faultFull, 0, 21, 3000)
		h.outages[2] = []stoppage{{100 * ms, 200 * ms}}
	}, faulted: 3001 * time.Millisecond},
	{name: "the same with another process's outage", made: func(h byHand) {
		h.DegradedTTL = time.Second
		h.read(2, doorLoad, 0, 3021, 3022)
		h.outages[1] = []stoppage{{100 * ms, 200 * ms}}
	}, violates: "quiet", quiet: 3001 * time.Millisecond},
	{name: "undone with its server: the old version for 3 s, by Strong and in the same process too", made: func(h byHand) {
		h.fault(faultRestored, 0, 15, 30)
		h.excuse()
		h.read(1, doorLoad, 0, 31, 32)
		h.read(1, doorStrong, 0, 3029, 3030)
		h.read(2, doorStrong, 0, 3029, 3030)
	}},
	{name: "undone with its server: the old version in the same process after that", made: func(h byHand) {
		h.fault(faultRestored, 0, 15, 30)
		h.excuse()
		h.read(1, doorLoad, 0, 3031, 3032)
	}, violates: "own process"},
	{name: "undone with its server, and the process was killed: never complete elsewhere", made: func(h byHand) {
		h.processes = []process{{proc: 1, killed: 40 * ms}}
		h.fault(faultRestored, 0, 15, 30)
		h.excuse()
		h.read(2, doorStrong, 0, 9000, 9001)
	}},
	{name: "confirmed before the databases were swapped", made: func(h byHand) {
		h.fault(faultRestored, 0, 21, 30)
		h.excuse()
		h.read(2, doorStrong, 0, 40, 41)
	}, violates: "Strong"},
	{name: "a version that does not exist yet", made: func(h byHand) { h.read(1, doorLoad, 1, 5, 9) }, violates: "did not exist"},
	{name: "a version that never exists", made: func(h byHand) { h.read(2, doorStrong, 2, 30, 31) }, violates: "did not exist"},
	{name: "not confirmed: elsewhere the old version, also by Strong", made: func(h byHand) {
		h.invalidations[0].confirmed = 0
		h.read(2, doorLoad, 0, 9000, 9001)
		h.read(2, doorStrong, 0, 9000, 9001)
	}},
	{name: "not confirmed: the old version in the same process", made: func(h byHand) {
		h.invalidations[0].confirmed = 0
		h.read(1, doorLoad, 0, 21, 22)
	}, violates: "own process"},
	{name: "confirmed later: elsewhere the old version until then", made: func(h byHand) {
		h.invalidations[0].confirmed = 50 * ms
		h.read(2, doorLoad, 0, 49, 55)
		h.read(2, doorStrong, 0, 49, 55)
	}},
	{name: "confirmed later: the old version by Strong after that", made: func(h byHand) {
		h.invalidations[0].confirmed = 50 * ms
		h.read(2, doorStrong, 0, 51, 55)
	}, violates: "Strong"},
	{name: "another process's update was there before the invalidation", made: func(h byHand) {
		h.update(2, 25)
		h.invalidate(1, 30, 40, 40)
		h.read(1, doorLoad, 1, 41, 42)
	}, violates: "own process"},
	{name: "another process's update came during the invalidation", made: func(h byHand) {
		h.update(2, 35)
		h.invalidate(1, 30, 40, 40)
		h.read(1, doorLoad, 1, 41, 42)
	}},
	{name: "the process was stopped: its own time counts", made: func(h byHand) {
		h.fault(faultStopped, 2, 22, 5022)
		h.read(2, doorLoad, 0, 5025, 5026)
	}, faulted: 5 * time.Millisecond},
	{name: "the process was stopped: no excuse for Strong", made: func(h byHand) {
		h.fault(faultStopped, 2, 22, 5022)
		h.read(2, doorStrong, 0, 5025, 5026)
	}, violates: "Strong"},
}

func makeByHand(made func(byHand)) *history {
	h := byHand{newHistory(scheduleInfo{Topology: "by hand", DegradedTTL: -1})}
	h.update(1, 10)
	h.invalidate(1, 10, 20, 20)
	made(h)
	return h.history
}

func TestBothChecksAgreeOnHistoriesWrittenByHand(t *testing.T) {
	t.Parallel()
	for _, c := range byHands {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := makeByHand(c.made)
			v := judgeHistory(h)
			require.Equal(t, c.quiet, v.delta(quiet))
			require.Equal(t, c.answered, v.delta(answered))
			require.Equal(t, c.faulted, v.delta(faulted))
			r := check(h)
			require.Equal(t, len(h.reads), r.searched.reads)
			if c.violates == "" {
				require.Empty(t, r.problems)
				require.Empty(t, r.searched.illegal)
			} else {
				require.Equal(t, 1, v.count)
				require.Contains(t, r.problems[0], c.violates)
				require.Len(t, r.searched.illegal, 1, "porcupine refuses it too")
				require.Equal(t, v.violations[0].read, r.searched.illegal[0].reads[0], "for the same read")
			}
			for _, w := range v.worst {
				if w.by != nil {
					accepted, unknown := smaller(h, w)
					require.False(t, accepted || unknown, "a smaller delta is refused by porcupine")
				}
			}
		})
	}
}

// What is lost among thousands of legal reads is found as well.
func TestOneStaleReadAmongManyIsFound(t *testing.T) {
	t.Parallel()
	h := byHand{newHistory(scheduleInfo{DegradedTTL: -1})}
	for v := range int64(50) {
		h.update(1, 100*v+10)
		h.invalidate(1, 100*v+20, 100*v+30, 100*v+30)
		for n := range int64(100) {
			if at := 100*v + n; n > 30 {
				h.read(1, doorLoad, uint32(v+1), at, at+3)
				h.read(2, doorStrong, uint32(v+1), at, at+40)
			}
		}
	}
	require.Empty(t, check(h.history).problems)
	h.read(2, doorStrong, 24, 2475, 2490)
	r := check(h.history)
	require.Equal(t, 1, r.verdict.count)
	require.Len(t, r.searched.illegal, 1)
	require.Equal(t, h.reads[len(h.reads)-1], r.searched.illegal[0].reads[0])
}

func TestASavedHistoryIsTheSame(t *testing.T) {
	t.Parallel()
	for _, c := range byHands {
		h := makeByHand(c.made)
		h.processes = []process{{proc: 1}, {proc: 2, killed: 7}}
		path := filepath.Join(t.TempDir(), "h.jsonl")
		require.NoError(t, h.save(path))
		again, err := load(path)
		require.NoError(t, err)
		again.unconfirmed = h.unconfirmed // counted when records come in
		again.restored = h.restored       // counted by excuse
		require.Equal(t, h, again, c.name)
	}
}

func TestRecordsArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	r := read{call: 5, ret: 7, version: 3, key: 47, door: doorLookup, tier: 2, status: 1}
	sure := invalidation{call: 1, ret: 2, keys: everyKey, door: doorAll}
	unsure := invalidation{call: 3, ret: 4, keys: one(9), door: doorKey}
	b := appendRead(nil, &r)
	b = appendInvalidation(b, &sure, 1, true)
	b = appendInvalidation(b, &unsure, 2, false)
	h := newHistory(scheduleInfo{})
	require.NoError(t, h.addRecords(6, b))
	r.proc, sure.proc, unsure.proc, sure.confirmed = 6, 6, 6, 2
	require.Equal(t, []read{r}, h.reads)
	require.Equal(t, []invalidation{sure, unsure}, h.invalidations)
	require.Equal(t, 1, h.lost())

	require.NoError(t, h.addRecords(6, appendConfirmation(nil, 2, 9)))
	require.EqualValues(t, 9, h.invalidations[1].confirmed)
	require.Zero(t, h.lost())
	require.Error(t, h.addRecords(6, appendConfirmation(nil, 2, 9)), "once is enough")

	require.NoError(t, h.addRecords(6, appendHealth(appendHealth(nil, false, 20), true, 30)))
	require.NoError(t, h.addRecords(6, appendHealth(nil, false, 40)))
	require.Equal(t, []stoppage{{20, 30}, {40, forGood}}, h.outages[6])
	require.Error(t, h.addRecords(6, b[:recordSize-1]))
}

func TestKeySets(t *testing.T) {
	t.Parallel()
	require.Equal(t, keyCount, everyKey.count())
	require.Equal(t, everyKey, inCategory("items")|inCategory("things"))
	require.Len(t, keysByName, keyCount)
	require.Equal(t, "things:b3", keyName(keysByName["things:b3"]))
	for _, tag := range tags {
		require.NotZero(t, tagged(tag))
	}
	for _, p := range patterns {
		require.Equal(t, groupSize, matching(p).count(), p)
	}
	require.True(t, slices.Contains(tagged("green").names(), "items:d0"))
}

package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// The short form of what `go run ./internal/checker -topology cluster` does at length.
func TestProcessesOnAClusterReadWhatTheyMay(t *testing.T) {
	var out bytes.Buffer
	o := short(options{schedules: 2, seed: 31, out: t.TempDir()})
	o.topology = "cluster"
	ok := repeat(&out, o)
	t.Log(out.String())
	require.True(t, ok)
}

// Likewise, with Sentinel.
func TestProcessesWithSentinelReadWhatTheyMay(t *testing.T) {
	var out bytes.Buffer
	o := short(options{schedules: 1, seed: 304, out: t.TempDir()})
	o.topology, o.forced, o.only = "sentinel", []string{faultReplaced}, []string{faultReplacedDead, faultReplacedHung, "cut", "replies lost", faultValues}
	ok := repeat(&out, o)
	t.Log(out.String())
	require.True(t, ok)
}

func TestOnlyWhatAFailoverCanHaveLostIsExcused(t *testing.T) {
	t.Parallel()
	const at, other = 0, 1 // keys: one at the node that is replaced, one elsewhere
	invalidated := func(confirmed int64, d door, keys keySet) invalidation {
		return invalidation{call: confirmed*ms - 1, ret: confirmed * ms, confirmed: confirmed * ms, keys: keys, proc: 1, door: d}
	}
	again := int64(12_000*ms) + int64(settle)
	for name, tc := range map[string]struct {
		fault  string
		killed int64
		i      invalidation
		want   int64
	}{
		"by the node that is replaced":        {faultTakeover, 0, invalidated(9_500, doorKey, one(at)), again},
		"while another one takes over":        {faultTakeover, 0, invalidated(11_000, doorKey, one(at)), again},
		"by whoever has a tag":                {faultTakeover, 0, invalidated(9_500, doorTag, one(other)), again},
		"by a process that was killed before": {faultTakeover, 13_000 * ms, invalidated(9_500, doorKey, one(at)), 0},
		"by one that was killed later":        {faultTakeover, 16_000 * ms, invalidated(9_500, doorKey, one(at)), again},
		"by another node":                     {faultTakeover, 0, invalidated(9_500, doorKey, one(other)), 9_500 * ms},
		"long before":                         {faultTakeover, 0, invalidated(8_900, doorKey, one(at)), 8_900 * ms},
		"afterwards":                          {faultTakeover, 0, invalidated(12_100, doorKey, one(at)), 12_100 * ms},
		"after the node had died":             {faultDead, 0, invalidated(10_500, doorKey, one(at)), 10_500 * ms},
		"called before, answered afterwards":  {faultTakeover, 0, invalidation{call: 11_999 * ms, ret: 12_003 * ms, confirmed: 12_003 * ms, keys: one(at), proc: 1, door: doorKey}, again},
		"without a failover that loses":       {"promotion", 0, invalidated(9_500, doorKey, one(at)), 9_500 * ms},
	} {
		h := newHistory(scheduleInfo{DegradedTTL: -time.Nanosecond})
		h.processes = []process{{proc: 1, killed: tc.killed}}
		h.faults = []fault{{name: tc.fault, keys: one(at), began: 10_000 * ms, end: 12_000 * ms}}
		h.invalidations = []invalidation{tc.i}
		h.excuse()
		require.Equal(t, tc.want, h.invalidations[0].confirmed, name)
		h.excuse()
		require.Equal(t, tc.want, h.invalidations[0].confirmed, "again: %s", name)
	}
}

func TestOnlyWhatIsUndoneWithItsServerIsExcused(t *testing.T) {
	t.Parallel()
	const settled = int64(12_000*ms) + int64(settle)
	for name, tc := range map[string]struct {
		fault                 string
		killed                int64
		call, confirmed, want int64
	}{
		"while the other database is there":           {faultRestored, 0, 10_500 * ms, 10_501 * ms, settled},
		"called before and confirmed while it is":     {faultRestored, 0, 9_990 * ms, 10_001 * ms, settled},
		"called while it is there, answered later":    {faultRestored, 0, 11_990 * ms, 12_003 * ms, settled},
		"by a process that was killed before it knew": {faultRestored, 13_000 * ms, 10_500 * ms, 10_501 * ms, 0},
		"before":                     {faultRestored, 0, 9_000 * ms, 9_900 * ms, 9_900 * ms},
		"afterwards":                 {faultRestored, 0, 12_001 * ms, 12_002 * ms, 12_002 * ms},
		"in a database that stays":   {faultSwapped, 0, 10_500 * ms, 10_501 * ms, 10_501 * ms},
		"confirmed when it would be": {faultRestored, 0, 11_990 * ms, settled + 1, settled + 1},
	} {
		h := newHistory(scheduleInfo{DegradedTTL: -time.Nanosecond})
		h.processes = []process{{proc: 1, killed: tc.killed}}
		h.faults = []fault{{name: tc.fault, began: 10_000 * ms, end: 12_000 * ms}}
		h.invalidations = []invalidation{{call: tc.call, ret: tc.confirmed, confirmed: tc.confirmed, keys: one(0), proc: 1, door: doorKey}}
		h.excuse()
		require.Equal(t, tc.want, h.invalidations[0].confirmed, name)
		n := h.restored
		h.excuse()
		require.Equal(t, tc.want, h.invalidations[0].confirmed, "again: %s", name)
		require.Equal(t, n, h.restored, "and not counted twice: %s", name)
	}
}

// Others do what they do to a key where it is.
func TestOthersFollowAKey(t *testing.T) {
	t.Parallel()
	c := newCluster(t, false).(*cluster)
	from, to := keyName(0), ""
	for k := range keyCount {
		if to = keyName(k); c.nodes.NodeOf(to) != c.nodes.NodeOf(from) {
			break
		}
	}
	f := c.foreigner()
	defer f.close()
	get := func(name string) any {
		v, err := f.do(name, "GET", name)
		require.NoError(t, err)
		return v
	}
	require.Error(t, copyValue(f, from, to), "there is nothing to copy")
	f.insist(from, "SET", from, "v", "PX", "3600000")
	require.NoError(t, copyValue(f, from, to), "to another node")
	require.Equal(t, "v", get(to))
	require.Positive(t, c.nodes.MustDo(t, to, "PTTL", to))

	m := c.nodes.BeginMigration(redistest.Slot(from), c.nodes.NodeOf(to))
	m.Move(from)
	require.Equal(t, "v", get(from), "by ASK")
	m.Finish()
	require.Equal(t, "v", get(from), "by MOVED")
	require.Equal(t, c.nodes.NodeOf(to).Addr(), f.owners[redistest.Slot(from)])

	one := c.nodes.NodeOf(from)
	require.Contains(t, c.keysAt(one).names(), from)
	require.Equal(t, everyKey, c.keysAt(c.nodes.Primaries()...))
	one.Kill()
	_, err := f.do(from, "GET", from)
	require.Error(t, err)
	one.Restart()
	c.nodes.WaitOK()
	f.insist(from, "SET", from, "w")
	require.Equal(t, "w", get(from), "from whoever has it now")
	user, err := one.Do("ACL", "GETUSER", workerUser)
	require.NoError(t, err)
	require.NotEmpty(t, user, "a node that has started again has it")
}

// What a node has counted before it was killed is not counted as something new, and what it counts afterwards is.
func TestCountsGoOnWhenAServerStartsAgain(t *testing.T) {
	counted := []int{5, 7}
	s := &servers{all: make([]*redistest.Server, 2)}
	at := -1
	count := s.count(func(*redistest.Server) int { at++; return counted[at%2] })
	require.Equal(t, 12, count())
	counted = []int{2, 8} // the first one has started again
	require.Equal(t, 12+2+1, count())
	require.Equal(t, 12+2+1, count())
}

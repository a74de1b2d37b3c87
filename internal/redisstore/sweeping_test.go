package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// What all values of these tests carry, and what a sweep asks for.
var (
	old     = Current{"all", 6}
	newer   = Current{"all", 7}
	inSweep = []Current{newer}
)

// outdated are n values to sweep, and their names.
func outdatedOnes(n int) (list []Outdated, names []string) {
	for i := range n {
		names = append(names, "cat:"+strconv.Itoa(i))
		list = append(list, Outdated{Key: names[i], Tags: inSweep})
	}
	return list, names
}

// put stores a value under each of the names.
func put(t *testing.T, do func(t testing.TB, args ...string) any, value string, names ...string) {
	t.Helper()
	for _, name := range names {
		do(t, "SET", name, value)
	}
}

// isSweep reports whether a command is a call of sweep.
func isSweep(args []string) bool {
	return strings.EqualFold(args[0], "EVALSHA") && args[1] == sweep.sha1
}

// sweptIn are how many values each call of sweep was given that has passed a proxy.
func sweptIn(t *testing.T, proxy *redistest.Proxy) (of []int) {
	t.Helper()
	for _, args := range proxy.Log() {
		if isSweep(args) {
			n, err := strconv.Atoi(args[2])
			require.NoError(t, err)
			of = append(of, n)
		}
	}
	return of
}

func TestASweepOfManyValuesCountsEachTag(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := up(t, Options{Client: clientOf(server.Addr()), Format: taggedFormat})
	var list []Outdated
	want := map[string]int64{}
	const n = 1000
	for i := range n {
		// Each value carries a tag of its own group, and another that no sweep is about.
		tag := Current{"t:" + strconv.Itoa(i%100), uint64(5 + i%3)} // 5 and 6 are older
		name := "cat:" + strconv.Itoa(i)
		server.MustDo(t, "SET", name, tagged(1, 0, Current{"x", 1}, tag))
		list = append(list, Outdated{Key: name, Tags: []Current{{tag.Tag, 7}}})
		if tag.Value < 7 {
			want[tag.Tag]++
		}
	}
	list = append(list, list...) // a scan may see a key twice
	removed, err := s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	require.Equal(t, want, removed)
	for i := range n {
		left := int64(0)
		if i%3 == 2 {
			left = 1
		}
		require.Equal(t, left, server.MustDo(t, "EXISTS", "cat:"+strconv.Itoa(i)), i)
	}
	removed, err = s.Sweep(t.Context())
	require.NoError(t, err)
	require.Empty(t, removed)
}

// A value with very many tags is looked at all the same, by a call of its own.
func TestASweepByVeryManyTags(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := up(t, Options{Client: clientOf(server.Addr()), Format: taggedFormat})
	list, names := outdatedOnes(3)
	for i := range 3 * mostSweptTags {
		list[1].Tags = append(list[1].Tags[:len(list[1].Tags):len(list[1].Tags)], Current{"t:" + strconv.Itoa(i), 1})
	}
	put(t, server.MustDo, tagged(1, 0, old), names...)
	removed, err := s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"all": 3}, removed)
}

// Hazard 175.
func TestASweepDecidesByTheValuesThatItFinds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := up(t, Options{Client: clientOf(proxy.Addr()), Format: taggedFormat, OpTimeout: bound})
	list, names := outdatedOnes(5)
	put(t, server.MustDo, tagged(1, 0, old), names...)
	gate := proxy.HoldRequests(isSweep)
	type swept struct {
		removed map[string]int64
		err     error
	}
	done := make(chan swept, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		removed, err := s.Sweep(ctx, list...)
		done <- swept{removed, err}
	}()
	gate.Wait(t)
	put(t, server.MustDo, tagged(1, 0, newer), names[1], names[3]) // by loads that began after the invalidation
	cancel()                                                       // nobody waits for the reply any more
	require.Error(t, (<-done).err)
	gate.Release()
	require.Eventually(t, func() bool { return server.MustDo(t, "EXISTS", names[0], names[2], names[4]) == int64(0) }, bound, time.Millisecond,
		"the call is carried out all the same")
	require.Equal(t, int64(2), server.MustDo(t, "EXISTS", names[1], names[3]))
	removed, err := s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	require.Empty(t, removed)
	require.Equal(t, int64(2), server.MustDo(t, "EXISTS", names[1], names[3]))
}

// Hazard 176: a reply that is lost is no sign that the values were looked at.
func TestASweepWhoseReplyIsLostFails(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := up(t, Options{Client: clientOf(proxy.Addr()), Format: taggedFormat, OpTimeout: bound})
	list, names := outdatedOnes(100)
	for _, lost := range []string{"request", "reply"} {
		put(t, server.MustDo, tagged(1, 0, old), names...)
		hold, done := proxy.HoldRequests, make(chan error, 1)
		if lost == "reply" {
			hold = proxy.HoldReplies
		}
		gate := hold(isSweep)
		go func() {
			_, err := s.Sweep(t.Context(), list...)
			done <- err
		}()
		gate.Wait(t)
		proxy.CloseConnections()
		gate.Release()
		require.Error(t, <-done, lost)
		require.Eventually(t, s.Up, bound, time.Millisecond)
		again := func() bool {
			_, err := s.Sweep(t.Context(), list...)
			return err == nil
		}
		require.Eventually(t, again, bound, time.Millisecond)
		require.Equal(t, int64(0), server.MustDo(t, append([]string{"EXISTS"}, names...)...), lost)
	}
}

// Hazard 176: values that a call has not looked at, since that would have taken long, are looked at by the next one.
func TestACallOfASweepDoesABoundedAmountOfWork(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := up(t, Options{Client: clientOf(proxy.Addr()), Format: taggedFormat})
	list, names := outdatedOnes(40)
	manifest := "\x00\x00\x00\x01\x00\x00\x01\x00crc." // 16 MiB in chunks of 64 KiB
	put(t, server.MustDo, tagged(1, 1, old)+manifest, names...)
	proxy.ResetCounts()
	removed, err := s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"all": 40}, removed)
	require.Equal(t, int64(0), server.MustDo(t, append([]string{"EXISTS"}, names...)...))
	require.GreaterOrEqual(t, len(sweptIn(t, proxy)), 40*256/(sweepWork+256), "as often as the chunks take it")
}

// Hazard 176: the server refuses a call for one of its keys, and the others are swept.
func TestASweepPassesOverSingleKeysThatAreRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MayDeny()
	server.MustDo(t, "ACL", "SETUSER", "limited", "on", ">a-long-password", "~%*", "~cat:1*", "~cat:2*", "&*", "+@all")
	o := clientOf(server.Addr())
	o.Username, o.Password = "limited", "a-long-password"
	s := up(t, Options{Client: o, Format: taggedFormat})
	list, names := outdatedOnes(300) // two thirds and more of which begin as the user may use them
	put(t, server.MustDo, tagged(1, 0, old), names...)
	var allowed int64
	for _, name := range names {
		if name[4] == '1' || name[4] == '2' {
			allowed++
		}
	}
	removed, err := s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"all": allowed}, removed)
	require.Equal(t, 300-allowed, server.MustDo(t, append([]string{"EXISTS"}, names...)...))
}

// Hazard 176: a cluster that looks like one server takes no keys of several slots.
func TestASweepOfAClusterThatLooksLikeOneServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--cluster-enabled", "yes")
	server.MustDo(t, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	require.Eventually(t, func() bool {
		info, err := server.Do("CLUSTER", "INFO")
		return err == nil && strings.Contains(info.(string), "cluster_state:ok")
	}, bound, time.Millisecond)
	proxy := redistest.StartProxy(t, server.Addr())
	s := up(t, Options{Client: clientOf(proxy.Addr()), Format: taggedFormat})
	require.Equal(t, 1, s.SweepTogether())
	list, names := outdatedOnes(300)
	put(t, server.MustDo, tagged(1, 0, old), names...)
	removed, err := s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"all": 300}, removed)

	require.Greater(t, s.SweepTogether(), 1, "from now on it is known")
	put(t, server.MustDo, tagged(1, 0, old), names...)
	proxy.ResetCounts()
	removed, err = s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"all": 300}, removed)
	slots := map[int]bool{}
	for _, name := range names {
		slots[redistest.Slot(name)] = true
	}
	require.Len(t, sweptIn(t, proxy), len(slots), "one call for a slot, and none is refused")
}

// Hazard 176: while a slot moves, some of its keys are at one node and some at the other.
func TestASweepOfASlotThatMoves(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := inCluster(cluster.Addrs()...)
	o.Format = taggedFormat
	s := up(t, o)
	first := nameAt(s, 0, "cat:first")
	names, list := []string{first}, []Outdated{{first, inSweep}}
	for i := 0; len(names) < 4; i++ {
		if name := fmt.Sprintf("cat:%d", i); redistest.Slot(name) == redistest.Slot(first) {
			names, list = append(names, name), append(list, Outdated{name, inSweep})
		}
	}
	from, to := at(t, cluster, s, 0), at(t, cluster, s, 1)
	put(t, from.MustDo, tagged(1, 0, old), names...)
	m := cluster.BeginMigration(redistest.Slot(first), to)
	m.Move(names[0], names[2])
	removed, err := s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"all": 4}, removed)
	m.Finish()
	require.Equal(t, int64(0), to.MustDo(t, append([]string{"EXISTS"}, names...)...))
}

func TestPortionsOfASweepFollowTheTimeOfTheServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size, seen int
		worked     time.Duration
		want       int
	}{
		{8, 8, 20 * time.Microsecond, 16}, // not more than twice as many
		{100, 100, 500 * time.Microsecond, 100},
		{100, 100, time.Millisecond, 50},
		{100, 10, time.Millisecond, leastSwept}, // it was stopped
		{256, 256, 100 * time.Microsecond, mostSwept},
		{256, 256, time.Second, leastSwept},
		{64, 64, 0, 128}, // shorter than the server's clock ticks
		{64, 0, 0, 128},
	} {
		require.Equal(t, c.want, nextSweepSize(c.size, c.seen, c.worked), "%+v", c)
	}

	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := up(t, Options{Client: clientOf(proxy.Addr()), Format: taggedFormat})
	list, names := outdatedOnes(2000)
	put(t, server.MustDo, tagged(1, 0, old), names...)
	proxy.ResetCounts()
	_, err := s.Sweep(t.Context(), list...)
	require.NoError(t, err)
	sizes := sweptIn(t, proxy)
	require.Equal(t, leastSwept, sizes[0], "nothing is known yet")
	for _, n := range sizes {
		require.LessOrEqual(t, n, mostInCall)
	}
}

// A server that has worked for as long as it has rested needs no further rest.
func TestAServerRestsFromPortionsAsLongAsItWorks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ took, worked, rest time.Duration }{
		"worked all the time":     {3 * time.Millisecond, 3 * time.Millisecond, 3 * time.Millisecond},
		"not known":               {3 * time.Millisecond, -1, 3 * time.Millisecond},
		"its clock was put ahead": {3 * time.Millisecond, time.Hour, 3 * time.Millisecond},
		"in part":                 {3 * time.Millisecond, 2 * time.Millisecond, time.Millisecond},
		"the network took longer": {3 * time.Millisecond, time.Millisecond, 0},
		"shorter than a burst":    {time.Millisecond / 2, time.Millisecond / 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &link{portions: portions{turn: make(chan struct{}, 1)}}
				began := time.Now()
				require.NoError(t, l.portion(t.Context(), func(context.Context) (time.Duration, error) {
					time.Sleep(c.took)
					return c.worked, nil
				}))
				require.Equal(t, c.took+c.rest, time.Since(began))
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		l := &link{portions: portions{turn: make(chan struct{}, 1)}}
		began := time.Now()
		for range 10 {
			require.NoError(t, l.portion(t.Context(), func(context.Context) (time.Duration, error) {
				time.Sleep(300 * time.Microsecond)
				return 300 * time.Microsecond, nil
			}))
		}
		require.GreaterOrEqual(t, time.Since(began), 5400*time.Microsecond, "what is short adds up")
	})
}

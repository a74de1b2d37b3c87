package contract_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// observedAt is a cache on a server, with what its Observer is told.
func observedAt(t *testing.T, addr string) (*aside.Cache, *asidetest.Observers) {
	t.Helper()
	seen := new(asidetest.Observers)
	o := asidetest.At(addr)
	o.Observer = seen.Observer()
	o.OpTimeout = time.Minute // a busy machine is no reason for a fallback
	c := asidetest.Connected(t, o)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		seen.RequirePaired(t)
	})
	return c, seen
}

// tripsIn are the commands of the round trips for an operation.
func tripsIn(seen *asidetest.Observers, id int) (commands []string) {
	for _, trip := range seen.All(aside.OpRedis) {
		if trip.Parent == id {
			commands = append(commands, trip.Op.Command)
		}
	}
	return commands
}

func TestAnObserverIsToldOfReadsInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	key := watched.Key("a")
	asidetest.Stored(t, asidetest.Connected(t, asidetest.At(server.Addr())), key, "v")
	c, seen := observedAt(t, server.Addr())

	ctx := context.WithValue(t.Context(), asidetest.CallerKey{}, "caller")
	_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (string, error) { return "", errors.New("it is in Redis") })
	require.NoError(t, err)
	call := seen.One(t, aside.OpCall)
	require.Equal(t, aside.Op{Kind: aside.OpCall, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 1}, call.Op)
	require.Equal(t, aside.StatusHit, call.End.Status)
	require.Equal(t, aside.TierRedis, call.End.Tier)
	require.Empty(t, call.End.Cause)
	require.Positive(t, call.End.Took)
	require.Positive(t, call.End.Age)
	require.Greater(t, call.End.TTL, 30*time.Minute)
	require.Empty(t, seen.All(aside.OpLoad))

	trips := seen.Ended(aside.OpRedis)
	at := slices.IndexFunc(trips, func(trip asidetest.Observed) bool { return trip.Op.Key == "items:a" })
	require.GreaterOrEqual(t, at, 0)
	read := trips[at]
	require.Equal(t, aside.Op{Kind: aside.OpRedis, Key: "items:a", Keys: read.Op.Keys, Node: server.Addr(), Command: read.Op.Command}, read.Op)
	require.Equal(t, "GETRANGE", strings.TrimPrefix(read.Op.Command, "PIPELINE "))
	require.Equal(t, read.Op.Keys > 1, strings.HasPrefix(read.Op.Command, "PIPELINE "))
	require.Equal(t, call.ID, read.Parent)
	require.Equal(t, "caller", read.Caller)
	require.NoError(t, read.End.Err)
	require.Positive(t, read.End.Took)

	_, err = aside.Get[string](ctx, c, watched.Key("none"))
	require.ErrorIs(t, err, aside.ErrMiss)
	calls := seen.Ended(aside.OpCall)
	require.Len(t, calls, 2)
	require.Equal(t, "items:none", calls[1].Op.Key)
	require.Equal(t, aside.End{Took: calls[1].End.Took, Status: aside.StatusMiss, Cause: aside.CauseAbsent}, calls[1].End, "a miss is no error")
	require.Contains(t, strings.Join(tripsIn(seen, calls[1].ID), "\n"), "GETRANGE")
}

func TestAnObserverIsToldOfFills(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	c, seen := observedAt(t, proxy.Addr())
	key := watched.Key("a")
	asidetest.Stored(t, c, watched.Key("first"), "v")
	seen.Reset(t)

	_, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("a value"))
	require.NoError(t, err)
	fill := seen.One(t, aside.OpFill)
	call := seen.One(t, aside.OpCall)
	require.Equal(t, aside.Op{Kind: aside.OpFill, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 1}, fill.Op)
	require.Equal(t, call.ID, fill.Parent, "the load has ended")
	require.Equal(t, aside.End{Took: fill.End.Took, Bytes: fill.End.Bytes}, fill.End)
	require.Positive(t, fill.End.Took)
	require.Greater(t, fill.End.Bytes, int64(len("a value")))
	require.Contains(t, tripsIn(seen, fill.ID), "PIPELINE", "the script that stores the value, and the read that tracks it")
	require.Equal(t, 2, seen.All(aside.OpRedis)[len(seen.All(aside.OpRedis))-1].Op.Keys)
	seen.Reset(t)

	key = watched.Key("invalidated")
	_, err = aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
		_, err := c.Invalidate(context.Background(), key)
		return "v", err
	})
	require.NoError(t, err)
	fill = seen.One(t, aside.OpFill)
	require.Equal(t, aside.End{Took: fill.End.Took, Cause: aside.CauseInvalidated}, fill.End)
	seen.Reset(t)

	key = watched.Key("refused")
	held := proxy.HoldRequests(func(args []string) bool { return asidetest.IsFill(args, key.String()) })
	_, err = aside.GetOrLoad(t.Context(), c, key, asidetest.Value("v"))
	require.NoError(t, err)
	held.Wait(t)
	proxy.CloseConnections()
	held.Release()
	fill = seen.One(t, aside.OpFill)
	require.Equal(t, aside.CauseUnavailable, fill.End.Cause)
	require.Error(t, fill.End.Err)
	require.Zero(t, fill.End.Bytes)
	failed := slices.ContainsFunc(seen.Ended(aside.OpRedis), func(trip asidetest.Observed) bool { return trip.Parent == fill.ID && trip.End.Err != nil })
	require.True(t, failed, "its round trip has failed")
}

func TestAnObserverIsToldOfASetInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, seen := observedAt(t, server.Addr())
	require.NoError(t, aside.Set(t.Context(), c, watched.Key("a"), "a value"))
	set := seen.One(t, aside.OpSet)
	require.Equal(t, time.Hour, set.End.TTL)
	require.EqualValues(t, c.Metrics().Labels["watched-label"].ValueBytes.Sum, set.End.Bytes)
	require.NotEmpty(t, tripsIn(seen, set.ID))
	server.Kill()
	asidetest.Eventually(t, "the cache notices", func() bool { return c.Health().State == aside.StateDegraded })
	seen.Reset(t)
	require.NoError(t, aside.Set(t.Context(), c, watched.Key("a"), "v"))
	set = seen.One(t, aside.OpSet)
	require.Equal(t, aside.End{Took: set.End.Took, Cause: aside.CauseUnavailable}, set.End, "nothing was stored")
}

// What is sent again, and what is removed in the background, has the context of the invalidation that has caused it.
func TestAnObserverIsToldOfReplaysAndSweeps(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, seen := observedAt(t, server.Addr())
	caller := func(name string) context.Context { return context.WithValue(t.Context(), asidetest.CallerKey{}, name) }
	asidetest.Stored(t, c, watched.Key("a"), "v", aside.WithTags("x"))

	receipt, err := c.InvalidateTags(caller("tags"), "x")
	require.NoError(t, err)
	removed, err := receipt.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	invalidation := seen.One(t, aside.OpInvalidate)
	require.Equal(t, aside.End{Took: invalidation.End.Took}, invalidation.End)
	require.Positive(t, invalidation.End.Took)
	require.NotEmpty(t, tripsIn(seen, invalidation.ID))
	sweep := seen.One(t, aside.OpSweep)
	require.Equal(t, aside.Op{Kind: aside.OpSweep, Keys: 1}, sweep.Op)
	require.Equal(t, invalidation.ID, sweep.Parent)
	require.NoError(t, sweep.End.Err)
	require.NotEmpty(t, tripsIn(seen, sweep.ID))
	seen.Reset(t)

	server.Kill()
	asidetest.Eventually(t, "the cache notices", func() bool { return c.Health().State == aside.StateDegraded })
	receipt, err = c.Invalidate(caller("keys"), watched.Key("a"), watched.Key("b"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	invalidation = seen.One(t, aside.OpInvalidate)
	require.Equal(t, aside.CauseUnavailable, invalidation.End.Cause)
	require.Empty(t, seen.All(aside.OpReplay), "Redis is unavailable")
	server.Restart()
	require.NoError(t, receipt.Wait(t.Context()))
	asidetest.Eventually(t, "a replay has ended", func() bool { return len(seen.Ended(aside.OpReplay)) > 0 })
	replay := seen.Ended(aside.OpReplay)[0]
	require.Equal(t, aside.Op{Kind: aside.OpReplay, Keys: replay.Op.Keys}, replay.Op)
	require.GreaterOrEqual(t, replay.Op.Keys, 2, "these, and what was confirmed before the server was restarted")
	require.Equal(t, "keys", replay.Caller)
	require.Equal(t, invalidation.ID, replay.Parent)
	require.NotEmpty(t, tripsIn(seen, replay.ID))
	last := seen.Ended(aside.OpReplay)
	require.Equal(t, aside.End{Took: last[len(last)-1].End.Took}, last[len(last)-1].End, "all is confirmed")

	asidetest.Eventually(t, "the cache is connected", func() bool { return c.Health().State == aside.StateConnected })
	asidetest.Eventually(t, "nothing is to be sent again", func() bool { return c.Metrics().Journal.Unconfirmed == 0 })
	before := len(seen.All(aside.OpReplay))
	_, err = c.InvalidatePattern(caller("pattern"), watched.Match(aside.Wildcard))
	require.NoError(t, err)
	asidetest.Eventually(t, "a pattern is sent in the background", func() bool {
		return slices.ContainsFunc(seen.Ended(aside.OpReplay)[before:], func(n asidetest.Observed) bool { return n.Caller == "pattern" && n.Op.Keys == 1 })
	})
}

// While Redis refuses an invalidation, each try has the context of what it is for.
func TestAReplayThatFailsIsTriedAgainWithTheSameContext(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	seen := new(asidetest.Observers)
	o := asidetest.At(proxy.Addr())
	o.Observer, o.OpTimeout = seen.Observer(), 50*time.Millisecond
	c := asidetest.Connected(t, o)
	asidetest.Stored(t, c, watched.Key("a"), "v")
	held := proxy.HoldRequests(func(args []string) bool { return asidetest.Evalsha(args, "items:a") })
	_, err := c.Invalidate(context.WithValue(t.Context(), asidetest.CallerKey{}, "keys"), watched.Key("a"))
	require.NoError(t, err)
	asidetest.Eventually(t, "two tries have failed", func() bool {
		failed := slices.DeleteFunc(seen.Ended(aside.OpReplay), func(n asidetest.Observed) bool {
			return n.End.Cause != aside.CauseUnavailable || n.Caller != "keys"
		})
		return len(failed) > 1
	})
	held.Release()
	asidetest.Eventually(t, "it is confirmed", func() bool { return c.Metrics().Journal.Unconfirmed == 0 })
	require.NoError(t, c.Close())
	seen.RequirePaired(t)
}

// A load has its LoadTimeout, and Redis may be slower to take its value.
func TestAFillGoesOnAfterTheTimeOfItsLoad(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	c, seen := observedAt(t, proxy.Addr())
	p := watched
	p.Name, p.LoadTimeout = "brief", 2*time.Second
	key := p.Key("a")
	held := proxy.HoldRequests(func(args []string) bool { return asidetest.IsFill(args, key.String()) })
	began := time.Now()
	_, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("v"))
	require.NoError(t, err)
	held.Wait(t)
	asidetest.Eventually(t, "the time of the load is up", func() bool { return time.Since(began) > p.LoadTimeout+100*time.Millisecond })
	held.Release()
	fill := seen.One(t, aside.OpFill)
	require.NoError(t, fill.End.Err)
	require.Positive(t, fill.End.Bytes)
}

// A call that comes while the value of a load is being stored gets it from that load.
func TestACallThatComesDuringTheFillSharesTheLoad(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	c, seen := observedAt(t, proxy.Addr())
	key := watched.Key("a")
	asidetest.Stored(t, c, watched.Key("first"), "v")
	held := proxy.HoldRequests(func(args []string) bool { return asidetest.IsFill(args, key.String()) })
	_, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("v"))
	require.NoError(t, err)
	held.Wait(t) // the flight that stores the value can be joined
	r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("another"))
	require.NoError(t, err)
	require.Equal(t, "v", r.Value)
	held.Release()
	calls := seen.Ended(aside.OpCall)
	require.Len(t, calls, 2)
	require.Equal(t, seen.One(t, aside.OpLoad).ID, calls[1].Shared, "a value that is being stored is the load's")
	require.Equal(t, aside.StatusMiss, calls[1].End.Status)
}

// A call that has joined a read whose value is too old for it leads a load after that.
func TestACallForWhichASharedReadIsTooOldLeadsItsLoad(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	p := aside.Policy{Name: "past", Category: "items", TTL: 10 * time.Millisecond, Stale: time.Hour}
	key := p.Key("a")
	asidetest.Stored(t, asidetest.Connected(t, asidetest.At(proxy.Addr())), key, "old")
	c, seen := observedAt(t, proxy.Addr())
	stored := time.Now()
	asidetest.Eventually(t, "its TTL is over", func() bool { return time.Since(stored) > 50*time.Millisecond })
	held := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == key.String() })
	first := make(chan aside.Result[string], 1)
	go func() {
		r, _ := aside.Lookup(context.Background(), c, key, func(context.Context) (string, error) { return "", errors.New("no refresh") })
		first <- r
	}()
	held.Wait(t)
	second := make(chan aside.Result[string], 1)
	go func() {
		r, _ := aside.Lookup(context.Background(), c, key, asidetest.Value("new"), aside.MaxStale(0))
		second <- r
	}()
	asidetest.Eventually(t, "both wait", func() bool { return len(seen.All(aside.OpCall)) == 2 })
	held.Release()
	require.Equal(t, "old", (<-first).Value)
	r := <-second
	require.Equal(t, "new", r.Value)
	require.Equal(t, aside.StatusMiss, r.Status)
	require.False(t, r.Shared)
	require.NotContains(t, r.Reason, aside.ReasonSharedLoad)
	require.Zero(t, seen.Ended(aside.OpCall)[1].Shared)
}

package contract_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestRecentHasTheInvalidations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{Policies: []aside.Policy{asidetest.Keyed}})
		a, b := asidetest.Keyed.Key("a"), asidetest.Keyed.Key("b")
		require.NoError(t, aside.Set(t.Context(), c, a, "v"))
		ctx := aside.WithActor(t.Context(), "deploy")
		for _, call := range []func() (aside.Receipt, error){
			func() (aside.Receipt, error) { return c.Invalidate(ctx, a, b) },
			func() (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "y", "x") },
			func() (aside.Receipt, error) { return c.InvalidateCategory(ctx, asidetest.Keyed.Category) },
			func() (aside.Receipt, error) {
				return c.InvalidatePattern(t.Context(), asidetest.Keyed.Match("x", aside.Wildcard))
			},
			func() (aside.Receipt, error) { return c.InvalidateAll(ctx) },
		} {
			time.Sleep(time.Second)
			_, err := call()
			require.NoError(t, err)
		}
		for _, none := range []func() (aside.Receipt, error){
			func() (aside.Receipt, error) { return c.Invalidate(ctx) },
			func() (aside.Receipt, error) { return c.InvalidateTags(ctx) },
		} {
			_, err := none()
			require.NoError(t, err)
		}
		_, err := c.Invalidate(ctx, aside.Key{})
		require.Error(t, err)

		now := time.Now()
		at := func(before int) time.Time { return now.Add(-time.Duration(before) * time.Second) }
		require.Equal(t, []aside.RecentInvalidation{
			{At: at(4), Kind: "keys", Names: []string{a.String(), b.String()}, Count: 2, Removed: 1, Confirmed: true, Actor: "deploy"},
			{At: at(3), Kind: "tags", Names: []string{"y", "x"}, Count: 2, Confirmed: true},
			{At: at(2), Kind: "category", Names: []string{asidetest.Keyed.Category}, Count: 1, Confirmed: true, Actor: "deploy"},
			{At: at(1), Kind: "pattern", Names: []string{asidetest.Keyed.Match("x", aside.Wildcard).String()}, Count: 1, Confirmed: true},
			{At: at(0), Kind: "all", Names: []string{}, Confirmed: true, Actor: "deploy"},
		}, c.Recent().Invalidations)
	})
}

func TestRecentSaysWhatRedisHasNotConfirmed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Keyed.Key("a")
	asidetest.Stored(t, c, key, "v")
	_, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	_, err = c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	events := c.Recent().Invalidations
	require.Len(t, events, 2)
	require.True(t, events[0].Confirmed)
	require.EqualValues(t, 1, events[0].Removed)
	require.Positive(t, events[0].Took)
	require.False(t, events[1].Confirmed)
}

func TestRecentHasTheChangesOfState(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	began := time.Now()
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	states := func() (all []aside.State) {
		for _, s := range c.Recent().States {
			require.False(t, s.At.Before(began))
			require.Equal(t, s.State == aside.StateDegraded, s.Reason != "")
			all = append(all, s.State)
		}
		return all
	}
	last := func(is aside.State) func() bool {
		return func() bool { all := states(); return len(all) > 0 && all[len(all)-1] == is }
	}
	asidetest.Eventually(t, "it is connected", last(aside.StateConnected))
	first := len(states()) - 1 // a busy machine may have tried more than once
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", last(aside.StateDegraded))
	server.Restart()
	asidetest.Eventually(t, "it is connected again", last(aside.StateConnected))
	all := states()[first:]
	require.Equal(t, aside.StateConnected, all[0])
	require.Equal(t, aside.StateDegraded, all[1])
	require.Empty(t, asidetest.NewCache(t, aside.Options{}).Recent().States, "the state of memory mode does not change")
}

func TestRecentHasTheFailedLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{LoadGrace: -1})
		p := aside.Policy{Name: "failing", Category: "f", TTL: time.Hour, LoadTimeout: time.Minute}
		var want []aside.FailedLoad
		fails := func(id string, outcome aside.Outcome, took time.Duration, text string, load func(context.Context) (string, error)) {
			t.Helper()
			_, err := aside.GetOrLoad(t.Context(), c, p.Key(id), load)
			require.Error(t, err)
			synctest.Wait()
			if outcome != "" {
				want = append(want, aside.FailedLoad{At: time.Now(), Policy: "failing", Key: "f:" + id, Count: 1, Outcome: outcome, Took: took, Error: text})
			}
			got := c.Recent().FailedLoads
			require.Len(t, got, len(want))
			for i := range got { // the cache's clock is coarse
				require.InDelta(t, want[i].Took, got[i].Took, float64(10*time.Millisecond))
				got[i].Took = want[i].Took
			}
			require.Equal(t, want, got)
		}
		fails("a", aside.OutcomeError, time.Second, "the source is away", func(context.Context) (string, error) {
			time.Sleep(time.Second)
			return "", errors.New("the source is away")
		})
		fails("b", "", 0, "", func(context.Context) (string, error) { return "", aside.ErrNotFound })
		fails("c", aside.OutcomePanic, 0, "loader panicked: oops", func(context.Context) (string, error) { panic("oops") })
		fails("d", aside.OutcomeError, 0, strings.Repeat("x", 1<<10)+"…", func(context.Context) (string, error) {
			return "", errors.New(strings.Repeat("x", 1<<20))
		})
		timedOut := "load timed out"
		fails("e", aside.OutcomeTimeout, time.Minute, timedOut, func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
		hangs := make(chan struct{}) // noted when its time is up, and not a second time when it returns
		fails("f", aside.OutcomeTimeout, time.Minute, timedOut, func(context.Context) (string, error) { <-hangs; return "", errors.New("late") })
		close(hangs)
		synctest.Wait()
		require.Len(t, c.Recent().FailedLoads, len(want))

		left, leave := context.WithCancel(t.Context())
		_, err := aside.GetOrLoad(left, c, p.Key("g"), func(ctx context.Context) (string, error) {
			leave()
			<-ctx.Done()
			return "", ctx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		require.Len(t, c.Recent().FailedLoads, len(want), "nobody waited for it")

		_, err = aside.GetOrLoadMany(t.Context(), c, []string{"h", "i", "j", "k"}, func(id string) aside.Key { return p.Key(id) },
			func(context.Context, []string) (map[string]string, error) {
				return map[string]string{"h": "v"}, &aside.BatchError[string]{Errors: map[string]error{"i": asidetest.ErrLoader, "j": asidetest.ErrLoader}}
			})
		require.Error(t, err)
		batch := c.Recent().FailedLoads
		require.Len(t, batch, len(want)+1, "a batch is one loader call")
		require.Equal(t, "f:i", batch[len(want)].Key)
		require.Equal(t, 2, batch[len(want)].Count)
		require.Equal(t, asidetest.ErrLoader.Error(), batch[len(want)].Error)
	})
}

func TestRecentHasTheInconsistentValues(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{ConsistencyCheck: everyHit}, func(t *testing.T, c *aside.Cache) {
		src := &mutable[string]{value: "old"}
		key := asidetest.Items.Key("a")
		get(t, c, key, src.load)
		get(t, c, key, src.load)
		synctest.Wait()
		require.Empty(t, c.Recent().Inconsistent, "it is right")
		src.set("new", nil)
		for range 3 {
			get(t, c, key, src.load)
		}
		time.Sleep(everyHit.SettleTime)
		synctest.Wait()
		found := c.Recent().Inconsistent
		require.Len(t, found, 3, "the log has one line in ten seconds")
		require.Equal(t, aside.InconsistentValue{At: time.Now(), Policy: "items", Key: "items:a", Age: found[0].Age}, found[0])
		require.InDelta(t, everyHit.SettleTime, found[0].Age, float64(10*time.Millisecond))
	})
}

// Whatever a program does, the events take no more than a few hundred kilobytes.
func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	long := strings.Repeat("x", 100_000)
	keys := make([]aside.Key, 20)
	for i := range keys {
		keys[i] = asidetest.Keyed.Key(i, long)
	}
	ctx := aside.WithActor(t.Context(), long)
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for range 100 {
				_, err := c.Invalidate(ctx, keys...)
				require.NoError(t, err)
				_, err = aside.GetOrLoad(ctx, c, keys[0], func(context.Context) (string, error) { return "", errors.New(long) })
				require.Error(t, err)
				c.Recent()
			}
		})
	}
	others.Wait()
	events := c.Recent()
	require.Len(t, events.Invalidations, 128)
	require.Len(t, events.FailedLoads, 128)
	const ellipsis = len("…")
	for _, e := range events.Invalidations {
		require.Len(t, e.Names, 10)
		require.Equal(t, 20, e.Count)
		require.Len(t, e.Names[9], 512+ellipsis)
		require.Len(t, e.Actor, 128+ellipsis)
	}
	for _, e := range events.FailedLoads {
		require.Len(t, e.Key, 512+ellipsis)
		require.Len(t, e.Error, 1024+ellipsis)
	}
}

func TestRecentInJSON(t *testing.T) {
	t.Parallel()
	const none = `{"states":[],"invalidations":[],"failedLoads":[],"slowLoads":[],"inconsistent":[]}`
	for _, c := range []*aside.Cache{nil, new(aside.Cache)} {
		text, err := json.Marshal(c.Recent())
		require.NoError(t, err)
		require.JSONEq(t, none, string(text))
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const when = `"at":"2026-01-02T03:04:05Z"`
	text, err := json.Marshal(aside.Recent{
		States:        []aside.StateChange{{At: at, State: aside.StateConnected}, {At: at, State: aside.StateDegraded, Reason: "why"}},
		Invalidations: []aside.RecentInvalidation{{At: at, Kind: "keys", Names: []string{"a:1"}, Count: 1, Removed: 2, Confirmed: true, Took: 1500 * time.Millisecond, Actor: "who"}},
		FailedLoads:   []aside.FailedLoad{{At: at, Policy: "p", Key: "a:1", Count: 1, Outcome: aside.OutcomeError, Took: time.Second, Error: "text"}},
		SlowLoads:     []aside.SlowLoad{{At: at, Policy: "p", Key: "a:1", Count: 2, Outcome: aside.OutcomeOK, Took: 2 * time.Second}},
		Inconsistent:  []aside.InconsistentValue{{At: at, Policy: "p", Key: "a:1", Age: time.Minute}},
	})
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{
		"states":[{%[1]s,"state":"connected"},{%[1]s,"state":"degraded","reason":"why"}],
		"invalidations":[{%[1]s,"kind":"keys","names":["a:1"],"count":1,"removed":2,"confirmed":true,"tookSeconds":1.5,"actor":"who"}],
		"failedLoads":[{%[1]s,"policy":"p","key":"a:1","count":1,"outcome":"error","tookSeconds":1,"error":"text"}],
		"slowLoads":[{%[1]s,"policy":"p","key":"a:1","count":2,"outcome":"ok","tookSeconds":2}],
		"inconsistent":[{%[1]s,"policy":"p","key":"a:1","ageSeconds":60}]}`, when), string(text))
}

// A context of the program's own may panic in Value.
func TestAnActorOfAHostileContextIsNone(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	_, err := c.Invalidate(withoutValues{t.Context()}, asidetest.Keyed.Key("a"))
	require.NoError(t, err)
	require.Empty(t, c.Recent().Invalidations[0].Actor)
}

type withoutValues struct{ context.Context }

func (withoutValues) Value(any) any { panic("oops") }

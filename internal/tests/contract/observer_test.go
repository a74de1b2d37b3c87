package contract_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// watched has a label of its own, and strategies for refreshes.
var watched = aside.Policy{Name: "watched-name", Category: "items", Label: "watched-label", TTL: time.Hour}

func observedBubble(t *testing.T, o aside.Options, test func(t *testing.T, c *aside.Cache, seen *asidetest.Observers)) {
	t.Helper()
	var seen asidetest.Observers
	share := o.Observer.MemoryHits
	o.Observer = seen.Observer()
	o.Observer.MemoryHits = share
	if o.Logger == nil {
		o.Logger = asidetest.Quiet()
	}
	asidetest.InBubble(t, o, func(t *testing.T, c *aside.Cache) {
		test(t, c, &seen)
		synctest.Wait()
		seen.RequirePaired(t)
	})
}

func TestAnObserverIsToldOfACallAndItsLoad(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		key := watched.Key("a")
		ctx := context.WithValue(t.Context(), asidetest.CallerKey{}, "caller")
		load := func(ctx context.Context) (string, error) {
			require.Equal(t, 2, asidetest.ObservedIn(ctx), "the loader runs on the context of its load")
			require.Equal(t, "caller", ctx.Value(asidetest.CallerKey{}))
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, time.Minute, time.Until(deadline))
			time.Sleep(3 * time.Second)
			return "v", nil
		}
		_, err := aside.GetOrLoad(ctx, c, key, load)
		require.NoError(t, err)
		for range 3 {
			_, err = aside.GetOrLoad(ctx, c, key, load)
			require.NoError(t, err)
			_, err = aside.Lookup(ctx, c, key, load)
			require.NoError(t, err)
			_, err = aside.Get[string](ctx, c, key)
			require.NoError(t, err)
			_, err = aside.GetOrLoadMany(ctx, c, []string{"a"}, func(id string) aside.Key { return watched.Key(id) }, func(context.Context, []string) (map[string]string, error) { return nil, nil })
			require.NoError(t, err)
		}
		all := seen.All()
		require.Len(t, all, 2, "of a hit in memory nobody is told")
		require.Equal(t, asidetest.Observed{
			ID: 1, Caller: "caller", Ended: true,
			Op:  aside.Op{Kind: aside.OpCall, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 1},
			End: aside.End{Took: 3 * time.Second, Age: 3 * time.Second, TTL: time.Hour - 3*time.Second, Status: aside.StatusMiss, Tier: aside.TierOrigin, Cause: aside.CauseAbsent},
		}, all[0])
		require.Equal(t, asidetest.Observed{
			ID: 2, Parent: 1, Caller: "caller", Ended: true,
			Op:  aside.Op{Kind: aside.OpLoad, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 1},
			End: aside.End{Took: 3 * time.Second, Outcome: aside.OutcomeOK, Waiters: 1},
		}, all[1])
	})
}

func TestCallsThatShareALoadAreToldOfItsContext(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		var calls sync.WaitGroup
		start := func() {
			calls.Go(func() {
				_, err := aside.GetOrLoad(t.Context(), c, watched.Key("a"), func(context.Context) (string, error) {
					time.Sleep(time.Second)
					return "v", nil
				})
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		start()
		start()
		start()
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := aside.GetOrLoad(impatient, c, watched.Key("a"), asidetest.Value("never"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		calls.Wait()
		load := seen.One(t, aside.OpLoad)
		require.Equal(t, 3, load.End.Waiters, "one has left before its end")
		of := seen.Ended(aside.OpCall)
		require.Len(t, of, 4)
		require.Equal(t, of[0].ID, load.Parent)
		require.Zero(t, of[0].Shared, "its own load")
		for _, call := range of[1:] {
			require.Equal(t, load.ID, call.Shared)
		}
		require.ErrorIs(t, of[3].End.Err, context.DeadlineExceeded)
	})
}

// A call that does not wait for the end of the load that it has joined can link to that load all the same: it shows why the value was stale.
func TestACallThatLeavesASlowLoadIsToldOfItsContext(t *testing.T) {
	t.Parallel()
	p := watched
	p.TTL, p.StaleIfError, p.SoftTimeout = time.Minute, time.Hour, time.Second
	observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		get(t, c, p.Key("a"), asidetest.Value("v"))
		seen.Reset(t)
		time.Sleep(2 * time.Minute)
		slow := func(context.Context) (string, error) { time.Sleep(10 * time.Second); return "v", nil }
		var first sync.WaitGroup
		first.Go(func() { get(t, c, p.Key("a"), slow) })
		synctest.Wait()
		get(t, c, p.Key("a"), slow)
		first.Wait()
		synctest.Wait()
		time.Sleep(time.Minute)
		calls, load := seen.Ended(aside.OpCall), seen.One(t, aside.OpLoad)
		require.Len(t, calls, 2)
		require.Equal(t, aside.StatusStale, calls[1].End.Status)
		require.Equal(t, load.ID, calls[1].Shared)
		require.Zero(t, load.End.Waiters, "both have left")
	})
}

func TestACallThatLeadsItsLoadAfterItJoinedAnOutdatedOneSharesNone(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		loads := 0
		tagged := func(ctx context.Context) (string, error) {
			loads++
			time.Sleep(time.Second)
			aside.CurrentLoad(ctx).Tag("x")
			return "v", nil
		}
		var calls sync.WaitGroup
		calls.Go(func() { _, _ = aside.GetOrLoad(t.Context(), c, watched.Key("a"), tagged) })
		synctest.Wait()
		_, err := c.InvalidateTags(t.Context(), "x")
		require.NoError(t, err)
		r, err := aside.Lookup(t.Context(), c, watched.Key("a"), tagged)
		require.NoError(t, err)
		calls.Wait()
		require.Equal(t, 2, loads)
		require.False(t, r.Shared)
		require.Equal(t, aside.ReasonNotCached, r.Reason)
		require.Zero(t, seen.Ended(aside.OpCall)[1].Shared)
	})
}

// A caller's context may end the goroutine that looks at it, and the loader's is one.
func TestALoadWhoseCallersContextEndsItsGoroutineHasAnOutcome(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		var caller sync.WaitGroup
		caller.Go(func() {
			_, _ = aside.GetOrLoad(quitting{t.Context()}, c, watched.Key("a"), func(context.Context) (string, error) { return "", errors.New("boom") })
		})
		caller.Wait()
		synctest.Wait()
		m := c.Metrics().Labels["watched-label"]
		require.EqualValues(t, 1, m.Loads)
		require.EqualValues(t, 1, m.Outcomes[aside.OutcomePanic])
		load := seen.One(t, aside.OpLoad)
		require.Equal(t, aside.OutcomePanic, load.End.Outcome)
		require.ErrorIs(t, load.End.Err, &aside.Error{Code: aside.CodeLoaderExit})
	})
}

// A call may find in memory what another one has just loaded. It is told as the call that went on, and not as a hit too.
func TestACallIsToldOnce(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{Observer: aside.Observer{MemoryHits: 1}}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		for _, opts := range [][]aside.CallOption{nil, {aside.Refresh()}} {
			_, err := aside.Lookup(t.Context(), c, watched.Key("a"), asidetest.Value("v"), opts...)
			require.NoError(t, err)
			seen.One(t, aside.OpCall)
			seen.Reset(t)
		}
	})
}

func TestAnObserverIsToldHowCallsAndLoadsFail(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	gone := fmt.Errorf("no such thing: %w", aside.ErrNotFound)
	p := watched
	p.LoadTimeout, p.LoadGrace = 10*time.Second, -1
	for name, test := range map[string]struct {
		load    func(context.Context) (string, error)
		outcome aside.Outcome
		loadErr error // of the load
		callErr error // of the call; nil: as loadErr
	}{
		"an error":      {func(context.Context) (string, error) { return "", boom }, aside.OutcomeError, boom, nil},
		"not found":     {func(context.Context) (string, error) { return "", aside.ErrNotFound }, aside.OutcomeNotFound, aside.ErrNotFound, nil},
		"a wrapped one": {func(context.Context) (string, error) { return "", gone }, aside.OutcomeNotFound, gone, nil},
		"a panic":       {func(context.Context) (string, error) { panic(boom) }, aside.OutcomePanic, &aside.Error{Code: aside.CodeLoaderPanic}, nil},
		"Goexit":        {func(context.Context) (string, error) { runtime.Goexit(); return "", nil }, aside.OutcomePanic, &aside.Error{Code: aside.CodeLoaderExit}, nil},
		"a timeout": {func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() },
			aside.OutcomeTimeout, &aside.Error{Code: aside.CodeLoadTimeout}, nil},
		"one that is ignored": {func(context.Context) (string, error) { time.Sleep(time.Hour); return "v", nil },
			aside.OutcomeTimeout, &aside.Error{Code: aside.CodeLoadTimeout}, nil},
		"a cancellation": {func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() },
			aside.OutcomeCanceled, context.Canceled, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if name == "a cancellation" {
					time.AfterFunc(time.Second, cancel)
				}
				_, err := aside.GetOrLoad(ctx, c, p.Key("a"), test.load)
				synctest.Wait()
				load, call := seen.One(t, aside.OpLoad), seen.One(t, aside.OpCall)
				require.Equal(t, test.outcome, load.End.Outcome)
				require.ErrorIs(t, load.End.Err, test.loadErr)
				if test.callErr == nil {
					test.callErr = test.loadErr
				}
				require.ErrorIs(t, call.End.Err, test.callErr)
				require.Equal(t, fmt.Sprintf("%p", err), fmt.Sprintf("%p", call.End.Err), "the very error that the call has returned")
				require.Equal(t, aside.CauseAbsent, call.End.Cause)
				if !errors.Is(err, aside.ErrNotFound) {
					require.Empty(t, call.End.Status)
					require.Empty(t, call.End.Tier)
				}
				if test.outcome == aside.OutcomeTimeout {
					require.Equal(t, 10*time.Second, load.End.Took)
				}
				time.Sleep(2 * time.Hour) // a loader that ignores its context returns
			})
		})
	}
}

func TestABatchEndsAsTheWorstOfItsKeys(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	many := func(ctx context.Context, c *aside.Cache, ids ...string) error {
		_, err := aside.GetOrLoadMany(ctx, c, ids, func(id string) aside.Key { return watched.Key(id) }, func(_ context.Context, ids []string) (map[string]string, error) {
			time.Sleep(time.Second)
			values, failed := make(map[string]string), make(map[string]error)
			for _, id := range ids {
				if values[id] = id; strings.HasPrefix(id, "failing") {
					delete(values, id)
					failed[id] = boom
				}
			}
			if len(failed) == 0 {
				return values, nil
			}
			return values, &aside.BatchError[string]{Errors: failed}
		})
		return err
	}
	observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		require.NoError(t, many(t.Context(), c, "a", "b"))
		batch := seen.One(t, aside.OpBatch)
		require.Equal(t, aside.Op{Kind: aside.OpBatch, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 2}, batch.Op)
		require.Equal(t, aside.End{
			Took: time.Second, Age: time.Second, TTL: time.Hour - time.Second, Status: aside.StatusMiss, Tier: aside.TierOrigin, Cause: aside.CauseAbsent,
		}, batch.End)
		load := seen.One(t, aside.OpLoad)
		require.Equal(t, batch.ID, load.Parent)
		require.Equal(t, 2, load.Op.Keys)
		require.Equal(t, 2, load.End.Waiters)
		require.Len(t, seen.All(), 2)
		seen.Reset(t)

		require.Error(t, many(t.Context(), c, "a", "c", "failing"), "memory has the first one")
		batch = seen.One(t, aside.OpBatch)
		require.Equal(t, "items:c", batch.Op.Key)
		require.Equal(t, 2, batch.Op.Keys)
		require.ErrorIs(t, batch.End.Err, boom)
		require.Empty(t, batch.End.Status)
		require.Equal(t, aside.OutcomeError, seen.One(t, aside.OpLoad).End.Outcome)
		seen.Reset(t)

		var leader sync.WaitGroup
		leader.Go(func() { require.NoError(t, many(t.Context(), c, "d")) })
		synctest.Wait()
		require.NoError(t, many(t.Context(), c, "d", "e"))
		leader.Wait()
		batches, loads := seen.Ended(aside.OpBatch), seen.Ended(aside.OpLoad)
		require.Equal(t, loads[0].ID, batches[1].Shared, "of d; e has a load of its own")
		require.Equal(t, batches[1].ID, loads[1].Parent)
	})
}

// A batch whose goroutine ends in a codec has an end too.
func TestABatchThatDoesNotReturnHasEnded(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		var caller sync.WaitGroup
		caller.Go(func() {
			_, _ = aside.GetOrLoadMany(quitting{t.Context()}, c, []string{"a", "b"}, func(id string) aside.Key { return watched.Key(id) },
				func(_ context.Context, ids []string) (map[string]string, error) { return nil, nil })
		})
		caller.Wait()
		require.Error(t, seen.One(t, aside.OpBatch).End.Err)
		caller.Go(func() { _, _ = aside.GetOrLoad(quitting{t.Context()}, c, watched.Key("c"), asidetest.Value("v")) })
		caller.Wait()
		require.Error(t, seen.One(t, aside.OpCall).End.Err)
	})
}

// A quitting context ends the goroutine that waits for its end.
type quitting struct{ context.Context }

func (quitting) Done() <-chan struct{} { runtime.Goexit(); return nil }

func TestAnObserverIsToldOfARefresh(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	p := watched
	p.TTL, p.Stale = time.Minute, time.Hour
	observedBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		var fails error
		load := func(ctx context.Context) (string, error) { return "v", fails }
		_, err := aside.GetOrLoad(t.Context(), c, p.Key("a"), load)
		require.NoError(t, err)
		seen.Reset(t)
		for _, fails = range []error{boom, nil} {
			time.Sleep(2 * time.Minute)
			ctx := context.WithValue(t.Context(), asidetest.CallerKey{}, "caller")
			_, err = aside.GetOrLoad(ctx, c, p.Key("a"), load)
			require.NoError(t, err)
			synctest.Wait()
			refresh, loaded := seen.One(t, aside.OpRefresh), seen.One(t, aside.OpLoad)
			require.Equal(t, aside.Op{Kind: aside.OpRefresh, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 1}, refresh.Op)
			require.Equal(t, "caller", refresh.Caller)
			require.Equal(t, fails, refresh.End.Err)
			require.Equal(t, refresh.ID, loaded.Parent)
			require.Zero(t, loaded.End.Waiters)
			require.Empty(t, seen.All(aside.OpCall), "memory has answered")
			seen.Reset(t)
		}
	})
}

func TestAnObserverIsToldOfACheck(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{ConsistencyCheck: everyHit}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		value := "v"
		var in []int
		load := func(ctx context.Context) (string, error) {
			in = append(in, asidetest.ObservedIn(ctx))
			return value, nil
		}
		get(t, c, watched.Key("a"), load)
		seen.Reset(t)
		in = nil
		ctx := context.WithValue(t.Context(), asidetest.CallerKey{}, "caller")
		hit := func() {
			_, err := aside.GetOrLoad(ctx, c, watched.Key("a"), load)
			require.NoError(t, err)
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		hit()
		check := seen.One(t, aside.OpCheck)
		require.Equal(t, aside.Op{Kind: aside.OpCheck, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 1}, check.Op)
		require.Equal(t, "caller", check.Caller)
		require.NoError(t, check.End.Err)
		require.Equal(t, []int{check.ID}, in, "the loader runs on the context of the check")
		require.Len(t, seen.All(), 1, "a check's loader call is no load, and a hit is not told")
		seen.Reset(t)
		value = "other"
		hit()
		check = seen.One(t, aside.OpCheck)
		require.ErrorContains(t, check.End.Err, "different")
		require.Equal(t, everyHit.SettleTime, check.End.Took)
		seen.Reset(t)
		value = "v"
		_, err := aside.GetOrLoad(ctx, c, watched.Key("a"), load)
		require.NoError(t, err)
		_, err = c.Invalidate(ctx, watched.Key("a"))
		require.NoError(t, err)
		synctest.Wait()
		if check := seen.One(t, aside.OpCheck); check.End.Err != nil {
			require.ErrorContains(t, check.End.Err, "no longer cached")
		}
	})
}

func TestAnObserverIsToldOfASetInMemory(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{MaxValueBytes: 1000}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		require.NoError(t, aside.Set(t.Context(), c, watched.Key("a"), "v", aside.WithTTL(time.Minute)))
		set := seen.One(t, aside.OpSet)
		require.Equal(t, aside.Op{Kind: aside.OpSet, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 1}, set.Op)
		require.Equal(t, time.Minute, set.End.TTL)
		require.EqualValues(t, c.Metrics().Labels["watched-label"].ValueBytes.Sum, set.End.Bytes)
		require.Positive(t, set.End.Bytes)
		seen.Reset(t)
		err := aside.Set(t.Context(), c, watched.Key("a"), strings.Repeat("v", 2000))
		require.Error(t, err)
		require.Equal(t, err, seen.One(t, aside.OpSet).End.Err)
		require.Zero(t, seen.One(t, aside.OpSet).End.TTL)
	})
}

func TestAnObserverIsToldOfInvalidations(t *testing.T) {
	t.Parallel()
	observedBubble(t, aside.Options{Namespace: "shop"}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		get(t, c, watched.Key("a"), asidetest.Value("v"))
		require.Equal(t, "shop%:items:a", seen.One(t, aside.OpLoad).Op.Key, "the key as in Redis")
		for _, test := range []struct {
			call func() error
			op   aside.Op
		}{
			{func() error { _, err := c.Invalidate(t.Context(), watched.Key("a"), watched.Key("b")); return err },
				aside.Op{Command: "keys", Key: "shop%:items:a", Keys: 2, Policy: "watched-name", Label: "watched-label"}},
			{func() error { _, err := c.InvalidateTags(t.Context(), "x", "y"); return err }, aside.Op{Command: "tags", Key: "x", Keys: 2}},
			{func() error { _, err := c.InvalidateCategory(t.Context(), "items"); return err }, aside.Op{Command: "category", Key: "items", Keys: 1}},
			{func() error { _, err := c.InvalidatePattern(t.Context(), watched.Match(aside.Wildcard)); return err }, aside.Op{Command: "pattern", Key: "items:*", Keys: 1}},
			{func() error { _, err := c.InvalidateAll(t.Context()); return err }, aside.Op{Command: "all"}},
		} {
			seen.Reset(t)
			require.NoError(t, test.call())
			test.op.Kind = aside.OpInvalidate
			got := seen.One(t, aside.OpInvalidate)
			require.Equal(t, test.op, got.Op)
			require.Equal(t, aside.End{}, got.End, "it takes no time here")
		}
		seen.Reset(t)
		_, err := c.Invalidate(t.Context())
		require.NoError(t, err)
		require.Empty(t, seen.All(), "of nothing")
	})
}

// A hit in memory is told with its age and TTL, and is not timed.
func TestAShareOfTheHitsInMemoryIsTold(t *testing.T) {
	t.Parallel()
	p := watched
	p.Stale = time.Hour
	observedBubble(t, aside.Options{Observer: aside.Observer{MemoryHits: 1}}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
		loader := aside.NewLoader(c, p, func(context.Context, string) (string, error) { return "v", nil })
		load := asidetest.Value("v")
		_, err := loader.Get(t.Context(), "a")
		require.NoError(t, err)
		_, err = aside.GetOrLoad(t.Context(), c, p.Key("none"), func(context.Context) (string, error) { return "", aside.ErrNotFound })
		require.ErrorIs(t, err, aside.ErrNotFound)
		time.Sleep(time.Second)
		for name, hit := range map[string]func(ctx context.Context) error{
			"GetOrLoad":     func(ctx context.Context) error { _, err := aside.GetOrLoad(ctx, c, p.Key("a"), load); return err },
			"Loader.Get":    func(ctx context.Context) error { _, err := loader.Get(ctx, "a"); return err },
			"Lookup":        func(ctx context.Context) error { _, err := aside.Lookup(ctx, c, p.Key("a"), load); return err },
			"GetOrLoadMany": func(ctx context.Context) error { _, err := loader.GetMany(ctx, []string{"a"}); return err },
		} {
			seen.Reset(t)
			require.NoError(t, hit(context.WithValue(t.Context(), asidetest.CallerKey{}, name)))
			got := seen.One(t, aside.OpCall)
			require.Equal(t, asidetest.Observed{
				ID: got.ID, Caller: name, Ended: true,
				Op:  aside.Op{Kind: aside.OpCall, Policy: "watched-name", Label: "watched-label", Key: "items:a", Keys: 1},
				End: aside.End{Age: time.Second, TTL: time.Hour - time.Second, Status: aside.StatusHit, Tier: aside.TierMemory},
			}, got, name)
			require.Len(t, seen.All(), 1)
		}
		seen.Reset(t)
		//lint:ignore SA1012 a hit in memory accepts that
		_, err = aside.GetOrLoad(nil, c, p.Key("a"), load)
		require.NoError(t, err)
		require.Equal(t, aside.TierMemory, seen.One(t, aside.OpCall).End.Tier)
		seen.Reset(t)
		_, err = aside.GetOrLoad(t.Context(), c, p.Key("none"), load)
		require.ErrorIs(t, err, aside.ErrNotFound)
		require.ErrorIs(t, seen.One(t, aside.OpCall).End.Err, aside.ErrNotFound)
		require.Equal(t, aside.TierMemory, seen.One(t, aside.OpCall).End.Tier)
		seen.Reset(t)
		time.Sleep(time.Hour)
		_, err = aside.GetOrLoad(t.Context(), c, p.Key("a"), load)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, aside.StatusStale, seen.One(t, aside.OpCall).End.Status)
	})
}

// Both draws have their own share, whichever is the larger one.
func TestHitsAreToldAndCheckedByTheirOwnShares(t *testing.T) {
	t.Parallel()
	for _, shares := range [][2]float64{{0.3, 0}, {0.3, 0.1}, {0.1, 0.3}, {0.2, 0.2}} {
		check := aside.ConsistencyCheck{SampleRate: shares[1], MaxPerSecond: -1}
		observedBubble(t, aside.Options{Observer: aside.Observer{MemoryHits: shares[0]}, ConsistencyCheck: check}, func(t *testing.T, c *aside.Cache, seen *asidetest.Observers) {
			const hits = 3_000
			get(t, c, watched.Key("a"), asidetest.Value("v"))
			for range hits {
				get(t, c, watched.Key("a"), asidetest.Value("v"))
				synctest.Wait() // the check
			}
			told := 0
			for _, call := range seen.Ended(aside.OpCall) {
				if call.End.Tier == aside.TierMemory {
					told++
				}
			}
			require.InDelta(t, shares[0]*hits, told, 0.05*hits, "%v", shares)
			require.InDelta(t, shares[1]*hits, len(seen.Ended(aside.OpCheck)), 0.05*hits, "%v", shares)
			m := c.Metrics().Labels["watched-label"]
			require.EqualValues(t, len(seen.Ended(aside.OpCheck)), m.Checked)
			require.EqualValues(t, hits, m.Hits)
			require.Zero(t, m.Unchecked, "a hit that is told only is no sample")
		})
	}
}

// A panic of the program's functions, and any context that they return, changes nothing.
func TestAnObserverThatMisbehavesChangesNothing(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(context.Background())
	end()
	for name, begin := range map[string]func(context.Context, aside.Op) context.Context{
		"panics":             func(context.Context, aside.Op) context.Context { panic("a panic of Begin") },
		"returns nothing":    func(context.Context, aside.Op) context.Context { return nil },
		"returns another":    func(context.Context, aside.Op) context.Context { return context.Background() },
		"returns an ended":   func(context.Context, aside.Op) context.Context { return ended },
		"returns an odd one": func(ctx context.Context, _ aside.Op) context.Context { return uncomparable{ctx, nil} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log asidetest.Logbook
			ends := new(atomic.Int64)
			o := aside.Options{Logger: log.Logger(), ConsistencyCheck: everyHit, Observer: aside.Observer{
				Begin: begin, MemoryHits: 1, End: func(context.Context, aside.Op, aside.End) { ends.Add(1); panic(errPanics) },
			}}
			asidetest.InBubble(t, o, func(t *testing.T, c *aside.Cache) {
				p := watched
				p.Stale = time.Hour
				p.LoadTimeout = time.Minute
				for range 3 {
					require.Equal(t, "v", get(t, c, p.Key("a"), asidetest.Value("v")))
					time.Sleep(time.Minute)
				}
				require.Equal(t, [3]uint64{2, 0, 0}, [3]uint64{c.Metrics().Labels["watched-label"].Checked})
				time.Sleep(time.Hour)
				require.Equal(t, "v", get(t, c, p.Key("a"), asidetest.Value("new")))
				synctest.Wait()
				require.Equal(t, "new", get(t, c, p.Key("a"), asidetest.Value("v")))
				require.NoError(t, aside.Set(t.Context(), c, p.Key("a"), "set"))
				receipt, err := c.Invalidate(t.Context(), p.Key("a"))
				require.NoError(t, err)
				require.EqualValues(t, 1, receipt.Removed)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				_, err = aside.GetOrLoad(ctx, c, p.Key("a"), func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, time.Second, time.Since(began), "a call returns when its own context ends")
				_, err = aside.GetOrLoad(t.Context(), c, p.Key("b"), func(ctx context.Context) (string, error) {
					time.Sleep(time.Second)
					return "", ctx.Err() // it has not ended
				})
				require.NoError(t, err)
				_, err = aside.GetOrLoad(t.Context(), c, p.Key("slow"), func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
				require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoadTimeout}, "a loader's context ends with its LoadTimeout")
				synctest.Wait()
				require.EqualValues(t, 1, c.Metrics().Labels["watched-label"].Outcomes[aside.OutcomeTimeout])
				require.Greater(t, ends.Load(), int64(10))
			})
			lines := 0
			for _, line := range log.Lines(t) {
				if line.Msg == "aside: Options.Observer panicked" {
					lines++
				}
			}
			require.Positive(t, lines)
			require.Less(t, int64(lines), ends.Load(), "once in ten seconds")
			require.Contains(t, log.String(), `"function":"End"`)
			if name == "panics" {
				require.Contains(t, log.String(), `"function":"Begin","operation":"call","panic":"a panic of Begin"`)
			}
		})
	}
}

// errPanics is an error whose text panics.
var errPanics = panicking{}

type panicking struct{}

func (panicking) Error() string { panic("oops") }

type uncomparable struct {
	context.Context
	_ []int
}

// Each function can be left out.
func TestAnObserverMayHaveOneFunction(t *testing.T) {
	t.Parallel()
	begun, ended := new(atomic.Int64), new(atomic.Int64)
	for _, observer := range []aside.Observer{
		{Begin: func(ctx context.Context, _ aside.Op) context.Context { begun.Add(1); return ctx }},
		{End: func(ctx context.Context, _ aside.Op, _ aside.End) {
			ended.Add(1)
			if ctx.Value(asidetest.CallerKey{}) != "caller" {
				t.Error("without Begin, End has the context that Begin would have got")
			}
		}},
	} {
		observer.MemoryHits = 1
		c := asidetest.NewCache(t, aside.Options{Observer: observer})
		ctx := context.WithValue(t.Context(), asidetest.CallerKey{}, "caller")
		for range 2 {
			_, err := aside.GetOrLoad(ctx, c, watched.Key("a"), asidetest.Value("v"))
			require.NoError(t, err)
		}
		require.NoError(t, c.Close())
	}
	require.EqualValues(t, 3, begun.Load())
	require.EqualValues(t, 3, ended.Load())
}

func TestWrongOptionsOfAnObserver(t *testing.T) {
	t.Parallel()
	end := func(context.Context, aside.Op, aside.End) {}
	for _, wrong := range []float64{-0.1, 1.1, nan()} {
		_, err := aside.New(aside.Options{Observer: aside.Observer{End: end, MemoryHits: wrong}})
		require.ErrorContains(t, err, "Options.Observer.MemoryHits")
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidOption})
	}
	_, err := aside.New(aside.Options{Observer: aside.Observer{MemoryHits: 1}})
	require.ErrorContains(t, err, "Options.Observer.MemoryHits")
}

func nan() float64 { zero := 0.0; return zero / zero }

// With an Observer that is told of no hits, a hit in memory costs what it costs without.
func TestAHitInMemoryAllocatesNothingWithAnObserver(t *testing.T) {
	if asidetest.RaceDetector {
		t.Skip("the race detector allocates too")
	}
	seen := new(atomic.Int64)
	c := asidetest.NewCache(t, aside.Options{Observer: aside.Observer{
		Begin: func(ctx context.Context, _ aside.Op) context.Context { seen.Add(1); return ctx },
		End:   func(context.Context, aside.Op, aside.End) { seen.Add(1) },
	}})
	loader := aside.NewLoader(c, watched, func(context.Context, string) (string, error) { return "v", nil })
	ctx, key, load := t.Context(), watched.Key("a"), asidetest.Value("v")
	_, err := loader.Get(ctx, "a")
	require.NoError(t, err)
	before := seen.Load()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = loader.Get(ctx, "a")
		_, _ = aside.GetOrLoad(ctx, c, key, load)
	}))
	require.Equal(t, before, seen.Load())
}

// An Op is a key and words of the cache, and an End is words and numbers of the cache, beside the loader's own error and the load's own context.
func TestAnObserverIsToldNothingOfValues(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		var mu sync.Mutex
		var told strings.Builder
		c := newCache(aside.Options{Observer: aside.Observer{
			Begin: func(ctx context.Context, op aside.Op) context.Context {
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintf(&told, "%+v\n", op)
				return ctx
			},
			End: func(_ context.Context, op aside.Op, end aside.End) {
				mu.Lock()
				defer mu.Unlock()
				end.Shared = nil
				fmt.Fprintf(&told, "%+v\n%#v\n", op, end)
			},
			MemoryHits: 1,
		}})
		key := asidetest.Items.Key("told")
		for range 2 {
			get(t, c, key, asidetest.Value(asidetest.Canary))
		}
		require.NoError(t, aside.Set(t.Context(), c, key, asidetest.Canary))
		_, err := aside.Get[string](t.Context(), c, key)
		require.NoError(t, err)
		_, err = aside.GetOrLoadMany(t.Context(), c, []string{"a", "b"}, func(id string) aside.Key { return asidetest.Items.Key(id) },
			func(_ context.Context, ids []string) (map[string]string, error) {
				return map[string]string{"a": asidetest.Canary}, nil
			})
		require.NoError(t, err)
		_, err = c.InvalidateCategory(t.Context(), "items")
		require.NoError(t, err)
		require.NoError(t, c.Close())
		mu.Lock()
		defer mu.Unlock()
		require.Contains(t, told.String(), "items:told")
		asidetest.RequireNoCanary(t, told.String(), "what an Observer was told")
	})
}

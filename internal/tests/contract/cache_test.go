package contract_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
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

func TestAValueIsLoadedOnceAndThenServed(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx, key := newCache(aside.Options{}), t.Context(), asidetest.Items.Key("a")
		var src asidetest.Source
		first, err := aside.Lookup(ctx, c, key, src.Load("v"))
		require.NoError(t, err)
		require.Equal(t, "v", first.Value)
		require.Equal(t, aside.StatusMiss, first.Status)
		require.Equal(t, aside.TierOrigin, first.Tier)
		require.Equal(t, "not cached", first.Reason)
		for range 5 {
			v, err := aside.GetOrLoad(ctx, c, key, src.Load("another"))
			require.NoError(t, err)
			require.Equal(t, "v", v)
		}
		require.EqualValues(t, 1, src.Loads.Load())
	})
}

func TestAHitExplainsItself(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx, key := newCache(aside.Options{}), t.Context(), asidetest.Items.Key("a")
		var src asidetest.Source
		began := time.Now()
		_, err := aside.GetOrLoad(ctx, c, key, src.Load("v"))
		require.NoError(t, err)
		var r aside.Result[string]
		asidetest.Eventually(t, "the fill lands", func() bool {
			r, err = aside.Lookup(ctx, c, key, src.Load("another"))
			require.NoError(t, err)
			return r.Status == aside.StatusHit
		})
		since := time.Since(began)
		require.Equal(t, "v", r.Value)
		require.NotEqual(t, aside.TierOrigin, r.Tier)
		// Redis' clock is read to the microsecond, and is off by a round trip at most.
		require.LessOrEqual(t, r.Age, since+time.Second)
		require.LessOrEqual(t, r.TTL, time.Hour)
		require.InDelta(t, time.Hour, r.Age+r.TTL, float64(time.Millisecond))
	})
}

func TestValuesOfEveryTypeComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	type inner struct{ Name string }
	type record struct {
		ID    int
		Names []string
		Inner map[string]*inner
	}
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		same(t, c, "string", "text")
		same(t, c, "empty string", "")
		same(t, c, "int", 42)
		same(t, c, "bytes", []byte{0, 1, 255})
		same(t, c, "struct", record{ID: 1, Names: []string{"x"}, Inner: map[string]*inner{"a": {Name: "b"}}})
		same(t, c, "pointer", &record{ID: 2})
		same(t, c, "nil pointer", (*record)(nil))
		same(t, c, "interface", any("dynamic"))
		same(t, c, "nil interface", any(nil))
		same(t, c, "time", time.Unix(1_700_000_000, 5).UTC())
	})
}

// same loads want, and then finds it in the cache.
func same[T any](t *testing.T, c *aside.Cache, name string, want T) {
	t.Helper()
	loads := 0
	load := func(context.Context) (T, error) { loads++; return want, nil }
	for range 3 {
		got, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(name), load)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
		got, err = aside.Get[T](t.Context(), c, asidetest.Items.Key(name))
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	require.Equal(t, 1, loads, name)
}

func TestOneKeyAskedForDifferentTypesAnswersEachRightly(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				n, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (int, error) { return 7, nil })
				if err != nil || n != 7 {
					t.Errorf("got %d and %v for an int", n, err)
				}
			})
			wg.Go(func() {
				s, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (map[string]int, error) { return map[string]int{"x": 1}, nil })
				if err != nil || s["x"] != 1 {
					t.Errorf("got %v and %v for a map", s, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestThousandCallersOnAColdKeyShareOneLoad(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("cold")
		const callers = 1000
		var loads, arrived atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				arrived.Add(1)
				v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
					loads.Add(1)
					for arrived.Load() < callers {
						runtime.Gosched()
					}
					return "v", nil
				})
				if err != nil || v != "v" {
					t.Errorf("got %q, %v", v, err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, loads.Load())
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, callers, m.Requests())
		require.EqualValues(t, 1, m.Loads)
	})
}

func TestTheFirstCallersCancellationLeavesTheOthersTheirLoad(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		type ctxKey struct{}
		first, cancel := context.WithCancel(context.WithValue(t.Context(), ctxKey{}, "first"))
		loading, goOn := make(chan struct{}), make(chan struct{})
		load := func(ctx context.Context) (string, error) {
			close(loading)
			select {
			case <-goOn:
				return "of the " + ctx.Value(ctxKey{}).(string), nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		left := make(chan error, 1)
		go func() {
			_, err := aside.GetOrLoad(first, c, key, load)
			left <- err
		}()
		<-loading
		type answer struct {
			value string
			err   error
		}
		second := make(chan answer, 1)
		joined := make(chan struct{})
		go func() {
			ctx := &asidetest.Signalling{Context: t.Context(), Waited: joined}
			v, err := aside.GetOrLoad(ctx, c, key, load)
			second <- answer{v, err}
		}()
		<-joined
		cancel()
		require.ErrorIs(t, <-left, context.Canceled)
		close(goOn)
		require.Equal(t, answer{"of the first", nil}, <-second)
	})
}

func TestALoadEndsWhenItsLastCallerLeavesAndTheKeyWorksAgain(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		ctx, cancel := context.WithCancel(t.Context())
		loading, ended := make(chan struct{}), make(chan struct{})
		go func() {
			<-loading
			cancel()
		}()
		_, err := aside.GetOrLoad(ctx, c, key, func(ctx context.Context) (string, error) {
			close(loading)
			<-ctx.Done()
			close(ended)
			return "", ctx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		<-ended
		v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}

func TestEveryEndOfALoaderReachesAllCallersAndFreesTheKey(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, end := range map[string]struct {
		load  func() (string, error)
		check func(t *testing.T, err error)
	}{
		"error": {
			func() (string, error) { return "", boom },
			func(t *testing.T, err error) { require.Equal(t, boom, err, "the loader's own error comes unchanged") },
		},
		"panic": {
			func() (string, error) { panic(boom) },
			func(t *testing.T, err error) {
				var e *aside.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, aside.CodeLoaderPanic, e.Code)
				require.Equal(t, "items:a", e.Key)
				require.Contains(t, string(e.Stack), "cache_test.go")
				require.ErrorIs(t, err, boom)
			},
		},
		"Goexit": {
			func() (string, error) { runtime.Goexit(); return "", nil },
			func(t *testing.T, err error) { require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoaderExit}) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
				var c *aside.Cache
				var loads atomic.Int64
				key := asidetest.Items.Key("a")
				asidetest.Repeatedly(t, "the failure is shared", func() bool {
					// No lease runs out by itself, and who waits for one waits for longer than the test does.
					c = newCache(aside.Options{LeaseTTL: time.Hour, LoadTimeout: time.Hour})
					const callers = 50
					var arrived atomic.Int64
					loads.Store(0)
					errs := make(chan error, callers)
					for range callers {
						go func() {
							arrived.Add(1)
							_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
								loads.Add(1)
								for arrived.Load() < callers {
									runtime.Gosched()
								}
								return end.load()
							})
							errs <- err
						}()
					}
					for range callers {
						end.check(t, <-errs)
					}
					return loads.Load() < callers // those who had arrived may not have called yet
				})

				ctx, cancel := context.WithTimeout(t.Context(), asidetest.Bound)
				defer cancel()
				v, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (string, error) { return "v", nil })
				require.NoError(t, err, "it is free at once, not after the life of a lease")
				require.Equal(t, "v", v)
				m := c.Metrics().Labels["items"]
				require.Equal(t, m.LoadErrors, m.Errors)
				require.EqualValues(t, loads.Load(), m.LoadErrors)
			})
		})
	}
}

func TestNoCallerWaitsLongerThanTheLoadTimeoutOrItsOwnContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		slow := aside.Policy{Name: "slow", Category: "slow", TTL: time.Hour, LoadTimeout: 3 * time.Second}
		hang := make(chan struct{})
		began := time.Now()
		patient, hurried := make(chan error), make(chan error)
		load := func(context.Context) (string, error) { <-hang; return "late", nil } // ignores its context
		go func() {
			_, err := aside.GetOrLoad(t.Context(), c, slow.Key("a"), load)
			patient <- err
		}()
		synctest.Wait()
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := aside.GetOrLoad(ctx, c, slow.Key("a"), load)
			hurried <- err
		}()
		require.ErrorIs(t, <-hurried, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, <-patient, &aside.Error{Code: aside.CodeLoadTimeout})
		require.Equal(t, 3*time.Second, time.Since(began))

		v, err := aside.GetOrLoad(t.Context(), c, slow.Key("a"), func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
		require.Equal(t, "v", v)
		close(hang)
		synctest.Wait()
		v, err = aside.Get[string](t.Context(), c, slow.Key("a"))
		require.NoError(t, err)
		require.Contains(t, []string{"v", "late"}, v, "the load that came late was still a valid one")
	})
}

func TestALoaderThatHeedsItsTimeLimitIsReportedAsTimedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{LoadTimeout: time.Second})
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoadTimeout})
	})
}

func TestNotFoundIsCachedUnderItsOwnTTL(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("gone")
		loads := 0
		missing := fmt.Errorf("row 17: %w", aside.ErrNotFound)
		load := func(context.Context) (string, error) { loads++; return "", missing }
		_, err := aside.GetOrLoad(t.Context(), c, key, load)
		require.Equal(t, missing, err)
		asidetest.Eventually(t, "the fill lands", func() bool {
			_, err := aside.Get[string](t.Context(), c, key)
			return errors.Is(err, aside.ErrNotFound)
		})
		r, err := aside.Lookup(t.Context(), c, key, load)
		require.ErrorIs(t, err, aside.ErrNotFound)
		require.Equal(t, 1, loads)
		require.LessOrEqual(t, r.TTL, 30*time.Second, "the default NegativeTTL")
		require.Positive(t, r.TTL)
		require.Positive(t, c.Metrics().Labels["items"].NegativeHits)
		require.Zero(t, c.Metrics().Labels["items"].Errors, "not found is no error")

		never := aside.Policy{Name: "never", Category: "never", TTL: time.Hour, NegativeTTL: -1}
		for range 2 {
			_, err = aside.GetOrLoad(t.Context(), c, never.Key("x"), load)
			require.ErrorIs(t, err, aside.ErrNotFound)
		}
		require.Equal(t, 3, loads, "a negative NegativeTTL caches nothing")
	})
}

func TestATTLUnderASecondIsExact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		short := aside.Policy{Name: "short", Category: "short", TTL: 300 * time.Millisecond}
		var src asidetest.Source
		_, err := aside.GetOrLoad(t.Context(), c, short.Key("a"), src.Load("v"))
		require.NoError(t, err)
		time.Sleep(300*time.Millisecond - 1)
		_, err = aside.Get[string](t.Context(), c, short.Key("a"))
		require.NoError(t, err, "one nanosecond before its end")
		time.Sleep(time.Nanosecond)
		_, err = aside.Get[string](t.Context(), c, short.Key("a"))
		require.ErrorIs(t, err, aside.ErrMiss, "at its end")
	})
}

func TestTheTTLRunsFromTheStartOfTheLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		p := aside.Policy{Name: "p", Category: "p", TTL: 10 * time.Second}
		took := func(d time.Duration) func(context.Context) (string, error) {
			return func(context.Context) (string, error) { time.Sleep(d); return "v", nil }
		}
		r, err := aside.Lookup(t.Context(), c, p.Key("a"), took(4*time.Second))
		require.NoError(t, err)
		require.Equal(t, 4*time.Second, r.Age)
		require.Equal(t, 6*time.Second, r.TTL)
		_, err = aside.GetOrLoad(t.Context(), c, p.Key("b"), took(11*time.Second))
		require.NoError(t, err)
		_, err = aside.Get[string](t.Context(), c, p.Key("b"))
		require.ErrorIs(t, err, aside.ErrMiss, "it was out of date when it came")
	})
}

func TestInvalidateRemovesAndTheNextCallLoads(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		var src asidetest.Source
		for _, id := range []string{"a", "b", "c"} {
			asidetest.Stored(t, c, asidetest.Items.Key(id), "old")
		}
		receipt, err := c.Invalidate(ctx, asidetest.Items.Key("a"), asidetest.Items.Key("b"), asidetest.Items.Key("never there"))
		require.NoError(t, err)
		require.EqualValues(t, 2, receipt.Removed)
		require.True(t, receipt.Confirmed)
		for id, want := range map[string]string{"a": "new", "b": "new", "c": "old"} {
			v, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(id), src.Load("new"))
			require.NoError(t, err)
			require.Equal(t, want, v, id)
		}
		receipt, err = c.Invalidate(ctx)
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
	})
}

func TestACallerAfterAnInvalidationNeverJoinsAnOlderLoad(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		for name, supersede := range map[string]func(*aside.Cache, aside.Key) error{
			"Invalidate": func(c *aside.Cache, key aside.Key) error { _, err := c.Invalidate(t.Context(), key); return err },
			"Set":        func(c *aside.Cache, key aside.Key) error { return aside.Set(t.Context(), c, key, "new") },
			"Refresh": func(c *aside.Cache, key aside.Key) error {
				_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return "new", nil }, aside.Refresh())
				return err
			},
		} {
			t.Run(name, func(t *testing.T) {
				c, key := newCache(aside.Options{}), asidetest.Items.Key(name)
				loading, goOn := make(chan struct{}), make(chan struct{})
				waiting := make(chan string, 1)
				go func() {
					v, _ := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
						close(loading)
						<-goOn
						return "old", nil
					})
					waiting <- v
				}()
				<-loading
				require.NoError(t, supersede(c, key))
				v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return "new", nil })
				require.NoError(t, err)
				require.Equal(t, "new", v)
				close(goOn)
				require.Equal(t, "old", <-waiting, "who was already waiting gets it")
				asidetest.Eventually(t, "the old fill is refused", func() bool { return c.Metrics().Labels["items"].FillsRejected == 1 })
				v, err = aside.Get[string](t.Context(), c, key)
				require.NoError(t, err)
				require.Equal(t, "new", v)
			})
		}
	})
}

func TestACallerAfterAnInvalidationOfATagNeverJoinsAnOlderLoad(t *testing.T) {
	t.Parallel()
	// The older load has the lease, which is waited for, for half of that time.
	brief := aside.Policy{Name: "brief", Category: "items", TTL: time.Hour, LoadTimeout: 5 * time.Second}
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		for name, invalidate := range map[string]func(*aside.Cache) (aside.Receipt, error){
			"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
			"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
			"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
		} {
			t.Run(name, func(t *testing.T) {
				c, key := newCache(aside.Options{Policies: []aside.Policy{brief}}), brief.Key(name)
				old := asidetest.NewHeld()
				first := asidetest.Waiting(t, c, key, old.Load("old"), aside.WithTags("x"))
				<-old.Began
				_, err := invalidate(c)
				require.NoError(t, err)
				require.Equal(t, "new", <-asidetest.Waiting(t, c, key, asidetest.Value("new"), aside.WithTags("x")))
				close(old.Release)
				require.Equal(t, "old", <-first, "who was already waiting gets it")
				// What was loaded without the lease is in memory alone, and goes when the older load gives the lease back: Redis tells of that.
				require.Equal(t, "new", <-asidetest.Waiting(t, c, key, asidetest.Value("new"), aside.WithTags("x")))
			})
		}
	})
}

func TestNoStaleReadAfterAnInvalidationThatRacesWithLoads(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("contended")
		const rounds = 1000
		var version atomic.Int64
		yield := func() {
			for range rand.N(20) {
				runtime.Gosched()
			}
		}
		refused := func() uint64 { return c.Metrics().Labels["items"].FillsRejected }
		round, mayTake := uint64(0), time.Now().Add(2*time.Minute)
		lacks := func() bool { // who wins is up to the scheduler
			return (refused() == 0 || refused() == round) && time.Now().Before(mayTake)
		}
		for ; round < rounds || lacks(); round++ {
			_, err := c.Invalidate(t.Context(), key)
			require.NoError(t, err)
			began := make(chan struct{})
			var old sync.WaitGroup
			old.Go(func() {
				_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (int64, error) {
					v := version.Load()
					close(began)
					yield() // the write below comes before the return, before the store, or after it
					return v, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
			<-began
			yield()
			now := version.Add(1)
			if round%3 == 0 {
				err = aside.Set(t.Context(), c, key, now)
			} else {
				_, err = c.Invalidate(t.Context(), key)
			}
			require.NoError(t, err)
			for range 2 {
				got, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (int64, error) { return version.Load(), nil })
				require.NoError(t, err)
				require.Equal(t, now, got, "round %d", round)
			}
			old.Wait()
			got, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (int64, error) { return version.Load(), nil })
			require.NoError(t, err)
			require.Equal(t, now, got, "round %d, after the old load has ended", round)
		}
		t.Logf("%d of %d old loads were refused", refused(), round)
		require.Positive(t, refused(), "the race really happened")
		require.Less(t, refused(), round, "and was won by the load at times")
	})
}

func TestALoaderMayAskForOtherKeysButNotForItsOwn(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		leaf := func(context.Context) (string, error) { return "leaf", nil }
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("outer"), func(ctx context.Context) (string, error) {
			inner, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("inner"), leaf)
			return "outer of " + inner, err
		})
		require.NoError(t, err)
		require.Equal(t, "outer of leaf", v)

		var loop func(ctx context.Context) (string, error)
		depth := 0
		loop = func(ctx context.Context) (string, error) {
			depth++
			return aside.GetOrLoad(ctx, c, asidetest.Items.Key("loop", depth%3), loop)
		}
		_, err = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("loop", 0), loop)
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeReentrant})

		_, err = aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, func(id int) aside.Key { return asidetest.Items.Key("many", id) },
			func(ctx context.Context, ids []int) (map[int]string, error) {
				v, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("many", 2), leaf)
				return map[int]string{1: v}, err
			})
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeReentrant})
	})
}

func TestCloseEndsLoadsAndRefusesCalls(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("set"), "v"))
		loading := make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			_, err := aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
				close(loading)
				<-ctx.Done()
				return "", ctx.Err()
			})
			ended <- err
		}()
		<-loading
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-ended, aside.ErrClosed)
		require.NoError(t, c.Close())
		load := func(context.Context) (string, error) { return "v", nil }
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("set"), load)
		require.ErrorIs(t, err, aside.ErrClosed)
		_, err = aside.Get[string](t.Context(), c, key)
		require.ErrorIs(t, err, aside.ErrClosed)
		require.ErrorIs(t, aside.Set(t.Context(), c, key, "v"), aside.ErrClosed)
		_, err = c.Invalidate(t.Context(), key)
		require.ErrorIs(t, err, aside.ErrClosed)
	})
}

func TestClosingFromInsideALoaderDoesNotDeadlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) { return "v", c.Close() })
		require.ErrorIs(t, err, aside.ErrClosed)
		time.Sleep(time.Minute) // Close gives up waiting for the loader that it was called from
	})
}

func TestOptionsOfACall(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		load := func(v string) func(context.Context) (string, error) {
			return func(context.Context) (string, error) { return v, nil }
		}
		ttl := func(r aside.Result[string], err error) time.Duration {
			require.NoError(t, err)
			return r.Age + r.TTL
		}
		within := float64(time.Millisecond)
		require.InDelta(t, 5*time.Minute, ttl(aside.Lookup(ctx, c, asidetest.Items.Key("with ttl"), load("v"), aside.WithTTL(5*time.Minute))), within)
		require.InDelta(t, 7*time.Minute, ttl(aside.Lookup(ctx, c, asidetest.Items.Key("loading"), func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).TTL(7 * time.Minute)
			return "v", nil
		})), within)
		asidetest.Stored(t, c, asidetest.Items.Key("set"), "v", aside.WithTTL(9*time.Minute))
		require.InDelta(t, 9*time.Minute, ttl(aside.Lookup(ctx, c, asidetest.Items.Key("set"), load("v"))), within)

		_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("with ttl"), load("v"), aside.WithTTL(0))
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
		require.ErrorIs(t, aside.Set(ctx, c, asidetest.Items.Key("set"), "v", aside.Refresh()), &aside.Error{Code: aside.CodeInvalidArgument})

		r, err := aside.Lookup(ctx, c, asidetest.Items.Key("set"), load("newer"), aside.Refresh())
		require.NoError(t, err)
		require.Equal(t, "newer", r.Value)
		require.Equal(t, aside.StatusMiss, r.Status)
		v, err := aside.Get[string](ctx, c, asidetest.Items.Key("set"))
		require.NoError(t, err)
		require.Equal(t, "newer", v)

		for _, keep := range []func(*aside.Load){(*aside.Load).NoStore, func(l *aside.Load) { l.TTL(0) }} {
			_, err = aside.GetOrLoad(ctx, c, asidetest.Items.Key("not stored"), func(ctx context.Context) (string, error) {
				keep(aside.CurrentLoad(ctx))
				return "v", nil
			})
			require.NoError(t, err)
			_, err = aside.Get[string](ctx, c, asidetest.Items.Key("not stored"))
			require.ErrorIs(t, err, aside.ErrMiss)
		}
		// Not even in the moment in which its load ends.
		for n := range 200 {
			r, err := aside.Lookup(ctx, c, asidetest.Items.Key("not stored"), func(ctx context.Context) (int, error) {
				aside.CurrentLoad(ctx).NoStore()
				return n, nil
			})
			require.NoError(t, err)
			require.Equal(t, n, r.Value)
			require.Zero(t, r.TTL)
		}
		require.Nil(t, aside.CurrentLoad(ctx))
		aside.CurrentLoad(ctx).NoStore() // and does no harm
	})
}

func TestSetReplacesWhatIsCachedOrRemovesIt(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx, key := newCache(aside.Options{MaxValueBytes: 1000}), t.Context(), asidetest.Items.Key("a")
		asidetest.Stored(t, c, key, []byte("small"))
		v, err := aside.Get[[]byte](ctx, c, key)
		require.NoError(t, err)
		require.Equal(t, "small", string(v))

		_ = aside.Set(ctx, c, key, make([]byte, 2000))
		_, err = aside.Get[[]byte](ctx, c, key)
		require.ErrorIs(t, err, aside.ErrMiss, "a value too large to be kept leaves no older one behind")
		require.Positive(t, c.Metrics().Labels["items"].EncodeErrors)
	})
}

func TestAValueTooLargeIsReturnedAndNotStored(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{MaxValueBytes: 1000}), asidetest.Items.Key("large")
		loads := 0
		for range 2 {
			v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) ([]byte, error) { loads++; return make([]byte, 2000), nil })
			require.NoError(t, err)
			require.Len(t, v, 2000)
			asidetest.Eventually(t, "it is counted", func() bool { return c.Metrics().Labels["items"].EncodeErrors == uint64(loads) })
		}
		require.Equal(t, 2, loads)
	})
}

func TestNilAndUnusableArgumentsAreTypedErrors(t *testing.T) {
	t.Parallel()
	c, ctx, key := asidetest.NewCache(t, aside.Options{}), t.Context(), asidetest.Items.Key("a")
	load := func(context.Context) (string, error) { return "v", nil }
	many := func(context.Context, []int) (map[int]string, error) { return nil, nil }
	byID := func(id int) aside.Key { return asidetest.Items.Key(id) }
	invalid := &aside.Error{Code: aside.CodeInvalidArgument}
	try := func(name string, call func() error) {
		require.NotPanics(t, func() { require.ErrorIs(t, call(), invalid, name) }, name)
	}
	_, err := aside.GetOrLoad(ctx, c, key, load)
	require.NoError(t, err)
	try("a nil loader, also on a hit", func() error { _, err := aside.GetOrLoad[string](ctx, c, key, nil); return err })
	try("Lookup without a loader", func() error { _, err := aside.Lookup[string](ctx, c, key, nil); return err })
	try("a batch without a loader", func() error { _, err := aside.GetOrLoadMany[int, string](ctx, c, []int{1}, byID, nil); return err })
	try("a batch without a key function", func() error { _, err := aside.GetOrLoadMany(ctx, c, []int{1}, nil, many); return err })
	try("NewLoader without a function", func() error { _, err := aside.NewLoader[int, string](c, asidetest.Items, nil).Get(ctx, 1); return err })
	try("its GetMany", func() error {
		_, err := aside.NewLoader[int, string](c, asidetest.Items, nil).GetMany(ctx, []int{1})
		return err
	})
	try("GetOrLoad on nil", func() error { _, err := aside.GetOrLoad(ctx, nil, key, load); return err })
	try("Get on nil", func() error { _, err := aside.Get[string](ctx, nil, key); return err })
	try("Set on nil", func() error { return aside.Set(ctx, nil, key, "v") })
	try("Invalidate on nil", func() error { _, err := (*aside.Cache)(nil).Invalidate(ctx, key); return err })
	try("a batch on nil", func() error { _, err := aside.GetOrLoadMany(ctx, nil, []int{1}, byID, many); return err })
	try("an empty batch on nil", func() error { _, err := aside.GetOrLoadMany(ctx, nil, nil, byID, many); return err })
	try("a Loader on nil", func() error {
		_, err := aside.NewLoader(nil, asidetest.Items, func(context.Context, int) (string, error) { return "", nil }).Get(ctx, 1)
		return err
	})
	require.NoError(t, (*aside.Cache)(nil).Close())
}

func TestAHitInMemoryAllocatesNothing(t *testing.T) {
	c := asidetest.NewCache(t, aside.Options{Policies: []aside.Policy{asidetest.Items}})
	ctx, key := context.Background(), asidetest.Items.Key("a")
	type large struct{ Fields [20]string }
	load := func(context.Context) (large, error) { return large{}, nil }
	loader := aside.NewLoader(c, asidetest.Items, func(context.Context, string) (large, error) { return large{}, nil })
	_, err := aside.GetOrLoad(ctx, c, key, load)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := aside.GetOrLoad(ctx, c, key, load); err != nil {
			panic(err)
		}
	}))
	one := 1000 // an integer that has to be allocated where it escapes
	_, err = aside.GetOrLoad(ctx, c, asidetest.Items.Key("a", one), load)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a", one), load); err != nil {
			panic(err)
		}
	}), "the key is made at the call")
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := loader.Get(ctx, "a"); err != nil {
			panic(err)
		}
	}))
	require.EqualValues(t, 2, c.Metrics().Labels["items"].Loads)
}

// A Loader looks into memory with a text whose bytes are those of another key soon after: nothing may keep it.
func TestALoadersKeysAreTheirOwn(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	loader := aside.NewLoader(c, asidetest.Items, func(_ context.Context, id string) (string, error) { return "of " + id, nil })
	id := func(n int) string {
		return strings.Repeat("x", n%200) + []string{"", ":", "%", "é"}[n%4] + strconv.Itoa(n)
	}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for n := range 4000 {
				n = (n*7 + g) % 1000
				v, err := loader.Get(t.Context(), id(n))
				if err != nil || v != "of "+id(n) {
					t.Errorf("%q: %q, %v", id(n), v, err)
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1000, c.Metrics().Labels["items"].Loads)
	for n := range 1000 {
		v, err := aside.Get[string](t.Context(), c, asidetest.Items.Key(id(n)))
		require.NoError(t, err)
		require.Equal(t, "of "+id(n), v)
	}
}

// The policy of a value in memory is compared with that of the Loader, also when another one of the same category has just been found.
func TestALoaderGetsNoValueOfAnotherPolicy(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	one, two := asidetest.Items, asidetest.Items
	one.Name, two.Name = "one", "two"
	load := func(text string) func(context.Context, int) (string, error) {
		return func(context.Context, int) (string, error) { return text, nil }
	}
	ones, twos := aside.NewLoader(c, one, load("one")), aside.NewLoader(c, two, load("two"))
	for range 3 {
		for range 2 {
			v, err := ones.Get(t.Context(), 1)
			require.NoError(t, err)
			require.Equal(t, "one", v)
		}
		for range 2 {
			v, err := twos.Get(t.Context(), 1)
			require.NoError(t, err)
			require.Equal(t, "two", v)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{MaxEntries: 100, MaxBytes: 100_000})
	kept := func(size int) (n int) {
		for i := range 2000 {
			require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key(size, i), make([]byte, size)))
		}
		asidetest.Eventually(t, "the bound holds", func() bool {
			n = 0
			for i := range 2000 {
				if _, err := aside.Get[[]byte](t.Context(), c, asidetest.Items.Key(size, i)); err == nil {
					n++
				}
			}
			return n <= 100 && n*size <= 100_000
		})
		return n
	}
	require.Positive(t, kept(1), "by number")
	require.Positive(t, kept(5000), "by bytes")
}

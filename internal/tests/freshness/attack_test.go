package freshness_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

var errDown = errors.New("the source is down")

func down(context.Context) (string, error) { return "", errDown }

// late is down after a while.
func late(d time.Duration) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		return "", errDown
	}
}

// requireCountersAddUp holds at any moment without calls under way.
func requireCountersAddUp(t *testing.T, m aside.LabelMetrics) {
	t.Helper()
	require.Equal(t, m.Hits, m.MemoryHits+m.RedisHits)
	require.LessOrEqual(t, m.StaleHits, m.Hits)
	require.LessOrEqual(t, m.StaleOnError, m.StaleHits)
	require.LessOrEqual(t, m.SoftTimeouts, m.StaleOnError)
	require.LessOrEqual(t, m.Refreshes, m.Loads)
	require.LessOrEqual(t, m.RefreshErrors, m.Refreshes)
}

// A value that was set while the load ran stands in for the load's error. It is fresh, and no stale hit.
func TestAFreshValueInPlaceOfAnErrorIsNoStaleHit(t *testing.T) {
	t.Parallel()
	for name, soft := range map[string]time.Duration{"error": -1, "soft timeout": time.Second} {
		t.Run(name, func(t *testing.T) {
			asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
				key := items(func(p *aside.Policy) { p.StaleIfError, p.SoftTimeout = time.Hour, soft }).Key("a")
				requireLook(t, c, key, &source{}, "v1", aside.StatusMiss, "not cached")
				time.Sleep(ttl)
				got := make(chan aside.Result[string], 1)
				go func() {
					r, err := aside.Lookup(t.Context(), c, key, late(5*time.Second))
					if err != nil {
						t.Error(err)
					}
					got <- r
				}()
				time.Sleep(time.Second / 2)
				require.NoError(t, aside.Set(t.Context(), c, key, "set"))
				r := <-got
				require.Equal(t, "set", r.Value)
				require.Equal(t, aside.StatusHit, r.Status)
				m := c.Metrics().Labels["items"]
				requireCountersAddUp(t, m)
				require.Zero(t, m.StaleOnError)
				require.Zero(t, m.SoftTimeouts)
			})
		})
	}
}

func TestTheRefreshesOfABatchAreAmongTheLoads(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]bool{"loaded": false, "failed": true} {
		t.Run(name, func(t *testing.T) {
			asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
				p := items(func(p *aside.Policy) { p.Stale = time.Hour })
				var err error
				load := func(_ context.Context, ids []int) (map[int]string, error) {
					values := make(map[int]string)
					for _, id := range ids {
						values[id] = strconv.Itoa(id)
					}
					if err != nil {
						return nil, err
					}
					return values, nil
				}
				many := func() {
					got, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2, 3}, func(id int) aside.Key { return p.Key(id) }, load)
					require.NoError(t, err)
					require.Len(t, got, 3)
					synctest.Wait()
				}
				many()
				time.Sleep(ttl)
				if fails {
					err = errDown
				}
				many()
				m := c.Metrics().Labels["items"]
				requireCountersAddUp(t, m)
				require.EqualValues(t, 2, m.Loads)
				require.EqualValues(t, 1, m.Refreshes)
			})
		})
	}
}

// Hazard 45: a load that has succeeded ends the old value, also if callers waited for it.
func TestALoadWithCallersThatFindsNothingEndsTheOldValue(t *testing.T) {
	t.Parallel()
	for name, load := range map[string]func(ctx context.Context) (string, error){
		"not found": func(context.Context) (string, error) { return "", aside.ErrNotFound },
		"no store": func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).NoStore()
			return "new", nil
		},
		"no TTL": func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).TTL(0)
			return "new", nil
		},
	} {
		for phase, opts := range map[string][]aside.CallOption{"on error": nil, "stale": {aside.MaxStale(0)}} {
			t.Run(name+"/"+phase, func(t *testing.T) {
				asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
					key := items(func(p *aside.Policy) {
						p.StaleIfError, p.NegativeTTL = time.Hour, -1
						if phase == "stale" {
							p.Stale = time.Hour
						}
					}).Key("a")
					requireLook(t, c, key, &source{}, "v1", aside.StatusMiss, "not cached")
					time.Sleep(ttl)
					_, err := aside.Lookup(t.Context(), c, key, load, opts...)
					if name == "not found" {
						require.ErrorIs(t, err, aside.ErrNotFound)
					} else {
						require.NoError(t, err)
					}
					_, err = aside.Lookup(t.Context(), c, key, down)
					require.ErrorIs(t, err, errDown)
				})
			})
		}
	}
}

// A load in the background that finds nothing ends the value that it was to replace, and not one that came later.
func TestARefreshThatFindsNothingLeavesWhatWasSetMeanwhile(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key := items(func(p *aside.Policy) { p.Stale, p.NegativeTTL = time.Hour, -1 }).Key("a")
		requireLook(t, c, key, &source{}, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl)
		_, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) {
			time.Sleep(time.Second)
			return "", aside.ErrNotFound
		})
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, aside.Set(t.Context(), c, key, "set"))
		time.Sleep(2 * time.Second)
		v, err := aside.Get[string](t.Context(), c, key)
		require.NoError(t, err)
		require.Equal(t, "set", v)
	})
}

// A load that takes more than a quarter of the TTL is not followed by the next one at once. Until that is due, hits are ordinary ones.
func TestHitsBeforeARefreshMayBeginAreOrdinaryOnes(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.RefreshAhead = 0.5 }).Key("a"), &source{takes: 4 * time.Second}
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		time.Sleep(3900 * time.Millisecond) // 7.9 s after the beginning of its load
		requireLook(t, c, key, s, "v1", aside.StatusHit, "fresh")
		time.Sleep(200 * time.Millisecond)
		requireLook(t, c, key, s, "v1", aside.StatusHit, "fresh, being refreshed")
		synctest.Wait()
		require.EqualValues(t, 2, s.loads.Load())
	})
}

func TestACallerWaitsNoLongerThanItsLoadTimeoutWithASoftTimeout(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		short := items(func(p *aside.Policy) {
			p.StaleIfError, p.SoftTimeout, p.LoadTimeout = time.Hour, time.Second, 2*time.Second
		})
		long := &aside.Policy{Name: "others", Category: "others", TTL: ttl, LoadTimeout: time.Minute}
		go func() {
			_, _ = aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, func(id int) aside.Key {
				if id == 1 {
					return short.Key("a")
				}
				return long.Key("a")
			}, func(ctx context.Context, _ []int) (map[int]string, error) {
				_, err := late(20 * time.Second)(ctx)
				return nil, err
			})
		}()
		synctest.Wait()
		_, waited, err := look(t, c, short.Key("a"), &source{})
		asidetest.RequireCode(t, err, aside.CodeLoadTimeout)
		require.Equal(t, 2*time.Second, waited)
	})
}

// A load in the background is not made inside the load whose loader has got the old value: that load does not wait for it.
func TestARefreshIsNotInsideTheLoadThatGotTheOldValue(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		p := items(func(p *aside.Policy) { p.Stale = time.Hour })
		outer, inner := p.Key("outer"), p.Key("inner")
		requireLook(t, c, inner, &source{}, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl)
		inBackground := make(chan error, 1)
		v, err := aside.GetOrLoad(t.Context(), c, outer, func(ctx context.Context) (string, error) {
			v, err := aside.GetOrLoad(ctx, c, inner, func(ctx context.Context) (string, error) {
				v, err := aside.GetOrLoad(ctx, c, outer, down)
				inBackground <- err
				return "with " + v, err
			})
			time.Sleep(time.Second)
			return v, err
		})
		require.NoError(t, err)
		require.Equal(t, "v1", v)
		require.NoError(t, <-inBackground)
		synctest.Wait()
		v, err = aside.Get[string](t.Context(), c, inner)
		require.NoError(t, err)
		require.Equal(t, "with v1", v)
	})
}

// A loader that ends its goroutine fails like any other, and so does a codec.
func TestAGoexitInTheBackgroundIsAFailure(t *testing.T) {
	t.Parallel()
	var log asidetest.Logbook
	asidetest.InBubble(t, aside.Options{Logger: log.Logger(), MaxLoads: 2, Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		key := items(func(p *aside.Policy) { p.Stale = time.Hour }).Key("a")
		requireLook(t, c, key, &source{}, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl)
		for n := range 5 {
			r, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) {
				runtime.Goexit()
				return "", nil
			})
			require.NoError(t, err)
			require.Equal(t, "v1", r.Value)
			synctest.Wait()
			m := c.Metrics().Labels["items"]
			require.EqualValues(t, n+1, m.Refreshes)
			require.EqualValues(t, n+1, m.RefreshErrors)
			time.Sleep(2 * time.Second)
		}
	})
	require.Contains(t, log.String(), "could not be loaded anew")
}

// Hazards 32 and 42: a load in the background takes a place only while more than half of them are free, and waits for none.
func TestNoRefreshBeginsWhileHalfOfThePlacesAreTaken(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 2}, func(t *testing.T, c *aside.Cache) {
		p, s := items(func(p *aside.Policy) { p.Stale = time.Hour }), &source{}
		requireLook(t, c, p.Key("a"), s, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl)
		go func() { _, _ = aside.GetOrLoad(t.Context(), c, p.Key("other"), late(5*time.Second)) }()
		synctest.Wait()
		requireLook(t, c, p.Key("a"), s, "v1", aside.StatusStale, "past its TTL, being refreshed")
		synctest.Wait()
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, 1, m.RefreshesSkipped)
		require.Zero(t, m.Refreshes)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, s.loads.Load(), "it does not wait for a place")
		requireLook(t, c, p.Key("a"), s, "v1", aside.StatusStale, "past its TTL, being refreshed")
		synctest.Wait()
		require.EqualValues(t, 2, s.loads.Load())
	})
}

// Hazard 33: only a load that succeeds makes a value newer.
func TestAFailedRefreshMovesNoTime(t *testing.T) {
	t.Parallel()
	const window = 5 * time.Second
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.Stale, p.RefreshAhead = window, 0.5 }).Key("a"), &source{}
		began := time.Now()
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		s.err = errDown
		for ; time.Since(began) < ttl+window; time.Sleep(100 * time.Millisecond) {
			_, waited, err := look(t, c, key, s)
			require.NoError(t, err)
			require.Zero(t, waited)
			synctest.Wait()
		}
		_, _, err := look(t, c, key, s)
		require.Error(t, err)
		require.Greater(t, c.Metrics().Labels["items"].RefreshErrors, uint64(2))
	})
}

// Hazard 42: many values that were loaded together are not refreshed together.
func TestValuesOfOneMomentAreNotRefreshedInOneMoment(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		p, s := items(func(p *aside.Policy) { p.RefreshAhead = 0.5 }), &source{}
		for i := range 100 {
			_, _, err := look(t, c, p.Key(i), s)
			require.NoError(t, err)
		}
		time.Sleep(ttl * 5 / 8) // they become due from a half to three quarters of their TTL
		due := 0
		for i := range 100 {
			r, _, err := look(t, c, p.Key(i), s)
			require.NoError(t, err)
			if r.Reason != "fresh" {
				due++
			}
			synctest.Wait()
		}
		require.InDelta(t, 50, due, 40)
	})
}

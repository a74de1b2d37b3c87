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

// steadily has one key of a policy asked for every 1.4 ms for as long as it lasts, and by each of the callers once. It returns how many
// of them failed, and until when, counted from the beginning.
func steadily(t *testing.T, c *aside.Cache, key aside.Key, lasts time.Duration, load func(context.Context) (int, error)) (calls, failed int, last time.Duration) {
	t.Helper()
	began := time.Now()
	var mu sync.Mutex
	var all sync.WaitGroup
	for time.Since(began) < lasts {
		calls++
		all.Go(func() {
			if _, err := aside.GetOrLoad(t.Context(), c, key, load); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed++
				last = max(last, time.Since(began))
			}
		})
		time.Sleep(1400 * time.Microsecond)
	}
	all.Wait()
	return calls, failed, last
}

func TestOneFailureFailsThoseWhoWaitedForItAndNobodyElse(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		short := aside.Policy{Name: "short", Category: "short", TTL: 200 * time.Millisecond}
		began := time.Now()
		broken := false
		calls, failed, last := steadily(t, c, short.Key("a"), 4*time.Second, func(context.Context) (int, error) {
			at := time.Since(began)
			time.Sleep(50 * time.Millisecond)
			if !broken && at > time.Second {
				broken = true
				return 0, errors.New("a lost packet")
			}
			return 1, nil
		})
		t.Logf("%d of %d calls failed, the last one after %v", failed, calls, last)
		require.Greater(t, calls, 2800)
		require.True(t, broken)
		require.NotZero(t, failed)
		require.LessOrEqual(t, failed, 37, "as many as come within one load")
	})
}

func TestCallersAreServedSoonAfterAnOutageOfTheSource(t *testing.T) {
	t.Parallel()
	for range 5 { // pauses vary
		asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
			const outage = 16 * time.Second
			began, loads := time.Now(), 0
			_, failed, last := steadily(t, c, asidetest.Items.Key("a"), 30*time.Second, func(context.Context) (int, error) {
				loads++
				time.Sleep(50 * time.Millisecond)
				if time.Since(began) < outage {
					return 0, errors.New("the source is down")
				}
				return 1, nil
			})
			t.Logf("%d loads; the last of %d calls failed %v after the outage", loads, failed, last-outage)
			require.Less(t, last-outage, 5*time.Second)
			require.Less(t, loads, 15, "a broken source is spared")
		})
	}
}

// The first failure in a row holds nobody back, the second one for Backoff, each further one for twice as long, up to MaxBackoff. What
// ends the row begins it anew.
func TestHowLongFailuresHoldBack(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		o     aside.Options
		bases []time.Duration
		most  time.Duration
	}{
		"by default": {aside.Options{}, []time.Duration{0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}, 5000 * ms},
		"as set": {
			aside.Options{Backoff: 30 * ms, MaxBackoff: 90 * ms}, []time.Duration{0, 30 * ms, 60 * ms, 90 * ms, 90 * ms}, 90 * ms,
		},
		"always the same":  {aside.Options{Backoff: 7 * time.Second}, []time.Duration{0, 7000 * ms, 7000 * ms}, 7000 * ms},
		"a default bounds": {aside.Options{MaxBackoff: 100 * ms}, []time.Duration{0, 100 * ms, 100 * ms}, 100 * ms},
		"not at all":       {aside.Options{Backoff: -1}, make([]time.Duration, 20), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			every := max(ms, test.most/1000) // a call
			asidetest.InBubble(t, test.o, func(t *testing.T, c *aside.Cache) {
				key, ctx := asidetest.Items.Key("a"), t.Context()
				var loads []time.Time
				call := func() {
					_, _ = aside.GetOrLoad(ctx, c, key, func(context.Context) (int, error) {
						loads = append(loads, time.Now())
						return 0, errors.New("down")
					})
				}
				row := func() {
					t.Helper()
					loads = nil
					for len(loads) <= len(test.bases) {
						call()
						time.Sleep(every)
					}
					for i, base := range test.bases {
						pause := loads[i+1].Sub(loads[i])
						require.LessOrEqual(t, pause, min(base+base/4, test.most)+every, "after failure %d", i+1)
						require.GreaterOrEqual(t, pause, base-base/4, "after failure %d", i+1)
					}
				}
				row()
				_, err := c.Invalidate(ctx, key)
				require.NoError(t, err)
				row()
				_, err = aside.GetOrLoad(ctx, c, key, asidetest.Value("v"), aside.Refresh())
				require.NoError(t, err)
				_, err = c.Invalidate(ctx, key)
				require.NoError(t, err)
				row()
				time.Sleep(2*test.most + time.Second) // the last pause, and MaxBackoff
				row()
			})
		})
	}
}

// Two policies of one category make the same keys, and the source of both is down. Each of them is held back as if it were alone.
func TestPoliciesThatShareAKeyAreHeldBackEach(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		policies := []aside.Policy{aside.TTL.UserProfile, aside.TTL.UserCredits}
		loads := 0
		down := func(context.Context) (string, error) { loads++; return "", errors.New("down") }
		for range 100 {
			for _, p := range policies {
				_, err := aside.GetOrLoad(t.Context(), c, p.Key("u1"), down)
				require.Error(t, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		// One of them alone loads five times in that second.
		require.Less(t, loads, 20, "a broken source is spared")
	})
}

// The errors of loads that have failed are kept for as long as they may be told to somebody, and take bounded memory.
//
//  1. A source fails for many keys, once each, with errors that hold the body of its answers. Nobody is held back by a first failure.
//  2. Nobody asks any more.
func TestErrorsThatNobodyIsToldAreNotKept(t *testing.T) {
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		heap := func() int {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int(m.HeapAlloc >> 20)
		}
		before := heap()
		for i := range 3000 { // of 32,768 that are remembered
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), func(context.Context) (string, error) {
				return "", errors.New(strings.Repeat("x", 64<<10))
			})
			require.Error(t, err)
		}
		during := heap()
		time.Sleep(time.Hour)
		after := heap()
		t.Logf("heap: %d MiB before, %d MiB after 3,000 failures, %d MiB an hour later", before, during, after)
		require.Less(t, during-before, 50)
		require.Less(t, after-before, 50)
	})
}

// Loads of one key run side by side, since it was invalidated while they ran. One lost connection ends all of them: that is one failure.
func TestLoadsThatFailTogetherAreOneFailure(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		lost := make(chan struct{})
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) {
					<-lost
					return "", errors.New("the connection was lost")
				})
				require.Error(t, err)
			})
			synctest.Wait()
			_, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
			require.NoError(t, err)
		}
		close(lost)
		all.Wait()
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
		require.NoError(t, err)
	})
}

// A loader that works with its caller's context, as closures often do, ends when its caller leaves. That is no failure of the source.
func TestTheEndOfACallersOwnContextIsNoFailureOfTheSource(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		for range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (string, error) {
				select { // a query with the context of the request
				case <-ctx.Done():
					return "", ctx.Err()
				case <-time.After(100 * time.Millisecond):
					return "v", nil
				}
			})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			synctest.Wait()
		}
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
		var held *aside.Error
		if errors.As(err, &held) {
			t.Logf("%s: %v", held.Code, err)
		}
		require.NoError(t, err)
	})
}

// Hazard 139. A source that hangs fails by a time limit of its own, as net/http's client does, later than its callers have left.
func TestASourceWhoseOwnTimeLimitIsLongerThanItsCallersIsHeldBack(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		var loads atomic.Int64
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _ = aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (int, error) {
				loads.Add(1)
				time.Sleep(2 * time.Second)
				return 0, fmt.Errorf("Get \"https://source\": %w", context.DeadlineExceeded)
			})
			cancel()
			time.Sleep(1010 * time.Millisecond)
		}
		time.Sleep(2 * time.Second) // for the last one
		require.Less(t, loads.Load(), int64(20), "loads in 50 calls: the back-off is up to five seconds")
	})
}

// An error is the end of the caller's own context only where it comes with that end. So it is in a batch.
func TestAnErrorThatComesLongAfterTheEndOfItsCallersContextIsTheSources(t *testing.T) {
	t.Parallel()
	const lasts = time.Second // what the caller has
	for name, test := range map[string]struct {
		end   func(ctx context.Context) (context.Context, context.CancelFunc)
		after time.Duration // the beginning of the load, it fails
		held  bool
	}{
		"with the deadline":     {deadline(lasts), lasts + time.Millisecond, false},
		"soon after it":         {deadline(lasts), lasts + 240*time.Millisecond, false},
		"long after it":         {deadline(lasts), lasts + 260*time.Millisecond, true},
		"before it":             {deadline(lasts), lasts / 2, true},
		"when it is cancelled":  {cancelled(lasts), lasts + time.Millisecond, false},
		"long after that":       {cancelled(lasts), lasts + 260*time.Millisecond, true},
		"when it has ended yet": {cancelled(0), 10 * time.Millisecond, false},
		"long after that end":   {cancelled(0), 260 * time.Millisecond, true},
	} {
		ask := map[string]func(ctx context.Context, c *aside.Cache, load func() error) error{
			"one": func(ctx context.Context, c *aside.Cache, load func() error) error {
				_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 0, load() })
				return err
			},
			"many": func(ctx context.Context, c *aside.Cache, load func() error) error {
				_, err := aside.GetOrLoadMany(ctx, c, []string{"b", "a"}, func(id string) aside.Key { return asidetest.Items.Key(id) },
					func(context.Context, []string) (map[string]int, error) { return nil, load() })
				return err
			},
		}
		for door, ask := range ask {
			t.Run(name+", "+door, func(t *testing.T) {
				t.Parallel()
				asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
					for range 2 { // the first one holds nobody back
						ctx, cancel := test.end(t.Context())
						over := make(chan struct{})
						_ = ask(ctx, c, func() error {
							defer close(over)
							time.Sleep(test.after)
							if ctx.Err() != nil {
								return ctx.Err()
							}
							return context.DeadlineExceeded
						})
						<-over
						synctest.Wait()
						cancel()
					}
					loads := 0
					_ = ask(t.Context(), c, func() error { loads++; return errors.New("down") })
					require.Equal(t, test.held, loads == 0)
				})
			})
		}
	}
}

func deadline(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
}

func cancelled(after time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		if after == 0 {
			cancel()
		} else {
			time.AfterFunc(after, cancel)
		}
		return ctx, cancel
	}
}

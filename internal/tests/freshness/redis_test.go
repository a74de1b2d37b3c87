package freshness_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// brief values are past their TTL soon after they are stored.
func brief(change func(p *aside.Policy)) *aside.Policy {
	p := aside.Policy{Name: "items", Category: "items", TTL: 300 * time.Millisecond}
	change(&p)
	if p.SoftTimeout == 0 {
		p.SoftTimeout = -1 // a busy machine may take longer than the default
	}
	return &p
}

func ageing(p *aside.Policy)  { p.Stale = time.Hour }
func onError(p *aside.Policy) { p.StaleIfError = time.Hour }

// pastTTL waits until the value of a key is past its TTL, by each process's clock. It asks the server alone, so nothing is begun.
func pastTTL(t *testing.T, c *aside.Cache, key aside.Key) {
	t.Helper()
	var since time.Time // it was seen to be past its TTL
	asidetest.Eventually(t, "the value is past its TTL", func() bool {
		for info, err := range c.Keys(t.Context(), aside.Pattern{}) {
			require.NoError(t, err)
			if info.Key == key.String() && info.Stale {
				require.Zero(t, info.TTL)
				require.Positive(t, info.KeptFor)
				if since.IsZero() {
					since = time.Now()
				}
				return time.Since(since) > 100*time.Millisecond
			}
		}
		return false
	})
}

// inMemory loads a value in the first of some caches, and has it in the memory of each while it is within its TTL. A busy machine may be too late
// for that, and then a load in the background is under way. So it begins again with nothing left of that try, and with a longer TTL.
func inMemory[T any](t *testing.T, key aside.Key, load func(context.Context) (T, error), caches []*aside.Cache, opts ...aside.CallOption) (last T) {
	t.Helper()
	elsewhere := func(context.Context) (v T, err error) { return v, errors.New("the first one loads it") }
	ttl := 300 * time.Millisecond
	failed := func() (n uint64) {
		for _, c := range caches {
			m := c.Metrics()
			n += m.TrackingLost + m.Labels["items"].RedisErrors
		}
		return n
	}
	asidetest.Repeatedly(t, "the value is in memory while it is fresh", func() bool {
		before := failed()
		for i, c := range caches {
			load := load
			if i > 0 {
				load = elsewhere
			}
			for began := time.Now(); ; {
				r, err := aside.Lookup(t.Context(), c, key, load, opts...)
				if err != nil || r.Status == aside.StatusStale || time.Since(began) > 4*ttl || failed() != before {
					_, err := caches[0].Invalidate(t.Context(), key)
					require.NoError(t, err)
					for _, c := range caches {
						asidetest.AllTold(t, c)
					}
					ttl *= 4
					opts = append(slices.Clip(opts), aside.WithTTL(ttl))
					return false
				}
				if last = r.Value; r.Tier == aside.TierMemory {
					break
				}
			}
		}
		return true
	})
	return last
}

// never is the loader of a call that is to be answered from the cache. In the background it hangs.
func never(ctx context.Context) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func requireStale(t *testing.T, c *aside.Cache, key aside.Key, want string, load func(context.Context) (string, error), opts ...aside.CallOption) {
	t.Helper()
	var r aside.Result[string]
	asidetest.Eventually(t, "it is past its TTL by this process's estimate of the server's clock too", func() bool {
		var err error
		r, err = aside.Lookup(t.Context(), c, key, load, opts...)
		require.NoError(t, err)
		require.Equal(t, want, r.Value)
		return r.Status != aside.StatusHit
	})
	require.Equal(t, aside.StatusStale, r.Status, r.Reason)
}

func TestAStaleValueIsLoadedOnceByAFleet(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	key := brief(ageing).Key("a")
	var fleet []*aside.Cache
	for range 4 {
		fleet = append(fleet, asidetest.Connected(t, asidetest.At(server.Addr())))
	}
	var loads atomic.Int64
	release := make(chan struct{})
	load := func(context.Context) (string, error) {
		loads.Add(1)
		<-release
		return "new", nil
	}
	inMemory(t, key, asidetest.Value("old"), fleet[:3]) // the fourth one has not got it in memory
	counted := func() (refreshes, skipped uint64) {
		for _, c := range fleet {
			m := c.Metrics().Labels["items"]
			refreshes, skipped = refreshes+m.Refreshes, skipped+m.RefreshesSkipped
		}
		return refreshes, skipped
	}
	before, skippedBefore := counted()
	left := server.MustDo(t, "PTTL", key.String()).(int64)
	require.InDelta(t, time.Hour.Milliseconds(), left, 60_000, "Redis keeps it for as long as it may be served")
	pastTTL(t, fleet[0], key)
	for range 3 {
		for _, c := range fleet {
			requireStale(t, c, key, "old", load)
		}
	}
	asidetest.Eventually(t, "one of them loads it, and the others leave it at that", func() bool {
		refreshes, skipped := counted()
		return refreshes == before+1 && skipped >= skippedBefore+3
	})
	close(release)
	for _, c := range fleet {
		asidetest.Eventually(t, "all get the new value", func() bool {
			v, err := aside.GetOrLoad(t.Context(), c, key, never)
			require.NoError(t, err)
			return v == "new"
		})
	}
	require.EqualValues(t, 1, loads.Load())
}

// Hazard 28: an invalidation beats a load in the background in each place where that can be, by key, tag and category, here and elsewhere.
func TestAnInvalidationBeatsARefreshInEachPlace(t *testing.T) {
	t.Parallel()
	for _, place := range []string{"before its lease", "in the loader", "on its way to Redis"} {
		for _, way := range []string{"key", "tag", "category"} {
			for _, where := range []string{"here", "elsewhere"} {
				t.Run(place+"/"+way+"/"+where, func(t *testing.T) {
					t.Parallel()
					server := redistest.Start(t)
					w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
					key := brief(ageing).Key("a")
					tagged := aside.WithTags("x")
					inMemory(t, key, asidetest.Value("old"), []*aside.Cache{w.Cache, other}, tagged)
					pastTTL(t, other, key)

					held := asidetest.NewHeld()
					load := held.Load("from before")
					var gate *redistest.Gate
					switch place {
					case "before its lease":
						close(held.Release)
						gate = w.Proxy.HoldRequests(func(args []string) bool { return asidetest.IsHead(args, key.String()) })
					case "on its way to Redis":
						close(held.Release)
						gate = w.Proxy.HoldRequests(func(args []string) bool {
							return asidetest.Evalsha(args, key.String()) && slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, "from before") })
						})
					}
					requireStale(t, w.Cache, key, "old", load, tagged)
					if gate != nil {
						gate.Wait(t)
					} else {
						<-held.Began
					}
					from := other
					if where == "here" {
						from = w.Cache
					}
					invalidated := make(chan struct{})
					go func() {
						defer close(invalidated)
						var err error
						switch way {
						case "key":
							_, err = from.Invalidate(t.Context(), key)
						case "tag":
							_, err = from.InvalidateTags(t.Context(), "x")
						case "category":
							_, err = from.InvalidateCategory(t.Context(), "items")
						}
						if err != nil {
							t.Error(err)
						}
					}()
					if gate != nil && where == "here" { // its command is held behind the other one
						asidetest.Eventually(t, "it is out of this process's memory", func() bool {
							_, err := aside.Get[string](canceled(t), w.Cache, key)
							return err != nil
						})
						gate.Release()
						<-invalidated
					} else {
						<-invalidated
						if gate != nil {
							gate.Release()
						} else {
							close(held.Release)
						}
					}
					allowed := []string{"new"}
					if place == "before its lease" { // the loader runs after the invalidation
						allowed = append(allowed, "from before")
					}
					asidetest.AllTold(t, w.Cache)
					asidetest.AllTold(t, other)
					for range 50 {
						for _, c := range []*aside.Cache{w.Cache, other} {
							v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("new"), tagged, aside.Strong())
							require.NoError(t, err)
							require.Contains(t, allowed, v)
							v, err = aside.GetOrLoad(t.Context(), c, key, asidetest.Value("new"), tagged)
							require.NoError(t, err)
							require.Contains(t, allowed, v)
						}
					}
					require.NotZero(t, w.Metrics().Labels["items"].Refreshes+w.Metrics().Labels["items"].RefreshesSkipped, "the load in the background was there")
				})
			}
		}
	}
}

// canceled is a context with which no call waits for Redis.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestAnotherProcesssValueIsServedWhereTheSourceFails(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer, reader := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	key := brief(onError).Key("a")
	inMemory(t, key, asidetest.Value("old"), []*aside.Cache{writer})
	pastTTL(t, writer, key)
	failing := func(context.Context) (string, error) { return "", errors.New("the source is down") }
	_, err := aside.Get[string](t.Context(), reader, key)
	require.ErrorIs(t, err, aside.ErrMiss)
	for _, c := range []*aside.Cache{reader, writer} {
		r, err := aside.Lookup(t.Context(), c, key, failing)
		require.NoError(t, err)
		require.Equal(t, "old", r.Value)
		require.Equal(t, aside.StatusStale, r.Status)
		require.Equal(t, "past its TTL, the load failed", r.Reason)
	}
	_, err = writer.Invalidate(t.Context(), key)
	require.NoError(t, err)
	for _, c := range []*aside.Cache{reader, writer} {
		_, err := aside.Lookup(t.Context(), c, key, failing)
		require.Error(t, err)
	}
}

// Hazard 29: what stands in for an error is looked up when the load has failed.
func TestAValueThatIsInvalidatedDuringAFailingLoadIsNoAnswer(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"here", "elsewhere"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
			key := brief(onError).Key("a")
			inMemory(t, key, asidetest.Value("old"), []*aside.Cache{c})
			pastTTL(t, c, key)
			began, release := make(chan struct{}), make(chan struct{})
			failed := make(chan error, 1)
			go func() {
				_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
					close(began)
					<-release
					return "", errors.New("the source is down")
				})
				failed <- err
			}()
			<-began
			from := c
			if where == "elsewhere" {
				from = other
			}
			_, err := from.Invalidate(t.Context(), key)
			require.NoError(t, err)
			asidetest.AllTold(t, c)
			close(release)
			require.ErrorContains(t, <-failed, "the source is down")
		})
	}
}

// Hazard 39: the lease of a load in the background that hangs keeps nobody waiting who needs a new value.
func TestTheLeaseOfARefreshThatHangsIsGivenBackAtItsTimeLimit(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := brief(func(p *aside.Policy) { p.Stale, p.LoadTimeout = time.Hour, 500*time.Millisecond })
	o := asidetest.At(server.Addr())
	o.LeaseTTL = time.Hour // it does not end by itself
	c, other := asidetest.Connected(t, o), asidetest.Connected(t, o)
	key := p.Key("a")
	inMemory(t, key, asidetest.Value("old"), []*aside.Cache{c})
	refreshes := c.Metrics().Labels["items"].Refreshes
	pastTTL(t, c, key)
	stuck, began := make(chan struct{}), make(chan struct{})
	defer close(stuck)
	requireStale(t, c, key, "old", func(context.Context) (string, error) {
		close(began)
		<-stuck
		return "", nil
	})
	<-began // otherwise the other process may get the lease first
	asidetest.Eventually(t, "another process loads it", func() bool {
		v, err := aside.GetOrLoad(t.Context(), other, key, asidetest.Value("new"))
		require.NoError(t, err)
		return v == "new"
	})
	require.Equal(t, refreshes+1, c.Metrics().Labels["items"].Refreshes)
}

// Without Redis the phases hold in memory: a value is loaded anew in the background before DegradedTTL ends, and nobody waits.
func TestAnOutageOfRedisIsNoWaveOfLoads(t *testing.T) {
	t.Parallel()
	asidetest.Repeatedly(t, "the machine does not stall", func() bool { return noWaveOfLoads(t) })
}

// noWaveOfLoads reports whether the machine did not stall meanwhile.
func noWaveOfLoads(t *testing.T) bool {
	p := &aside.Policy{Name: "items", Category: "items", TTL: time.Hour, Stale: time.Hour, DegradedTTL: time.Second}
	key := p.Key("a")
	c := asidetest.Away(t, aside.Options{}, func(c *aside.Cache) { inMemory(t, key, asidetest.Value("v"), []*aside.Cache{c}) })
	var loads atomic.Int64
	load := func(context.Context) (string, error) { loads.Add(1); return "v", nil }
	last := time.Now()
	for began := last; time.Since(began) < 3*time.Second; {
		r, err := aside.Lookup(t.Context(), c, key, load)
		require.NoError(t, err)
		now := time.Now()
		if now.Sub(last) > p.DegradedTTL/4 {
			return false
		}
		last = now
		require.Equal(t, aside.StatusStale, r.Status, "nobody waits for a load; %s", r.Reason)
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	require.GreaterOrEqual(t, loads.Load(), int64(2))
	require.LessOrEqual(t, loads.Load(), int64(7))
	asidetest.Eventually(t, "all of them were in the background", func() bool { return uint64(loads.Load()) == c.Metrics().Labels["items"].Refreshes })
	return true
}

// Hazard 40: after a load in the background has failed, no process tries again for a while. Hazard 39: who needs a new value does not wait for that.
func TestAFailedRefreshHoldsBackTheFleetAndNobodyWhoNeedsANewValue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.Backoff = time.Second // so the mark stays for ten
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	key := brief(ageing).Key("a")
	inMemory(t, key, asidetest.Value("old"), []*aside.Cache{a, b})
	skipped, failed := b.Metrics().Labels["items"].RefreshesSkipped, a.Metrics().Labels["items"].RefreshErrors
	pastTTL(t, a, key)
	var loads atomic.Int64
	failing := func(context.Context) (string, error) { loads.Add(1); return "", errors.New("the source is down") }
	requireStale(t, a, key, "old", failing)
	mark := func() string {
		text, _ := server.MustDo(t, "GET", "{"+key.String()+"}!l").(string)
		return text
	}
	asidetest.Eventually(t, "the key is marked", func() bool { return strings.HasPrefix(mark(), "-") })
	require.Positive(t, server.MustDo(t, "PTTL", "{"+key.String()+"}!l"))
	server.MustDo(t, "PEXPIRE", "{"+key.String()+"}!l", "60000") // so that the rest of the test is not in a hurry

	requireStale(t, b, key, "old", failing)
	asidetest.Eventually(t, "the other process leaves it alone", func() bool { return b.Metrics().Labels["items"].RefreshesSkipped == skipped+1 })
	require.EqualValues(t, 1, loads.Load())
	require.Equal(t, failed+1, a.Metrics().Labels["items"].RefreshErrors)

	v, err := aside.GetOrLoad(t.Context(), b, key, asidetest.Value("new"), aside.Strong())
	require.NoError(t, err)
	require.Equal(t, "new", v)
	asidetest.Eventually(t, "it is stored, and the mark is gone", func() bool { return mark() == "" })
	asidetest.AllTold(t, a)
	require.Equal(t, "new", asidetest.InMemory(t, a, key, failing))

	// An invalidation removes the mark too.
	pastTTL(t, a, key)
	requireStale(t, a, key, "new", failing)
	asidetest.Eventually(t, "the key is marked", func() bool { return strings.HasPrefix(mark(), "-") })
	_, err = b.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.Empty(t, mark())
}

// The loads end at the moment at which their callers leave with the older value, and name tags: what the callers look for is their own request,
// which the load does not change. This is for the race detector.
func TestALoadThatEndsAtTheSoftTimeoutLeavesItsCallersRequestAlone(t *testing.T) {
	t.Parallel()
	const soft, keys = 20 * time.Millisecond, 500
	server := redistest.Start(t)
	p := brief(func(p *aside.Policy) { p.StaleIfError, p.SoftTimeout = time.Hour, soft })
	writer := asidetest.Connected(t, asidetest.At(server.Addr()))
	for i := range keys {
		_, err := aside.GetOrLoad(t.Context(), writer, p.Key(i), asidetest.Value("old"))
		require.NoError(t, err)
	}
	pastTTL(t, writer, p.Key(keys-1))
	for range 2 {
		reader := asidetest.Connected(t, asidetest.At(server.Addr())) // that has nothing in memory
		var callers sync.WaitGroup
		for i := range keys {
			callers.Go(func() {
				r, err := aside.Lookup(t.Context(), reader, p.Key(i), func(ctx context.Context) (string, error) {
					aside.CurrentLoad(ctx).Tag("late")
					time.Sleep(soft - time.Duration(i%10)*300*time.Microsecond)
					return "new", nil
				})
				if err != nil || r.Value == "" {
					t.Errorf("%+v, %v", r, err)
				}
			})
		}
		callers.Wait()
		pastTTL(t, writer, p.Key(keys-1))
	}
}

// A load that finds nothing that is to be cached has succeeded: where the next one fails, nobody gets the value from before.
func TestALoadThatFindsNothingEndsTheOldValueInAllProcesses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for name, load := range map[string]func(ctx context.Context) (string, error){
		"not found": func(context.Context) (string, error) { return "", aside.ErrNotFound },
		"no store": func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).NoStore()
			return "new", nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
			key := brief(func(p *aside.Policy) { p.StaleIfError, p.NegativeTTL = time.Hour, -1 }).Key(name)
			inMemory(t, key, asidetest.Value("old"), []*aside.Cache{c, other})
			pastTTL(t, c, key)
			failing := func(context.Context) (string, error) { return "", errors.New("the source is down") }
			requireStale(t, other, key, "old", failing)
			_, err := aside.GetOrLoad(t.Context(), c, key, load)
			if name == "not found" {
				require.ErrorIs(t, err, aside.ErrNotFound)
			} else {
				require.NoError(t, err)
			}
			asidetest.AllTold(t, other)
			for _, c := range []*aside.Cache{c, other} {
				_, err := aside.GetOrLoad(t.Context(), c, key, failing)
				require.ErrorContains(t, err, "the source is down")
			}
		})
	}
}

// A value in memory that Redis no longer vouches for stands in for an error only while Redis cannot be asked:
//
//  1. The connection is lost. Another process invalidates the value.
//  2. The connection is back. The push of the invalidation is lost.
//  3. A load fails. The caller must not get the value from before the invalidation.
func TestAfterAnOutageRedisIsAskedForTheOldValue(t *testing.T) {
	t.Parallel()
	for _, invalidated := range []bool{true, false} {
		t.Run(map[bool]string{true: "invalidated", false: "still there"}[invalidated], func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
			key := brief(func(p *aside.Policy) { p.StaleIfError, p.DegradedTTL = time.Hour, time.Hour }).Key("a")
			inMemory(t, key, asidetest.Value("old"), []*aside.Cache{w.Cache})
			pastTTL(t, w.Cache, key)
			w.Proxy.Refuse(true)
			w.Proxy.CloseConnections()
			asidetest.Eventually(t, "the loss is noticed", func() bool { return w.Health().State == aside.StateDegraded })
			failing := func(context.Context) (string, error) { return "", errors.New("the source is down") }
			requireStale(t, w.Cache, key, "old", failing)
			if invalidated {
				_, err := other.Invalidate(t.Context(), key)
				require.NoError(t, err)
			}
			w.Proxy.Refuse(false)
			asidetest.Eventually(t, "the cache connects", func() bool { return w.Health().State == aside.StateConnected })
			if !invalidated {
				requireStale(t, w.Cache, key, "old", failing)
				return
			}
			_, err := aside.GetOrLoad(t.Context(), w.Cache, key, failing)
			require.ErrorContains(t, err, "the source is down")
		})
	}
}

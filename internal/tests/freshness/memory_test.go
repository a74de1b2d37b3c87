package freshness_test

import (
	"context"
	"errors"
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
	"github.com/gatewayz/aside/internal/redistest"
)

const ttl = 10 * time.Second

// items has each strategy where a test turns it on.
func items(change func(p *aside.Policy)) *aside.Policy {
	p := aside.Policy{Name: "items", Category: "items", TTL: ttl}
	change(&p)
	return &p
}

// A source has a version that grows with each load of it, and can fail, be slow or hang.
type source struct {
	loads atomic.Int64
	err   error
	takes time.Duration
}

func (s *source) load(ctx context.Context) (string, error) {
	v := s.loads.Add(1)
	if s.takes > 0 {
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "v" + strconv.FormatInt(v, 10), s.err
}

// look is a call, and how long it took.
func look(t *testing.T, c *aside.Cache, key aside.Key, s *source, opts ...aside.CallOption) (r aside.Result[string], waited time.Duration, err error) {
	t.Helper()
	began := time.Now()
	r, err = aside.Lookup(t.Context(), c, key, s.load, opts...)
	return r, time.Since(began), err
}

func requireLook(t *testing.T, c *aside.Cache, key aside.Key, s *source, value string, status aside.Status, reason string, opts ...aside.CallOption) {
	t.Helper()
	r, waited, err := look(t, c, key, s, opts...)
	require.NoError(t, err)
	require.Equal(t, value, r.Value)
	require.Equal(t, status, r.Status)
	require.Equal(t, reason, r.Reason)
	if status != aside.StatusMiss {
		require.Zero(t, waited, "nobody waits for a cached value")
	}
}

func TestAStaleValueIsServedAtOnceAndLoadedOnceBehind(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.Stale = ttl }).Key("a"), &source{takes: time.Second}
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl - time.Second)
		for range 10 {
			requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, being refreshed")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		requireLook(t, c, key, s, "v2", aside.StatusHit, "fresh")
		require.EqualValues(t, 2, s.loads.Load())
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, 1, m.Refreshes)
		require.EqualValues(t, 10, m.StaleHits)
		require.EqualValues(t, 11, m.Hits)

		// A value that nobody asks for is not refreshed: the first caller after its time waits.
		time.Sleep(2 * ttl)
		requireLook(t, c, key, s, "v3", aside.StatusMiss, "not cached")
	})
}

func TestAValueIsRefreshedBeforeItsTTLEnds(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.RefreshAhead = 0.5 }).Key("a"), &source{takes: time.Second}
		began := time.Now()
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		var at time.Duration
		for last := "v1"; time.Since(began) < 10*ttl; time.Sleep(10 * time.Millisecond) {
			r, waited, err := look(t, c, key, s)
			require.NoError(t, err)
			require.Zero(t, waited, "after %v", time.Since(began))
			require.Equal(t, aside.StatusHit, r.Status)
			require.Less(t, r.Age, ttl)
			if r.Value != last {
				since := time.Since(began) - at
				require.GreaterOrEqual(t, since, ttl/2, "not before the last half of the TTL")
				last, at = r.Value, time.Since(began)
			}
		}
		require.InDelta(t, 10*ttl/(ttl*6/10), s.loads.Load(), 6, "about one load in the last half of each TTL")
	})
}

func TestWhereTheSourceFailsTheOldValueIsServedWithinItsBudget(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.StaleIfError = ttl }).Key("a"), &source{}
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		s.err = errors.New("the source is down")
		time.Sleep(ttl)
		requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, the load failed")
		requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, the load failed")
		requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, the last loads failed")
		require.EqualValues(t, 3, s.loads.Load())
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, 3, m.StaleOnError)
		require.EqualValues(t, 2, m.LoadErrors)
		time.Sleep(ttl - time.Millisecond)
		_, _, err := look(t, c, key, s)
		require.NoError(t, err, "a millisecond before the end of its budget")
		time.Sleep(time.Millisecond)
		_, _, err = look(t, c, key, s)
		require.Error(t, err)
		time.Sleep(time.Minute)
		s.err = nil
		r, _, err := look(t, c, key, s)
		require.NoError(t, err)
		require.Equal(t, aside.StatusMiss, r.Status)
	})
}

func TestWhereTheSourceHangsTheOldValueIsServedAfterTheSoftTimeout(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key := items(func(p *aside.Policy) {
			p.StaleIfError, p.SoftTimeout, p.LoadTimeout = time.Hour, time.Second, 30*time.Second
		}).Key("a")
		s := &source{}
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		s.takes = 5 * time.Second
		time.Sleep(ttl)
		for _, wait := range []time.Duration{time.Second, 0} { // who comes later waits the rest only
			r, waited, err := look(t, c, key, s)
			require.NoError(t, err)
			require.Equal(t, "v1", r.Value)
			require.Equal(t, "past its TTL, the load takes longer than SoftTimeout", r.Reason)
			require.Equal(t, wait, waited)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		requireLook(t, c, key, s, "v2", aside.StatusHit, "fresh")
		require.EqualValues(t, 2, s.loads.Load(), "the load went on")
		require.EqualValues(t, 2, c.Metrics().Labels["items"].SoftTimeouts)

		other := &source{takes: time.Hour}
		_, waited, err := look(t, c, items(func(p *aside.Policy) {
			p.StaleIfError, p.SoftTimeout, p.LoadTimeout = time.Hour, time.Second, 30*time.Second
		}).Key("b"), other)
		asidetest.RequireCode(t, err, aside.CodeLoadTimeout)
		require.Equal(t, 30*time.Second, waited, "without an older value only LoadTimeout counts")
	})
}

func TestAnInvalidationEndsAnOldValueInEachPhase(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		p := items(func(p *aside.Policy) { p.RefreshAhead, p.Stale, p.StaleIfError = 0.5, ttl, 2*ttl })
		for name, invalidate := range map[string]func(key aside.Key) (aside.Receipt, error){
			"key":      func(key aside.Key) (aside.Receipt, error) { return c.Invalidate(t.Context(), key) },
			"category": func(aside.Key) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
			"tag":      func(aside.Key) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
			"all":      func(aside.Key) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
		} {
			for _, age := range []time.Duration{ttl - 1, ttl + ttl/2, 2*ttl + ttl/2} {
				key, s := p.Key(name, age.String()), &source{}
				_, _, err := look(t, c, key, s, aside.WithTags("x"))
				require.NoError(t, err)
				time.Sleep(age)
				_, err = invalidate(key)
				require.NoError(t, err)
				s.err = errors.New("the source is down")
				_, _, err = look(t, c, key, s, aside.WithTags("x"))
				require.Error(t, err, "%s after %v", name, age)
				_, err = aside.Get[string](t.Context(), c, key)
				require.ErrorIs(t, err, aside.ErrMiss)
			}
		}
	})
}

// Hazard 28: the invalidation comes while the load in the background runs.
func TestARefreshIsNotStoredOverAnInvalidation(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		p := items(func(p *aside.Policy) { p.Stale = time.Hour })
		for name, invalidate := range map[string]func(key aside.Key) (aside.Receipt, error){
			"key":      func(key aside.Key) (aside.Receipt, error) { return c.Invalidate(t.Context(), key) },
			"category": func(aside.Key) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
			"tag":      func(aside.Key) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		} {
			for _, beside := range []bool{true, false} { // a call comes while the old load runs, which then is overtaken, or only when it has ended
				key, s := p.Key(name, strconv.FormatBool(beside)), &source{}
				_, _, err := look(t, c, key, s, aside.WithTags("x"))
				require.NoError(t, err)
				time.Sleep(ttl)
				s.takes = time.Second
				requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, being refreshed", aside.WithTags("x"))
				synctest.Wait() // it runs
				require.EqualValues(t, 2, s.loads.Load())
				_, err = invalidate(key)
				require.NoError(t, err)
				if !beside {
					time.Sleep(time.Second)
					synctest.Wait()
				}
				r, _, err := look(t, c, key, s, aside.WithTags("x"))
				require.NoError(t, err)
				require.Equal(t, "v3", r.Value, "the second load began before the invalidation")
				time.Sleep(time.Second)
				requireLook(t, c, key, s, "v3", aside.StatusHit, "fresh", aside.WithTags("x"))
			}
		}
	})
}

func TestStrongRefreshMaxStaleAndGet(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.Stale, p.StaleIfError = ttl, 2*ttl }).Key("a"), &source{}
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		failing := &source{err: errors.New("the source is down")}
		time.Sleep(ttl + 5*time.Second)
		for _, opt := range []aside.CallOption{aside.Strong(), aside.Refresh(), aside.MaxStale(0), aside.MaxStale(5 * time.Second)} {
			_, _, err := look(t, c, key, failing, opt)
			require.Error(t, err, "an old value is no answer to it")
		}
		v, err := aside.Get[string](t.Context(), c, key)
		require.NoError(t, err)
		require.Equal(t, "v1", v, "and what is cached stays")
		synctest.Wait()
		require.EqualValues(t, 1, s.loads.Load(), "Get loads nothing")
		requireLook(t, c, key, failing, "v1", aside.StatusStale, "past its TTL, being refreshed", aside.MaxStale(5*time.Second+1))
		time.Sleep(5 * time.Second)
		_, err = aside.Get[string](t.Context(), c, key)
		require.ErrorIs(t, err, aside.ErrMiss, "past the time of Stale")
		requireLook(t, c, key, failing, "v1", aside.StatusStale, "past its TTL, the load failed")
		_, _, err = look(t, c, key, failing, aside.MaxStale(10*time.Second))
		require.Error(t, err)

		_, _, err = look(t, c, key, failing, aside.MaxStale(-1))
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument, "MaxStale")
		asidetest.RequireCode(t, aside.Set(t.Context(), c, key, "v", aside.MaxStale(0)), aside.CodeInvalidArgument, "MaxStale")
	})
}

// Hazard 45: what a load in the background says of its value counts.
func TestARefreshThatFindsNothingEndsTheOldValue(t *testing.T) {
	t.Parallel()
	for name, load := range map[string]func(ctx context.Context) (string, error){
		"not found": func(context.Context) (string, error) { return "", aside.ErrNotFound },
		"no store": func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).NoStore()
			return "new", nil
		},
	} {
		for _, negative := range []time.Duration{-1, time.Hour} {
			asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
				key := items(func(p *aside.Policy) { p.Stale, p.NegativeTTL = time.Hour, negative }).Key("a")
				requireLook(t, c, key, &source{}, "v1", aside.StatusMiss, "not cached")
				time.Sleep(ttl)
				r, err := aside.Lookup(t.Context(), c, key, load)
				require.NoError(t, err)
				require.Equal(t, "v1", r.Value)
				synctest.Wait()
				_, err = aside.Get[string](t.Context(), c, key)
				if name == "not found" && negative > 0 {
					require.ErrorIs(t, err, aside.ErrNotFound)
				} else {
					require.ErrorIs(t, err, aside.ErrMiss, name)
				}
			})
		}
	}
}

func TestTheStaleValuesOfABatchAreLoadedByOneCallBehind(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		p := items(func(p *aside.Policy) { p.Stale = time.Hour })
		var mu sync.Mutex
		var calls [][]int
		load := func(_ context.Context, ids []int) (map[int]string, error) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, append([]int(nil), ids...))
			values := make(map[int]string)
			for _, id := range ids {
				values[id] = strconv.Itoa(id) + " with " + strconv.Itoa(len(ids))
			}
			return values, nil
		}
		many := func(ids ...int) map[int]string {
			got, err := aside.GetOrLoadMany(t.Context(), c, ids, func(id int) aside.Key { return p.Key(id) }, load)
			require.NoError(t, err)
			synctest.Wait()
			return got
		}
		require.Len(t, many(1, 2, 3), 3)
		time.Sleep(ttl)
		require.Equal(t, map[int]string{1: "1 with 3", 2: "2 with 3"}, many(1, 2))
		require.Equal(t, [][]int{{1, 2, 3}, {1, 2}}, calls)
		require.Equal(t, map[int]string{1: "1 with 2", 3: "3 with 3", 4: "4 with 1"}, many(1, 3, 4))
		require.ElementsMatch(t, [][]int{{1, 2, 3}, {1, 2}, {4}, {3}}, calls)
	})
}

func TestHitsBesideALoadThatHangsLeaveNoGoroutines(t *testing.T) { // by itself: it counts all goroutines of the process
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.Stale, p.LoadTimeout = time.Hour, 10*time.Minute }).Key("a"), &source{}
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl)
		s.takes = 24 * time.Hour
		requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, being refreshed")
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 100 {
			for range 100 {
				requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, being refreshed")
			}
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, runtime.NumGoroutine(), before)
		require.EqualValues(t, 2, s.loads.Load())
	})
}

// A value that is set, loaded by force or loaded later is fresh for all of its TTL.
func TestASetBeginsAllTimesAnew(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.Stale = time.Hour }).Key("a"), &source{}
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl)
		s.takes = time.Second
		requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, being refreshed")
		synctest.Wait()
		require.NoError(t, aside.Set(t.Context(), c, key, "set"))
		time.Sleep(time.Second)
		synctest.Wait()
		requireLook(t, c, key, s, "set", aside.StatusHit, "fresh")
		time.Sleep(ttl - time.Second - 1)
		requireLook(t, c, key, s, "set", aside.StatusHit, "fresh")
		time.Sleep(time.Nanosecond)
		requireLook(t, c, key, s, "set", aside.StatusStale, "past its TTL, being refreshed")
	})
}

func TestAFailedRefreshIsLoggedAndCounted(t *testing.T) {
	t.Parallel()
	var log asidetest.Logbook
	asidetest.InBubble(t, aside.Options{Logger: log.Logger(), Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		key, s := items(func(p *aside.Policy) { p.Stale = time.Hour }).Key("a"), &source{}
		requireLook(t, c, key, s, "v1", aside.StatusMiss, "not cached")
		s.err = errors.New("the source is down")
		time.Sleep(ttl)
		for range 5 { // within ten seconds
			requireLook(t, c, key, s, "v1", aside.StatusStale, "past its TTL, being refreshed")
			synctest.Wait()
			time.Sleep(1900 * time.Millisecond)
		}
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, 5, m.Refreshes)
		require.EqualValues(t, 5, m.RefreshErrors)
		require.EqualValues(t, 5, m.LoadErrors)
		require.NoError(t, c.Close())
	})
	lines := log.Lines(t)
	require.Len(t, lines, 1)
	require.Equal(t, "aside: value could not be loaded anew, its callers get the older one", lines[0].Msg)
	require.Contains(t, log.String(), "the source is down")
	require.Contains(t, log.String(), "items:a")
}

func TestALoaderSaysWhenItsSourceMayBeAskedAgain(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		p := items(func(p *aside.Policy) { p.Stale, p.StaleIfError = time.Hour, 2*time.Hour })
		var loads int
		limited := func(ctx context.Context) (string, error) {
			loads++
			aside.CurrentLoad(ctx).RetryAfter(5 * time.Minute)
			return "", errors.New("429")
		}
		for range 3 {
			_, err := aside.GetOrLoad(t.Context(), c, p.Key("none"), limited)
			require.ErrorContains(t, err, "429")
		}
		require.Equal(t, 1, loads, "callers without an older value")
		_, err := aside.GetOrLoad(t.Context(), c, p.Key("none"), limited)
		e := asidetest.RequireCode(t, err, aside.CodeBackoff)
		require.Equal(t, 5*time.Minute, e.RetryAfter)
		time.Sleep(5 * time.Minute)
		v, err := aside.GetOrLoad(t.Context(), c, p.Key("none"), func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
		require.Equal(t, "v", v)

		requireLook(t, c, p.Key("a"), &source{}, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl)
		loads = 0
		for range 290 { // seconds
			r, err := aside.Lookup(t.Context(), c, p.Key("a"), limited)
			require.NoError(t, err)
			require.Equal(t, aside.StatusStale, r.Status)
			synctest.Wait()
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, loads, 2, "hits that have it loaded in the background")
		require.GreaterOrEqual(t, loads, 1)

		// A load that succeeds forgets it, and more than ten minutes are not heeded.
		loads = 0
		_, err = aside.GetOrLoad(t.Context(), c, p.Key("b"), func(ctx context.Context) (string, error) {
			aside.CurrentLoad(ctx).RetryAfter(24 * time.Hour)
			return "", errors.New("429")
		})
		require.Error(t, err)
		time.Sleep(10 * time.Minute)
		requireLook(t, c, p.Key("b"), &source{}, "v1", aside.StatusMiss, "not cached")
	})
}

// While a load in the background runs, a popular key has many hits.
func TestAStaleHitAllocatesNothing(t *testing.T) {
	if asidetest.RaceDetector {
		t.Skip("the race detector allocates")
	}
	for _, mode := range []string{"memory", "redis"} {
		var o aside.Options
		if mode == "redis" {
			o = asidetest.At(redistest.Start(t).Addr())
		}
		c, ctx := asidetest.NewCache(t, o), t.Context()
		if mode == "redis" {
			asidetest.Eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
		}
		p := aside.Policy{Name: "items", Category: "items", TTL: 300 * time.Millisecond, Stale: time.Hour}
		key, began := p.Key("a"), make(chan struct{})
		inMemory(t, key, asidetest.Value("old"), []*aside.Cache{c})
		over, once := make(chan struct{}), sync.Once{}
		load := func(context.Context) (string, error) {
			once.Do(func() { close(began) })
			<-over
			return "new", nil
		}
		asidetest.Eventually(t, "the value is past its TTL", func() bool {
			r, err := aside.Lookup(ctx, c, key, load)
			require.NoError(t, err)
			return r.Status == aside.StatusStale
		})
		<-began
		tags := aside.WithTags("x")
		for name, call := range map[string]func(){
			"GetOrLoad": func() { _, _ = aside.GetOrLoad(ctx, c, key, load) },
			"Lookup":    func() { _, _ = aside.Lookup(ctx, c, key, load) },
			"tags":      func() { _, _ = aside.GetOrLoad(ctx, c, key, load, tags) },
		} {
			least := 1e9
			for range 20 { // a claim, once in a second, allocates
				least = min(least, testing.AllocsPerRun(100, call))
			}
			if name == "tags" {
				require.LessOrEqual(t, least, 2.0, "the call's own list of tags")
				continue
			}
			require.Zero(t, least, "%s, %s", mode, name)
		}
		close(over)
	}
}

// A new value that cannot be stored is no better than none: the older one lives on, and the source is not asked each second.
func TestARefreshWhoseValueIsTooLargeCountsAsFailed(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxValueBytes: 1000}, func(t *testing.T, c *aside.Cache) {
		key := items(func(p *aside.Policy) { p.Stale = time.Hour }).Key("a")
		requireLook(t, c, key, &source{}, "v1", aside.StatusMiss, "not cached")
		time.Sleep(ttl)
		loads := 0
		for range 600 { // seconds
			r, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) {
				loads++
				return strings.Repeat("x", 2000), nil
			})
			require.NoError(t, err)
			require.Equal(t, "v1", r.Value)
			synctest.Wait()
			time.Sleep(time.Second)
		}
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, loads, m.RefreshErrors)
		require.EqualValues(t, loads, m.EncodeErrors)
		require.Less(t, loads, 60)
	})
}

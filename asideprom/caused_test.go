package asideprom_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideprom"
	"github.com/gatewayz/aside/internal/redistest"
)

// A watch compares scrapes before and after something was done, and keeps which series were caused.
type watch struct {
	t        *testing.T
	registry prometheus.Gatherer
	settle   func(ok func() bool) // waits for a condition, or for as long as it can come true
	caused   map[string]bool
}

// moves requires that series move by as much as they should, and no other counter of the label does, but for the buckets of histograms.
func (w *watch) moves(what string, want scrape, do func()) {
	w.t.Helper()
	before := scraped(w.t, w.registry)
	do()
	var wrong string
	w.settle(func() bool { wrong = w.differs(before, want); return wrong == "" })
	require.Empty(w.t, wrong, what)
	for name, by := range want {
		w.caused[name] = w.caused[name] || by > 0
	}
}

func (w *watch) differs(before, want scrape) string {
	after := scraped(w.t, w.registry)
	for name, by := range want {
		if _, ok := after[name]; !ok || !near(after[name]-before[name], by) {
			return fmt.Sprintf("%s moved from %v to %v, and not by %v", name, before[name], after[name], by)
		}
	}
	for name, v := range after.counters() {
		if _, named := want[name]; strings.Contains(name, "_total{label=") && !named && v != before[name] {
			return fmt.Sprintf("%s moved from %v to %v", name, before[name], v)
		}
	}
	return ""
}

// rises requires that a series becomes larger than it was.
func (w *watch) rises(what, series string, do func()) {
	w.t.Helper()
	before := scraped(w.t, w.registry)
	require.Contains(w.t, before, series)
	do()
	var after float64
	w.settle(func() bool { after = scraped(w.t, w.registry)[series]; return after > before[series] })
	require.Greater(w.t, after, before[series], what)
	w.caused[series] = true
}

// is requires the value of a series.
func (w *watch) is(series string, want float64) {
	w.t.Helper()
	var got scrape
	w.settle(func() bool { got = scraped(w.t, w.registry); return got[series] == want })
	require.Contains(w.t, got, series)
	require.Equal(w.t, want, got[series], series)
	w.caused[series] = w.caused[series] || want > 0
}

// patient gives a condition far longer than it takes.
func patient(ok func() bool) {
	for deadline := time.Now().Add(time.Minute); !ok() && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
}

var errSource = errors.New("the source fails")

// ignoring is err, unless it is what was expected.
func ignoring(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func value(v string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return v, nil }
}

func fails(err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return "", err }
}

// Each series of a cache is caused, in memory or on Redis, by what its description says.
func TestEachSeriesIsCaused(t *testing.T) {
	t.Parallel()
	caused := map[string]bool{}
	t.Run("in memory", func(t *testing.T) { causedInMemory(t, caused) })
	t.Run("of the memory", func(t *testing.T) { causedByBounds(t, caused) })
	t.Run("by checks", func(t *testing.T) { causedByChecks(t, caused) })
	onRedis := t.Run("on Redis", func(t *testing.T) { causedOnRedis(t, caused) })
	if !onRedis || !caused[`aside_state{state="connected"}`] {
		return // the test on Redis has failed, or there is no server
	}
	for name := range scraped(t, registered(t, away(t), asideprom.Options{})) {
		if strings.Contains(name, "_bucket{") || strings.Contains(name, "aside_info{") || name == "aside_tracking_paused_total" ||
			strings.Contains(name, "aside_redis_trips_total{") && !strings.Contains(name, `"broken"`) {
			continue // have tests of their own
		}
		require.True(t, caused[name], "no step has caused %s", name)
	}
}

// bubble runs a test of a cache in memory mode in a bubble, where times are exact.
func bubble(t *testing.T, caused map[string]bool, o aside.Options, test func(w *watch, c *aside.Cache)) {
	synctest.Test(t, func(t *testing.T) {
		o.Policies = []aside.Policy{models}
		c := open(t, o)
		w := &watch{t, registered(t, c, asideprom.Options{}), func(ok func() bool) { synctest.Wait(); ok() }, caused}
		test(w, c)
	})
}

func causedInMemory(t *testing.T, caused map[string]bool) {
	bubble(t, caused, aside.Options{MaxLoads: 2, MaxQueuedLoads: 1, MaxValueBytes: 1000, LoadGrace: -1}, func(w *watch, c *aside.Cache) {
		t, ctx := w.t, w.t.Context()
		get := func(p aside.Policy, id string, load func(context.Context) (string, error), opts ...aside.CallOption) {
			_, _ = aside.GetOrLoad(ctx, c, p.Key(id), load, opts...)
		}
		w.is(`aside_state{state="memory"}`, 1)
		w.is(`aside_state{state="connected"}`, 0)
		w.is("aside_state_since_timestamp_seconds", float64(time.Now().Unix()))
		w.is("aside_loads_limit", 2)
		w.is("aside_loads_queue_limit", 1)

		w.moves("a load", scrape{
			`aside_misses_total{label="models",cause="absent"}`: 1, `aside_loads_total{label="models",outcome="ok"}`: 1,
			`aside_load_duration_seconds_count{label="models"}`: 1, `aside_load_duration_seconds_sum{label="models"}`: 3,
			`aside_load_duration_seconds_bucket{label="models",le="1"}`: 0, `aside_load_duration_seconds_bucket{label="models",le="4"}`: 1,
			`aside_call_duration_seconds_count{label="models"}`: 1, `aside_call_duration_seconds_sum{label="models"}`: 3,
			`aside_value_bytes_count{label="models"}`: 1,
		}, func() {
			get(models, "a", func(context.Context) (string, error) { time.Sleep(3 * time.Second); return "v", nil })
		})
		w.rises("a larger value", `aside_value_bytes_sum{label="models"}`, func() { get(models, "large", value(strings.Repeat("x", 500))) })
		w.moves("a hit in memory, which is not timed", scrape{`aside_hits_total{label="models",tier="memory"}`: 1, `aside_call_duration_seconds_count{label="models"}`: 0},
			func() { get(models, "a", fails(errSource)) })
		w.moves("not found", scrape{`aside_misses_total{label="models",cause="absent"}`: 1, `aside_loads_total{label="models",outcome="not_found"}`: 1},
			func() { get(models, "none", fails(aside.ErrNotFound)) })
		w.moves("a hit on not found", scrape{`aside_hits_total{label="models",tier="memory"}`: 1, `aside_negative_hits_total{label="models"}`: 1},
			func() { get(models, "none", value("v")) })
		w.moves("Refresh", scrape{`aside_misses_total{label="models",cause="asked"}`: 1, `aside_loads_total{label="models",outcome="ok"}`: 1},
			func() { get(models, "a", value("w"), aside.Refresh()) })
		failed := func(outcome string) scrape {
			return scrape{`aside_misses_total{label="models",cause="absent"}`: 1, `aside_loads_total{label="models",outcome="` + outcome + `"}`: 1, `aside_errors_total{label="models",kind="load"}`: 1}
		}
		w.moves("an error", failed("error"), func() { get(models, "b", fails(errSource)) })
		w.moves("a panic", failed("panic"), func() { get(models, "b", func(context.Context) (string, error) { panic("boom") }) })

		hangs := make(chan struct{})
		timeout := failed("timeout")
		timeout["aside_loaders_unreturned"] = 1
		w.moves("a loader that ignores its context", timeout, func() { get(models, "b", func(context.Context) (string, error) { <-hangs; return "late", nil }) })
		close(hangs)
		w.is("aside_loaders_unreturned", 0)

		w.moves("a caller that leaves", scrape{`aside_misses_total{label="models",cause="absent"}`: 1, `aside_loads_total{label="models",outcome="canceled"}`: 1}, func() {
			left, leave := context.WithCancel(ctx)
			_, err := aside.GetOrLoad(left, c, models.Key("left"), func(ctx context.Context) (string, error) { leave(); <-ctx.Done(); return "", ctx.Err() })
			require.ErrorIs(t, err, context.Canceled)
		})
		w.moves("a value too large", scrape{`aside_misses_total{label="models",cause="absent"}`: 1, `aside_loads_total{label="models",outcome="ok"}`: 1, `aside_errors_total{label="models",kind="encode"}`: 1},
			func() { get(models, "too large", value(strings.Repeat("x", 2000))) })
		w.moves("an invalidation during the load", scrape{
			`aside_misses_total{label="models",cause="absent"}`: 1, `aside_loads_total{label="models",outcome="ok"}`: 1,
			`aside_fills_rejected_total{label="models"}`: 1, `aside_invalidations_total{by="keys"}`: 1,
		}, func() {
			get(models, "moved", func(context.Context) (string, error) {
				_, err := c.Invalidate(ctx, models.Key("moved"))
				return "old", err
			})
		})

		release := make(chan struct{})
		held := func(context.Context) (string, error) { <-release; return "v", nil }
		var callers sync.WaitGroup
		for i := range 3 {
			callers.Go(func() { get(models, fmt.Sprint("held", i), held) })
			synctest.Wait()
		}
		w.is("aside_loads_running", 2)
		w.is("aside_loads_queued", 1)
		w.moves("one more", scrape{`aside_overloads_total{label="models"}`: 1, `aside_misses_total{label="models",cause="absent"}`: 1, `aside_errors_total{label="models",kind="load"}`: 0},
			func() { get(models, "refused", value("v")) })
		close(release)
		callers.Wait()
		w.is("aside_loads_running", 0)

		stale := aside.Policy{Name: "stale", Category: "stale", Label: "models", TTL: 10 * time.Second, Stale: time.Minute, StaleIfError: 2 * time.Minute}
		get(stale, "a", value("v"))
		time.Sleep(20 * time.Second)
		w.moves("a hit past the TTL", scrape{
			`aside_hits_total{label="models",tier="memory"}`: 1, `aside_stale_hits_total{label="models"}`: 1, `aside_loads_total{label="models",outcome="not_modified"}`: 1,
			"aside_refreshes_total": 1, "aside_refresh_errors_total": 0, "aside_stale_on_error_total": 0,
		}, func() { get(stale, "a", fails(aside.ErrNotModified)); time.Sleep(time.Second) })
		time.Sleep(20 * time.Second)
		w.moves("a refresh that fails", scrape{
			`aside_hits_total{label="models",tier="memory"}`: 1, `aside_stale_hits_total{label="models"}`: 1, `aside_loads_total{label="models",outcome="error"}`: 1,
			`aside_errors_total{label="models",kind="load"}`: 1, "aside_refreshes_total": 1, "aside_refresh_errors_total": 1,
		}, func() { get(stale, "a", fails(errSource)); time.Sleep(time.Second) })
		time.Sleep(80 * time.Second)
		w.moves("an old value in place of an error", scrape{
			`aside_hits_total{label="models",tier="memory"}`: 1, `aside_stale_hits_total{label="models"}`: 1, `aside_loads_total{label="models",outcome="error"}`: 1,
			`aside_errors_total{label="models",kind="load"}`: 1, "aside_stale_on_error_total": 1, "aside_refreshes_total": 0,
		}, func() { get(stale, "a", fails(errSource)) })
		w.moves("a caller that wants none past its TTL", scrape{`aside_misses_total{label="models",cause="expired"}`: 1, `aside_loads_total{label="models",outcome="ok"}`: 1},
			func() { get(stale, "a", value("w"), aside.MaxStale(0)) })

		for by, invalidate := range map[string]func() (aside.Receipt, error){
			"tags":     func() (aside.Receipt, error) { return c.InvalidateTags(ctx, "tag") },
			"category": func() (aside.Receipt, error) { return c.InvalidateCategory(ctx, "models") },
			"pattern":  func() (aside.Receipt, error) { return c.InvalidatePattern(ctx, models.Match("x", aside.Wildcard)) },
			"all":      func() (aside.Receipt, error) { return c.InvalidateAll(ctx) },
		} {
			w.moves(by, scrape{`aside_invalidations_total{by="` + by + `"}`: 1}, func() {
				_, err := invalidate()
				require.NoError(t, err)
			})
		}
		requireLint(t, w.registry)
	})
}

func causedByBounds(t *testing.T, caused map[string]bool) {
	c := open(t, aside.Options{MaxEntries: 100, MaxBytes: 1 << 20})
	w := &watch{t, registered(t, c, asideprom.Options{}), patient, caused}
	w.is("aside_memory_max_entries", 100)
	w.is("aside_memory_max_bytes", 1<<20)
	w.rises("a value", "aside_memory_bytes", func() { require.NoError(t, aside.Set(t.Context(), c, models.Key(0), strings.Repeat("x", 1000))) })
	w.is("aside_memory_entries", 1)
	one := scraped(t, w.registry)["aside_memory_bytes"]
	w.rises("values that make room", "aside_memory_evictions_total", func() {
		for i := range 1000 {
			require.NoError(t, aside.Set(t.Context(), c, models.Key(i), strings.Repeat("x", 1000)))
		}
	})
	eventually(t, "all have made room", func() bool {
		s := scraped(t, w.registry)
		return s["aside_memory_entries"] <= 100 && s["aside_memory_evicted_bytes_total"] == one*s["aside_memory_evictions_total"]
	})
	w.caused["aside_memory_evicted_bytes_total"] = true
}

func causedByChecks(t *testing.T, caused map[string]bool) {
	everyHit := aside.ConsistencyCheck{SampleRate: 1, SettleTime: 10 * time.Second, MaxPerSecond: -1}
	bubble(t, caused, aside.Options{ConsistencyCheck: everyHit}, func(w *watch, c *aside.Cache) {
		get := func(load func(context.Context) (string, error)) {
			_, err := aside.GetOrLoad(w.t.Context(), c, models.Key("a"), load)
			require.NoError(w.t, err)
			synctest.Wait()
		}
		get(value("v"))
		hit := `aside_hits_total{label="models",tier="memory"}`
		w.moves("a hit that is right", scrape{hit: 1, `aside_checks_total{label="models"}`: 1}, func() { get(value("v")) })
		w.moves("a hit whose load fails", scrape{hit: 1, `aside_checks_skipped_total{label="models"}`: 1}, func() { get(fails(errSource)) })
		w.moves("a hit that is wrong", scrape{hit: 1, `aside_checks_total{label="models"}`: 1, `aside_checks_inconsistent_total{label="models"}`: 1},
			func() { get(value("w")); time.Sleep(everyHit.SettleTime) })
	})
}

// at is the options for a cache on a server, with long limits: these tests are not about time.
func at(addr string) aside.Options {
	o := aside.Options{
		Redis:     rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, ConnWriteTimeout: 2500 * time.Millisecond},
		OpTimeout: 5 * time.Second, Policies: []aside.Policy{models},
	}
	o.Redis.Dialer.KeepAlive = 250 * time.Millisecond // with which so long a ConnWriteTimeout is allowed
	return o
}

func connected(t *testing.T, addr string) *aside.Cache {
	c := open(t, at(addr))
	eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
	return c
}

func causedOnRedis(t *testing.T, caused map[string]bool) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c, other := connected(t, server.Addr()), connected(t, proxy.Addr())
	w := &watch{t, registered(t, c, asideprom.Options{}), patient, caused}
	ctx := t.Context()
	get := func(id string) {
		t.Helper()
		_, err := aside.GetOrLoad(ctx, c, models.Key(id), value("loaded"))
		require.NoError(t, err)
	}
	stored := func(id string, opts ...aside.CallOption) {
		t.Helper()
		eventually(t, "the value is stored", func() bool {
			require.NoError(t, aside.Set(ctx, other, models.Key(id), "v", opts...))
			return server.MustDo(t, "EXISTS", models.Key(id).String()) == int64(1)
		})
	}

	w.is(`aside_state{state="connected"}`, 1)
	w.is(`aside_state{state="degraded"}`, 0)
	w.is(`aside_info{mode="redis",tracking="true",version=""}`, 1)
	stored("a")
	w.moves("a hit in Redis", scrape{`aside_hits_total{label="models",tier="redis"}`: 1, `aside_hits_total{label="models",tier="memory"}`: 0}, func() { get("a") })
	w.rises("another process writes what this one has read", "aside_invalidation_messages_total", func() { stored("a") })
	server.MustDo(t, "SET", models.Key("foreign").String(), "written by something else")
	w.moves("a value that cannot be decoded", scrape{
		`aside_misses_total{label="models",cause="unusable"}`: 1, `aside_errors_total{label="models",kind="decode"}`: 1, `aside_loads_total{label="models",outcome="ok"}`: 1,
	}, func() { get("foreign") })

	stored("tagged", aside.WithTags("tag"))
	sweep := proxy.HoldRequests(func(args []string) bool { return args[0] == "SCAN" }) // otherwise the value may be removed before it is read
	_, err := other.InvalidateTags(ctx, "tag")
	require.NoError(t, err)
	w.moves("a value with an invalidated tag", scrape{`aside_misses_total{label="models",cause="invalidated"}`: 1, `aside_loads_total{label="models",outcome="ok"}`: 1},
		func() { get("tagged") })
	sweep.Release()

	w.is("aside_redis_up{node=\"the server\"}", 1)
	for op, do := range map[string]func() error{
		"read": func() error {
			_, err := aside.Get[string](ctx, c, models.Key("not there"))
			return ignoring(err, aside.ErrMiss)
		},
		"lease":      func() error { get("leased and filled"); return nil },
		"fill":       func() error { return aside.Set(ctx, c, models.Key("set"), "v", aside.WithTags("mine")) },
		"invalidate": func() error { _, err := c.Invalidate(ctx, models.Key("set")); return err },
	} {
		series := `aside_redis_duration_seconds_count{op="` + op + `"}`
		w.rises(op, series, func() { require.NoError(t, do()) })
		w.caused[strings.Replace(series, "_count", "_sum", 1)] = scraped(t, w.registry)[strings.Replace(series, "_count", "_sum", 1)] > 0
	}
	w.rises("the cleanup behind an invalidation", "aside_swept_entries_total", func() {
		stored("swept", aside.WithTags("swept"))
		receipt, err := c.InvalidateTags(ctx, "swept")
		require.NoError(t, err)
		removed, err := receipt.WaitCleanup(ctx)
		require.NoError(t, err)
		require.Positive(t, removed)
	})
	for _, series := range []string{`aside_redis_duration_seconds_count{op="sweep"}`, `aside_redis_duration_seconds_sum{op="sweep"}`} {
		require.Positive(t, scraped(t, w.registry)[series])
		w.caused[series] = true
	}

	w.rises("everything is flushed", "aside_tracking_lost_total", func() { server.FlushAll(t) })

	// A load that holds a lease when Redis no longer answers.
	began, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := aside.GetOrLoad(ctx, c, models.Key("leased"), func(context.Context) (string, error) { close(began); <-release; return "v", nil })
		ended <- err
	}()
	<-began
	w.is("aside_leases_held", 1)
	broken := `aside_redis_trips_total{cause="broken",node="the server"}`
	w.rises("the server goes", broken, server.Kill)
	require.EqualValues(t, 1, scraped(t, w.registry)[broken])
	w.is(`aside_state{state="degraded"}`, 1)
	w.is("aside_redis_up{node=\"the server\"}", 0)
	close(release)
	require.NoError(t, <-ended)
	w.is("aside_leases_unreturned", 1)
	w.is("aside_leases_held", 0)
	w.rises("a call without Redis", `aside_misses_total{label="models",cause="unavailable"}`, func() { get("away") })
	w.rises("an operation without Redis", `aside_errors_total{label="models",kind="redis"}`, func() { require.NoError(t, aside.Set(ctx, c, models.Key("away"), "v")) })
	w.moves("a category that Redis does not confirm", scrape{"aside_invalidation_errors_total": 1, "aside_invalidations_unconfirmed": 1, `aside_invalidations_total{by="category"}`: 1}, func() {
		_, err := c.InvalidateCategory(ctx, "models")
		require.NoError(t, err)
	})
	w.rises("it waits", "aside_invalidations_unconfirmed_oldest_seconds", func() {})
	server.Restart()
	w.is("aside_invalidations_unconfirmed", 0)
	w.is("aside_invalidations_unconfirmed_oldest_seconds", 0)
	requireLint(t, w.registry)
}

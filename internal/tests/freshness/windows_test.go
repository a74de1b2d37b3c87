package freshness_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// The table has what a call and a loader say of one value's windows, and what comes of it. Here is the rest: bounds, batches, and other processes.

var plain = func(*aside.Policy) {}

// keptFor is the loader of a value with windows of its own.
func keptFor(value string, stale, ifError time.Duration) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		aside.CurrentLoad(ctx).Stale(stale)
		aside.CurrentLoad(ctx).StaleIfError(ifError)
		return value, nil
	}
}

func infoOf(t *testing.T, c *aside.Cache, key aside.Key) (info aside.KeyInfo, found bool) {
	t.Helper()
	for info, err := range c.Keys(t.Context(), aside.Pattern{}) {
		require.NoError(t, err)
		if info.Key == key.String() {
			return info, true
		}
	}
	return aside.KeyInfo{}, false
}

const century = 100 * 365 * 24 * time.Hour

func TestWindowsThatNoValueCanHaveAreRefused(t *testing.T) {
	t.Parallel()
	var none []time.Duration
	for name, test := range map[string]struct {
		stale, ifError []time.Duration // none: not said
		ttl            time.Duration
		want           string
	}{
		"negative":                   {[]time.Duration{-1}, none, ttl, "tale is -1ns: set at least 1ms, or 0 for none"},
		"short":                      {[]time.Duration{999 * time.Microsecond}, none, ttl, "tale is 999µs: set at least 1ms, or 0 for none"},
		"negative on errors":         {none, []time.Duration{-time.Hour}, ttl, "Error is -1h0m0s: set at least 1ms, or 0 for none"},
		"short on errors":            {none, []time.Duration{1}, ttl, "Error is 1ns: set at least 1ms, or 0 for none"},
		"shorter on errors":          {[]time.Duration{time.Hour}, []time.Duration{time.Minute}, ttl, "Error is 1m0s, less than "},
		"long":                       {[]time.Duration{century}, none, ttl, "tale is 876000h0m0s, and the TTL 10s: set at most 100 years for both together"},
		"long on errors":             {none, []time.Duration{century - ttl + 1}, ttl, "Error is 875999h59m50.000000001s, and the TTL 10s: set at most 100 years"},
		"long, with its TTL":         {[]time.Duration{time.Hour}, none, century, "tale is 1h0m0s, and the TTL 876000h0m0s: set at most 100 years"},
		"the longest":                {[]time.Duration{century - ttl}, []time.Duration{century - ttl}, ttl, ""},
		"the shortest":               {[]time.Duration{time.Millisecond}, none, ttl, ""},
		"on errors alone":            {[]time.Duration{0}, []time.Duration{time.Hour}, ttl, ""},
		"as long on errors, unsaid":  {[]time.Duration{time.Hour}, none, ttl, ""},
		"as long on errors, by zero": {[]time.Duration{time.Hour}, []time.Duration{0}, ttl, ""},
		"none":                       {[]time.Duration{0}, []time.Duration{0}, ttl, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := asidetest.NewCache(t, aside.Options{Logger: asidetest.Quiet()})
			key := items(plain).Key("a")
			sum := func(d []time.Duration) (s time.Duration) {
				for _, d := range d {
					s += d
				}
				return s
			}
			check := func(err error, fields ...string) {
				t.Helper()
				if test.want == "" {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
				require.ErrorContains(t, err, test.want)
				var names []bool
				for _, field := range fields {
					names = append(names, strings.Contains(err.Error(), field))
				}
				require.Contains(t, names, true, err)
				_, found := infoOf(t, c, key)
				require.False(t, found)
			}
			options := []aside.CallOption{aside.WithTTL(test.ttl), aside.WithStale(sum(test.stale), sum(test.ifError))}
			loads := 0
			_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) {
				loads++
				return "v", nil
			}, options...)
			check(err, "WithStale: stale is", "WithStale: ifError is")
			require.Equal(t, test.want == "", loads == 1)
			check(aside.Set(t.Context(), c, key, "v", options...), "WithStale: stale is", "WithStale: ifError is")
			_, err = c.Invalidate(t.Context(), key)
			require.NoError(t, err)
			before := c.Metrics().Labels["items"].LoadErrors
			_, err = aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
				for _, d := range test.stale {
					aside.CurrentLoad(ctx).Stale(d)
				}
				for _, d := range test.ifError {
					aside.CurrentLoad(ctx).StaleIfError(d)
				}
				aside.CurrentLoad(ctx).TTL(test.ttl)
				return "v", nil
			})
			check(err, "Load.Stale is", "Load.StaleIfError is")
			require.Equal(t, test.want != "", c.Metrics().Labels["items"].LoadErrors == before+1)
		})
	}
}

// A loader that says one of the two leaves the other one to the call or the policy.
func TestALoaderMaySayOneWindow(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		say           func(l *aside.Load)
		option        aside.CallOption
		stale, onFail time.Duration
		err           string
	}{
		"stale":                        {func(l *aside.Load) { l.Stale(30 * time.Second) }, aside.CallOption{}, 30 * time.Second, 40 * time.Second, ""},
		"stale, more than on errors":   {func(l *aside.Load) { l.Stale(time.Minute) }, aside.CallOption{}, time.Minute, time.Minute, ""},
		"no stale":                     {func(l *aside.Load) { l.Stale(0) }, aside.CallOption{}, 0, 40 * time.Second, ""},
		"on errors":                    {func(l *aside.Load) { l.StaleIfError(time.Minute) }, aside.CallOption{}, 20 * time.Second, time.Minute, ""},
		"none on errors":               {func(l *aside.Load) { l.StaleIfError(0) }, aside.CallOption{}, 20 * time.Second, 20 * time.Second, ""},
		"on errors, less than stale":   {func(l *aside.Load) { l.StaleIfError(time.Second) }, aside.CallOption{}, 0, 0, "Load.StaleIfError is 1s, less than Stale, which is 20s"},
		"no stale, over the call":      {func(l *aside.Load) { l.Stale(0) }, aside.WithStale(30*time.Second, 0), 0, 0, ""},
		"stale, over the call":         {func(l *aside.Load) { l.Stale(5 * time.Second) }, aside.WithStale(30*time.Second, time.Minute), 5 * time.Second, time.Minute, ""},
		"nothing, and neither a call":  {func(l *aside.Load) {}, aside.CallOption{}, 20 * time.Second, 40 * time.Second, ""},
		"nothing, and the call no one": {func(l *aside.Load) {}, aside.WithStale(0, 0), 0, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet(), Backoff: -1}, func(t *testing.T, c *aside.Cache) {
				p := items(func(p *aside.Policy) { p.Stale, p.StaleIfError, p.SoftTimeout = 20*time.Second, 40*time.Second, -1 })
				key := p.Key("a")
				_, err := aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
					test.say(aside.CurrentLoad(ctx))
					return "old", nil
				}, test.option)
				if test.err != "" {
					require.ErrorContains(t, err, test.err)
					return
				}
				require.NoError(t, err)
				info, _ := infoOf(t, c, key)
				require.Equal(t, ttl+test.onFail, info.KeptFor)
				down, loaded := &source{err: errors.New("the source is down")}, time.Now()
				phase := func(after time.Duration, want aside.Status) {
					t.Helper()
					time.Sleep(ttl + after - time.Since(loaded))
					r, _, err := look(t, c, key, down)
					if want == "" {
						require.ErrorContains(t, err, "down")
						return
					}
					require.NoError(t, err)
					require.Equal(t, want, r.Status)
					require.Equal(t, max(0, after), r.Stale)
					synctest.Wait()
				}
				phase(-time.Millisecond, aside.StatusHit)
				if test.stale > 0 {
					before := down.loads.Load()
					phase(test.stale-time.Millisecond, aside.StatusStale)
					require.Equal(t, before+1, down.loads.Load(), "in the background")
				}
				if test.onFail > test.stale {
					phase(test.stale, aside.StatusStale)
					phase(test.onFail-time.Millisecond, aside.StatusStale)
				}
				phase(test.onFail, "")
			})
		})
	}
}

func TestEachIDOfABatchHasItsWindows(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		p := items(plain)
		key := func(id int) aside.Key { return p.Key(id) }
		load := func(ctx context.Context, ids []int) (map[int]string, error) {
			l := aside.CurrentLoad(ctx)
			l.Stale(time.Minute)
			l.Of(key(1)).Stale(2 * time.Minute)
			l.Of(key(2)).StaleIfError(time.Hour)
			l.Of(key(3)).Stale(0)
			l.Of(key(4)).Stale(1)
			values := make(map[int]string)
			for _, id := range ids {
				values[id] = "v"
			}
			return values, nil
		}
		_, err := aside.GetOrLoadMany(t.Context(), c, []int{0, 1, 2, 3, 4}, key, load)
		var failed *aside.BatchError[int]
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Errors, 1)
		require.ErrorContains(t, failed.Errors[4], "Load.Stale is 1ns")
		for id, want := range map[int]time.Duration{0: time.Minute, 1: 2 * time.Minute, 2: time.Hour, 3: 0} {
			info, found := infoOf(t, c, key(id))
			require.True(t, found)
			require.Equal(t, ttl+want, info.KeptFor, id)
		}
		time.Sleep(ttl + time.Minute)
		for id, want := range map[int]bool{0: false, 1: true, 2: false, 3: false} {
			_, err := aside.Get[string](t.Context(), c, key(id))
			require.Equal(t, want, err == nil, id)
		}

		// Those of a call are for all its ids.
		_, err = aside.GetOrLoadMany(t.Context(), c, []int{5, 6}, key, func(ctx context.Context, ids []int) (map[int]string, error) {
			return map[int]string{5: "v", 6: "v"}, nil
		}, aside.WithStale(time.Minute, time.Hour))
		require.NoError(t, err)
		for _, id := range []int{5, 6} {
			info, _ := infoOf(t, c, key(id))
			require.Equal(t, ttl+time.Hour, info.KeptFor, id)
		}
	})
}

func TestALoaderThatHasReturnedSetsNoWindows(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key := items(plain).Key("a")
		var l *aside.Load
		_, err := aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
			l = aside.CurrentLoad(ctx)
			return "v", nil
		})
		require.NoError(t, err)
		l.Stale(time.Hour)
		l.StaleIfError(time.Hour)
		info, _ := infoOf(t, c, key)
		require.Equal(t, ttl, info.KeptFor)

		var none *aside.Load // outside of a load
		none.Stale(time.Hour)
		none.StaleIfError(time.Hour)
	})
}

// What ends a value ends one with windows of its own, in a policy without any: an invalidation, and a load that finds nothing to be stored.
func TestWhatEndsAValueEndsOneWithItsOwnWindows(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"memory", "Redis", "Redis, by another process"} {
		for name, end := range map[string]func(t *testing.T, c *aside.Cache, key aside.Key){
			"invalidation by key": func(t *testing.T, c *aside.Cache, key aside.Key) {
				_, err := c.Invalidate(t.Context(), key)
				require.NoError(t, err)
			},
			"invalidation by tag": func(t *testing.T, c *aside.Cache, _ aside.Key) {
				_, err := c.InvalidateTags(t.Context(), "x")
				require.NoError(t, err)
			},
			"no store": func(t *testing.T, c *aside.Cache, key aside.Key) {
				v, err := aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
					aside.CurrentLoad(ctx).NoStore()
					return "new", nil
				})
				require.NoError(t, err)
				require.Equal(t, "new", v)
			},
		} {
			t.Run(where+"/"+name, func(t *testing.T) {
				t.Parallel()
				o := aside.Options{}
				if where != "memory" {
					o = asidetest.At(redistest.Start(t).Addr())
				}
				c := asidetest.NewCache(t, o)
				if where != "memory" {
					asidetest.Eventually(t, "it connects", func() bool { return c.Health().State == aside.StateConnected })
				}
				other := c
				if where == "Redis, by another process" {
					other = asidetest.Connected(t, o)
				}
				key := brief(plain).Key("a")
				asidetest.InMemory(t, c, key, asidetest.Value("old"), aside.WithTags("x"), aside.WithStale(0, time.Hour))
				pastTTL(t, c, key)
				down := func(context.Context) (string, error) { return "", errors.New("the source is down") }
				asidetest.Eventually(t, "it stands in for an error, by this process's clock too", func() bool {
					r, err := aside.Lookup(t.Context(), other, key, down)
					require.NoError(t, err)
					require.Equal(t, "old", r.Value)
					return r.Reason == aside.ReasonLoadFailed && r.Stale > 50*time.Millisecond
				})
				end(t, other, key)
				for _, c := range []*aside.Cache{other, c} {
					asidetest.Eventually(t, "it is no answer any more", func() bool {
						_, err := aside.GetOrLoad(t.Context(), c, key, down)
						return err != nil
					})
				}
			})
		}
	}
}

// The windows of a value hold in all processes, whatever their policy says.
func TestAValuesOwnWindowsHoldInAllProcesses(t *testing.T) {
	t.Parallel()
	store := map[string]func(t *testing.T, c *aside.Cache, key aside.Key, stale, ifError time.Duration){
		"loader": func(t *testing.T, c *aside.Cache, key aside.Key, stale, ifError time.Duration) {
			_, err := aside.GetOrLoad(t.Context(), c, key, keptFor("old", stale, ifError))
			require.NoError(t, err)
		},
		"call": func(t *testing.T, c *aside.Cache, key aside.Key, stale, ifError time.Duration) {
			_, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("old"), aside.WithStale(stale, ifError))
			require.NoError(t, err)
		},
		"Set": func(t *testing.T, c *aside.Cache, key aside.Key, stale, ifError time.Duration) {
			asidetest.Stored(t, c, key, "old", aside.WithStale(stale, ifError))
		},
	}
	failing := func(context.Context) (string, error) { return "", errors.New("the source is down") }
	for by, store := range store {
		for name, test := range map[string]struct {
			writers, readers func(*aside.Policy)
			stale, ifError   time.Duration
			life             time.Duration // after the TTL
			served           bool          // past the TTL, at once
		}{
			"a policy without any":         {plain, plain, time.Hour, 2 * time.Hour, 2 * time.Hour, true},
			"of the writer's policy alone": {ageing, plain, time.Hour, 0, time.Hour, true},
			"longer than the policies'":    {func(p *aside.Policy) { p.Stale = time.Millisecond }, func(p *aside.Policy) { p.Stale = time.Millisecond }, time.Hour, 0, time.Hour, true},
			"on errors alone":              {plain, plain, 0, time.Hour, time.Hour, false},
			"shorter than the policies'":   {ageing, ageing, 0, 30 * time.Minute, 30 * time.Minute, false},
		} {
			t.Run(by+"/"+name, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				writer := asidetest.Connected(t, asidetest.At(server.Addr()))
				key := brief(test.writers).Key("a")
				store(t, writer, key, test.stale, test.ifError)
				asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", key.String()) == int64(1) })
				left := server.MustDo(t, "PTTL", key.String()).(int64)
				require.InDelta(t, test.life.Milliseconds(), left, 2000, "Redis keeps it for as long as it may be served")
				pastTTL(t, writer, key)
				for _, c := range []*aside.Cache{asidetest.Connected(t, asidetest.At(server.Addr())), writer} {
					key := brief(test.readers).Key("a")
					if c == writer {
						key = brief(test.writers).Key("a")
					}
					_, err := aside.Get[string](t.Context(), c, key)
					require.Equal(t, test.served, err == nil)
					_, err = aside.GetOrLoad(t.Context(), c, key, failing, aside.MaxStale(0))
					require.Error(t, err, "MaxStale shortens them")
					r, err := aside.Lookup(t.Context(), c, key, failing)
					require.NoError(t, err)
					require.Equal(t, "old", r.Value)
					want := aside.ReasonLoadFailed
					if test.served {
						want = aside.ReasonStale
					}
					require.Equal(t, want, r.Reason)
					info, found := infoOf(t, c, key)
					require.True(t, found)
					require.InDelta(t, test.life.Seconds(), info.KeptFor.Seconds(), 10)
				}
			})
		}
	}
}

// The first call of a process for such a value waits no longer than the later ones.
func TestTheFirstCallerOfAProcessGetsAValueWithItsOwnWindowsAtTheSoftTimeout(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer, reader := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	p := brief(func(p *aside.Policy) { p.SoftTimeout = 100 * time.Millisecond })
	key := p.Key("a")
	asidetest.InMemory(t, writer, key, keptFor("old", 0, time.Hour))
	pastTTL(t, writer, key)
	r, err := aside.Lookup(t.Context(), reader, key, never)
	require.NoError(t, err)
	require.Equal(t, "old", r.Value)
	require.Equal(t, aside.ReasonSlowLoad, r.Reason)
}

func TestAValueWithItsOwnWindowsIsServedByAnotherProcess(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("shared")
	asidetest.InMemory(t, c, key, keptFor("old", time.Hour, 0), aside.WithTTL(300*time.Millisecond))
	pastTTL(t, c, key)
	other := redistest.Spawn(t, "reader", "ADDR="+server.Addr())
	line, err := other.Line()
	require.NoError(t, err)
	require.Equal(t, "old <nil>", line)
	require.NoError(t, other.Wait())
}

// A caller who joins a load in the background does not wait for it where Redis has a value that may be served, also if only the value says so.
func TestACallerBesideARefreshOfAValueThatMemoryDoesNotHold(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.MaxBytes = 100 // memory keeps none of them
	c := asidetest.Connected(t, o)
	key, large := brief(plain).Key("a"), strings.Repeat("v", 1000)
	_, err := aside.GetOrLoad(t.Context(), c, key, keptFor(large, time.Hour, 0))
	require.NoError(t, err)
	pastTTL(t, c, key)
	requireStale(t, c, key, large, never)
	asidetest.Eventually(t, "the load runs", func() bool { return c.Metrics().Labels["items"].Refreshes == 1 })
	r, err := aside.Lookup(t.Context(), c, key, never)
	require.NoError(t, err)
	require.Equal(t, large, r.Value)
	require.Equal(t, aside.ReasonStale, r.Reason, "and not only after SoftTimeout")
}

// The generations of a value's tags live as long as the value.
func TestTheKeyOfATagOutlivesAValueWithItsOwnWindows(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	p := brief(plain)
	left := func(tag string) time.Duration {
		return time.Duration(server.MustDo(t, "PTTL", "%t:"+tag).(int64)) * time.Millisecond
	}
	get := func(key aside.Key, load func(context.Context) (string, error), opts ...aside.CallOption) {
		_, err := aside.GetOrLoad(t.Context(), c, key, load, opts...)
		require.NoError(t, err)
		asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", key.String()) == int64(1) })
	}
	get(p.Key("call"), asidetest.Value("v"), aside.WithTags("call"), aside.WithStale(0, 5*time.Hour))
	require.Greater(t, left("call"), 5*time.Hour)
	get(p.Key("loader"), keptFor("v", 0, 6*time.Hour), aside.WithTags("loader"))
	require.Greater(t, left("loader"), 6*time.Hour)
	get(p.Key("late"), func(ctx context.Context) (string, error) {
		aside.CurrentLoad(ctx).Tag("late")
		return keptFor("v", 7*time.Hour, 0)(ctx)
	})
	require.Greater(t, left("late"), 7*time.Hour)
	asidetest.Stored(t, c, p.Key("set"), "v", aside.WithTags("set"), aside.WithStale(8*time.Hour, 0))
	require.Greater(t, left("set"), 8*time.Hour)
}

// What a Result says of a value that is past its TTL is in the table.
func TestAResultSaysHowOldItsValueIs(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"memory", "Redis"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			o := aside.Options{}
			if where == "Redis" {
				o = asidetest.At(redistest.Start(t).Addr())
			}
			newCache := func() *aside.Cache {
				if where == "Redis" {
					return asidetest.Connected(t, o)
				}
				return asidetest.NewCache(t, o)
			}
			c := newCache()
			const takes = 50 * time.Millisecond
			s := &source{takes: takes}
			p := brief(func(p *aside.Policy) { p.TTL, p.NegativeTTL = time.Hour, time.Hour })
			key, absent := p.Key("a"), p.Key("absent")
			r, _, err := look(t, c, key, s)
			require.NoError(t, err)
			require.GreaterOrEqual(t, r.LoadTime, takes)
			require.Zero(t, r.Stale)
			require.False(t, r.Negative)
			loaded := r.LoadTime
			asidetest.InMemory(t, c, key, never)
			r, _, err = look(t, c, key, s)
			require.NoError(t, err)
			require.Equal(t, aside.TierMemory, r.Tier)
			require.Equal(t, loaded, r.LoadTime, "of a hit, too")
			notFound := func(context.Context) (string, error) {
				time.Sleep(takes) // the load
				return "", fmt.Errorf("no such thing: %w", aside.ErrNotFound)
			}
			for range 2 {
				r, err = aside.Lookup(t.Context(), c, absent, notFound)
				require.ErrorIs(t, err, aside.ErrNotFound)
				require.True(t, r.Negative)
				require.GreaterOrEqual(t, r.LoadTime, takes)
			}
			asidetest.Stored(t, c, key, "set")
			r, _, err = look(t, c, key, s)
			require.NoError(t, err)
			require.Zero(t, r.LoadTime, "nobody has loaded it")
			r, err = aside.Lookup(t.Context(), c, p.Key("b"), func(context.Context) (string, error) { return "", errors.New("the source is down") })
			require.Error(t, err)
			require.Zero(t, r)

			if where == "Redis" {
				asidetest.Eventually(t, "it is stored", func() bool { _, found := infoOf(t, c, absent); return found })
				other := newCache()
				_, err = aside.GetOrLoad(t.Context(), c, p.Key("c"), s.load)
				require.NoError(t, err)
				asidetest.Eventually(t, "it is stored", func() bool { _, found := infoOf(t, c, p.Key("c")); return found })
				for range 2 { // from Redis, then from memory
					r, _, err = look(t, other, p.Key("c"), s)
					require.NoError(t, err)
					require.GreaterOrEqual(t, r.LoadTime, takes)
				}
				require.Equal(t, aside.TierMemory, r.Tier)
				r, err = aside.Lookup(t.Context(), other, absent, notFound)
				require.ErrorIs(t, err, aside.ErrNotFound)
				require.True(t, r.Negative)
				require.Equal(t, aside.TierRedis, r.Tier)
				require.GreaterOrEqual(t, r.LoadTime, takes)
			}
		})
	}
}

// A value that Redis does not confirm may be within its TTL.
func TestAnUnconfirmedValueIsNotPastItsTTL(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	key := asidetest.Items.Key("a")
	asidetest.InMemory(t, c, key, asidetest.Value("v"))
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "Redis is away", func() bool { return c.Health().State == aside.StateDegraded })
	r, err := aside.Lookup(t.Context(), c, key, never)
	require.NoError(t, err)
	require.Equal(t, aside.StatusStale, r.Status)
	require.Zero(t, r.Stale)
	require.Zero(t, r.TTL)
}

func TestALoadThatIsSlowForItsTTLIsLogged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(p *aside.Policy)
		option aside.CallOption
		takes  time.Duration
		lines  int
	}{
		"RefreshAhead":               {func(p *aside.Policy) { p.RefreshAhead = 0.1 }, aside.CallOption{}, ttl/2 + 1, 2},
		"Stale":                      {func(p *aside.Policy) { p.Stale = time.Minute }, aside.CallOption{}, ttl/2 + 1, 2},
		"Stale of the value's own":   {plain, aside.WithStale(time.Minute, 0), ttl/2 + 1, 2},
		"Stale, and in half the TTL": {func(p *aside.Policy) { p.Stale = time.Minute }, aside.CallOption{}, ttl / 2, 0},
		"a shorter TTL":              {func(p *aside.Policy) { p.Stale = time.Minute }, aside.WithTTL(time.Second), time.Second, 2},
		"StaleIfError alone":         {func(p *aside.Policy) { p.StaleIfError = time.Minute }, aside.CallOption{}, ttl, 0},
		"none":                       {plain, aside.CallOption{}, ttl, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log asidetest.Logbook
			asidetest.InBubble(t, aside.Options{Logger: log.Logger()}, func(t *testing.T, c *aside.Cache) {
				p, s := items(test.change), &source{takes: test.takes}
				for round := range 2 {
					for id := range 3 { // side by side, so one line
						go func() { _, _ = aside.GetOrLoad(t.Context(), c, p.Key(round, id), s.load, test.option) }()
					}
					time.Sleep(test.takes)
					synctest.Wait()
					time.Sleep(10 * time.Second)
				}
				require.NoError(t, c.Close())
			})
			lines := log.Lines(t)
			require.Len(t, lines, test.lines)
			for _, line := range lines {
				require.Equal(t, "aside: loads of a policy take longer than half of their TTL, so their values are loaded anew later than the policy says: set a longer TTL", line.Msg)
				require.Contains(t, log.String(), "policy")
				require.Contains(t, log.String(), `"took":`)
				require.Contains(t, log.String(), `"ttl":`)
			}
		})
	}
}

// Hazard 45: a load that takes longer than the whole life of its value has succeeded all the same.
func TestAValueThatIsDeadWhenItArrivesEndsTheOldOne(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		key := items(func(p *aside.Policy) { p.StaleIfError = ttl }).Key("a")
		require.Equal(t, "v1", value(t, c, key, asidetest.Value("v1")))
		time.Sleep(ttl)
		require.Equal(t, "v2", value(t, c, key, func(ctx context.Context) (string, error) {
			l := aside.CurrentLoad(ctx)
			l.TTL(time.Millisecond)
			l.Stale(0)
			l.StaleIfError(0)
			time.Sleep(10 * time.Millisecond)
			return "v2", nil
		}))
		_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return "", errSource })
		require.ErrorIs(t, err, errSource, "the old value does not come back in its place")
	})
}

func value(t *testing.T, c *aside.Cache, key aside.Key, load func(context.Context) (string, error)) string {
	t.Helper()
	v, err := aside.GetOrLoad(t.Context(), c, key, load)
	require.NoError(t, err)
	return v
}

package freshness_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

// More about values with windows of their own: what readers with other policies, outages and foreign bytes make of them.

// Whoever can write to Redis can write times of any size, in any order. No call panics, and no value is served after the end that it carries.
func TestTimesInAnyOrderAreNoMoreThanAMiss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, brief(plain).Key("real"), "v", aside.WithTTL(time.Hour))
	limits := wire.Limits{MaxValue: 100, CompressFrom: -1}
	stored, _, err := wire.Decode("items:real", []byte(server.MustDo(t, "GET", "items:real").(string)), limits)
	require.NoError(t, err)
	now := time.Now().UnixMicro()
	times := []int64{math.MinInt64, 1, now - 1e6, now + 3600e6, math.MaxInt64}
	served := 0
	for i, freshUntil := range times {
		for j, staleUntil := range times {
			for k, deadUntil := range times {
				for _, own := range []bool{false, true} {
					for name, p := range map[string]*aside.Policy{"plain": brief(plain), "ageing": brief(ageing)} {
						key := p.Key(name, i, j, k, fmt.Sprint(own))
						h := wire.Header{
							Codec: wire.ID(wire.Raw), LoadStart: now - 5e5, FreshUntil: freshUntil, StaleUntil: staleUntil, DeadUntil: deadUntil, OwnTTL: own,
							Nonce: wire.NewNonce(), Tags: stored.Tags,
						}
						b, err := wire.Encode(key.String(), h, []byte("v"), limits)
						require.NoError(t, err)
						server.MustDo(t, "SET", key.String(), string(b))
						for range 2 { // from Redis, then from memory where it keeps the value
							r, err := aside.Lookup(t.Context(), c, key, down)
							if err != nil {
								continue
							}
							served++
							require.Greater(t, deadUntil, now, "%+v", h)
							require.GreaterOrEqual(t, r.Stale, time.Duration(0))
							require.GreaterOrEqual(t, r.TTL, time.Duration(0))
						}
					}
				}
			}
		}
	}
	require.Positive(t, served)
	for info, err := range c.Keys(t.Context(), aside.Pattern{}) {
		require.NoError(t, err)
		require.GreaterOrEqual(t, info.KeptFor, time.Duration(0))
	}
}

func TestAShorterTTLShortensTheLifeOfAValueWithItsOwnWindows(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer := asidetest.Connected(t, asidetest.At(server.Addr()))
	const window = 400 * time.Millisecond
	long, short := brief(func(p *aside.Policy) { p.TTL = time.Hour }), brief(plain)
	asidetest.Stored(t, writer, long.Key("policy"), "old", aside.WithStale(0, window))
	asidetest.Stored(t, writer, long.Key("own"), "old", aside.WithStale(0, window), aside.WithTTL(2*time.Hour))
	reader := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Eventually(t, "its life is over", func() bool {
		r, err := aside.Lookup(t.Context(), reader, short.Key("policy"), down)
		require.LessOrEqual(t, r.Stale, window)
		return err != nil
	})
	r, err := aside.Lookup(t.Context(), reader, short.Key("own"), down)
	require.NoError(t, err)
	require.Equal(t, aside.StatusHit, r.Status)
}

// A loader's TTL is not looked at together with the windows of its call or policy. Their sum is longer than any other, and overflows nothing.
func TestTheLongestLives(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"memory", "Redis"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			o := aside.Options{}
			if where == "Redis" {
				o = asidetest.At(redistest.Start(t).Addr())
			}
			c := asidetest.NewCache(t, o)
			p := items(func(p *aside.Policy) { p.TTL, p.Stale = century/2, century/2 })
			for name, option := range map[string]aside.CallOption{"policy": {}, "call": aside.WithStale(century/2, century/2)} {
				key := p.Key(name)
				_, err := aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
					l := aside.CurrentLoad(ctx)
					l.TTL(math.MaxInt64)
					l.Tag("late")
					return "v", nil
				}, option, aside.WithTags("early"))
				require.NoError(t, err)
				asidetest.Eventually(t, "it is stored", func() bool {
					info, found := infoOf(t, c, key)
					return found && !info.Stale && info.KeptFor > century
				})
				r, err := aside.Lookup(t.Context(), c, key, down)
				require.NoError(t, err)
				require.Greater(t, r.TTL, century-time.Hour)
			}
		})
	}
}

// A cache forgets policies that are not listed, but not while memory has their values.
func TestValuesWithTheirOwnWindowsOfManyPolicies(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		key := func(i int) aside.Key {
			p := aside.Policy{Name: fmt.Sprint("p", i), Category: "items", TTL: ttl}
			return p.Key(i)
		}
		for i := range 300 {
			_, err := aside.GetOrLoad(t.Context(), c, key(i), asidetest.Value("old"), aside.WithStale(time.Hour, 0))
			require.NoError(t, err)
		}
		time.Sleep(ttl + time.Second)
		for i := range 300 {
			r, err := aside.Lookup(t.Context(), c, key(i), asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "old", r.Value)
			require.Equal(t, time.Second, r.Stale)
			synctest.Wait()
		}
	})
}

// During an outage of Redis, a value with its own windows is served past its TTL too.
func TestAValueWithItsOwnWindowsWhileRedisIsUnavailable(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	p := brief(plain)
	for id, option := range map[string]aside.CallOption{"stale": aside.WithStale(time.Hour, 0), "error": aside.WithStale(0, time.Hour), "none": {}} {
		inMemory(t, p.Key(id), asidetest.Value("old"), []*aside.Cache{c}, option)
	}
	pastTTL(t, c, p.Key("stale"))
	pastTTL(t, c, p.Key("error"))
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "Redis is away", func() bool { return c.Health().State == aside.StateDegraded })
	for id, reason := range map[string]string{"stale": "redis is unavailable", "error": aside.ReasonLoadFailed} {
		r, err := aside.Lookup(t.Context(), c, p.Key(id), down)
		require.NoError(t, err)
		require.Equal(t, "old", r.Value)
		require.Equal(t, reason, r.Reason)
		require.Positive(t, r.Stale)
		require.Zero(t, r.TTL)
	}
	_, err := aside.GetOrLoad(t.Context(), c, p.Key("none"), down)
	require.Error(t, err)
}

func TestAHitIgnoresWithStaleAndNotItsErrors(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	key := items(plain).Key("a")
	_, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("v"))
	require.NoError(t, err)
	wrong := &aside.Error{Code: aside.CodeInvalidArgument}
	for _, option := range []aside.CallOption{aside.WithStale(-1, 0), aside.WithStale(0, -1), aside.WithStale(math.MaxInt64, 0), aside.WithStale(2*time.Hour, time.Hour)} {
		_, err = aside.GetOrLoad(t.Context(), c, key, down, option)
		require.ErrorIs(t, err, wrong)
		_, err = aside.GetOrLoadMany(t.Context(), c, []string{"a"}, func(string) aside.Key { return key },
			func(context.Context, []string) (map[string]string, error) { return nil, nil }, option)
		require.ErrorIs(t, err, wrong)
		require.ErrorIs(t, aside.Set(t.Context(), c, key, "x", option), wrong)
	}
	_, err = aside.GetOrLoad(t.Context(), c, key, down, aside.WithStale(time.Hour, 0))
	require.NoError(t, err)
	info, _ := infoOf(t, c, key)
	require.LessOrEqual(t, info.KeptFor, ttl)
}

// Calls that ask for a newer value do not get one that is past its TTL, whatever windows it has.
func TestCallsThatNeedANewerValueThanOneWithItsOwnWindows(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"memory", "Redis"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			o := aside.Options{Backoff: -1}
			if where == "Redis" {
				o = asidetest.At(redistest.Start(t).Addr())
				o.Backoff = -1
			}
			c := asidetest.NewCache(t, o)
			key := brief(plain).Key("a")
			inMemory(t, key, asidetest.Value("old"), []*aside.Cache{c}, aside.WithStale(time.Hour, 0))
			pastTTL(t, c, key)
			for range 2 { // the second time, a load in the background may run
				for _, option := range []aside.CallOption{aside.Strong(), aside.Refresh(), aside.MaxStale(time.Millisecond)} {
					_, err := aside.GetOrLoad(t.Context(), c, key, down, option)
					require.ErrorIs(t, err, errDown)
				}
				_, err := aside.GetOrLoadMany(t.Context(), c, []string{"a"}, func(string) aside.Key { return key },
					func(context.Context, []string) (map[string]string, error) { return nil, errDown }, aside.MaxStale(0))
				require.ErrorIs(t, err, errDown)
				requireStale(t, c, key, "old", down, aside.MaxStale(time.Hour))
			}
		})
	}
}

// A load that waits for its source says why, in memory mode as on Redis.
func TestTheReasonOfALoadPastTheTTL(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"memory", "Redis"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			o := aside.Options{}
			if where == "Redis" {
				o = asidetest.At(redistest.Start(t).Addr())
			}
			c := asidetest.NewCache(t, o)
			key := brief(onError).Key("a")
			asidetest.InMemory(t, c, key, asidetest.Value("old"))
			pastTTL(t, c, key)
			r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", r.Value)
			require.Equal(t, aside.ReasonExpired, r.Reason)
			r, err = aside.Lookup(t.Context(), c, key, asidetest.Value("newer"), aside.Refresh())
			require.NoError(t, err)
			require.Equal(t, aside.ReasonNotCached, r.Reason)
		})
	}
}

// A source that answers "not modified" in no time may take long for the next value. So the time that was known counts, and is forgotten by and by.
func TestTheLoadTimeOfAValueThatIsNotModified(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, takes := items(onError).Key("a"), 2*time.Second
		load := func(ctx context.Context) (string, error) {
			time.Sleep(takes)
			if _, ok := aside.Previous[string](ctx); ok {
				return "", aside.ErrNotModified
			}
			return "v", nil
		}
		known := 2 * time.Second
		for _, takes = range []time.Duration{2 * time.Second, 500 * time.Millisecond, 500 * time.Millisecond, 900 * time.Millisecond, 0, 0} {
			r, err := aside.Lookup(t.Context(), c, key, load)
			require.NoError(t, err)
			require.Equal(t, takes, r.LoadTime)
			if known = max(takes, known/2); takes == 2*time.Second {
				known = takes
			}
			r, err = aside.Lookup(t.Context(), c, key, load)
			require.NoError(t, err)
			require.Equal(t, aside.StatusHit, r.Status)
			require.Equal(t, known, r.LoadTime)
			time.Sleep(ttl)
		}
	})
}

package contract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net"
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

// Two builds whose types do not fit, side by side on one Redis: each process loads a key once, and neither pushes out what the other has.
func TestTwoBuildsWithTypesThatDoNotFitLoadOnceEach(t *testing.T) {
	t.Parallel()
	type older struct{ N int }
	type newer struct{ N string }
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("a")
	var loadsA, loadsB atomic.Int64
	for range 40 {
		v, err := aside.GetOrLoad(t.Context(), a, key, func(context.Context) (older, error) { loadsA.Add(1); return older{7}, nil })
		require.NoError(t, err)
		require.Equal(t, 7, v.N)
		asidetest.AllTold(t, a)
		asidetest.AllTold(t, b)
		w, err := aside.GetOrLoad(t.Context(), b, key, func(context.Context) (newer, error) { loadsB.Add(1); return newer{"seven"}, nil })
		require.NoError(t, err)
		require.Equal(t, "seven", w.N)
		asidetest.AllTold(t, a)
		asidetest.AllTold(t, b)
	}
	require.EqualValues(t, 1, loadsA.Load())
	require.LessOrEqual(t, loadsB.Load(), int64(2), "one, and another one where the first was told of the older build's store")
	require.NotZero(t, b.Metrics().Labels["items"].DecodeErrors)
	// A change is heard by both.
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	asidetest.AllTold(t, a)
	asidetest.AllTold(t, b)
	_, err = aside.GetOrLoad(t.Context(), b, key, func(context.Context) (newer, error) { loadsB.Add(1); return newer{"eight"}, nil })
	require.NoError(t, err)
	require.GreaterOrEqual(t, loadsB.Load(), int64(2))
}

// What cannot be encoded is in the memory of the process that has loaded it.
func TestWhatCannotBeEncodedIsKeptInMemory(t *testing.T) {
	t.Parallel()
	type odd struct{ X float64 }
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("odd")
		var loads atomic.Int64
		load := func(context.Context) (odd, error) { loads.Add(1); return odd{math.NaN()}, nil }
		_, err := aside.GetOrLoad(t.Context(), c, key, load)
		require.NoError(t, err)
		if h := c.Health(); h.State == aside.StateConnected && !h.Tracking {
			return // nobody would tell of a change
		}
		asidetest.Eventually(t, "it is in memory", func() bool { _, err := aside.Get[odd](t.Context(), c, key); return err == nil })
		was := loads.Load()
		for range 20 {
			v, err := aside.GetOrLoad(t.Context(), c, key, load)
			require.NoError(t, err)
			require.True(t, math.IsNaN(v.X))
		}
		require.Equal(t, was, loads.Load())
		if c.Health().State != aside.StateMemory {
			asidetest.Eventually(t, "each load that could not be stored counts", func() bool { return c.Metrics().Labels["items"].EncodeErrors == uint64(was) })
		}
		_, err = c.Invalidate(t.Context(), key)
		require.NoError(t, err)
		_, err = aside.Get[odd](t.Context(), c, key)
		require.ErrorIs(t, err, aside.ErrMiss)
	})
}

// A handlerFunc gets all records.
type handlerFunc func(slog.Record)

func (f handlerFunc) Enabled(context.Context, slog.Level) bool      { return true }
func (f handlerFunc) Handle(_ context.Context, r slog.Record) error { f(r); return nil }
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler            { return f }
func (f handlerFunc) WithGroup(string) slog.Handler                 { return f }

// A caller that comes while a value turns out not to be storable does not load it again: it joins the load, or finds the value in memory.
func TestNobodyLoadsAgainWhileAValueTurnsOutNotToBeStorable(t *testing.T) {
	t.Parallel()
	var c *aside.Cache
	var loads atomic.Int64
	load := func(context.Context) (float64, error) { loads.Add(1); return math.NaN(), nil }
	key := asidetest.Items.Key("odd")
	came := make(chan error, 1)
	o := asidetest.At(redistest.Start(t).Addr())
	o.Logger = slog.New(handlerFunc(func(r slog.Record) {
		if r.Message != "aside: value not cached" {
			return
		}
		second := make(chan error, 1)
		go func() {
			_, err := aside.GetOrLoad(t.Context(), c, key, load)
			second <- err
		}()
		came <- <-second
	}))
	c = asidetest.Connected(t, o)
	asidetest.Eventually(t, "pushes arrive", func() bool { return c.Health().Tracking })
	_, err := aside.GetOrLoad(t.Context(), c, key, load)
	require.NoError(t, err)
	require.NoError(t, <-came)
	require.EqualValues(t, 1, loads.Load())
}

// The first value of a type shows what its codec leaves out.
func TestWhatACodecLeavesOutIsLoggedOnce(t *testing.T) {
	t.Parallel()
	type inner struct {
		Kept string
		lost int
	}
	type leaving struct {
		Name  string
		Inner []inner
		Own   int `json:"-"`
	}
	type whole struct {
		Name string
		Own  int `json:"-"`
	}
	var log asidetest.Logbook
	o := asidetest.At(redistest.Start(t).Addr())
	o.Logger = log.Logger()
	c := asidetest.Connected(t, o)
	asidetest.Stored(t, c, asidetest.Items.Key("whole"), whole{"n", 1})
	asidetest.Stored(t, c, asidetest.Items.Key("none"), leaving{"n", nil, 1})
	require.NotContains(t, log.String(), "does not keep a field")
	for _, id := range []string{"a", "b", "c"} {
		asidetest.Stored(t, c, asidetest.Items.Key(id), leaving{"n", []inner{{"k", 0}, {"k", 5}}, 1})
	}
	asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "does not keep a field") })
	require.Equal(t, 1, strings.Count(log.String(), "does not keep a field"))
	require.Contains(t, log.String(), "contract_test.leaving")
	require.Contains(t, log.String(), ".Inner[0].lost", "that of the first one is 0, which nobody has looked at")
}

// A deployment raises the version of a policy: the newer build reads nothing older, and the older one does not push out what the newer one has
// stored.
func TestANewerVersionOfAPolicyReadsNothingOlder(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, name := range []string{"", "another name"} {
		t.Run(name, func(t *testing.T) {
			version := func(n int) *aside.Policy {
				return &aside.Policy{Name: name, Category: "versions", TTL: time.Hour, Version: n}
			}
			id := "of " + name
			var caches [3]*aside.Cache
			for i := range caches {
				caches[i] = asidetest.Connected(t, asidetest.At(server.Addr()))
			}
			zero, one, again := caches[0], caches[1], caches[2]
			asidetest.Stored(t, zero, version(0).Key(id), "older")
			r, err := aside.Lookup(t.Context(), one, version(1).Key(id), asidetest.Value("newer"))
			require.NoError(t, err)
			require.Equal(t, "newer", r.Value)
			require.Equal(t, "stored by an older version of the policy", r.Reason)
			asidetest.Eventually(t, "it is replaced", func() bool {
				v, err := aside.Get[string](t.Context(), again, version(1).Key(id))
				return err == nil && v == "newer"
			})
			asidetest.AllTold(t, zero)
			for range 5 {
				v, err := aside.GetOrLoad(t.Context(), zero, version(0).Key(id), asidetest.Value("older again"))
				require.NoError(t, err)
				require.Equal(t, "older again", v)
			}
			require.EqualValues(t, 1, zero.Metrics().Labels["versions"].Loads, "kept in its own memory")
			another := asidetest.Connected(t, asidetest.At(server.Addr()))
			v, err := aside.Get[string](t.Context(), another, version(1).Key(id))
			require.NoError(t, err)
			require.Equal(t, "newer", v, "and Redis has the newer one")
		})
	}
	for _, bad := range []int{-1, 1 << 16} {
		_, err := aside.New(aside.Options{Policies: []aside.Policy{{Category: "versions", TTL: time.Hour, Version: bad}}})
		asidetest.RequireCode(t, err, aside.CodeInvalidOption)
		require.ErrorContains(t, err, "Version")
	}
}

// A deployment shortens a policy's TTL, and reads what the build before it has stored.
func TestAShortenedTTLCountsForWhatIsStoredAlready(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	policy := aside.Policy{Category: "shortened", TTL: time.Hour, NegativeTTL: time.Hour}
	before, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	keyOf := func(id string) aside.Key { return policy.Key(id) }
	asidetest.Stored(t, before, keyOf("own"), "set", aside.WithTTL(2*time.Hour))
	own := keyOf("own of a loader")
	_, err := aside.GetOrLoad(t.Context(), before, own, func(ctx context.Context) (string, error) {
		aside.CurrentLoad(ctx).TTL(2 * time.Hour)
		return "loaded", nil
	})
	require.NoError(t, err)
	asidetest.Stored(t, before, keyOf("value"), "old")
	_, err = aside.GetOrLoad(t.Context(), before, keyOf("nothing"), func(context.Context) (string, error) { return "", aside.ErrNotFound })
	require.ErrorIs(t, err, aside.ErrNotFound)
	for _, key := range []aside.Key{own, keyOf("nothing")} {
		asidetest.Eventually(t, "what was loaded is stored", func() bool { return server.MustDo(t, "EXISTS", key.String()) == int64(1) })
	}
	asidetest.AllTold(t, other)
	r, err := aside.Lookup(t.Context(), other, keyOf("value"), asidetest.Value("new"))
	require.NoError(t, err)
	require.Equal(t, aside.TierRedis, r.Tier, "where it has not been shortened")

	shortened := policy
	shortened.TTL, shortened.NegativeTTL = time.Millisecond, time.Millisecond
	o := asidetest.At(server.Addr())
	o.Policies = []aside.Policy{shortened}
	after := asidetest.Connected(t, o)
	for _, id := range []string{"value", "nothing"} {
		r, err := aside.Lookup(t.Context(), after, shortened.Key(id), asidetest.Value("new"))
		require.NoError(t, err)
		require.Equal(t, aside.TierOrigin, r.Tier)
		require.Equal(t, "expired", r.Reason, "a millisecond has long passed")
	}
	for key, want := range map[aside.Key]string{shortened.Key("own"): "set", shortened.Key("own of a loader"): "loaded"} {
		r, err := aside.Lookup(t.Context(), after, key, asidetest.Value("new"))
		require.NoError(t, err)
		require.Equal(t, want, r.Value)
		require.Equal(t, aside.TierRedis, r.Tier, "what the value itself was given stands")
		require.Greater(t, r.TTL, time.Hour)
	}
}

// A memo is what a value has worked out of itself. Its lock guards that; what is encoded never changes.
type memo struct {
	Text string

	mu    sync.Mutex
	words map[string]int
}

func (m *memo) count(word string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.words[word]
	if !ok {
		n = strings.Count(m.Text, word)
		m.words[word] = n
	}
	return n
}

// The first values of a type are compared with what comes back of them, while their callers have them already: fields that are not
// exported are read without the lock that guards them. With the race detector this is a race; without it, Go ends the process where a
// map is written and gone through at the same time.
func TestWhatIsComparedIsNotReadWhileItsOwnLockIsHeldByACaller(t *testing.T) {
	t.Parallel()
	c := asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr()))
	for i := range 8 {
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), func(context.Context) (*memo, error) {
			return &memo{Text: strings.Repeat("a word ", 10), words: make(map[string]int)}, nil
		})
		require.NoError(t, err)
		for j := range 20_000 {
			v.count(fmt.Sprint(j))
		}
	}
}

// What docs/codecs.md calls equal is not logged as lost.
func TestWhatCountsAsEqualIsNotLogged(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	fill := func(t *testing.T, v any) string {
		var log asidetest.Logbook
		o := asidetest.At(server.Addr())
		o.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		c := asidetest.Connected(t, o)
		var err error
		switch v := v.(type) {
		case struct{ V json.RawMessage }:
			err = aside.Set(t.Context(), c, asidetest.Items.Key(t.Name()), v)
		case struct{ V net.IP }:
			err = aside.Set(t.Context(), c, asidetest.Items.Key(t.Name()), v)
		}
		require.NoError(t, err)
		return log.String()
	}
	t.Run("RawMessage", func(t *testing.T) {
		require.NotContains(t, fill(t, struct{ V json.RawMessage }{json.RawMessage(`{"a": 1}`)}), "codec does not keep")
	})
	t.Run("IP", func(t *testing.T) {
		require.NotContains(t, fill(t, struct{ V net.IP }{net.IP{10, 0, 0, 1}}), "codec does not keep")
	})
}

// Memory does not answer a Strong call, so each loads where Redis has another build's value, and that stays.
func TestAStrongCallLoadsBesideAnotherBuildsValue(t *testing.T) {
	t.Parallel()
	type older struct{ ID, Price int }
	type newer struct{ ID, Cost int }
	server := redistest.Start(t)
	a, b, again := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, a, asidetest.Items.Key("a"), older{1, 12})
	loads := 0
	load := func(context.Context) (newer, error) { loads++; return newer{1, 12}, nil }
	for i := range 5 {
		v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), load, aside.Strong())
		require.NoError(t, err)
		require.Equal(t, newer{1, 12}, v)
		require.Equal(t, i+1, loads)
	}
	v, err := aside.Get[older](t.Context(), again, asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.Equal(t, older{1, 12}, v)
}

// Where the server does not tell of changes, builds push out each other's values. How often, is measured by a clock of the caches' own.
func TestBuildsOnAServerWithoutTrackingPushOutEachOthersValuesNowAndThen(t *testing.T) {
	t.Parallel()
	type older struct{ ID, Price int }
	type newer struct{ ID, Cost int }
	addr := asidetest.Mini(t)
	a, b := asidetest.Connected(t, asidetest.At(addr)), asidetest.Connected(t, asidetest.At(addr))
	loads, calls, began := 0, 0, time.Now()
	for ; time.Since(began) < 3*time.Second; calls++ {
		_, err := aside.GetOrLoad(t.Context(), a, asidetest.Items.Key("a"), func(context.Context) (older, error) { loads++; return older{1, 12}, nil })
		require.NoError(t, err)
		_, err = aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), func(context.Context) (newer, error) { loads++; return newer{1, 12}, nil })
		require.NoError(t, err)
	}
	t.Logf("%d loads in %d calls of each", loads, calls)
	require.Less(t, float64(loads), 7*time.Since(began).Seconds())
}

// Hazard 182: a Refresh does not look at what it replaces, so its fill does.
func TestARefreshReplacesNoValueOfANewerBuild(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	other, c := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("a")
	asidetest.InMemory(t, other, key, asidetest.Value("old"))
	server.MustDo(t, "SETRANGE", key.String(), "2", "\xff") // its version
	v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("new"), aside.Refresh())
	require.NoError(t, err)
	require.Equal(t, "new", v)
	require.NoError(t, c.Close())
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", key.String()), "it is removed, and not replaced")
}

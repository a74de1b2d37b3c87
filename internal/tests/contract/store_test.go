package contract_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestKeysStandInRedisAsDocumented(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	for key, seconds := range map[aside.Key]int64{
		aside.TTL.ModelsAll.Key("all", "all"):                         3600,
		aside.TTL.ModelsGateway.Key("openrouter", "all"):              3600,
		aside.TTL.SessionsList.Key("ABC123", "list", 50, 0):           300,
		aside.TTL.SessionDetail.Key("ABC123", "456", "full"):          300,
		aside.TTL.UserProfile.Key("DEF456", "profile"):                600,
		aside.TTL.UserCredits.Key("DEF456", "credits"):                300,
		aside.TTL.ChatStats.Key("ABC123"):                             600,
		aside.TTL.ActivityStats.Key("ABC123", "stats", "day"):         1800,
		aside.TTL.RankingsModels.Key("models", "all"):                 14400,
		aside.TTL.SearchResults.Key("ABC123", "search", "a*b:c {d}%"): 300,
	} {
		began := time.Now()
		_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
		asidetest.Eventually(t, "the fill lands", func() bool { return server.MustDo(t, "EXISTS", key.String()) == int64(1) })
		left := server.MustDo(t, "TTL", key.String()).(int64)
		require.LessOrEqual(t, left, seconds, key.String())
		require.GreaterOrEqual(t, left, seconds-int64(time.Since(began)/time.Second)-1, key.String())
	}
	generations := len(asidetest.WithoutProbes(server.MustDo(t, "KEYS", "%*")))
	require.Len(t, asidetest.WithoutProbes(server.MustDo(t, "KEYS", "*")), 10+generations, "nothing but the values: every lease has been given back")
	require.Equal(t, 1+1+6, generations, "of everything, of the named tags, and of each category")
	require.EqualValues(t, 2, len(server.MustDo(t, "KEYS", "models:*").([]any)))
	require.Equal(t, []any{"sessions:ABC123:search:a%2Ab%3Ac %7Bd%7D%25"}, server.MustDo(t, "KEYS", "sessions:*:search:*"))
}

func TestATTLUnderASecondIsExactInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	short := aside.Policy{Name: "short", Category: "short", TTL: 700 * time.Millisecond}
	asidetest.Repeatedly(t, "it is looked at in time", func() bool {
		asidetest.Stored(t, c, short.Key("a"), "v")
		left := server.MustDo(t, "PTTL", "short:a").(int64)
		require.LessOrEqual(t, left, int64(700))
		return left > 500
	})
	asidetest.Eventually(t, "it ends", func() bool {
		_, err := aside.Get[string](t.Context(), c, short.Key("a"))
		return errors.Is(err, aside.ErrMiss)
	})
}

func TestEveryCodecStoresAndAnyReaderFindsWhichOne(t *testing.T) {
	t.Parallel()
	type record struct {
		Name string `json:"name"`
		Note string `json:"note"`
	}
	server := redistest.Start(t)
	// A policy whose codec has changed is another one, so each build has a cache of its own.
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	raws, own := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	with := func(codec aside.Codec) *aside.Policy {
		return &aside.Policy{Name: "coded", Category: "codecs", TTL: time.Hour, Codec: codec}
	}
	want := record{"n", strings.Repeat("compressible ", 1000)}
	asidetest.Stored(t, a, with(aside.JSON).Key("j"), want)
	asidetest.Stored(t, b, with(aside.CBOR).Key("m"), want)
	asidetest.Stored(t, raws, with(aside.Raw).Key("r"), "text")
	require.Less(t, server.MustDo(t, "STRLEN", "codecs:j"), int64(2000), "compressed")
	require.NotContains(t, server.MustDo(t, "GET", "codecs:r"), `"text"`, "raw")

	for c, key := range map[*aside.Cache]aside.Key{a: with(aside.JSON).Key("m"), b: with(aside.CBOR).Key("j")} {
		got, err := aside.Get[record](t.Context(), c, key)
		require.NoError(t, err, "a policy changed its codec and lost nothing")
		require.Equal(t, want, got)
	}

	upper := with(shout{})
	asidetest.Stored(t, own, upper.Key("own"), "loud")
	got, err := aside.Get[string](t.Context(), own, upper.Key("own"))
	require.NoError(t, err)
	require.Equal(t, "LOUD", got)
	_, err = aside.Get[string](t.Context(), a, with(aside.JSON).Key("own"))
	require.ErrorIs(t, err, aside.ErrMiss, "a codec that nobody here knows")
}

// shout is a codec of the user's own.
type shout struct{}

func (shout) Name() string { return "shout" }

func (shout) Marshal(v any) ([]byte, error) { return []byte(strings.ToUpper(*v.(*string))), nil }

func (shout) Unmarshal(data []byte, value any) error { *value.(*string) = string(data); return nil }

func TestAValueThatTheCodecRefusesIsReturnedCountedAndLogged(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	o := asidetest.At(redistest.Start(t).Addr())
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c := asidetest.Connected(t, o)
	load := func(context.Context) (func(), error) { return func() {}, nil }
	for n := range uint64(3) {
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("f", n), load)
		require.NoError(t, err)
		require.NotNil(t, v)
		asidetest.Eventually(t, "it is counted", func() bool { return c.Metrics().Labels["items"].EncodeErrors == n+1 })
	}
	asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "value not cached") })
	require.Equal(t, 1, strings.Count(log.String(), "value not cached"), "but not with every call")
	require.ErrorIs(t, aside.Set(t.Context(), c, asidetest.Items.Key("f"), func() {}), &aside.Error{Code: aside.CodeInvalidArgument})
}

// lockedBuffer is a log that tests may read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAnUnusableValueIsAMissCountedAndReplaced(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	whole := func() string {
		asidetest.Stored(t, c, asidetest.Items.Key("whole"), strings.Repeat("payload ", 20))
		return server.MustDo(t, "GET", "items:whole").(string)
	}()
	flipped := []byte(whole)
	flipped[len(flipped)-1] ^= 1
	for name, plant := range map[string][]string{
		"foreign":       {"SET", "items:foreign", "somebody else's text"},
		"truncated":     {"SET", "items:truncated", whole[:len(whole)-1]},
		"corrupt":       {"SET", "items:corrupt", string(flipped)},
		"of another":    {"SET", "items:of another", whole},
		"another type":  {"RPUSH", "items:another type", "x"},
		"just a header": {"SET", "items:just a header", whole[:60]},
	} {
		t.Run(name, func(t *testing.T) {
			key := asidetest.Items.Key(name)
			server.MustDo(t, plant...)
			before := c.Metrics().Labels["items"].DecodeErrors
			_, err := aside.Get[string](t.Context(), c, key)
			require.ErrorIs(t, err, aside.ErrMiss)
			require.Equal(t, before+1, c.Metrics().Labels["items"].DecodeErrors)
			r, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) { return "right", nil })
			require.NoError(t, err)
			require.Equal(t, "right", r.Value)
			require.Equal(t, aside.StatusMiss, r.Status)
			require.Equal(t, "the stored value cannot be used", r.Reason)
			asidetest.Eventually(t, "it is replaced", func() bool {
				r, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) { return "again", nil })
				return err == nil && r.Status == aside.StatusHit && r.Value == "right"
			})
		})
	}
	require.Zero(t, c.Metrics().Labels["items"].RedisErrors)
}

func TestTwoSwappedValuesAreTwoMisses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, asidetest.Items.Key("a"), "value of a")
	asidetest.Stored(t, c, asidetest.Items.Key("b"), "value of b")
	a, b := server.MustDo(t, "GET", "items:a").(string), server.MustDo(t, "GET", "items:b").(string)
	server.MustDo(t, "SET", "items:a", b)
	server.MustDo(t, "SET", "items:b", a)
	for _, id := range []string{"a", "b"} {
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(id), func(context.Context) (string, error) { return "loaded", nil })
		require.NoError(t, err)
		require.Equal(t, "loaded", v)
	}
}

func TestAValueOfANewerBuildIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(value []byte){
		"a later version":       func(value []byte) { value[2]++ },
		"a flag of later times": func(value []byte) { value[3] |= 0x80 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leavesAlone(t, change)
		})
	}
}

func leavesAlone(t *testing.T, change func(value []byte)) {
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, asidetest.Items.Key("a"), "v")
	newer := []byte(server.MustDo(t, "GET", "items:a").(string))
	change(newer)
	server.MustDo(t, "SET", "items:a", string(newer))
	r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) { return "ours", nil })
	require.NoError(t, err)
	require.Equal(t, "ours", r.Value)
	require.Equal(t, "stored by a newer build", r.Reason)
	require.Equal(t, "ours", asidetest.InMemory(t, c, asidetest.Items.Key("a"), func(context.Context) (string, error) { return "loaded again", nil }), "memory keeps what this process has loaded")
	server.MustDo(t, "SET", "items:a", string(newer), "EX", "1000")
	asidetest.Eventually(t, "a change of the newer value ends that", func() bool {
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) { return "anew", nil })
		return err == nil && r.Value == "anew" && r.Reason == "stored by a newer build"
	})
	require.NoError(t, c.Close())
	require.Equal(t, string(newer), server.MustDo(t, "GET", "items:a"))
	require.Empty(t, server.MustDo(t, "KEYS", "{*"))
}

func TestAValueWhoseExpiryWasRemovedInRedisStillEnds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	short := aside.Policy{Name: "short", Category: "short", TTL: 200 * time.Millisecond}
	asidetest.Repeatedly(t, "its expiry is removed in time", func() bool {
		asidetest.Stored(t, c, short.Key("a"), "old")
		return server.MustDo(t, "PERSIST", "short:a") == int64(1)
	})
	asidetest.Eventually(t, "it is out of date by its own account", func() bool {
		r, err := aside.Lookup(t.Context(), c, short.Key("a"), func(context.Context) (string, error) { return "new", nil })
		require.NoError(t, err)
		return r.Value == "new"
	})
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "short:a"))
}

func TestScriptsThatTheServerForgotAreSentAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	ids := []int{1, 2, 3}
	load := func(_ context.Context, ids []int) (map[int]string, error) {
		m := map[int]string{}
		for _, id := range ids {
			m[id] = strconv.Itoa(id)
		}
		return m, nil
	}
	for range 2 {
		server.MustDo(t, "SCRIPT", "FLUSH")
		_, err := aside.GetOrLoadMany(t.Context(), c, ids, func(id int) aside.Key { return asidetest.Items.Key(id) }, load)
		require.NoError(t, err)
		server.MustDo(t, "SCRIPT", "FLUSH")
		receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key(1), asidetest.Items.Key(2), asidetest.Items.Key(3))
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
	}
	require.Zero(t, c.Metrics().Labels["items"].Errors)
}

func TestALoadSlowerThanItsLeaseIsStillStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.LeaseTTL = 200 * time.Millisecond
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	n := 0
	asidetest.Repeatedly(t, "the holder of the lease does not stand still for as long as that lives", func() bool {
		n++
		key := asidetest.Items.Key("slow", n)
		lease := "{" + key.String() + "}!l"
		loading := make(chan struct{})
		var loads atomic.Int64
		slow := func(context.Context) (string, error) {
			if loads.Add(1) == 1 {
				close(loading)
			}
			// Five lives of the lease, told by the server that renews it.
			for range 5 {
				before := server.MustDo(t, "PTTL", lease).(int64)
				asidetest.Eventually(t, "the lease is renewed, or is lost", func() bool {
					now := server.MustDo(t, "PTTL", lease).(int64)
					renewed := now > before
					before = now
					return renewed || now < 0
				})
			}
			return "v", nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = aside.GetOrLoad(t.Context(), a, key, slow) })
		<-loading
		v, err := aside.GetOrLoad(t.Context(), b, key, slow)
		wg.Wait()
		require.NoError(t, err)
		require.Equal(t, "v", v)
		return loads.Load() == 1 && // the other cache has waited for the lease's holder
			server.MustDo(t, "EXISTS", key.String()) == int64(1) && server.MustDo(t, "EXISTS", lease) == int64(0)
	})
}

func TestAHungLoaderGivesItsLeaseBackWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.LeaseTTL = time.Hour // it does not run out by itself
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	hanging := aside.Policy{Name: "hanging", Category: "hanging", TTL: time.Hour, LoadTimeout: 100 * time.Millisecond}
	hang := make(chan struct{})
	defer close(hang)
	_, err := aside.GetOrLoad(t.Context(), a, hanging.Key("a"), func(context.Context) (string, error) { <-hang; return "", nil })
	require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoadTimeout})
	asidetest.Eventually(t, "the lease is given back", func() bool { return server.MustDo(t, "EXISTS", "{hanging:a}!l") == int64(0) })
	patient := aside.Policy{Name: "patient", Category: "hanging", TTL: time.Hour}
	v, err := aside.GetOrLoad(t.Context(), b, patient.Key("a"), func(context.Context) (string, error) { return "v", nil })
	require.NoError(t, err)
	require.Equal(t, "v", v)
}

func TestAFillIsRefusedOnceItsLeaseIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("a")
	for name, between := range map[string]func(){
		"invalidated by another": func() { _, _ = b.Invalidate(t.Context(), key) },
		"flushed":                func() { server.FlushAll(t) },
		"evicted":                func() { server.MustDo(t, "DEL", "{items:a}!l") },
	} {
		before := a.Metrics().Labels["items"].FillsRejected
		_, err := aside.GetOrLoad(t.Context(), a, key, func(context.Context) (string, error) { between(); return "old", nil })
		require.NoError(t, err)
		asidetest.Eventually(t, name+": the fill is refused", func() bool { return a.Metrics().Labels["items"].FillsRejected == before+1 })
		require.EqualValues(t, 0, server.MustDo(t, "EXISTS", "items:a"), name)
	}
	// Set by another: what it set stays.
	_, err := aside.GetOrLoad(t.Context(), a, key, func(context.Context) (string, error) { return "old", aside.Set(t.Context(), b, key, "new") })
	require.NoError(t, err)
	require.NoError(t, a.Close())
	v, err := aside.Get[string](t.Context(), b, key)
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

func TestWithRedisDownEveryCallIsAnswered(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	o := asidetest.At(server.Addr())
	o.OpTimeout = 0
	c := asidetest.NewCache(t, o)
	require.Equal(t, aside.StateDegraded, c.Health().State)
	load := func(context.Context) (string, error) { return "v", nil }
	r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), load)
	require.NoError(t, err)
	require.Equal(t, aside.StatusFallback, r.Status)
	require.Equal(t, "redis is unavailable", r.Reason)
	require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("a"), "v"))
	receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)

	server.Restart()
	asidetest.Eventually(t, "it connects by itself", func() bool { return c.Health().State == aside.StateConnected })
	asidetest.Eventually(t, "and caches again", func() bool {
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), load)
		return err == nil && r.Status == aside.StatusHit
	})
}

func TestCallsGoOnWhileRedisIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct{ begin, end func(*redistest.Server) }{
		"killed": {(*redistest.Server).Kill, (*redistest.Server).Restart},
		"hung":   {(*redistest.Server).Pause, (*redistest.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			o := asidetest.At(server.Addr())
			o.OpTimeout = 50 * time.Millisecond
			c := asidetest.Connected(t, o)
			var calls, failed atomic.Int64
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for worker := range 8 {
				wg.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						id := fmt.Sprint(worker, n%50)
						if n%10 == 0 {
							id = fmt.Sprint(worker, " ", n) // one that memory does not have
						}
						v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(id), func(context.Context) (string, error) { return id, nil })
						calls.Add(1)
						if err != nil || v != id {
							failed.Add(1)
						}
					}
				})
			}
			more := func() {
				was := calls.Load()
				asidetest.Eventually(t, "calls go on", func() bool { return calls.Load() > was+100 })
			}
			more()
			fault.begin(server)
			asidetest.Eventually(t, "the fault is noticed", func() bool { return c.Health().State == aside.StateDegraded })
			require.NotEmpty(t, c.Health().Reason)
			more()
			fault.end(server)
			asidetest.Eventually(t, "Redis is in use again", func() bool { return c.Health().State == aside.StateConnected })
			more()
			close(stop)
			wg.Wait()
			require.Zero(t, failed.Load(), "of %d calls", calls.Load())
			require.Positive(t, c.Metrics().Labels["items"].Fallbacks)
		})
	}
}

func TestALargeValueGoesToRedisAndBack(t *testing.T) {
	t.Parallel()
	o := asidetest.At(redistest.Start(t).Addr())
	o.OpTimeout = 50 * time.Millisecond // of small ones: what is known to be large gets more
	c := asidetest.Connected(t, o)
	value := make([]byte, 20<<20)
	for i := range value {
		value[i] = byte(i * i >> 3)
	}
	loads := 0
	load := func(context.Context) ([]byte, error) { loads++; return value, nil }
	asidetest.Repeatedly(t, "it is served from Redis", func() bool {
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("large"), load)
		require.NoError(t, err)
		require.True(t, bytes.Equal(value, r.Value))
		return r.Status == aside.StatusHit
	})
}

func TestAValueTooLargeForTheUsualLimitGetsMoreTime(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	value := make([]byte, 16<<20)
	for i := range value {
		value[i] = byte(i * i >> 3)
	}
	o := asidetest.At(server.Addr())
	o.CompressFrom, o.ChunkFrom = -1, -1
	asidetest.Stored(t, asidetest.Connected(t, o), asidetest.Items.Key("large"), value)

	// Another process's cache, which has seen small values only and cannot read this one in the time that they take.
	const limit = 500 * time.Millisecond // and 500 ms more for the large one
	proxy := redistest.StartProxy(t, server.Addr())
	o = asidetest.At(proxy.Addr())
	o.CompressFrom, o.ChunkFrom, o.OpTimeout = -1, -1, limit
	c := asidetest.Connected(t, o)
	asidetest.Eventually(t, "small ones can be read", func() bool {
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("small"), func(context.Context) ([]byte, error) { return []byte("v"), nil })
		require.NoError(t, err)
		_, err = aside.Get[[]byte](t.Context(), c, asidetest.Items.Key("small"))
		return err == nil
	})
	// waits is how long a call waits for the value in vain.
	waits := func() time.Duration {
		gate := proxy.HoldReplies(func(args []string) bool { return len(args) > 1 && args[1] == asidetest.Items.Key("large").String() })
		defer gate.Release()
		began := time.Now()
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("large"), func(context.Context) ([]byte, error) { return value, nil }, aside.Strong())
		took := time.Since(began)
		require.NoError(t, err)
		require.Len(t, r.Value, len(value))
		return took
	}
	waits()
	require.Positive(t, c.Metrics().Labels["items"].RedisErrors, "at first it took too long")
	asidetest.Repeatedly(t, "a call waits for as long as the value takes", func() bool { // a bound from below: no machine is too slow for it
		return waits() > limit+400*time.Millisecond
	})
}

func TestACallerThatLeavesMidwayLeavesNoLeaseBehind(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.LeaseTTL = time.Hour // none runs out by itself
	c := asidetest.Connected(t, o)
	left, stayed, n, step := 0, 0, 0, 10*time.Microsecond
	asidetest.Repeatedly(t, "callers leave at every moment", func() bool {
		for i := range 100 {
			n++
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*step)
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(n), func(context.Context) (string, error) { return "v", nil })
			cancel()
			if err == nil {
				stayed++
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				left++
			}
		}
		if stayed == 0 {
			step *= 2 // a busy machine needs more time for a load
		}
		return left >= 100 && stayed >= 100
	})
	asidetest.Eventually(t, "every lease is given back", func() bool {
		return len(server.MustDo(t, "KEYS", "*!l").([]any)) == 0
	})
	for i := range 100 {
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(i), func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
	}
}

func TestAValueIsReadByAnotherProcessAndSurvivesARestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	first, err := aside.New(asidetest.At(server.Addr()))
	require.NoError(t, err)
	asidetest.Eventually(t, "the cache connects", func() bool { return first.Health().State == aside.StateConnected })
	_, err = aside.GetOrLoad(t.Context(), first, asidetest.Items.Key("shared"), func(context.Context) (string, error) { return "from the first", nil })
	require.NoError(t, err)
	require.NoError(t, first.Close(), "and Close waits for the fill")

	other := redistest.Spawn(t, "reader", "ADDR="+server.Addr())
	line, err := other.Line()
	require.NoError(t, err)
	require.Equal(t, "from the first <nil>", line)
	require.NoError(t, other.Wait())
}

func TestSecretsStayOutOfWhatRedisSays(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "the-right-password")
	var log lockedBuffer
	o := aside.Options{
		Redis:  rueidis.ClientOption{InitAddress: []string{server.Addr()}, Password: "canary-password", ForceSingleClient: true},
		Logger: slog.New(slog.NewJSONHandler(&log, nil)),
	}
	c := asidetest.NewCache(t, o)
	asidetest.Eventually(t, "the refusal is noticed", func() bool { return strings.Contains(c.Health().Reason, "WRONGPASS") })
	require.Equal(t, aside.StateDegraded, c.Health().State)
	asidetest.Eventually(t, "and said", func() bool { return strings.Contains(log.String(), "WRONGPASS") })
	require.NotContains(t, log.String()+c.Health().Reason, "canary-password")
}

package contract_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Tests of what happens at the edges of a call: where keys, callers, processes and times meet.

func byName(id string) aside.Key { return asidetest.Items.Key(id) }

// held has one cache load id, and returns when its loader runs; the load ends with end.
func held(t *testing.T, c *aside.Cache, id string) (end func()) {
	t.Helper()
	loading, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = aside.GetOrLoad(context.WithoutCancel(t.Context()), c, byName(id), func(context.Context) (string, error) {
			close(loading)
			<-goOn
			return "theirs", nil
		})
	}()
	<-loading
	return sync.OnceFunc(func() { close(goOn); <-ended })
}

func TestABatchKeepsItsIdsWhenTheCallersSliceChanges(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	end := held(t, other, "alice")
	defer end()

	ids := []string{"alice"}
	ctx, cancel := context.WithCancel(t.Context())
	waits, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = aside.GetOrLoadMany(&asidetest.Signalling{Context: ctx, Waited: waits}, c, ids, byName, func(_ context.Context, ids []string) (map[string]string, error) {
			return map[string]string{ids[0]: "of " + ids[0]}, nil
		})
	}()
	<-waits // for the load of the other cache
	joins := make(chan struct{})
	got := make(chan string, 1)
	go func() {
		v, _ := aside.GetOrLoad(&asidetest.Signalling{Context: t.Context(), Waited: joins}, c, byName("alice"), func(context.Context) (string, error) { return "own", nil })
		got <- v
	}()
	<-joins
	cancel()
	<-gone
	ids[0] = "bob"
	_, err := other.Invalidate(t.Context(), byName("alice")) // takes the other cache's lease
	require.NoError(t, err)
	require.Equal(t, "of alice", <-got)
}

func TestWhatABatchFoundIsServedToNobodyWhoComesLater(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, other, byName("found"), "old")
	loading, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = aside.GetOrLoadMany(t.Context(), c, []string{"found", "slow"}, byName, func(context.Context, []string) (map[string]string, error) {
			close(loading)
			<-goOn
			return map[string]string{"slow": "s"}, nil
		})
	}()
	<-loading // "found" was found, and its flight goes on for "slow"
	asidetest.Stored(t, other, byName("found"), "new")
	asidetest.Eventually(t, "who comes after Redis has told of the change does not get it", func() bool {
		v, err := aside.GetOrLoad(t.Context(), c, byName("found"), func(context.Context) (string, error) { return "loaded", nil })
		require.NoError(t, err)
		return v == "new"
	})
	v, err := aside.Get[string](t.Context(), c, byName("found"))
	require.NoError(t, err)
	require.Equal(t, "new", v)
	close(goOn)
	<-ended
}

func TestAPanicOfABatchLeavesOutWhatAnotherProcessLoads(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	end := held(t, other, "theirs")
	got, err := aside.GetOrLoadMany(t.Context(), c, []string{"ours", "theirs"}, byName, func(context.Context, []string) (map[string]string, error) {
		go end() // in its own time
		panic("boom")
	})
	var batch *aside.BatchError[string]
	require.ErrorAs(t, err, &batch)
	require.Len(t, batch.Errors, 1)
	require.ErrorIs(t, batch.Errors["ours"], &aside.Error{Code: aside.CodeLoaderPanic})
	require.Equal(t, map[string]string{"theirs": "theirs"}, got)
}

func TestNoCallerWaitsLongerThanItsOwnPolicySays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		quick := aside.Policy{Name: "quick", Category: "quick", TTL: time.Hour, LoadTimeout: time.Second}
		slow := aside.Policy{Name: "slow", Category: "slow", TTL: time.Hour, LoadTimeout: time.Minute}
		go func() {
			_, _ = aside.GetOrLoadMany(t.Context(), c, []*aside.Policy{&quick, &slow}, func(p *aside.Policy) aside.Key { return p.Key("a") },
				func(ctx context.Context, _ []*aside.Policy) (map[*aside.Policy]string, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				})
		}()
		synctest.Wait()
		began := time.Now()
		_, err := aside.GetOrLoad(t.Context(), c, quick.Key("a"), func(context.Context) (string, error) { return "v", nil })
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoadTimeout})
		require.Equal(t, time.Second, time.Since(began))
		time.Sleep(time.Minute)
	})
}

func TestEachIdOfALoaderDecidesForItself(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		loader := aside.NewLoader(c, asidetest.Items, func(ctx context.Context, id string) (string, error) {
			switch id {
			case "private":
				aside.CurrentLoad(ctx).NoStore()
				aside.CurrentLoad(ctx).TTL(time.Minute) // which does not take it back
			case "short":
				aside.CurrentLoad(ctx).TTL(time.Minute)
			}
			return id, nil
		})
		_, err := loader.GetMany(t.Context(), []string{"private", "short", "long"})
		require.NoError(t, err)
		ttl := func(id string) (left time.Duration) {
			asidetest.Eventually(t, "it is stored", func() bool {
				r, err := loader.Lookup(t.Context(), id)
				require.NoError(t, err)
				left = r.Age + r.TTL
				return r.Status == aside.StatusHit
			})
			return left
		}
		require.InDelta(t, time.Minute, ttl("short"), float64(time.Second))
		require.InDelta(t, time.Hour, ttl("long"), float64(time.Second))
		_, err = aside.Get[string](t.Context(), c, loader.Key("private"))
		require.ErrorIs(t, err, aside.ErrMiss)
	})
}

func TestARefreshThatLearnsBetterLeavesNoOldValue(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{NegativeTTL: -1, MaxValueBytes: 1000})
		for name, load := range map[string]func(context.Context) (string, error){
			"gone":       func(context.Context) (string, error) { return "", aside.ErrNotFound },
			"not stored": func(ctx context.Context) (string, error) { aside.CurrentLoad(ctx).NoStore(); return "new", nil },
			"too large":  func(context.Context) (string, error) { return strings.Repeat("x", 2000), nil },
		} {
			asidetest.Stored(t, c, byName(name), "old")
			_, _ = aside.GetOrLoad(t.Context(), c, byName(name), load, aside.Refresh())
			asidetest.Eventually(t, name, func() bool {
				_, err := aside.Get[string](t.Context(), c, byName(name))
				return errors.Is(err, aside.ErrMiss)
			})
		}
		asidetest.Stored(t, c, byName("failed"), "old")
		_, err := aside.GetOrLoad(t.Context(), c, byName("failed"), func(context.Context) (string, error) { return "", errors.New("boom") }, aside.Refresh())
		require.ErrorContains(t, err, "boom")
		v, err := aside.Get[string](t.Context(), c, byName("failed"))
		require.NoError(t, err, "a refresh that failed has learned nothing")
		require.Equal(t, "old", v)
	})
}

func TestTwoCachesCanStandBehindEachOther(t *testing.T) {
	t.Parallel()
	front, back := asidetest.NewCache(t, aside.Options{}), asidetest.NewCache(t, aside.Options{})
	v, err := aside.GetOrLoad(t.Context(), front, byName("a"), func(ctx context.Context) (string, error) {
		return aside.GetOrLoad(ctx, back, byName("a"), func(context.Context) (string, error) { return "v", nil })
	})
	require.NoError(t, err)
	require.Equal(t, "v", v)
}

func TestALongLoadIsStoredHoweverManyOtherKeysAreWritten(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	_, err := aside.GetOrLoad(t.Context(), c, byName("catalogue"), func(ctx context.Context) (string, error) {
		for n := range 20_000 {
			_ = aside.Set(ctx, c, asidetest.Items.Key("session", n), "s")
		}
		return "v", nil
	})
	require.NoError(t, err)
	_, err = aside.Get[string](t.Context(), c, byName("catalogue"))
	require.NoError(t, err)
}

func TestOfSetsAtTheSameTimeOneIsStored(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		refused := false
		mayTake := time.Now().Add(3 * asidetest.Bound)
		for n := 0; n < 100 || !refused && c.Health().State != aside.StateMemory; n++ {
			require.True(t, time.Now().Before(mayTake), "none was refused")
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					if err := aside.Set(t.Context(), c, asidetest.Items.Key(n), fmt.Sprint(i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			_, err := aside.Get[string](t.Context(), c, asidetest.Items.Key(n))
			require.NoError(t, err, "key %d", n)
			refused = c.Metrics().Labels["items"].FillsRejected > 0
		}
	})
}

func TestNeitherSetNorRefreshReplacesTheValueOfANewerBuild(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	for name, write := range map[string]func(aside.Key) error{
		"Set": func(key aside.Key) error { return aside.Set(t.Context(), c, key, "ours") },
		"Refresh": func(key aside.Key) error {
			_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return "ours", nil }, aside.Refresh())
			return err
		},
	} {
		key := byName(name)
		asidetest.Stored(t, c, key, "v")
		newer := []byte(server.MustDo(t, "GET", key.String()).(string))
		newer[2]++ // the version
		server.MustDo(t, "SET", key.String(), string(newer))
		before := c.Metrics().Labels["items"].FillsRejected
		require.NoError(t, write(key))
		asidetest.Eventually(t, "the fill is refused", func() bool { return c.Metrics().Labels["items"].FillsRejected == before+1 })
		require.EqualValues(t, 0, server.MustDo(t, "EXISTS", key.String()), "%s: what was there is out of date, and ours must not take its place", name)
	}
}

// slow encodes for longer than a lease lives.
type slow struct{ took time.Duration }

func (slow) Name() string { return "slow" }

func (s slow) Marshal(v any) ([]byte, error) { time.Sleep(s.took); return []byte(*v.(*string)), nil }

func (slow) Unmarshal(data []byte, v any) error { *v.(*string) = string(data); return nil }

func TestAValueIsStoredThoughItsEncodingOutlastsALease(t *testing.T) {
	t.Parallel()
	o := asidetest.At(redistest.Start(t).Addr())
	o.LeaseTTL = 200 * time.Millisecond
	c := asidetest.Connected(t, o)
	p := aside.Policy{Name: "slow", Category: "slow", TTL: time.Hour, Codec: slow{600 * time.Millisecond}}
	n := 0
	asidetest.Repeatedly(t, "the process does not stand still for as long as its lease lives", func() bool {
		n++
		var src asidetest.Source
		_, err := aside.GetOrLoad(t.Context(), c, p.Key(n), src.Load("v"))
		require.NoError(t, err)
		asidetest.Eventually(t, "it is stored", func() bool {
			r, err := aside.Lookup(t.Context(), c, p.Key(n), src.Load("v"))
			require.NoError(t, err)
			return r.Status == aside.StatusHit
		})
		return src.Loads.Load() == 1
	})
}

func TestManyKeysAtOnceAreGivenTheTimeTheyNeed(t *testing.T) {
	t.Parallel()
	const limit = time.Second // and another one for 8,000 keys
	keys := make([]aside.Key, 8000)
	for i := range keys {
		keys[i] = asidetest.Items.Key(i)
	}
	w := asidetest.WatchedAs(t, redistest.Start(t), func(addr string) aside.Options {
		o := asidetest.At(addr)
		o.OpTimeout = limit
		return o
	})
	gate := w.Proxy.HoldReplies(func(args []string) bool {
		return slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, "items:") })
	})
	began := time.Now()
	receipt, err := w.Invalidate(t.Context(), keys...)
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	require.Greater(t, time.Since(began), limit+900*time.Millisecond) // a bound from below: no machine is too slow for it
	gate.Release()
}

func TestLargeValuesAreReadByAProcessThatHasJustStarted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	value := make([]byte, 12<<20)
	for i := range value {
		value[i] = byte(rand.Uint32())
	}
	asidetest.Stored(t, asidetest.Connected(t, asidetest.At(server.Addr())), byName("large"), value)
	o := asidetest.At(server.Addr())
	// Far too short for it.
	o.OpTimeout = time.Millisecond
	asidetest.Repeatedly(t, "the first read is given enough time", func() bool { // a busy machine may take longer still
		c := asidetest.Connected(t, o)
		defer c.Close()
		r, err := aside.Lookup(t.Context(), c, byName("large"), func(context.Context) ([]byte, error) { return nil, errors.New("loaded") })
		return err == nil && r.Status == aside.StatusHit
	})
}

func TestACallersOwnDeadlineSaysNothingOfRedis(t *testing.T) {
	t.Parallel()
	c := asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr()))
	for n := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%5)*10*time.Microsecond)
		_, err := aside.Get[string](ctx, c, byName("a"))
		require.Error(t, err)
		_ = aside.Set(ctx, c, byName("a"), "v")
		_, _ = c.Invalidate(ctx, byName("a"))
		cancel()
		require.Equal(t, aside.StateConnected, c.Health().State)
	}
	require.Zero(t, c.Metrics().Labels["items"].Errors)
}

func TestAfterAnUnconfirmedInvalidationThisProcessStoresNothingOlder(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	end := held(t, c, "a")
	server.MayDeny()
	user := "default"
	if asidetest.AsUser {
		user = "aside"
	}
	server.MustDo(t, "ACL", "SETUSER", user, "resetkeys", "~%*") // Redis refuses the key, and is of use otherwise
	receipt, err := c.Invalidate(t.Context(), byName("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	server.MustDo(t, "ACL", "SETUSER", user, "~items:*", "~{items:*")
	end()
	asidetest.Eventually(t, "the fill is refused", func() bool { return c.Metrics().Labels["items"].FillsRejected == 1 })
	_, err = aside.Get[string](t.Context(), c, byName("a"))
	require.ErrorIs(t, err, aside.ErrMiss)
}

func TestALoadThatTimesOutIsCountedOnce(t *testing.T) {
	t.Parallel()
	for name, heeds := range map[string]bool{"and heeds its context": true, "and ignores its context": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := asidetest.NewCache(t, aside.Options{LoadTimeout: time.Second})
				_, err := aside.GetOrLoad(t.Context(), c, byName("a"), func(ctx context.Context) (string, error) {
					if heeds {
						<-ctx.Done()
						return "", ctx.Err()
					}
					time.Sleep(time.Minute)
					return "late", nil
				})
				require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoadTimeout})
				check := func() {
					synctest.Wait()
					m := c.Metrics().Labels["items"]
					require.EqualValues(t, 1, m.Loads)
					require.EqualValues(t, 1, m.LoadErrors)
					require.EqualValues(t, 1, m.Errors)
				}
				check()
				time.Sleep(2 * time.Minute)
				check()
			})
		})
	}
}

func TestALoadThatItsCallersLeaveIsNoError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := aside.GetOrLoad(ctx, c, byName("a"), func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.Zero(t, c.Metrics().Labels["items"].Errors)
	})
}

func TestAnEndlessTTLIsALongOne(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		endless := aside.Policy{Name: "endless", Category: "endless", TTL: 1<<63 - 1}
		_, err := aside.GetOrLoad(t.Context(), c, endless.Key("a"), func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
		asidetest.Eventually(t, "it is kept", func() bool {
			_, err := aside.Get[string](t.Context(), c, endless.Key("a"))
			return err == nil
		})
	})
}

func TestAnErrorBesideABatchErrorIsThatOfTheOtherIds(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	lost := errors.New("connection lost")
	_, err := aside.GetOrLoadMany(t.Context(), c, []string{"a", "b"}, byName, func(context.Context, []string) (map[string]string, error) {
		return nil, errors.Join(&aside.BatchError[string]{Errors: map[string]error{"a": errors.New("bad a")}}, lost)
	})
	var batch *aside.BatchError[string]
	require.ErrorAs(t, err, &batch)
	require.ErrorIs(t, batch.Errors["b"], lost)
	_, err = aside.Get[string](t.Context(), c, byName("b"))
	require.ErrorIs(t, err, aside.ErrMiss)
}

func TestANilContextIsATypedError(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	var none context.Context
	load := func(context.Context) (string, error) { return "v", nil }
	for name, call := range map[string]func() error{
		"GetOrLoad":  func() error { _, err := aside.GetOrLoad(none, c, byName("a"), load); return err },
		"Get":        func() error { _, err := aside.Get[string](none, c, byName("a")); return err },
		"Set":        func() error { return aside.Set(none, c, byName("a"), "v") },
		"Invalidate": func() error { _, err := c.Invalidate(none, byName("a")); return err },
		"of no key":  func() error { _, err := c.Invalidate(none); return err },
		"category":   func() error { _, err := c.InvalidateCategory(none, "items"); return err },
		"tags":       func() error { _, err := c.InvalidateTags(none, "x"); return err },
		"all":        func() error { _, err := c.InvalidateAll(none); return err },
		"pattern":    func() error { _, err := c.InvalidatePattern(none, asidetest.Items.Match(aside.Wildcard)); return err },
		"Keys": func() (last error) {
			for _, last = range c.Keys(none, aside.Pattern{}) {
			}
			return last
		},
	} {
		require.ErrorIs(t, call(), &aside.Error{Code: aside.CodeInvalidArgument}, name)
	}
}

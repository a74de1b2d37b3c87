package freshness_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// A version is a value that says of itself what a test must know of it.
type version struct {
	Seq    int64     // the position of the beginning of its load among all events of the test
	Loaded time.Time // likewise
	TTL    time.Duration
}

// chance is a run of random calls against one cache in memory.
type chance struct {
	t    *testing.T
	c    *aside.Cache
	p    *aside.Policy
	rand *rand.Rand

	mu       sync.Mutex
	seq      int64
	barrier  map[string]int64 // of each key: values from before are known to be out of date
	mode     string
	takes    time.Duration
	problems []string
}

func (x *chance) next() int64 { x.seq++; return x.seq }

func (x *chance) problem(key, what string, args ...string) {
	x.problems = append(x.problems, key+": "+what+" "+strings.Join(args, " "))
}

func (x *chance) load(ctx context.Context, key string) (version, error) {
	x.mu.Lock()
	v := version{x.next(), time.Now(), x.p.TTL}
	mode, takes := x.mode, x.takes
	x.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return v, ctx.Err()
		}
	}
	switch mode {
	case "fails":
		return v, errDown
	case "not found":
		return v, aside.ErrNotFound
	case "panics":
		panic("a bug")
	case "own TTL":
		v.TTL = x.p.TTL / 2
		aside.CurrentLoad(ctx).TTL(v.TTL)
	case "no store":
		aside.CurrentLoad(ctx).NoStore()
	case "late tag":
		aside.CurrentLoad(ctx).Tag("late")
	}
	return v, nil
}

// call makes one call and checks what it returns.
func (x *chance) call(ctx context.Context, key aside.Key, name string, kind string, maxStale time.Duration) {
	x.mu.Lock()
	barrier, began, at := x.barrier[name], x.next(), time.Now()
	x.mu.Unlock()
	var r aside.Result[version]
	var err error
	load := func(ctx context.Context) (version, error) { return x.load(ctx, name) }
	switch kind {
	case "get":
		r.Value, err = aside.Get[version](ctx, x.c, key)
		r.Status = aside.StatusHit
	case "strong":
		r, err = aside.Lookup(ctx, x.c, key, load, aside.Strong())
	case "refresh":
		r, err = aside.Lookup(ctx, x.c, key, load, aside.Refresh())
	case "max stale":
		r, err = aside.Lookup(ctx, x.c, key, load, aside.MaxStale(maxStale))
	case "many":
		var got map[string]version
		got, err = aside.GetOrLoadMany(ctx, x.c, []string{name}, func(string) aside.Key { return key }, func(ctx context.Context, ids []string) (map[string]version, error) {
			v, err := x.load(ctx, name)
			if err == aside.ErrNotFound {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			return map[string]version{name: v}, nil
		})
		var ok bool
		if r.Value, ok = got[name]; !ok && err == nil {
			err = aside.ErrNotFound
		}
		r.Status = aside.StatusMiss
	default:
		r, err = aside.Lookup(ctx, x.c, key, load)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	say := func(what string) {
		x.problem(name, kind+": "+what, "status", string(r.Status), "reason", r.Reason, "seq", strconv.FormatInt(r.Value.Seq, 10), "barrier", strconv.FormatInt(barrier, 10),
			"age", time.Since(r.Value.Loaded).String(), "waited", time.Since(at).String(), "TTL", r.Value.TTL.String(), "began", strconv.FormatInt(began, 10))
	}
	if err != nil {
		var own *aside.Error
		switch {
		case strings.Contains(err.Error(), "without a result"), strings.Contains(err.Error(), "every caller has left"), strings.Contains(err.Error(), "load has ended"):
			say("a wrong error: " + err.Error())
		case errors.Is(err, errDown), errors.Is(err, aside.ErrNotFound), errors.Is(err, aside.ErrMiss), errors.Is(err, context.DeadlineExceeded), errors.As(err, &own):
		default:
			say("an unexpected error: " + err.Error())
		}
		return
	}
	age, past := time.Since(r.Value.Loaded), max(x.p.Stale, x.p.StaleIfError)
	if r.Status == aside.StatusHit && kind != "get" && age >= r.Value.TTL {
		say("a hit past its TTL")
	}
	if kind == "get" && age >= r.Value.TTL+max(0, x.p.Stale) {
		say("got after its time")
	}
	if r.Status == aside.StatusStale && age >= r.Value.TTL+past {
		say("older than its budget")
	}
	if r.Status == aside.StatusStale && r.Reason == "past its TTL, being refreshed" && (age >= r.Value.TTL+x.p.Stale || time.Since(at) > 0) {
		say("served at once, after the time for that, or not at once")
	}
	if kind == "max stale" && r.Status == aside.StatusStale && age >= r.Value.TTL+maxStale {
		say("older than the caller allows")
	}
	if (kind == "strong" || kind == "refresh") && r.Status == aside.StatusStale {
		say("a stale value")
	}
	if kind == "refresh" && r.Value.Seq < began {
		say("of a load that began before the call")
	}
	if r.Value.Seq <= barrier {
		say("from before an invalidation")
	}
}

func (x *chance) step(calls *sync.WaitGroup) {
	key := x.p.Key(strconv.Itoa(x.rand.IntN(3)))
	name := key.String()
	ctx := x.t.Context()
	invalidated := func(begun int64, names ...string) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, n := range names {
			x.barrier[n] = max(x.barrier[n], begun)
		}
	}
	all := []string{x.p.Key("0").String(), x.p.Key("1").String(), x.p.Key("2").String()}
	begin := func() int64 {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.next()
	}
	switch n := x.rand.IntN(100); {
	case n < 55:
		kind := []string{"lookup", "lookup", "lookup", "lookup", "get", "strong", "refresh", "max stale", "many", "many"}[x.rand.IntN(10)]
		maxStale := time.Duration(x.rand.Int64N(int64(2 * x.p.TTL)))
		var cancel context.CancelFunc
		if x.rand.IntN(5) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(x.rand.Int64N(int64(3*time.Second))))
		}
		calls.Go(func() {
			x.call(ctx, key, name, kind, maxStale)
			if cancel != nil {
				cancel()
			}
		})
	case n < 60:
		b := begin()
		_, err := x.c.Invalidate(ctx, key)
		require.NoError(x.t, err)
		invalidated(b, name)
	case n < 62:
		b := begin()
		_, err := x.c.InvalidateCategory(ctx, "items")
		require.NoError(x.t, err)
		invalidated(b, all...)
	case n < 64:
		b := begin()
		_, err := x.c.InvalidateAll(ctx)
		require.NoError(x.t, err)
		invalidated(b, all...)
	case n < 67:
		v := version{begin(), time.Now(), x.p.TTL}
		require.NoError(x.t, aside.Set(ctx, x.c, key, v))
		invalidated(v.Seq-1, name)
	case n < 80:
		x.mu.Lock()
		x.mode = []string{"", "", "", "fails", "fails", "not found", "panics", "own TTL", "no store", "late tag"}[x.rand.IntN(10)]
		x.takes = []time.Duration{0, 0, time.Millisecond, 500 * time.Millisecond, 3 * time.Second, 20 * time.Second}[x.rand.IntN(6)]
		x.mu.Unlock()
	case n < 90:
		time.Sleep(time.Duration(x.rand.Int64N(int64(time.Second))))
	default:
		edges := []time.Duration{x.p.TTL / 2, x.p.TTL, x.p.TTL + max(0, x.p.Stale), x.p.TTL + max(0, x.p.StaleIfError)}
		time.Sleep(max(0, edges[x.rand.IntN(len(edges))]+time.Duration(x.rand.IntN(3)-1)*time.Millisecond))
	}
}

// Whatever is called in which order, no value is older than it may be, and none is from before an invalidation.
func TestWhateverIsCalledNoValueIsTooOld(t *testing.T) {
	t.Parallel()
	rounds, seed := 20, rand.Uint64()
	if n, err := strconv.Atoi(os.Getenv("ASIDE_ROUNDS")); err == nil {
		rounds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("ASIDE_SEED"), 10, 64); err == nil {
		seed, rounds = n, 1
	}
	for i := range rounds {
		seed := seed + uint64(i)
		r := rand.New(rand.NewPCG(seed, 0))
		clone := r.IntN(4) == 0
		o := aside.Options{Logger: asidetest.Quiet(), MaxLoads: []int{1, 2, 32}[r.IntN(3)], Backoff: []time.Duration{-1, 0}[r.IntN(2)]}
		asidetest.InBubble(t, o, func(t *testing.T, c *aside.Cache) {
			pick := func(list ...time.Duration) time.Duration { return list[r.IntN(len(list))] }
			p := items(func(p *aside.Policy) {
				p.Stale = pick(0, 0, time.Second, ttl, 5*ttl)
				p.StaleIfError = pick(0, max(p.Stale, 2*ttl), max(p.Stale, time.Second))
				p.SoftTimeout, p.LoadTimeout, p.NegativeTTL = pick(-1, 0, 100*time.Millisecond), 10*time.Second, pick(-1, 0, time.Second)
				p.RefreshAhead, p.Jitter, p.CloneOnRead = []float64{0, 0.2, 0.5}[r.IntN(3)], []float64{0, 0.3}[r.IntN(2)], clone
				p.LoadGrace = pick(-1, 0)
			})
			x := &chance{t: t, c: c, p: p, rand: r, barrier: map[string]int64{}}
			require.NoError(t, aside.Set(t.Context(), c, p.Key("first"), version{})) // the category is known from here on
			var calls sync.WaitGroup
			for range 300 {
				x.step(&calls)
			}
			calls.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			x.mu.Lock()
			defer x.mu.Unlock()
			for _, p := range x.problems[:min(len(x.problems), 5)] {
				t.Errorf("ASIDE_SEED=%d %s", seed, p)
			}
			m := c.Metrics().Labels["items"]
			requireCountersAddUp(t, m)
		})
		if t.Failed() {
			break
		}
	}
}

package coherence_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A race is one way of invalidating what is being loaded. Each of its lanes has a key, a tag and a category of its own.
type race struct {
	opts       func(lane int) []aside.CallOption
	late       bool // the loader names the tag
	slow       bool // the invalidation takes its time: half of the loads take longer
	refuses    bool // fills; elsewhere, what has the old generation is stored, and found by nobody
	long       int  // rounds of a long run
	invalidate func(ctx context.Context, c *aside.Cache, lane int, key aside.Key) (aside.Receipt, error)
}

func laneTag(lane int) string { return "lane " + strconv.Itoa(lane) }

var races = map[string]race{
	"key": {refuses: true, long: 1_000_000, invalidate: func(ctx context.Context, c *aside.Cache, _ int, key aside.Key) (aside.Receipt, error) {
		return c.Invalidate(ctx, key)
	}},
	"category": {long: 100_000, invalidate: func(ctx context.Context, c *aside.Cache, lane int, _ aside.Key) (aside.Receipt, error) {
		return c.InvalidateCategory(ctx, asidetest.LanePolicy(lane).Category)
	}},
	"pattern": {refuses: true, slow: true, long: 100_000, invalidate: func(ctx context.Context, c *aside.Cache, lane int, _ aside.Key) (aside.Receipt, error) {
		return c.InvalidatePattern(ctx, asidetest.LanePolicy(lane).Match(aside.Wildcard))
	}},
	"tag": {
		long: 100_000,
		opts: func(lane int) []aside.CallOption { return []aside.CallOption{aside.WithTags("common", laneTag(lane))} },
		invalidate: func(ctx context.Context, c *aside.Cache, lane int, _ aside.Key) (aside.Receipt, error) {
			return c.InvalidateTags(ctx, laneTag(lane))
		},
	},
	"late tag": {refuses: true, late: true, long: 100_000, invalidate: func(ctx context.Context, c *aside.Cache, lane int, _ aside.Key) (aside.Receipt, error) {
		return c.InvalidateTags(ctx, laneTag(lane))
	}},
}

// Two caches on one server, which are to each other as two processes are: one loads, the other invalidates meanwhile. At no
// time after the invalidation is the older value found in Redis, or in the memory of the one that has invalidated.
func TestNoStaleValueIsStored(t *testing.T) {
	t.Parallel()
	for name, r := range races {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const lanes = 16
			a, b := asidetest.Pair(t, redistest.Start(t).Addr())
			short := 2000
			if r.slow {
				short = 480
			}
			n := asidetest.Rounds(short, r.long) / lanes
			refusedBy := func(c *aside.Cache) uint64 { return c.Metrics().Labels["lanes"].FillsRejected }
			mayTake := time.Now().Add(3 * time.Minute)
			lacks := func() bool { // which fills come too late is up to the scheduler
				return r.refuses && refusedBy(a)+refusedBy(b) == 0 && time.Now().Before(mayTake)
			}
			var wg sync.WaitGroup
			var stale, overtaken, rounds atomic.Int64
			for lane := range lanes {
				wg.Go(func() {
					r.run(t, a, b, lane, func(round int) bool { return round < n || lacks() }, &stale, &overtaken, &rounds)
				})
			}
			wg.Wait()
			refused, loads := uint64(0), uint64(0)
			for _, c := range []*aside.Cache{a, b} {
				m := c.Metrics().Labels["lanes"]
				refused, loads = refused+m.FillsRejected, loads+m.Loads
				require.Zero(t, m.RedisErrors)
			}
			t.Logf("%d rounds, %d loads, %d of them overtaken by an invalidation, %d fills refused, %d stale reads",
				rounds.Load(), loads, overtaken.Load(), refused, stale.Load())
			require.Zero(t, stale.Load())
			require.NotZero(t, overtaken.Load(), "the race really happened")
			if r.refuses {
				require.NotZero(t, refused)
			}
		})
	}
}

func (r race) run(t *testing.T, a, b *aside.Cache, lane int, goesOn func(round int) bool, stale, overtaken, rounds *atomic.Int64) {
	ctx, key := t.Context(), asidetest.LanePolicy(lane).Key("k")
	var opts []aside.CallOption
	if r.opts != nil {
		opts = r.opts(lane)
	}
	strong := append([]aside.CallOption{aside.Strong()}, opts...)
	var version atomic.Int64
	read := func(c *aside.Cache, began chan<- struct{}, opts ...aside.CallOption) int64 {
		v, err := aside.GetOrLoad(ctx, c, key, func(ctx context.Context) (int64, error) {
			v := version.Load()
			if began != nil {
				close(began)
			}
			spin(rand.IntN(200))
			if r.slow && began != nil && rand.IntN(2) == 0 {
				for version.Load() == v {
					runtime.Gosched()
				}
				for end := time.Now().Add(rand.N(50 * time.Millisecond)); time.Now().Before(end); {
					time.Sleep(100 * time.Microsecond)
				}
			}
			if r.late {
				aside.CurrentLoad(ctx).Tag("common", laneTag(lane))
			}
			return v, nil
		}, opts...)
		if err != nil {
			t.Error(err)
		}
		return v
	}
	for round := 0; goesOn(round); round++ {
		rounds.Add(1)
		// From the last round: a fill that comes late would be found now.
		if read(b, nil, opts...) < version.Load() || read(a, nil, strong...) < version.Load() {
			stale.Add(1)
		}
		if receipt, err := r.invalidate(ctx, b, lane, key); err != nil || !receipt.Confirmed {
			t.Error("not confirmed", err)
			return
		}
		began, loaded := make(chan struct{}), make(chan int64, 1)
		go func() { loaded <- read(a, began, strong...) }() // not what memory may still hold for a moment
		<-began
		spin(rand.IntN(400))
		now := version.Add(1)
		receipt, err := r.invalidate(ctx, b, lane, key)
		if err != nil || !receipt.Confirmed {
			t.Error("not confirmed", err)
		}
		if read(b, nil, opts...) < now || read(a, nil, strong...) < now {
			stale.Add(1)
		}
		if <-loaded < now {
			overtaken.Add(1)
		}
	}
}

func spin(n int) {
	for range n {
		runtime.Gosched()
	}
}

// Readers at full speed beside writers that change the source and then invalidate, or set: what a reader gets is never older
// than what was acknowledged before it asked.
func TestNoStaleReadInTheProcessThatHasChangedTheValue(t *testing.T) {
	t.Parallel()
	modes := map[string]func(t *testing.T) *aside.Cache{
		"memory": func(t *testing.T) *aside.Cache { return asidetest.NewCache(t, aside.Options{}) },
		"redis": func(t *testing.T) *aside.Cache {
			return asidetest.Connected(t, asidetest.At(redistest.Start(t).Addr()))
		},
		"redis, four connections": func(t *testing.T) *aside.Cache {
			o := asidetest.At(redistest.Start(t).Addr())
			o.Redis.PipelineMultiplex = 2
			return asidetest.Connected(t, o)
		},
	}
	for name, open := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, ctx := open(t), t.Context()
			const keys = 8
			var sources [keys]struct {
				mu     sync.Mutex // of the writers
				now    atomic.Int64
				sealed atomic.Int64 // acknowledged
			}
			tries, stale, changes := atomic.Int64{}, atomic.Int64{}, atomic.Int64{}
			var raced atomic.Bool // often enough: however long that takes
			most := int64(asidetest.Rounds(200_000, 10_000_000))
			more := func() bool { return tries.Load() < most || changes.Load() < most/1000 || !raced.Load() }
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					for more() {
						k := rand.IntN(keys)
						src, key := &sources[k], asidetest.Items.Key(k)
						src.mu.Lock()
						v := src.now.Add(1)
						var err error
						if rand.IntN(2) == 0 {
							_, err = c.Invalidate(ctx, key)
						} else {
							err = aside.Set(ctx, c, key, v)
						}
						src.sealed.Store(v)
						src.mu.Unlock()
						if changes.Add(1)%100 == 0 {
							raced.Store(c.Metrics().Labels["items"].FillsRejected >= 5)
						}
						if err != nil {
							t.Error(err)
						}
						spin(rand.IntN(100))
					}
				})
			}
			for range 4 {
				wg.Go(func() {
					for more() {
						k := rand.IntN(keys)
						src := &sources[k]
						least := src.sealed.Load()
						v, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(k), func(context.Context) (int64, error) {
							v := src.now.Load()
							spin(rand.IntN(100)) // the time that a load takes
							return v, nil
						})
						if err != nil {
							t.Error(err)
						}
						if v < least {
							stale.Add(1)
						}
						tries.Add(1)
					}
				})
			}
			wg.Wait()
			m := c.Metrics().Labels["items"]
			t.Logf("%d reads, %d of them from memory, %d changes, %d loads, %d refused fills, %d stale", tries.Load(), m.MemoryHits, changes.Load(), m.Loads, m.FillsRejected, stale.Load())
			require.Zero(t, stale.Load())
			require.NotZero(t, m.MemoryHits)
			require.NotZero(t, m.FillsRejected, "the race really happened")
		})
	}
}

// A million calls that are cancelled at random: whoever gets an answer gets that of its own key.
func TestNoCallerEverGetsTheValueOfAnotherKey(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	proxy.SetDelay(100 * time.Microsecond)
	o := asidetest.At(proxy.Addr())
	o.MaxEntries = 64 // most calls go to Redis
	c := asidetest.Connected(t, o)
	const keys = 512
	n := int64(asidetest.Rounds(20_000, 1_000_000))
	var calls, answered, cancelled, foreign atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for calls.Add(1) <= n {
				id := rand.IntN(keys)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(20_000))*time.Microsecond)
				v, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(id), func(context.Context) (string, error) { return fmt.Sprint("of ", id), nil })
				switch {
				case err != nil:
					cancelled.Add(1)
				case v != fmt.Sprint("of ", id):
					foreign.Add(1)
				default:
					answered.Add(1)
				}
				if rand.IntN(10) == 0 {
					_, _ = c.Invalidate(ctx, asidetest.Items.Key(id))
				}
				cancel()
			}
		})
	}
	wg.Wait()
	t.Logf("%d answered, %d cancelled, %d foreign", answered.Load(), cancelled.Load(), foreign.Load())
	require.Zero(t, foreign.Load())
	require.NotZero(t, answered.Load())
	require.NotZero(t, cancelled.Load())
}

package contract_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A balance counts operations that have begun and not ended, by what they are. Now and then its functions panic.
type balance struct {
	mu    sync.Mutex
	open  map[aside.Op]int
	kinds map[aside.OpKind]int // that have ended
	wrong []aside.Op           // ended more often than they have begun
	turns int
}

func newBalance() *balance {
	return &balance{open: make(map[aside.Op]int), kinds: make(map[aside.OpKind]int)}
}

// turn reports whether it is time for a panic.
func (b *balance) turn() bool {
	b.turns++
	return b.turns%7 == 0
}

func (b *balance) observer() aside.Observer {
	return aside.Observer{
		Begin: func(ctx context.Context, op aside.Op) context.Context {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.open[op]++
			if b.turn() {
				panic("Begin")
			}
			return context.WithValue(ctx, asidetest.CallerKey{}, op)
		},
		End: func(_ context.Context, op aside.Op, _ aside.End) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.kinds[op.Kind]++; b.open[op] == 0 {
				b.wrong = append(b.wrong, op)
			}
			if b.open[op]--; b.open[op] == 0 {
				delete(b.open, op)
			}
			if b.turn() {
				panic("End")
			}
		},
		MemoryHits: 0.5,
	}
}

func (b *balance) require(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.open, "these have begun, and not ended")
	require.Empty(t, b.wrong, "these have ended twice")
}

var errSchedule = errors.New("the source fails")

// steps are what callers and loaders do in a schedule: the caller's context, what is called, and what its loader does.
func step(c *aside.Cache, of byte, wait func(time.Duration)) {
	ctx := context.Context(context.Background())
	switch of % 4 {
	case 1:
		limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		ctx = limited
	case 2:
		ended, cancel := context.WithCancel(ctx)
		cancel()
		ctx = ended
	case 3:
		if of >= 0xf0 {
			ctx = quitting{ctx}
		}
	}
	p := watched
	p.LoadTimeout, p.LoadGrace = 200*time.Millisecond, 20*time.Millisecond
	p.TTL, p.Stale, p.RefreshAhead = time.Second, time.Hour, 0.5
	load := func(ctx context.Context) (string, error) {
		switch of / 4 % 8 {
		case 0:
			panic(errSchedule)
		case 1:
			runtime.Goexit()
		case 2:
			<-ctx.Done()
			return "", ctx.Err()
		case 3:
			wait(time.Second) // past its time
		case 4:
			return "", errSchedule
		case 5:
			return "", aside.ErrNotFound
		case 6:
			wait(30 * time.Millisecond)
		}
		return "v", nil
	}
	many := func(ctx context.Context, ids []int) (map[int]string, error) {
		v, err := load(ctx)
		return map[int]string{ids[0]: v}, err
	}
	id := int(of % 3)
	key := func(id int) aside.Key { return p.Key(id) }
	switch of / 32 {
	case 0, 1:
		_, _ = aside.GetOrLoad(ctx, c, key(id), load)
	case 2:
		_, _ = aside.GetOrLoadMany(ctx, c, []int{id, id + 1, id + 2}, key, many)
	case 3:
		_, _ = aside.Lookup(ctx, c, key(id), load, aside.Refresh())
	case 4:
		_ = aside.Set(ctx, c, key(id), "set")
	case 5:
		_, _ = c.Invalidate(ctx, key(id))
	case 6:
		_, _ = c.InvalidateCategory(ctx, "items")
	case 7:
		_, _ = aside.Get[string](ctx, c, key(id))
		_, _ = aside.GetOrLoad(ctx, c, key(id), load)
	}
}

// Each operation that begins ends, and ends once, whatever calls and loaders do, and whenever the cache is closed.
func FuzzOperationsEnd(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		schedule := make([]byte, 60)
		for i := range schedule {
			schedule[i] = byte(random.Uint32())
		}
		f.Add(schedule)
	}
	f.Fuzz(func(t *testing.T, schedule []byte) {
		schedule = schedule[:min(len(schedule), 200)]
		b := newBalance()
		synctest.Test(t, func(t *testing.T) {
			c, err := aside.New(aside.Options{Observer: b.observer(), Logger: asidetest.Quiet(), Backoff: -1, ConsistencyCheck: everyHit, MaxLoads: 2, MaxQueuedLoads: 2})
			require.NoError(t, err)
			var callers sync.WaitGroup
			for _, of := range schedule {
				callers.Go(func() { step(c, of, time.Sleep) })
				time.Sleep(time.Duration(of) * time.Millisecond / 4)
			}
			require.NoError(t, c.Close()) // some of them are still under way
			callers.Wait()
			time.Sleep(time.Minute) // for loaders that ignore their context
			synctest.Wait()
		})
		b.require(t)
	})
}

// The same on a server that goes away and comes back.
func TestOperationsOnRedisEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for seed := range uint64(3) {
		b := newBalance()
		random := rand.New(rand.NewPCG(seed, 1))
		o := asidetest.At(server.Addr())
		o.Observer, o.ConsistencyCheck, o.OpTimeout, o.MaxLoads = b.observer(), everyHit, 50*time.Millisecond, 4
		c := asidetest.Connected(t, o)
		var callers sync.WaitGroup
		for i := range 300 {
			of := byte(random.Uint32())
			callers.Go(func() {
				step(c, of, func(d time.Duration) { <-time.After(d) })
			})
			switch i {
			case 100:
				server.Kill()
			case 200:
				server.Restart()
			}
			<-time.After(time.Millisecond)
		}
		require.NoError(t, c.Close())
		callers.Wait()
		asidetest.Eventually(t, "late loaders have returned", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.open) == 0
		})
		b.require(t)
		for _, kind := range []aside.OpKind{aside.OpCall, aside.OpBatch, aside.OpLoad, aside.OpSet, aside.OpInvalidate, aside.OpFill, aside.OpRedis} {
			require.NotZero(t, b.kinds[kind], kind)
		}
	}
}

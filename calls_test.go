package aside_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

func memoryCache(t *testing.T) *aside.Cache {
	c, err := aside.New(aside.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// The time limit of a batch is the longest one of its keys' policies, also where that key is a hit.
func TestABatchHasTheTimeOfAKeyThatIsAHit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := memoryCache(t)
		long := &aside.Policy{Name: "long", Category: "long", TTL: time.Hour, LoadTimeout: time.Minute}
		short := &aside.Policy{Name: "short", Category: "short", TTL: time.Hour, LoadTimeout: time.Second}
		key := func(id int) aside.Key {
			if id == 0 {
				return long.Key(id)
			}
			return short.Key(id)
		}
		require.NoError(t, aside.Set(t.Context(), c, key(0), "cached"))
		values, err := aside.GetOrLoadMany(t.Context(), c, []int{0, 1}, key, func(ctx context.Context, ids []int) (map[int]string, error) {
			select {
			case <-time.After(10 * time.Second):
				return map[int]string{1: "loaded"}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		require.NoError(t, err)
		require.Equal(t, map[int]string{0: "cached", 1: "loaded"}, values)
	})
}

// A reused context is somebody else's once it has ended, and panics when it is asked why.
type reused struct {
	context.Context
	waited chan struct{} // closed when somebody waits for it
	once   *sync.Once
	done   chan struct{}
}

func (r reused) Done() <-chan struct{} {
	r.once.Do(func() { close(r.waited) })
	return r.done
}

func (r reused) Err() error {
	select {
	case <-r.done:
		panic("this context is somebody else's by now")
	default:
		return nil
	}
}

// One of two callers leaves, by a panic of its context. It leaves once: the other one still waits, so the load goes on.
func TestACallerWhoseContextPanicsLeavesTheLoadToTheOthers(t *testing.T) {
	t.Parallel()
	c := memoryCache(t)
	p := &aside.Policy{Category: "leaves", TTL: time.Hour, LoadGrace: -1}
	loading, end := make(chan context.Context, 1), make(chan struct{})
	load := func(ctx context.Context) (string, error) {
		loading <- ctx
		<-end
		return "loaded", context.Cause(ctx)
	}
	first := make(chan error, 1)
	go func() {
		_, err := aside.GetOrLoad(t.Context(), c, p.Key(1), load)
		first <- err
	}()
	ctx := <-loading
	gone := reused{context.Background(), make(chan struct{}), new(sync.Once), make(chan struct{})}
	second := make(chan any, 1)
	go func() {
		defer func() { second <- recover() }()
		_, _ = aside.GetOrLoad(gone, c, p.Key(1), load)
	}()
	<-gone.waited
	close(gone.done)
	require.NotNil(t, <-second)
	cause := context.Cause(ctx)
	close(end)
	require.NoError(t, <-first)
	require.NoError(t, cause)
}

// All methods of a Load do nothing outside of a load.
func TestTheZeroLoadDoesNothing(t *testing.T) {
	t.Parallel()
	var l aside.Load
	p := &aside.Policy{Category: "zero", TTL: time.Hour}
	require.NotPanics(t, func() {
		l.TTL(time.Second)
		l.NoStore()
		l.Tag("a")
		require.Nil(t, l.Of(p.Key(1)))
	})
}

func TestALoadIsOneThing(t *testing.T) {
	t.Parallel()
	c := memoryCache(t)
	p := &aside.Policy{Category: "identity", TTL: time.Hour}
	_, err := aside.GetOrLoad(t.Context(), c, p.Key(1), func(ctx context.Context) (int, error) {
		first, second := aside.CurrentLoad(ctx), aside.CurrentLoad(ctx)
		if first != second {
			return 0, errors.New("two handles of one load")
		}
		if aside.CurrentLoad(ctx).Of(p.Key(1)) != aside.CurrentLoad(ctx) {
			return 0, errors.New("the share of one key is another handle")
		}
		return 1, nil
	})
	require.NoError(t, err)
	_, err = aside.GetOrLoadMany(t.Context(), c, []int{2, 3}, func(id int) aside.Key { return p.Key(id) }, func(ctx context.Context, ids []int) (map[int]int, error) {
		l := aside.CurrentLoad(ctx)
		if first, second := l.Of(p.Key(2)), l.Of(p.Key(2)); first != second {
			return nil, errors.New("two handles of one share")
		}
		return map[int]int{2: 2, 3: 3}, nil
	})
	require.NoError(t, err)
}

// Every hit on a "not found" returns the same error, so that one can be recognised as the other.
func TestAHitOnALongNotFoundIsTheSameErrorEachTime(t *testing.T) {
	t.Parallel()
	c := memoryCache(t)
	p := &aside.Policy{Category: "absent", TTL: time.Hour}
	long := fmt.Errorf("%w: %s", aside.ErrNotFound, strings.Repeat("x", 65<<10))
	get := func() error {
		_, err := aside.GetOrLoad(t.Context(), c, p.Key(1), func(context.Context) (int, error) { return 0, long })
		return err
	}
	require.ErrorIs(t, get(), aside.ErrNotFound)
	require.ErrorIs(t, get(), get())
}

// A hit that is not answered the short way allocates what it needs itself, and nothing that only a load needs.
func TestALookupOfAHitAllocatesNothingForALoad(t *testing.T) {
	if asidetest.RaceDetector {
		t.Skip("the race detector allocates")
	}
	c := memoryCache(t)
	p := &aside.Policy{Category: "lookups", TTL: time.Hour}
	ctx, found, absent := t.Context(), p.Key("found"), p.Key("absent")
	load := func(context.Context) (int, error) { return 1, nil }
	loadNone := func(context.Context) (int, error) { return 0, aside.ErrNotFound }
	require.NoError(t, aside.Set(ctx, c, found, 1))
	get := testing.AllocsPerRun(200, func() { _, _ = aside.Get[int](ctx, c, found) })
	for name, lookup := range map[string]func(){
		"a value":   func() { _, _ = aside.Lookup(ctx, c, found, load) },
		"not found": func() { _, _ = aside.GetOrLoad(ctx, c, absent, loadNone) },
	} {
		lookup()
		require.LessOrEqual(t, testing.AllocsPerRun(200, lookup), get, name)
	}
}

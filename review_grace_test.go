package aside_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// One source is slow, and its callers leave. Another one is well.
//
//  1. Callers of the slow source ask for as many keys as loads may run, and leave after a moment. Their loads go on.
//  2. A caller of the other source comes, and waits. Nobody waits for the loads that have all places.
//  3. The caller is served before a load is that nobody waits for.
func TestALoadThatNobodyWaitsForKeepsNobodyFromLoading(t *testing.T) {
	t.Parallel()
	inBubble(t, aside.Options{MaxLoads: 4, MaxQueuedLoads: 4}, func(t *testing.T, c *aside.Cache) {
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, err := aside.GetOrLoad(ctx, c, items.Key("slow", i), func(ctx context.Context) (string, error) {
					<-ctx.Done() // which it heeds
					return "", ctx.Err()
				})
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		}
		all.Wait() // nobody waits for the slow source any more
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		v, err := aside.GetOrLoad(ctx, c, items.Key("well"), value("v"))
		t.Logf("after %v: %q %v", time.Since(began), v, err)
		require.NoError(t, err)
	})
}

// The same, told from the other end: callers of the healthy source are refused.
func TestLoadsThatNobodyWaitsForRefuseNobody(t *testing.T) {
	t.Parallel()
	inBubble(t, aside.Options{MaxLoads: 4, MaxQueuedLoads: -1}, func(t *testing.T, c *aside.Cache) {
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, _ = aside.GetOrLoad(ctx, c, items.Key("slow", i), func(ctx context.Context) (string, error) {
					<-ctx.Done()
					return "", ctx.Err()
				})
			})
		}
		all.Wait()
		_, err := aside.GetOrLoad(t.Context(), c, items.Key("well"), value("v"))
		require.NoError(t, err)
	})
}

// A pooledContext is what some frameworks hand to handlers: it is given to the next request as soon as the handler has returned.
type pooledContext struct {
	context.Context
	mu     sync.Mutex
	tenant string
}

type tenantKey struct{}

func (p *pooledContext) Value(key any) any {
	if key == (tenantKey{}) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.tenant
	}
	return p.Context.Value(key)
}

// A load that goes on after its caller has left must not see what the next request has put into the context of the first one.
func TestALoadSeesNothingOfTheRequestAfterItsOwn(t *testing.T) {
	t.Parallel()
	inBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		pooled := &pooledContext{Context: ctx, tenant: "one"}
		_, err := aside.GetOrLoad(pooled, c, items.Key("one"), func(ctx context.Context) (string, error) {
			time.Sleep(100 * time.Millisecond) // the first query
			return "value of tenant " + ctx.Value(tenantKey{}).(string), nil
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		pooled.mu.Lock()
		pooled.tenant = "two" // the handler has returned; the framework uses the context again
		pooled.mu.Unlock()
		time.Sleep(time.Second)
		v, err := aside.GetOrLoad(t.Context(), c, items.Key("one"), value("value of tenant one"))
		require.NoError(t, err)
		require.Equal(t, "value of tenant one", v)
	})
}

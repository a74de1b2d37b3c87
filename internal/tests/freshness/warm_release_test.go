package freshness_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// However a warming ends by itself, the next one of its name begins, in each process, at once.
func TestWhenAWarmingHasReturnedItsNameIsFree(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o, other := asidetest.At(proxy.Addr()), asidetest.Connected(t, asidetest.At(server.Addr()))
	o.OpTimeout, o.LeaseTTL = 10*time.Second, time.Minute
	c := asidetest.Connected(t, o)
	proxy.SetDelay(20 * time.Millisecond) // a release that nobody waits for is still on its way when the next warming asks
	ended, end := context.WithCancel(t.Context())
	for i, test := range []struct {
		how      string
		ctx      context.Context
		w        aside.Warming
		load     error
		progress func()
	}{
		{how: "complete", ctx: t.Context()},
		{how: "with failures", ctx: t.Context(), w: aside.Warming{Every: time.Hour}, load: errors.New("the source is down")},
		{how: "panics", ctx: t.Context(), progress: func() { panic("a bug") }},
		{how: "cut off", ctx: ended, w: aside.Warming{Every: time.Hour}, progress: end},
	} {
		test.w.Name = "items"
		test.w.Progress = func(aside.Warmed) {
			if test.progress != nil {
				test.progress()
			}
		}
		warmed := aside.Warmed{}
		func() {
			defer func() { _ = recover() }()
			warmed, _ = aside.Warm(test.ctx, c, upTo(10), func(id int) aside.Key { return itemKey(100*i + id) }, func(context.Context, []int) (map[int]string, error) {
				return nil, test.load
			}, test.w)
		}()
		require.False(t, warmed.Elsewhere, test.how)
		require.Empty(t, server.MustDo(t, "KEYS", "{%w:items}!*"), test.how)
		again, err := aside.Warm(t.Context(), other, upTo(0), itemKey, new(table).load, aside.Warming{Name: "items"})
		require.NoError(t, err)
		require.False(t, again.Elsewhere, test.how)
	}
}

func TestWhenACacheIsClosedTheNameOfItsWarmingIsFree(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for range 100 {
		c := asidetest.Connected(t, asidetest.At(server.Addr()))
		began, closed, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := aside.Warm(t.Context(), c, func(yield func(int) bool) {
				close(began)
				<-closed // the program's source of ids hangs
			}, itemKey, new(table).load, aside.Warming{Name: "items"})
			done <- err
		}()
		<-began
		require.Len(t, server.MustDo(t, "KEYS", "*!l"), 1)
		require.NoError(t, c.Close())
		require.Empty(t, server.MustDo(t, "KEYS", "*!l"))
		close(closed)
		require.ErrorIs(t, <-done, aside.ErrClosed)
	}
}

func TestAWarmingDoesNotWaitForARedisThatHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.OpTimeout, o.LeaseTTL = 500*time.Millisecond, 10*time.Minute // it does not expire during the test
	c := asidetest.Connected(t, o)
	_, err := aside.Warm(t.Context(), c, upTo(10), itemKey, new(table).load, aside.Warming{Name: "items", Progress: func(aside.Warmed) { proxy.Blackhole(true) }})
	require.NoError(t, err)
	require.Len(t, server.MustDo(t, "KEYS", "{%w:items}!*"), 1)
	proxy.Blackhole(false)
	asidetest.Eventually(t, "Redis answers again, and the name is free", func() bool {
		return len(server.MustDo(t, "KEYS", "{%w:items}!*").([]any)) == 0
	})
}

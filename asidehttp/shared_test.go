package asidehttp_test

import (
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
)

// However many handlers with one rate and burst a cache has, a client has one allowance.
func TestAllHandlersOfACacheHaveOneLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		caches := make([]*aside.Cache, 2)
		for i := range caches {
			c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			defer c.Close()
			caches[i] = c
		}
		o := options(io.Discard)
		o.Rate, o.Burst = 1, 50
		served := func(handlers ...http.Handler) (n int) {
			for range 60 {
				for _, h := range handlers {
					if ask(h, "GET", "/?metrics=true", "", "Bearer "+keyAll).Code == 200 {
						n++
					}
				}
			}
			return n
		}
		handler, metrics := asidehttp.AdminHandler(caches[0], o), asidehttp.Metrics(caches[0], o)
		require.Equal(t, 50, served(handler, metrics))
		require.Equal(t, 50, served(asidehttp.Metrics(caches[1], o)), "another cache has a limit of its own")
		time.Sleep(10 * time.Second)
		require.Equal(t, 10, served(metrics, handler, asidehttp.Metrics(caches[0], o)))

		// A handler with other options allows what those say.
		time.Sleep(time.Hour)
		o.Burst = 5
		narrow := asidehttp.Metrics(caches[0], o)
		require.Equal(t, 5, served(narrow))
		require.Equal(t, 50, served(handler))
		require.Equal(t, 0, served(narrow))
		o.Rate = -1
		require.Equal(t, 60, served(asidehttp.Metrics(caches[0], o)), "no limit at all")
	})
}

func TestACacheWithHandlersCanBeCollected(t *testing.T) {
	t.Parallel()
	collected := make(chan struct{})
	func() {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		asidehttp.AdminHandler(c, options(io.Discard))
		c.Close()
		runtime.AddCleanup(c, func(done chan struct{}) { close(done) }, collected)
	}()
	for deadline := time.Now().Add(asidetest.Bound); ; {
		runtime.GC()
		select {
		case <-collected:
			return
		case <-time.After(10 * time.Millisecond):
			require.True(t, time.Now().Before(deadline), "it is still held")
		}
	}
}

// A cache that knows no category yet says so, and is not taken for one that is closed.
func TestACacheThatKnowsNoCategory(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	w := ask(h, "POST", "/", `{"category":"models"}`, "Bearer "+keyAll)
	require.Equal(t, 422, w.Code)
	require.Contains(t, problemOf(t, w).Detail, "Options.Policies")
	require.Equal(t, 200, ask(h, "POST", "/", `{"category":"all"}`, "Bearer "+keyAll).Code)
	c.Close()
	require.Equal(t, 503, ask(h, "POST", "/", `{"category":"models"}`, "Bearer "+keyAll).Code)
}

// The handlers of one cache have limits of their own. A client that asks both gets no more out of the narrow one than its options say, and
// is not kept from it for longer than they say.
//
//  1. The client uses up what the narrow handler allows.
//  2. It asks the wide one, by whose rate all that it has taken comes back at once.
//  3. The narrow one allows as much again.
func TestAWideHandlerDoesNotWidenANarrowOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		o := options(io.Discard)
		o.Rate, o.Burst = 1, 10
		narrow := asidehttp.AdminHandler(c, o)
		o.Rate, o.Burst = 1000, 1000
		wide := asidehttp.Metrics(c, o)
		served := 0
		for range 100 { // ten seconds
			for range 20 {
				if ask(narrow, "GET", "/?metrics=true", "", "Bearer "+keyAll).Code == 200 {
					served++
				}
			}
			time.Sleep(50 * time.Millisecond)
			ask(wide, "GET", "/", "", "Bearer "+keyAll)
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("%d requests in ten seconds, where a rate of 1 and a burst of 10 allow 20", served)
		require.LessOrEqual(t, served, 20)
	})
}

// The other way round: what a client has asked of the wide handler does not lock it out of the narrow one for minutes.
func TestAWideHandlerDoesNotLockOutOfANarrowOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		o := options(io.Discard)
		o.Rate, o.Burst = 1000, 1000
		wide := asidehttp.Metrics(c, o)
		o.Rate, o.Burst = 1, 10
		narrow := asidehttp.AdminHandler(c, o)
		for range 500 {
			require.Equal(t, 200, ask(wide, "GET", "/", "", "Bearer "+keyAll).Code)
		}
		time.Sleep(11 * time.Second) // a whole burst of the narrow one, at its own rate
		require.Equal(t, 200, ask(narrow, "GET", "/?metrics=true", "", "Bearer "+keyAll).Code)
	})
}

package asidetest

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/settling"
)

// closeTimeout is how long New waits at the end of a test for loaders whose contexts have ended.
const closeTimeout = 10 * time.Second

// New makes a cache for a test, in memory mode unless o has a Redis. At the end of the test it closes the cache. The test fails then if a loader has not
// returned 10 s after its context has ended, or a call or Options.OnInvalidated has not. A cache that the test has closed is left alone.
//
// Unless o says otherwise, the cache logs to t, from the level Debug on, and has no backoff: after a failed load the next call loads at once. Invalid
// options end the test.
func New(t testing.TB, o aside.Options) *aside.Cache {
	t.Helper()
	if o.Backoff == 0 && o.MaxBackoff == 0 {
		o.Backoff = -1
	}
	log := &testLog{t: t}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTime}))
	}
	c, err := aside.New(o)
	if err != nil {
		t.Fatalf("asidetest: New: %v", err)
		return nil
	}
	t.Cleanup(func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		loaders, calls := settling.Close(ctx, c)
		log.end()
		if loaders {
			t.Errorf("asidetest: loaders have not returned %v after their context has ended: a loader must return when its context ends", closeTimeout)
		} else if calls {
			t.Errorf("asidetest: calls of the cache, or OnInvalidated, have not returned %v after the cache was closed", closeTimeout)
		}
	})
	return c
}

// AlwaysMiss is New for a cache that stores nothing: each call of GetOrLoad loads, Get returns ErrMiss, and Set does nothing. Calls that overlap still
// share a load. It is for tests of code around a cache that are not to depend on what is cached. It has no Redis: Options.Redis must be unset.
func AlwaysMiss(t testing.TB, o aside.Options) *aside.Cache {
	t.Helper()
	if len(o.Redis.InitAddress) > 0 {
		t.Fatalf("asidetest: AlwaysMiss: Options.Redis is set, and a cache that stores nothing has no Redis: leave it unset")
		return nil
	}
	c := New(t, o)
	if c != nil {
		settling.Forget(c)
	}
	return c
}

// testLog writes lines to the log of a test, until the test ends: the log must not be used after that.
type testLog struct {
	t     testing.TB
	mu    sync.Mutex
	ended bool // guarded by mu
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

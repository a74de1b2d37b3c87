package aside

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/settling"
)

// Ready waits until the cache can use Redis. Calls need no Ready: until the first connection is made, they wait for it, and then do without Redis. Use
// Ready where a process should take no requests before, or where a test wants Redis. In memory mode Ready returns nil at once. If ctx ends first, Ready
// returns an *Error with CodeUnavailable, which says why Redis is not in use and wraps ctx's error; if the cache is closed, ErrClosed.
func (c *Cache) Ready(ctx context.Context) error {
	if err := c.usableWith(ctx); err != nil {
		return err
	}
	for {
		changed := c.health.Change()
		h := c.Health()
		switch {
		case c.closed.Load():
			return ErrClosed
		case h.State != StateDegraded:
			return nil
		}
		select {
		case <-changed:
		case <-c.engine.Closing():
		case <-ctx.Done():
			return &Error{Code: CodeUnavailable, Message: "redis is not in use: " + h.Reason, Err: ctx.Err()}
		}
	}
}

func init() {
	settling.Work = func(ctx context.Context, c any) error { return c.(*Cache).settled(ctx, (*engine.Engine).Settle) }
	settling.Pushes = func(ctx context.Context, c any) error { return c.(*Cache).settled(ctx, (*engine.Engine).Hear) }
	settling.Forget = func(c any) { c.(*Cache).engine.Forget() }
	settling.Close = func(ctx context.Context, c any) (loaders, calls bool) {
		left := c.(*Cache).close(ctx)
		return left != nil && left.Loaders, left != nil && left.Calls
	}
}

// settled waits for something of the cache. A closed cache has nothing to wait for: Close has waited.
func (c *Cache) settled(ctx context.Context, wait func(*engine.Engine, context.Context) error) error {
	switch err := c.usable(); {
	case err == ErrClosed:
		return nil
	case err != nil:
		return err
	}
	if err := wait(c.engine, ctx); err != nil && !c.closed.Load() {
		return err
	}
	return nil
}

// closeGrace is for how long Close waits for functions of the program.
const closeGrace = 10 * time.Second

// shutdownGrace is for how long Shutdown waits after its context has ended: background work ends by itself once the cache is closed.
const shutdownGrace = 100 * time.Millisecond

// Close cancels the contexts of loaders, and waits up to 10 s for loaders, for calls under way and for background work, pending writes
// included. Calls that wait for a load, and later calls, return ErrClosed. If a function of the program does not return within the 10 s, such
// as a loader that ignores its context, Close logs that and returns. Invalidations that are not confirmed by then are lost, and their number is logged:
// Shutdown waits for them. Close can be called more than once and always returns nil, also on a nil cache.
func (c *Cache) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	c.close(ctx)
	return nil
}

// Shutdown waits until Redis has confirmed all invalidations, and then does what Close does. Until then the cache answers calls. When ctx ends, background
// work has a tenth of a second to end. What is left then is given up, and a *ShutdownError says what that was. Shutdown of a nil or closed cache returns
// nil.
func (c *Cache) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return invalidArgument("Shutdown: the context is nil: use context.Background() to wait for as long as it takes")
	}
	if c == nil || c.engine == nil {
		return nil
	}
	c.engine.Drain(ctx)
	closing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(shutdownGrace, cancel) })()
	if left := c.close(closing); left != nil {
		left.Err = ctx.Err()
		return left
	}
	return nil
}

// close closes the cache, and returns what it has left, nil if that is nothing or if the cache was closed before.
func (c *Cache) close(ctx context.Context) (left *ShutdownError) {
	if c == nil || c.engine == nil {
		return nil
	}
	c.closing.Do(func() {
		began := time.Now()
		c.closed.Store(true)
		loaders, calls := c.engine.Close(ctx)
		c.health.Stop()
		u := c.engine.Usage().Journal
		e := &ShutdownError{
			Keys: u.Unconfirmed - u.Patterns - u.Tags, Tags: u.Tags, Patterns: u.Patterns,
			Loaders: loaders, Calls: calls, Err: ctx.Err(),
		}
		level := slog.LevelInfo
		if u.Unconfirmed > 0 {
			level = slog.LevelWarn
		}
		c.opts.Logger.LogAttrs(context.Background(), level, "aside: closed", slog.Duration("took", time.Since(began)), slog.Int("unconfirmed", u.Unconfirmed),
			slog.Int("keys", e.Keys), slog.Int("tags", e.Tags), slog.Int("patterns", e.Patterns))
		if u.Unconfirmed > 0 || loaders || calls {
			left = e
		}
	})
	return left
}

// A ShutdownError is what Shutdown has left because its context has ended. The invalidations of keys, tags and patterns hold in no other process, unless
// a later process makes them again.
type ShutdownError struct {
	Keys, Tags, Patterns int   // invalidations that Redis has not confirmed: they are lost. Categories, and everything, count as tags
	Loaders              bool  // loaders have not returned: they ignore their context
	Calls                bool  // calls have not returned, or OnInvalidated: a function of the program does not return
	Err                  error // of the context
}

// Error says what is left.
func (e *ShutdownError) Error() string {
	var left []string
	for _, of := range []struct {
		n    int
		what string
	}{{e.Keys, "keys"}, {e.Tags, "tags"}, {e.Patterns, "patterns"}} {
		if of.n > 0 {
			left = append(left, fmt.Sprintf("invalidations of %d %s are not confirmed, and lost", of.n, of.what))
		}
	}
	if e.Loaders {
		left = append(left, "loaders have not returned")
	}
	if e.Calls {
		left = append(left, "calls or OnInvalidated have not returned")
	}
	return "aside: closed, but " + strings.Join(left, "; ")
}

// Unwrap returns the error of the context.
func (e *ShutdownError) Unwrap() error { return e.Err }

// logStarted logs the options of a cache.
func (c *Cache) logStarted() {
	mode := "memory"
	if len(c.opts.Redis.InitAddress) > 0 {
		mode = "redis"
	}
	c.opts.Logger.LogAttrs(context.Background(), slog.LevelInfo, "aside: started", slog.String("mode", mode), slog.Int("policies", len(c.opts.Policies)),
		slog.Int("max_entries", c.opts.MaxEntries), slog.Int64("max_bytes", c.opts.MaxBytes), slog.Int("max_loads", c.opts.MaxLoads))
}

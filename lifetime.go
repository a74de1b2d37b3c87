package aside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/settling"
)

// switches are what changes how a cache answers while it runs.
type switches struct {
	switched atomic.Bool // the cache is closed, or some calls bypass it: a hit in memory reads nothing else
	closed   atomic.Bool
	past     atomic.Pointer[map[string]bool] // the categories that are bypassed, reservedCategory for all; nil: none. The map does not change

	switching sync.Mutex // for those that write

	closing atomic.Bool    // a call of Close or Shutdown has begun to close the cache
	ended   chan struct{}  // closed when it has
	left    *ShutdownError // what it has left; nil if that is nothing; written before ended is closed
}

func (s *switches) close() {
	s.switching.Lock()
	defer s.switching.Unlock()
	s.closed.Store(true)
	s.switched.Store(true)
}

// bypasses reports whether calls for a category bypass the cache.
func (s *switches) bypasses(category string) bool {
	past := s.past.Load()
	return past != nil && ((*past)[reservedCategory] || (*past)[category])
}

// bypassed returns the categories that are bypassed, sorted.
func (s *switches) bypassed() []string {
	past := s.past.Load()
	if past == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(*past))
}

// foundUnlessOff is found for a cache that is closed, or that some calls bypass.
func (c *Cache) foundUnlessOff(text string) (value any, owner *resolved) {
	if c.closed.Load() { // a closed cache cannot be invalidated, so it serves nothing
		return nil, nil
	}
	if e := c.near.Get(text); e != nil {
		if owner = e.Scope.Owner.(*resolved); !c.bypasses(owner.Category) {
			return e.Value, owner
		}
	}
	return nil, nil
}

// Bypass switches the cache off for categories, without categories for all calls; or, with on false, on again. It is for incidents: when what is cached is in
// doubt, or to see whether the cache is the cause of a fault. It holds for this process alone: send the order to every instance.
//
// The loaders alone answer calls that bypass the cache: such calls read nothing in memory and in Redis, and store nothing. Concurrent calls for a key
// still share a load with each other. MaxLoads, LoadTimeout and Backoff hold, so make sure that the source bears the load. A Result has ReasonBypassed,
// and CauseAsked. Get returns ErrMiss. Set removes the cached value, and stores nothing; so does Refresh. Warm fails. Previous returns nothing.
// Older values are not served, whatever the policy says. Invalidations work as ever, also for what is cached. So once the cache is switched on
// again, it serves what it still holds, unless that has expired or was invalidated.
//
// Bypass is about calls that begin once it has returned. A load that runs already, RefreshAhead included, ends as it would have, and may store its value.
//
// Health.Bypassed has the categories, each change is logged, and is in Recent.States. An unknown category is an error, and changes nothing: list its policy in
// Options.Policies. So is a category to switch on again while all calls bypass the cache: switch all on first. Bypass(false) ends Bypass(true, …) too.
func (c *Cache) Bypass(on bool, categories ...string) error {
	if err := c.usable(); err != nil {
		return err
	}
	known := c.policies.categories()
	for _, category := range categories {
		if !slices.Contains(known, category) {
			return c.unknownCategory(category)
		}
	}
	c.switching.Lock()
	defer c.switching.Unlock()
	past := make(map[string]bool)
	if old := c.past.Load(); old != nil {
		maps.Copy(past, *old)
	}
	before := len(past)
	switch {
	case len(categories) == 0 && on:
		past[reservedCategory] = true
	case len(categories) == 0:
		clear(past)
	case !on && past[reservedCategory]:
		return invalidArgument("Bypass: all calls bypass the cache, so no category can be switched on again alone: call Bypass(false) first")
	}
	for _, category := range categories {
		if on {
			past[category] = true
		} else {
			delete(past, category)
		}
	}
	if len(past) == before { // one call only adds, or only removes
		return nil
	}
	if len(past) > 0 {
		c.past.Store(&past)
	} else {
		c.past.Store(nil)
	}
	c.switched.Store(c.closed.Load() || len(past) > 0)
	c.bypassChanged()
	return nil
}

// bypassChanged makes a change of what is bypassed known.
func (c *Cache) bypassChanged() {
	list := c.bypassed()
	if len(list) > 0 {
		c.opts.Logger.LogAttrs(context.Background(), slog.LevelWarn, "aside: calls bypass the cache, loaders alone answer them", slog.Any("categories", list))
	} else {
		c.opts.Logger.LogAttrs(context.Background(), slog.LevelInfo, "aside: calls no longer bypass the cache")
	}
	h := c.Health()
	c.recent.states.Add(StateChange{At: time.Now(), State: h.State, Reason: h.Reason, Bypassed: list})
}

// bypassError is the error of a call that has no purpose while the cache is bypassed.
func bypassError(what, category string) error {
	return &Error{Code: CodeUnavailable, Message: fmt.Sprintf("%s: calls of category %q bypass the cache, which stores nothing: switch it on again with Bypass(false)", what, category)}
}

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
		var left *ShutdownError
		if err := c.(*Cache).close(ctx); err != nil && !errors.As(err, &left) {
			return true, true // another call of Close has not ended
		}
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
// work has a tenth of a second to end. What is left then is given up, and a *ShutdownError says what that was. If another call of Close or Shutdown has not
// ended by then, the error wraps that of ctx. Shutdown of a nil or closed cache returns nil.
func (c *Cache) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return invalidArgument("Shutdown: the context is nil: use context.Background() to wait for as long as it takes")
	}
	if c == nil || c.engine == nil {
		return nil
	}
	select {
	case <-c.ended:
		return nil
	default:
	}
	c.engine.Drain(ctx)
	closing, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { time.AfterFunc(shutdownGrace, func() { cancel(ctx.Err()) }) })()
	return c.close(closing)
}

// close closes the cache, and returns what it has left, nil if that is nothing. One of several calls closes it. The others wait for that, each until its own
// ctx ends.
func (c *Cache) close(ctx context.Context) error {
	if c == nil || c.engine == nil {
		return nil
	}
	if c.closing.CompareAndSwap(false, true) {
		c.end(ctx)
		ctx = context.Background() // which may have ended meanwhile
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
		return fmt.Errorf("aside: another call of Close or Shutdown is still under way: %w", context.Cause(ctx))
	}
	if c.left == nil {
		return nil
	}
	return c.left
}

// end closes the cache. It is called once.
func (c *Cache) end(ctx context.Context) {
	defer close(c.ended)
	began := time.Now()
	c.switches.close()
	loaders, calls := c.engine.Close(ctx)
	c.health.Stop()
	u := c.engine.Usage().Journal
	left := &ShutdownError{Keys: u.Keys, Tags: u.Tags, Patterns: u.Patterns, Loaders: loaders, Calls: calls, Err: context.Cause(ctx)}
	level := slog.LevelInfo
	if u.Unconfirmed > 0 {
		level = slog.LevelWarn
	}
	c.opts.Logger.LogAttrs(context.Background(), level, "aside: closed", slog.Duration("took", time.Since(began)), slog.Int("unconfirmed", u.Unconfirmed),
		slog.Int("keys", left.Keys), slog.Int("tags", left.Tags), slog.Int("patterns", left.Patterns))
	if u.Unconfirmed > 0 || loaders || calls {
		c.left = left
	}
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

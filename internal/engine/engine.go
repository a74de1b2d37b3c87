// Package engine is the load path: it answers calls from memory, from Redis, or by a load that all callers of a key share, and stores the
// loaded value. It knows no Go type of the program: a value is a pointer in an any, and a reflect.Type says to which type.
//
// A call that memory cannot answer joins or leads a flight, in answer.go. load.go has the steps of a flight in their order, and each step has
// a file of its own: near.go looks into memory, read.go and open.go read Redis, acquire.go takes leases, loader.go and call.go call the
// loader and share its results, fill.go and keep.go store them, and wait.go waits for loads of other processes.
package engine

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/backoff"
	"github.com/gatewayz/aside/internal/bulkhead"
	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/lease"
	"github.com/gatewayz/aside/internal/lifetime"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/scan"
	"github.com/gatewayz/aside/internal/stats"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// Options are the program's options with their defaults filled in, and functions of the root package.
type Options struct {
	Redis          rueidis.ClientOption // without an address: memory mode
	Prefix         string               // of all names in Redis
	OpTimeout      time.Duration
	LeaseTTL       time.Duration
	MaxEntries     int
	MaxBytes       int64
	MaxValueBytes  int
	CompressFrom   int
	JSON           *wire.JSONFunctions
	ChunkFrom      int // negative: never
	MaxLoads       int
	MaxQueuedLoads int
	Backoff        time.Duration // negative: none
	MaxBackoff     time.Duration
	OnInvalidated  func(invalidate.Event) // nil: none
	Logger         *slog.Logger
	Counters       *stats.Registry
	Observer       *observe.Observer // nil: none

	OnState      func(s redisstore.State, again int)        // is called with each change of the connection's state, and how many invalidations are to be sent again
	OnNode       func(string, redisstore.State, bool)       // is called with each change of a node of a cluster: its address, and whether it has left
	OnFailedLoad func(FailedLoad)                           // is called with each call of a loader that fails; nil: none
	SlowLoad     time.Duration                              // a load that takes so long is a slow one; 0: none is
	OnSlowLoad   func(SlowLoad)                             // is called with each slow one; nil: none
	Categories   func() []string                            // of the policies that are known
	InUse        func() []string                            // the categories that were used since the last call
	NameOfOwner  func(owner uint64, category string) string // the name of the policy that a stored value belongs to
	ErrClosed    error                                      // of calls that Close cuts short
	ErrorOf      func(err error, key string) error          // turns the error of a load into the error for a caller
}

// An Engine is the load path of one cache.
type Engine struct {
	opts  Options
	Clock *near.Clock
	Near  *near.Cache
	redis

	underWay
	failures *backoff.Table
	loads    *bulkhead.Bulkhead
	tags     *tags.Registry

	Invalidator *invalidate.Invalidator
	ending
	logging
}

// underWay are loads and stores that run, or that are put off.
type underWay struct {
	flights flight.Group[flightKey, Outcome]
	storing storings
	unkept  unkept
	stuck   unreturned
	timers  timers

	warming sync.Mutex
	warmed  warmings // guarded by warming

	forgetful bool // see Forget
}

// redis holds what an Engine needs for Redis. In memory mode all of it is nil.
type redis struct {
	Store   *redisstore.Store
	journal *journal.Journal
	Scanner *scan.Scanner
	leases  *lease.Keeper
}

// ending is the state of Close.
type ending struct {
	Calls  lifetime.Group // calls and background work; flights are counted by their group
	closes chan struct{}  // closed by Close
	closed atomic.Bool
}

// logging keeps log lines from being repeated.
type logging struct {
	checkedTypes sync.Map // typeAndCodec -> *atomic.Int32, how many values were checked
}

// Open makes an engine, which connects in the background.
func Open(opts Options) *Engine {
	e := &Engine{opts: opts, Clock: near.NewClock()}
	e.closes = make(chan struct{})
	e.loads = bulkhead.New(opts.MaxLoads, opts.MaxQueuedLoads)
	e.failures = backoff.New(e.Clock, opts.Backoff, opts.MaxBackoff)
	e.Near = near.New(near.Options{MaxEntries: opts.MaxEntries, MaxBytes: opts.MaxBytes}, e.Clock)
	e.tags = tags.New(e.Near, e.Clock)
	if len(opts.Redis.InitAddress) > 0 {
		e.journal = journal.New()
	}
	e.Invalidator = invalidate.New(invalidate.Options{
		Near: e.Near, Clock: e.Clock, Journal: e.journal, Tags: e.tags, Backoff: e.failures, Metrics: opts.Counters,
		OnInvalidated: opts.OnInvalidated, Logger: opts.Logger, Go: e.Calls.Go, Closed: e.closes, ErrClosed: opts.ErrClosed,
		Observer: opts.Observer,
	})
	if e.journal != nil {
		e.connect()
	}
	return e
}

// connect opens the store, and starts the goroutines that need Redis.
func (e *Engine) connect() {
	opts := e.opts
	e.Store = redisstore.Open(redisstore.Options{
		Client:    opts.Redis,
		Namespace: opts.Prefix,
		OpTimeout: opts.OpTimeout,
		Lease:     opts.LeaseTTL,
		Format: redisstore.Format{
			Magic: wire.Magic, Version: wire.Version, Flags: wire.KnownFlags, LoadStart: wire.LoadStartOffset,
			Nonce: wire.NonceOffset, Chunked: wire.ChunkedFlag, Extended: wire.ExtendedFlag, Longest: min(opts.MaxValueBytes, math.MaxInt-wire.MaxOverhead) + wire.MaxOverhead, TagsLen: wire.TagsLenOffset, Tags: wire.HeaderLen,
		},
		Clock:       e.Clock,
		OnState:     e.stateChanged,
		OnNode:      opts.OnNode,
		Pushed:      e.Invalidator.Pushed,
		Gap:         e.Invalidator.Gap,
		OnWatermark: e.journal.Recover,
		Idling:      redisstore.Idling{Calls: opts.Counters.Calls, Began: e.Invalidator.Idle},
		Trips:       redisstore.Trips{Counts: &opts.Counters.RoundTrips, Observer: opts.Observer},
	})
	e.tags.Connect(e.Store, e.journal.Contains)
	e.Scanner = scan.New(scan.Options{
		Store: e.Store, Named: e.named, Categories: opts.Categories, Unconfirmed: e.journal.Contains,
		Now: e.Clock.Now, Logger: opts.Logger,
	})
	sweeper := scan.NewSweeper(e.Scanner, &opts.Counters.Swept)
	sweeper.Observe(opts.Observer)
	e.leases = lease.NewKeeper(e.Store, opts.LeaseTTL, opts.MaxValueBytes, e.Calls.Go)
	ctx, stop := context.WithCancel(context.Background())
	e.Invalidator.Connect(ctx, e.Store, sweeper, e.Scanner)
	e.Calls.Go(func() { e.Store.Retry(ctx, e.leases.Waiting(), e.leases.ReleaseAgain) })
	e.Calls.Go(func() { sweeper.Run(ctx) })
	e.Calls.Go(func() { e.tags.Touch(ctx, opts.InUse) })
	e.Calls.Go(func() { <-e.closes; stop() })
}

// stateChanged is called with each change of the connection's state.
func (e *Engine) stateChanged(s redisstore.State) {
	if e.opts.OnState != nil {
		e.opts.OnState(s, e.journal.Usage().Unconfirmed)
	}
}

// Closed reports whether the engine is closed.
func (e *Engine) Closed() bool { return e.closed.Load() }

// Closing returns a channel that is closed when the engine is.
func (e *Engine) Closing() <-chan struct{} { return e.closes }

// Drain waits until Redis has confirmed all invalidations, or until ctx ends.
func (e *Engine) Drain(ctx context.Context) {
	for waiting := e.journal.Waiting(); len(waiting) > 0; waiting = e.journal.Waiting() {
		for _, w := range waiting {
			select {
			case <-w.Confirmed():
			case <-ctx.Done():
				return
			case <-e.closes:
				return
			}
		}
	}
}

// Close ends the engine: calls that wait for a load get Options.ErrClosed, and the contexts of loaders end. It waits for background work and
// for calls under way until ctx ends, and reports whether loaders, or calls, have not returned by then. It is called once.
func (e *Engine) Close(ctx context.Context) (loaders, calls bool) {
	e.closed.Store(true)
	e.Calls.Close()
	close(e.closes)
	flying, others := e.flights.Close(ctx, e.opts.ErrClosed), e.Calls.Wait(ctx)
	switch {
	case flying != nil:
		e.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "aside: Close gave up waiting for loaders that ignore context cancellation")
	case others != nil:
		e.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "aside: Close gave up waiting for calls or OnInvalidated: a codec, or OnInvalidated itself, does not return")
	}
	if e.Store != nil {
		e.Store.Close()
	}
	e.failures.Close()
	e.Near.Close()
	e.Clock.Stop()
	return flying != nil, others != nil
}

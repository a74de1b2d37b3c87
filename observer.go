package aside

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/stats"
)

// An Observer is told what a cache does beside answering from memory: for traces, for metrics of your own, for tests. The module asideotel makes
// one for OpenTelemetry. Functions that are nil are not called. They are called by many goroutines at once, with nothing held. They run on the
// goroutines of calls, of loads and of background work, which wait for them: so none may block, nor end its goroutine. A panic in one is logged, at most
// once in ten seconds, and changes nothing.
//
// An Op has keys, and neither it nor an End has anything else of a value.
type Observer struct {
	// Begin is told that an operation begins. It returns ctx, or a context with further values: End gets that one, and what the operation leads to has
	// its values. A loader runs with the values of its load, a load with those of the call that leads it, a round trip to Redis with those of what it
	// is for. Only the values of that context count: an operation ends when it would have ended with ctx. Where Begin adds nothing, what it finds
	// in the context in End is what it found in ctx: keep what is to be ended under a context key of its own.
	//
	// For operations in the background, ctx has the values of the call that has led to them, which has returned by then; where several calls have, those of
	// the last one. A replay or a sweep keeps that context until it is done.
	Begin func(ctx context.Context, op Op) context.Context

	// End is told how an operation has ended, with the context of its Begin. It is called once for each Begin, also where a panic or runtime.Goexit of
	// the program ends the operation. If Begin is nil, End has the ctx that Begin would have got.
	End func(ctx context.Context, op Op, end End)

	// MemoryHits is the share, from 0 to 1, of hits in memory that Begin and End are told of, one after the other, as an OpCall whose Took is 0. Default: 0, none: such a
	// hit then costs what it costs without an Observer.
	MemoryHits float64
}

// An OpKind is what a cache does.
type OpKind string

// What an Observer is told of.
const (
	OpCall       OpKind = "call"       // a call for one key that goes on to Redis or to a load, since memory has no answer; and of hits in memory the share MemoryHits
	OpBatch      OpKind = "batch"      // a call for several keys, for the keys that memory has no answer to
	OpLoad       OpKind = "load"       // a call of a loader, but those of a check. It ends with its LoadTimeout, if the loader has not returned by then
	OpRefresh    OpKind = "refresh"    // a load in the background, behind a call that got the cached value: with its requests to Redis, and its OpLoad if it comes to that
	OpCheck      OpKind = "check"      // a check of a ConsistencyCheck; Err is nil if the value is right
	OpSet        OpKind = "set"        // a Set
	OpInvalidate OpKind = "invalidate" // an invalidation of this process
	OpFill       OpKind = "fill"       // loaded values are stored in Redis, behind the callers of the load
	OpRedis      OpKind = "redis"      // a round trip to one server for one of the others or for background work: one command, or several in a pipeline
	OpReplay     OpKind = "replay"     // invalidations that Redis had not confirmed are sent again; those by pattern, whose scans take long, are sent as one from the beginning
	OpSweep      OpKind = "sweep"      // values in Redis are removed that an invalidation of tags, a category or everything has made out of date
)

// An Op is an operation that begins.
type Op struct {
	Kind   OpKind
	Policy string // the Name of the policy, of several the first one's; empty for OpRedis, OpReplay, OpSweep, and OpInvalidate but of keys
	Label  string // the Label of that policy
	// Key is the key as in Redis, with the Namespace; of several the first one. For OpInvalidate it is a key, or a pattern, tag or category as
	// it was given. Empty for OpReplay and OpSweep.
	Key  string
	Keys int // how many keys; of OpRedis commands, of OpReplay keys, tags and patterns, of OpSweep tags

	Node string // of OpRedis the server: host:port, or the path of a socket
	// Command is what OpRedis sends, as the semantic conventions of OpenTelemetry name it: "GETRANGE"; for several commands "PIPELINE GETRANGE", or "PIPELINE" if
	// they are of several kinds. For OpInvalidate it is what is invalidated: "keys", "tags", "category", "pattern" or "all".
	Command string
}

// An End is how an operation has ended. A field that says nothing about an operation of its kind is zero.
type End struct {
	Took time.Duration

	// Of an OpCall or OpBatch, as in Result. A batch has those of its worst key: an error is worse than StatusFallback, that than StatusMiss, StatusStale and
	// StatusHit. With an Err, Status and Tier are empty. TTL is also that of an OpSet.
	Age, TTL time.Duration
	Status   Status
	Tier     Tier
	// Cause is why a call was no hit. It is CauseUnavailable for an OpSet, OpFill, OpInvalidate or OpReplay that Redis has not confirmed, and CauseInvalidated for an
	// OpFill of a value that was invalidated during its load.
	Cause Cause

	Outcome Outcome // of an OpLoad
	Bytes   int64   // of what an OpSet or OpFill has stored: encoded and compressed, in memory mode estimated

	// Err is the error that a call returns, except ErrMiss, or the loader's error, ErrNotFound included; of other operations, why they have failed.
	Err error

	Waiters int // of an OpLoad: how many calls waited for it at its end, or have its result
	// Shared is the context that Begin has returned for the OpLoad of another call, which this OpCall or OpBatch has joined; of several, the first. It
	// is for a link to that load. nil: none, or that load had not begun.
	Shared context.Context
}

func (o Observer) validate() (errs []error) {
	if !(o.MemoryHits >= 0 && o.MemoryHits <= 1) { // NaN too
		errs = append(errs, invalidOption("Options.Observer.MemoryHits is %v: set a share of the hits in memory from 0, for none, to 1", o.MemoryHits))
	}
	if o.MemoryHits > 0 && o.Begin == nil && o.End == nil {
		errs = append(errs, invalidOption("Options.Observer.MemoryHits is %v, and Begin and End are not set: set one of them, or MemoryHits to 0", o.MemoryHits))
	}
	return errs
}

// internal makes the Observer of the packages below, nil without a function.
func (o Observer) internal(logger *slog.Logger) *observe.Observer {
	var begin func(context.Context, observe.Op) context.Context
	var end func(context.Context, observe.Op, observe.End)
	if o.Begin != nil {
		begin = func(ctx context.Context, op observe.Op) context.Context { return o.Begin(ctx, opOf(op)) }
	}
	if o.End != nil {
		end = func(ctx context.Context, op observe.Op, as observe.End) { o.End(ctx, opOf(op), endOf(as)) }
	}
	return observe.New(begin, end, logger)
}

func opOf(op observe.Op) Op {
	return Op{Kind: OpKind(op.Kind), Policy: op.Policy, Label: op.Label, Key: op.Key, Keys: op.Keys, Node: op.Node, Command: op.Command}
}

func endOf(as observe.End) End {
	end := End{
		Took: as.Took, Age: as.Age, TTL: as.TTL, Status: Status(as.Status), Tier: Tier(as.Tier), Cause: Cause(as.Cause), Outcome: Outcome(as.Outcome),
		Bytes: as.Bytes, Err: as.Err, Waiters: as.Waiters, Shared: as.Shared,
	}
	if as.NotFound {
		end.Err = absenceOf(engine.Outcome{Absent: as.Err})
	}
	return end
}

// tellHit tells the Observer of a hit in memory. The hit itself keeps nothing, so the entry is looked up again: by now it may be another one, or gone.
func (c *Cache) tellHit(ctx context.Context, key Key) {
	p, err := c.policies.resolve(key.policy)
	if err != nil {
		return
	}
	if ctx == nil { // a hit in memory accepts that
		ctx = context.Background()
	}
	text, now := key.String(), c.engine.Clock.Now()
	out := engine.Outcome{Value: text, Status: engine.StatusHit, Tier: engine.TierMemory, LoadedAt: now, FreshUntil: now}
	if e := c.near.Get(text); e != nil {
		out.LoadedAt, out.FreshUntil = e.LoadedAt, e.Times().FreshUntil
	}
	c.engine.ObserveHit(ctx, text, &p.Policy, out)
}

// errUnended is the error of an invalidation whose goroutine has ended in it.
var errUnended = errors.New("the program's code has panicked, or ended the goroutine")

// opOfInvalidation describes an invalidation. Only that of keys has a policy.
func (c *Cache) opOfInvalidation(of stats.Invalidation, policy *engine.Policy, names []string) observe.Op {
	op := observe.Op{Kind: observe.Invalidate, Keys: len(names), Command: of.String()}
	if policy != nil {
		op.Policy, op.Label = policy.Name, policy.Label
	}
	if len(names) > 0 {
		op.Key = names[0]
	}
	if of == stats.OfKeys {
		op.Key = c.opts.prefix() + op.Key
	}
	return op
}

// endOfInvalidation is the end of an invalidation that was carried out.
func endOfInvalidation(t *invalidate.Ticket) (end observe.End) {
	if !t.Confirmed {
		end.Cause = stats.Unavailable.String()
	}
	return end
}

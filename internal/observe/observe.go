// Package observe tells the program's Observer what the cache does. The Observer is the program's code: it may panic, and return any context.
package observe

import (
	"context"
	"log/slog"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/loglimit"
)

// A Kind is what the cache does. The root package has one with the same text for each.
type Kind string

// What the cache does.
const (
	Call       Kind = "call"
	Batch      Kind = "batch"
	Load       Kind = "load"
	Refresh    Kind = "refresh"
	Check      Kind = "check"
	Set        Kind = "set"
	Invalidate Kind = "invalidate"
	Fill       Kind = "fill"
	Redis      Kind = "redis"
	Replay     Kind = "replay"
	Sweep      Kind = "sweep"
)

// An Op describes an operation as it begins. The root package says what each field is.
type Op struct {
	Kind          Kind
	Policy, Label string
	Key           string
	Keys          int
	Node, Command string
}

// An End describes how an operation has ended. The root package says what each field is.
type End struct {
	Took, Age, TTL               time.Duration
	Status, Tier, Cause, Outcome string
	Bytes                        int64
	NotFound                     bool // the answer is "not found"; Err is then the loader's error, nil if that says no more
	Err                          error
	Waiters                      int
	Shared                       context.Context
}

// An Observer tells the program's functions. A nil Observer tells nobody. It is safe for concurrent use.
type Observer struct {
	begin  func(context.Context, Op) context.Context
	end    func(context.Context, Op, End)
	logger *slog.Logger
	panics loglimit.Counter
}

// New makes an Observer of two functions, each of which may be nil. Without both it returns nil.
func New(begin func(context.Context, Op) context.Context, end func(context.Context, Op, End), logger *slog.Logger) *Observer {
	if begin == nil && end == nil {
		return nil
	}
	return &Observer{begin: begin, end: end, logger: logger}
}

// An Operation is one that has begun. The zero value is one that nobody is told of.
type Operation struct {
	observer *Observer
	ctx      context.Context // what the program has returned for it
	op       Op
	began    time.Time
}

// Begin tells that an operation begins. The context that it returns ends as ctx does, and has the values that the program has added.
func (o *Observer) Begin(ctx context.Context, op Op) (context.Context, Operation) {
	if o == nil {
		return ctx, Operation{}
	}
	x := Operation{observer: o, ctx: ctx, op: op}
	if own := o.callBegin(ctx, op); own != nil && !same(own, ctx) {
		x.ctx, ctx = own, within{ctx, own}
	}
	if o.end != nil {
		x.began = time.Now()
	}
	return ctx, x
}

// Context returns the context that the program has returned for the operation.
func (x *Operation) Context() context.Context { return x.ctx }

// End tells how the operation has ended, and how long it took.
func (x *Operation) End(end End) {
	if x.observer != nil && x.observer.end != nil {
		end.Took = time.Since(x.began)
		x.observer.callEnd(x.ctx, x.op, end)
	}
}

// Tell tells of an operation that has ended already, and whose time was not taken.
func (o *Observer) Tell(ctx context.Context, op Op, end End) {
	if own := o.callBegin(ctx, op); own != nil {
		ctx = own
	}
	if o.end != nil {
		o.callEnd(ctx, op, end)
	}
}

func (o *Observer) callBegin(ctx context.Context, op Op) context.Context {
	if o.begin == nil {
		return nil
	}
	defer o.logPanic("Begin", op.Kind)
	return o.begin(ctx, op)
}

func (o *Observer) callEnd(ctx context.Context, op Op, end End) {
	defer o.logPanic("End", op.Kind)
	o.end(ctx, op, end)
}

// logPanic is deferred: it keeps a panic of the program's function from the cache's own work.
func (o *Observer) logPanic(function string, of Kind) {
	p := recover()
	if p == nil {
		return
	}
	if panics, allowed := o.panics.Count(); allowed {
		defer func() { _ = recover() }() // methods of what it has panicked with may panic too
		o.logger.Error("aside: Options.Observer panicked", "function", function, "operation", string(of), "panic", flight.Text(p), "panics", panics)
	}
}

// same reports whether two contexts are the same one. A context of the program's may be of a type that cannot be compared.
func same(a, b context.Context) (yes bool) {
	defer func() { _ = recover() }()
	return a == b
}

// A within is the context of an operation: it ends as the context that the program was given, and has the values of the one that it has returned.
type within struct {
	context.Context
	values context.Context
}

func (w within) Value(key any) any {
	if _, ok := key.(*int); ok { // by such a key the standard library finds the context whose end ends a derived one, and the cause
		return w.Context.Value(key)
	}
	return w.values.Value(key)
}

// ValuesOf returns a context that ends as ctx does, and has the values of another one, which may be nil: for work that goes on after the call
// that has caused it.
func ValuesOf(ctx, values context.Context) context.Context {
	if values == nil {
		return ctx
	}
	return within{ctx, values}
}

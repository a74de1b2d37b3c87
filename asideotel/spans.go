package asideotel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatewayz/aside"
)

// A tracer makes spans.
type tracer struct {
	tracer  trace.Tracer
	keys    func(string) string
	redis   bool
	roots   bool
	names   made[nameOf, string]
	options made[optionsFor, []trace.SpanStartOption]
}

// ownKey is the context key of the span that Begin has made. The span that trace.SpanFromContext finds in End may be the caller's, which is not ours
// to end.
type ownKey struct{}

// An own is a context with a span that Begin has made, or none, which hides that of an operation around it.
type own struct {
	context.Context
	span trace.Span // nil: none
}

func (o *own) Value(key any) any {
	if key == (ownKey{}) {
		return o
	}
	return o.Context.Value(key)
}

// spanOf returns the span that Begin has made for the operation with this context, nil if there is none.
func spanOf(ctx context.Context) trace.Span {
	if o, ok := ctx.Value(ownKey{}).(*own); ok {
		return o.span
	}
	return nil
}

// spanned reports whether operations of a kind can have spans. What is stored in Redis behind the callers of a load is part of no call.
func (t *tracer) spanned(kind aside.OpKind) bool {
	return kind != aside.OpFill && (kind != aside.OpRedis || t.redis)
}

// inBackground reports whether an operation goes on after what has led to it. It begins a trace of its own, so that the trace of a call ends with the call.
func inBackground(kind aside.OpKind) bool {
	switch kind {
	case aside.OpRefresh, aside.OpCheck, aside.OpReplay, aside.OpSweep:
		return true
	}
	return false
}

func (t *tracer) begin(ctx context.Context, op aside.Op) (begun context.Context) {
	if !t.spanned(op.Kind) {
		return ctx
	}
	defer func() {
		if p := recover(); p != nil {
			begun = &own{Context: ctx} // without this, End would end the span of the operation around this one
			otel.Handle(fmt.Errorf("asideotel: an operation has no span, as Options.Keys or the TracerProvider has panicked: %v", p))
		}
	}()
	// A valid parent is asked for, not one that is recorded: what is recorded is for the sampler to say.
	parent, behind := trace.SpanContextFromContext(ctx), inBackground(op.Kind)
	if !parent.IsValid() && !behind && !(t.roots && isCall(op.Kind)) {
		if ctx.Value(ownKey{}) == nil {
			return ctx
		}
		return &own{Context: ctx} // otherwise End would find the span of the operation around this one
	}
	options := t.optionsOf(op)
	if behind {
		options = append(slices.Clone(options), trace.WithNewRoot())
		if parent.IsValid() {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: parent}))
		}
	}
	spanned, span := t.tracer.Start(ctx, t.name(op), options...)
	return &own{Context: spanned, span: span}
}

// isCall reports whether an operation is one that the program asks for, and not a part of such a one.
func isCall(kind aside.OpKind) bool {
	switch kind {
	case aside.OpCall, aside.OpBatch, aside.OpSet, aside.OpInvalidate:
		return true
	}
	return false
}

type nameOf struct {
	kind aside.OpKind
	of   string
}

// name is the name of a span: there are few of them, and each is made once.
func (t *tracer) name(op aside.Op) string {
	n := nameOf{op.Kind, op.Label}
	switch op.Kind {
	case aside.OpRedis:
		return op.Command
	case aside.OpInvalidate:
		n.of = op.Command
	}
	return t.names.get(n, func() string {
		if n.of == "" {
			return "aside." + string(n.kind)
		}
		return "aside." + string(n.kind) + " " + n.of
	})
}

// An optionsFor is what the options of a span depend on, where it does not tell of a key or of several.
type optionsFor struct {
	kind                         aside.OpKind
	policy, label, node, command string
}

// optionsOf returns the options with which a span begins. Most spans share them. The caller does not change them.
func (t *tracer) optionsOf(op aside.Op) []trace.SpanStartOption {
	if op.Keys != 1 || t.keys != nil && op.Kind != aside.OpRedis {
		return t.newOptions(op)
	}
	return t.options.get(optionsFor{op.Kind, op.Policy, op.Label, op.Node, op.Command}, func() []trace.SpanStartOption { return t.newOptions(op) })
}

func (t *tracer) newOptions(op aside.Op) []trace.SpanStartOption {
	options := []trace.SpanStartOption{trace.WithAttributes(t.attributesOf(op)...)}
	if op.Kind == aside.OpRedis {
		options = append(options, trace.WithSpanKind(trace.SpanKindClient))
	}
	return options
}

// attributesOf are those that the sampler sees.
func (t *tracer) attributesOf(op aside.Op) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, 6)
	if op.Kind == aside.OpRedis {
		all = appendRedis(all, op)
		if op.Keys > 1 {
			all = append(all, attribute.Int("db.operation.batch.size", op.Keys))
		}
		return all
	}
	if op.Policy != "" {
		all = append(all, attribute.String("aside.policy", op.Policy), attribute.String("aside.label", op.Label))
	}
	if op.Keys != 1 {
		all = append(all, attribute.Int("aside.keys", op.Keys))
	}
	if t.keys != nil && op.Key != "" {
		if told := t.keys(op.Key); told != "" {
			all = append(all, attribute.String("aside.key", told))
		}
	}
	return all
}

func (t *tracer) end(ctx context.Context, op aside.Op, end aside.End) {
	if !t.spanned(op.Kind) {
		return
	}
	span := spanOf(ctx)
	if span == nil {
		return
	}
	defer span.End()
	if !span.IsRecording() {
		return
	}
	all := make([]attribute.KeyValue, 0, 8)
	if end.Status != "" {
		hit := end.Status == aside.StatusHit || end.Status == aside.StatusStale
		all = append(all, attribute.Bool("cache.hit", hit), attribute.String("aside.status", string(end.Status)))
	}
	if end.Tier != "" {
		all = append(all, attribute.String("aside.tier", string(end.Tier)),
			attribute.Int64("aside.age_ms", end.Age.Milliseconds()), attribute.Int64("aside.ttl_ms", end.TTL.Milliseconds()))
	}
	if end.Cause != "" {
		all = append(all, attribute.String("aside.cause", string(end.Cause)))
	}
	if op.Kind == aside.OpLoad {
		all = append(all, attribute.String("aside.outcome", string(end.Outcome)), attribute.Int("aside.waiters", end.Waiters))
	}
	if end.Err != nil && !errors.Is(end.Err, aside.ErrNotFound) {
		all = append(all, attribute.String("error.type", errorType(op, end)))
	}
	span.SetAttributes(all...)
	if op.Kind == aside.OpLoad && failed(end.Outcome) {
		span.SetStatus(codes.Error, string(end.Outcome)) // without the text of the error, which can have the key
	}
	if end.Shared != nil {
		if load := spanOf(end.Shared); load != nil {
			span.AddLink(trace.Link{SpanContext: load.SpanContext()})
		}
	}
}

// failed reports whether a loader has failed. A load that nobody waits for any more has not.
func failed(outcome aside.Outcome) bool {
	return outcome == aside.OutcomeError || outcome == aside.OutcomeTimeout || outcome == aside.OutcomePanic
}

// errorType is a word of few values for an error: the code of the cache, of Redis or of a context, or the error's Go type.
func errorType(op aside.Op, end aside.End) string {
	var coded *aside.Error
	switch {
	case op.Kind == aside.OpRedis:
		return redisErrorType(end.Err)
	case errors.As(end.Err, &coded):
		return string(coded.Code)
	case errors.Is(end.Err, context.DeadlineExceeded):
		return "deadline_exceeded"
	case errors.Is(end.Err, context.Canceled):
		return "canceled"
	}
	return fmt.Sprintf("%T", end.Err)
}

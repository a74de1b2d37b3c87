package asideotel

import (
	"context"
	"errors"
	"math"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gatewayz/aside"
)

// times are the durations that an Observer records: there is no observable histogram, that a callback could read from Metrics.
type times struct {
	call, load, redis metric.Float64Histogram
	cache             attribute.KeyValue
	sets              made[timeOf, []metric.RecordOption]
}

func newTimes(o Options) (*times, error) {
	meter, t := o.meter(), &times{cache: attribute.String(cacheAttribute, o.Name)}
	var errs [3]error
	seconds := func(name, description string, bounds []float64) (metric.Float64Histogram, error) {
		return meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(bounds...))
	}
	t.call, errs[0] = seconds("aside.call.duration", "How long calls took that memory could not answer. Hits in memory are not timed.", powersOf4(-7, 4))
	t.load, errs[1] = seconds("aside.load.duration", "How long loader calls took. A loader that exceeds its LoadTimeout counts with the LoadTimeout.", powersOf4(-7, 4))
	t.redis, errs[2] = seconds("db.client.operation.duration", "Duration of database client operations.", []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10})
	return t, errors.Join(errs[:]...)
}

// powersOf4 are the powers of 4 with the exponents from first to last.
func powersOf4(first, last int) (bounds []float64) {
	for i := first; i <= last; i++ {
		bounds = append(bounds, math.Ldexp(1, 2*i))
	}
	return bounds
}

// A timeOf says which attributes a duration has. There are few of them, and each has one set.
type timeOf struct {
	kind          aside.OpKind
	label, how    string // of calls and loads: how it ended
	node, command string // of Redis
}

func (t *times) record(ctx context.Context, op aside.Op, end aside.End) {
	of := timeOf{kind: op.Kind, label: op.Label}
	var in metric.Float64Histogram
	switch op.Kind {
	case aside.OpCall, aside.OpBatch:
		if end.Took == 0 { // a hit in memory
			return
		}
		in, of.how = t.call, string(end.Status)
	case aside.OpLoad:
		in, of.how = t.load, string(end.Outcome)
	case aside.OpRedis:
		in, of.label, of.node, of.command = t.redis, "", op.Node, op.Command
		if end.Err != nil {
			of.how = redisErrorType(end.Err)
		}
	default:
		return
	}
	if in.Enabled(ctx) {
		in.Record(ctx, end.Took.Seconds(), t.sets.get(of, func() []metric.RecordOption { return t.setOf(of, op) })...)
	}
}

func (t *times) setOf(of timeOf, op aside.Op) []metric.RecordOption {
	var all []attribute.KeyValue
	switch of.kind {
	case aside.OpRedis:
		if all = appendRedis(all, op); of.how != "" {
			all = append(all, attribute.String("error.type", of.how))
		}
	case aside.OpLoad:
		all = append(all, t.cache, attribute.String(labelAttribute, shown(of.label)), attribute.String("aside.outcome", of.how))
	default:
		all = append(all, t.cache, attribute.String(labelAttribute, shown(of.label)))
		if of.how != "" { // a call that has failed has no status
			all = append(all, attribute.String("aside.status", of.how))
		}
	}
	return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(all...))}
}

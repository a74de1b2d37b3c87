package asideotel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gatewayz/aside"
)

// The attributes that every series of a cache has, and every series of a policy's label.
const (
	cacheAttribute = "aside.cache"
	labelAttribute = "aside.label"
	nodeAttribute  = "aside.node"
)

// Metrics registers observable instruments for the counters and the state of c, which are read at each collection, and returns the function that ends
// that. A nil cache and a closed one are in the state "degraded", as Cache.Health says. It fails for a Name that is not UTF-8, with an *aside.Error, and
// with the errors of a MeterProvider that refuses an instrument.
//
// The labels of policies in aside.Options.Policies have all their series from the first collection, with the value 0. Another label has them from its
// first call.
func Metrics(c *aside.Cache, o Options) (stop func() error, err error) {
	if !utf8.ValidString(o.Name) {
		return nil, &aside.Error{Code: aside.CodeInvalidOption, Message: fmt.Sprintf("asideotel.Options.Name is %q, which is not UTF-8: set another name", o.Name)}
	}
	o = o.withDefaults()
	r := &reader{cache: c, name: attribute.String(cacheAttribute, o.Name), sets: make(map[setOf]metric.ObserveOption)}
	meter := o.meter()
	var all []metric.Observable
	var errs []error
	made := func(i metric.Observable, err error) {
		all, errs = append(all, i), append(errs, err)
	}
	for _, f := range ofLabel {
		i, err := f.instrument(meter)
		r.ofLabel = append(r.ofLabel, i)
		made(i, err)
	}
	for _, f := range ofCache {
		i, err := f.instrument(meter)
		r.ofCache = append(r.ofCache, i)
		made(i, err)
	}
	for _, f := range ofNode {
		i, err := f.instrument(meter)
		r.ofNode = append(r.ofNode, i)
		made(i, err)
	}
	r.oldest, err = meter.Float64ObservableGauge("aside.invalidations.unconfirmed.oldest", metric.WithUnit("s"),
		metric.WithDescription("How long the oldest of the unconfirmed invalidations has waited."))
	made(r.oldest, err)
	r.since, err = meter.Float64ObservableGauge("aside.state.since.timestamp", metric.WithUnit("s"),
		metric.WithDescription("Since when the cache has its state. A nil or closed cache has none."))
	made(r.since, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	registration, err := meter.RegisterCallback(r.observe, all...)
	if err != nil {
		return nil, err
	}
	return registration.Unregister, nil
}

// A kind is the kind of an instrument.
type kind int

const (
	counter kind = iota // it only grows
	level               // of several processes, the sum says something
	gauge               // and here it does not
)

// A figure is one number of T, or one for each value of an attribute of its own.
type figure[T any] struct {
	name, unit, description string
	kind                    kind
	by                      string   // its own attribute, empty for none
	values                  []string // of that attribute
	read                    func(of *T, value string) int64
}

func (f figure[T]) instrument(m metric.Meter) (metric.Int64Observable, error) {
	unit, description := metric.WithUnit(f.unit), metric.WithDescription(f.description)
	switch f.kind {
	case counter:
		return m.Int64ObservableCounter(f.name, unit, description)
	case level:
		return m.Int64ObservableUpDownCounter(f.name, unit, description)
	}
	return m.Int64ObservableGauge(f.name, unit, description)
}

// each calls do for each value of the figure's own attribute, with an empty one if it has no such attribute.
func (f figure[T]) each(do func(value string)) {
	if f.by == "" {
		do("")
	}
	for _, value := range f.values {
		do(value)
	}
}

// A reading is what one collection reads.
type reading struct {
	aside.Metrics
	health aside.Health
}

// sum adds up what the labels have. Labels are never dropped, so that a sum of counters does not decrease.
func (r *reading) sum(of func(aside.LabelMetrics) int64) (sum int64) {
	for _, m := range r.Labels {
		sum += of(m)
	}
	return sum
}

// count is a counter of aside.
func count(n uint64) int64 { return int64(n) }

// A reader observes the figures of one cache. A MeterProvider with several readers calls observe for each, also at once.
type reader struct {
	cache         *aside.Cache
	name          attribute.KeyValue
	ofLabel       []metric.Int64Observable
	ofCache       []metric.Int64Observable
	ofNode        []metric.Int64Observable
	oldest, since metric.Float64Observable

	mu   sync.Mutex
	sets map[setOf]metric.ObserveOption // guarded by mu
}

// A setOf says which attributes a series has.
type setOf struct{ label, by, value string }

// setOf is called with mu held.
func (r *reader) setOf(of setOf) metric.ObserveOption {
	if set, ok := r.sets[of]; ok {
		return set
	}
	all := []attribute.KeyValue{r.name}
	if of.label != noLabel {
		all = append(all, attribute.String(labelAttribute, of.label))
	}
	if of.by != "" {
		all = append(all, attribute.String(of.by, of.value))
	}
	set := metric.WithAttributeSet(attribute.NewSet(all...))
	r.sets[of] = set
	return set
}

// noLabel stands for a series of the cache as a whole. No label that is shown is not UTF-8.
const noLabel = "\xff"

func (r *reader) observe(_ context.Context, to metric.Observer) error {
	now := reading{r.cache.Metrics(), r.cache.Health()}
	if now.health.Since.IsZero() {
		now.Journal = aside.JournalMetrics{} // a closed cache retries nothing: its oldest invalidation would seem to wait for as long as the process runs
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	labels := make(map[string][]aside.LabelMetrics, len(now.Labels))
	for _, label := range r.cache.Labels() { // those that have counted nothing yet, too
		labels[shown(label)] = nil
	}
	for label, m := range now.Labels {
		labels[shown(label)] = append(labels[shown(label)], m)
	}
	for label, all := range labels {
		for i, f := range ofLabel {
			f.each(func(value string) {
				sum := int64(0)
				for n := range all {
					sum += f.read(&all[n], value)
				}
				to.ObserveInt64(r.ofLabel[i], sum, r.setOf(setOf{label, f.by, value}))
			})
		}
	}
	for i, f := range ofCache {
		f.each(func(value string) {
			to.ObserveInt64(r.ofCache[i], f.read(&now, value), r.setOf(setOf{noLabel, f.by, value}))
		})
	}
	whole := r.setOf(setOf{label: noLabel})
	to.ObserveFloat64(r.oldest, now.Journal.Oldest.Seconds(), whole)
	if !now.health.Since.IsZero() {
		to.ObserveFloat64(r.since, float64(now.health.Since.UnixMilli())/1000, whole)
	}
	r.observeNodes(to)
	return nil
}

func (r *reader) observeNodes(to metric.Observer) {
	nodes := make(map[string][]aside.Node)
	for _, n := range r.cache.Nodes() {
		nodes[shown(n.Addr)] = append(nodes[shown(n.Addr)], n)
	}
	for addr, all := range nodes {
		for i, f := range ofNode {
			f.each(func(value string) {
				set := []attribute.KeyValue{r.name, attribute.String(nodeAttribute, addr)}
				if f.by != "" {
					set = append(set, attribute.String(f.by, value))
				}
				to.ObserveInt64(r.ofNode[i], f.read(&all, value), metric.WithAttributes(set...)) // not kept: servers come and go
			})
		}
	}
}

// shown is a label, or an address, as it is exported: as UTF-8. Two that look the same then are counted together.
func shown(label string) string { return strings.ToValidUTF8(label, "\uFFFD") }

package engine

import (
	"context"
	"runtime/pprof"
	"sync"
)

// policyLabel is the label that profiles tell the loaders of policies apart by.
const policyLabel = "aside_policy"

// A profileLabel is the label of a policy. It is made once: a load of a caller without labels allocates nothing for it.
type profileLabel struct {
	once sync.Once
	set  pprof.LabelSet
	only context.Context // has the label, and nothing else
}

func (pl *Policy) profileLabel() *profileLabel {
	l := &pl.label
	l.once.Do(func() {
		l.set = pprof.Labels(policyLabel, pl.Name)
		l.only = pprof.WithLabels(context.Background(), l.set)
	})
	return l
}

// A loaderContext is the context of a load for its loader: with the load, and with the label of its policy.
type loaderContext struct {
	context.Context                 // of the load
	load            *Load           //
	labels          context.Context // has the label, beside the labels of the caller
	callers         context.Context // has the labels of the caller alone
}

// begin gives the label of the policy to this goroutine, which is that of a loader, and returns the loader's context. The caller calls end when the loader
// has returned: this goroutine may start others, which are of no policy.
func (l *Load) begin(ctx context.Context) *loaderContext {
	label := l.attempts[0].Policy.profileLabel()
	c := &loaderContext{Context: ctx, load: l, labels: label.only, callers: context.Background()}
	c.addCallers(label)
	pprof.SetGoroutineLabels(c.labels)
	return c
}

// addCallers adds the labels of the caller. The caller may have left, and its context may then panic: that is the context of others too.
//
// A loader that calls the cache has a label of ours already. It is that of the outer policy, and gives way to the inner one.
func (c *loaderContext) addCallers(label *profileLabel) {
	defer func() { _ = recover() }()
	some, others := false, false
	pprof.ForLabels(c.Context, func(key, _ string) bool {
		some, others = true, key != policyLabel
		return !others
	})
	if some {
		c.callers = pprof.WithLabels(c.Context, pprof.Labels())
	}
	if others {
		c.labels = pprof.WithLabels(c.Context, label.set)
	}
}

// end gives this goroutine the labels of the caller.
func (c *loaderContext) end() { pprof.SetGoroutineLabels(c.callers) }

func (c *loaderContext) Value(key any) any {
	if key == (loadKey{}) {
		return c.load
	}
	if v := c.labels.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

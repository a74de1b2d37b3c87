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
// has returned: this goroutine may start others, which are of no policy. Both are called inside InLoader, as the context of the caller is the program's
// code.
//
// A loader that calls the cache has a label already. It is that of the outer policy, and gives way to the inner one.
func (l *Load) begin(ctx context.Context) *loaderContext {
	label := l.attempts[0].Policy.profileLabel()
	c := &loaderContext{Context: ctx, load: l, labels: label.only, callers: context.Background()}
	outer, others := "", false
	pprof.ForLabels(ctx, func(key, value string) bool {
		if others = key != policyLabel; !others {
			outer = value
		}
		return !others
	})
	if others || outer != "" {
		c.callers = pprof.WithLabels(ctx, pprof.Labels())
	}
	if others {
		c.labels = pprof.WithLabels(ctx, label.set)
	}
	pprof.SetGoroutineLabels(c.labels)
	return c
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

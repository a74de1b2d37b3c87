package asidetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// An Observed is an operation that an Observers was told of.
type Observed struct {
	ID     int // counts from 1
	Parent int // the ID of the operation whose context Begin was given, 0 without one
	Caller any // the value of CallerKey in that context
	Op     aside.Op
	End    aside.End
	Shared int  // the ID of End.Shared, 0 without one
	Ended  bool //
}

// CallerKey is the key of a context value by which tests mark the calls that lead to operations.
type CallerKey struct{}

type observedKey struct{}

// An Observers notes what its Observer is told. It is safe for concurrent use.
type Observers struct {
	mu    sync.Mutex
	all   []*Observed // guarded by mu
	from  int         // how many of them Reset has left out; guarded by mu
	wrong []string    // guarded by mu
}

// Observer returns an Observer that o notes.
func (o *Observers) Observer() aside.Observer { return aside.Observer{Begin: o.begin, End: o.end} }

func (o *Observers) begin(ctx context.Context, op aside.Op) context.Context {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := &Observed{ID: len(o.all) + 1, Op: op, Parent: ObservedIn(ctx), Caller: ctx.Value(CallerKey{})}
	o.all = append(o.all, n)
	return context.WithValue(ctx, observedKey{}, n.ID)
}

func (o *Observers) end(ctx context.Context, op aside.Op, end aside.End) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := ObservedIn(ctx)
	if id == 0 {
		o.wrong = append(o.wrong, fmt.Sprintf("%+v has ended with another context than that of its Begin", op))
		return
	}
	n := o.all[id-1]
	if n.Ended || n.Op != op {
		o.wrong = append(o.wrong, fmt.Sprintf("%+v has ended twice, or as %+v", n.Op, op))
	}
	n.End, n.Ended = end, true
	if end.Shared != nil {
		n.Shared = ObservedIn(end.Shared)
	}
}

// ObservedIn is the ID of the operation that ctx belongs to, 0 without one.
func ObservedIn(ctx context.Context) int {
	id, _ := ctx.Value(observedKey{}).(int)
	return id
}

// All returns the operations of these kinds so far, those of all kinds without one, in the order in which they began.
func (o *Observers) All(kinds ...aside.OpKind) (all []Observed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range o.all[o.from:] {
		if len(kinds) == 0 || slices.Contains(kinds, n.Op.Kind) {
			all = append(all, *n)
		}
	}
	return all
}

// Ended returns the operations of these kinds that have ended.
func (o *Observers) Ended(kinds ...aside.OpKind) []Observed {
	return slices.DeleteFunc(o.All(kinds...), func(n Observed) bool { return !n.Ended })
}

// One waits until one operation of a kind has ended, and returns it. It must be the only one.
func (o *Observers) One(t testing.TB, kind aside.OpKind) Observed {
	t.Helper()
	Eventually(t, "one "+string(kind)+" has ended", func() bool { return len(o.Ended(kind)) > 0 })
	all := o.All(kind)
	require.Len(t, all, 1, kind)
	return all[0]
}

// RequirePaired requires that each operation has ended once, with the context and the Op of its beginning.
func (o *Observers) RequirePaired(t testing.TB) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	require.Empty(t, o.wrong)
	for _, n := range o.all {
		require.True(t, n.Ended, "%+v has not ended", n.Op)
	}
}

// Reset waits until the operations so far have ended, and leaves them out of what is returned.
func (o *Observers) Reset(t testing.TB) {
	t.Helper()
	Eventually(t, "all operations have ended", func() bool { return len(o.Ended()) == len(o.All()) })
	o.mu.Lock()
	defer o.mu.Unlock()
	require.Empty(t, o.wrong)
	o.from = len(o.all)
}

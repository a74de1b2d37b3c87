package redisstore

import (
	"context"
	"sync"
	"time"
)

// ends are the contexts of budgets that end by time alone. Those that end at about the same time share a context: a context and a timer
// for each would take more than many an operation itself.
type ends struct {
	mu    sync.Mutex
	began time.Time
	at    map[int64]context.Context // by the number of the tick, since began; guarded by mu
}

// after returns a context that ends at the given time, or up to a tick later.
func (e *ends) after(until time.Time, tick time.Duration) context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.at == nil {
		e.began, e.at = time.Now(), make(map[int64]context.Context)
	}
	n := int64(until.Sub(e.began)/tick) + 1
	if ctx, ok := e.at[n]; ok {
		return ctx
	}
	ctx, cancel := context.WithDeadlineCause(context.Background(), e.began.Add(time.Duration(n)*tick), ErrBudget)
	e.at[n] = ctx
	context.AfterFunc(ctx, func() {
		cancel()
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.at, n)
	})
	return ctx
}

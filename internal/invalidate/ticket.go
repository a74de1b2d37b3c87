package invalidate

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A Ticket is what a caller knows of one invalidation, and waits with.
type Ticket struct {
	Removed   int64 // values that were removed before the call returned
	Confirmed bool  // whether Redis had carried the invalidation out by then; always true in memory mode

	atOnce    int64 // of Removed, what counts do not count
	pending   []*journal.Pending
	counts    []*journal.Count // of the values that are removed in the background; nil where there are none
	closed    <-chan struct{}
	errClosed error
	copied    func(ctx context.Context, replicas int) error // see copiedSince; nil in memory mode
}

// An UnknownError says that it is not known whether replicas have an invalidation.
type UnknownError struct{ Err error }

func (e *UnknownError) Error() string { return e.Err.Error() }

// ticket makes the ticket of an invalidation that waits for pending, and whose values are counted by those counts and by own.
func (v *Invalidator) ticket(removed int64, pending []*journal.Pending, own ...*journal.Count) *Ticket {
	t := &Ticket{Removed: removed, Confirmed: pending == nil, closed: v.o.Closed, errClosed: v.o.ErrClosed}
	if v.store != nil {
		t.copied = v.copiedSince(t.Confirmed)
	}
	t.wait(pending)
	t.counts = append(t.counts, own...)
	return t
}

// wait makes a ticket wait for more.
func (t *Ticket) wait(pending []*journal.Pending) {
	t.Confirmed = t.Confirmed && pending == nil
	t.pending = append(t.pending, pending...)
	for _, w := range pending {
		if c := w.Count(); c != nil {
			t.counts = append(t.counts, c)
		}
	}
}

// copiedSince returns the function that waits for replicas. If a connection was lost since the confirmation, another server may have taken the
// place of the one that confirmed, and its replicas may lack the invalidation. It is a function, so that printing a ticket does not print the
// servers.
func (v *Invalidator) copiedSince(confirmed bool) func(ctx context.Context, replicas int) error {
	before := v.o.Journal.Epoch()
	return func(ctx context.Context, replicas int) error {
		before := before
		if !confirmed {
			before = v.o.Journal.Epoch() // it is confirmed by now, and was sent again after every loss until then
		}
		err := v.store.Replicated(ctx, replicas)
		if err == nil && v.o.Journal.Epoch() != before {
			err = redisstore.ErrLost
		}
		return err
	}
}

// Wait waits until Redis has confirmed the invalidation. It returns ctx's error if that ends first, and ErrClosed if the cache was closed
// before.
func (t *Ticket) Wait(ctx context.Context) error {
	for _, w := range t.pending {
		if err := t.await(ctx, w.Confirmed()); err != nil {
			return err
		}
	}
	return nil
}

func (t *Ticket) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return flight.EndOf(ctx)
	case <-t.closed:
		return t.errClosed
	}
}

// Replicated waits until as many replicas of each primary have the invalidation, which Redis has confirmed: see Wait. It returns ctx's
// error if that ends first, ErrClosed if the cache is closed first, and an *UnknownError if a connection was lost since the confirmation.
func (t *Ticket) Replicated(ctx context.Context, replicas int) error {
	if t.copied == nil || replicas == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-t.closed:
			cancel(t.errClosed)
		case <-over:
		}
	}()
	err := t.copied(ctx, replicas)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	// The connection has the same deadline, and may notice its end first.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return &UnknownError{err}
}

// WaitCleanup waits until the memory is freed of all that was invalidated, and returns how many values were removed for it. If ctx ends first, or
// the cache is closed, it returns how many there were so far, and the error.
func (t *Ticket) WaitCleanup(ctx context.Context) (removed int64, err error) {
	err = t.Wait(ctx)
	removed = t.atOnce
	for _, c := range t.counts {
		if err == nil {
			err = t.await(ctx, c.Done)
		}
		removed += c.Removed.Load()
	}
	if t.counts == nil {
		removed = t.Removed
	}
	return removed, err
}

// Package warm takes ids of any number through a function in batches, several at a time, and tells of the progress.
package warm

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
)

// Counts say what became of ids.
type Counts struct{ Seen, Fresh, Loaded, NotFound, Failed int }

// Count counts an id that was loaded.
func (c *Counts) Count(absent bool) {
	if absent {
		c.NotFound++
	} else {
		c.Loaded++
	}
}

func (c *Counts) add(d Counts) {
	c.Seen += d.Seen
	c.Fresh += d.Fresh
	c.Loaded += d.Loaded
	c.NotFound += d.NotFound
	c.Failed += d.Failed
}

// Run calls do with batches of ids, in parallel at most atOnce times, until ids or ctx end. progress gets the counts of all batches so far after
// each batch, in the order of the batches, and one call at a time. Run returns when all calls have returned, with the counts of all batches that
// were begun, and ctx's error if ctx has ended. ids is ranged over in the caller's goroutine. A panic in do or in progress ends the run, and is
// repeated there. progress is not called again after it has panicked.
func Run[K any](ctx context.Context, ids iter.Seq[K], batch, atOnce int, do func(context.Context, []K) Counts, progress func(Counts)) (Counts, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &run{progress: progress, done: make(map[int]Counts)}
	var panicked atomic.Pointer[any]
	places := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	defer func() { // also after a panic in ids
		cancel(nil)
		running.Wait()
	}()
	begun := 0
	start := func(ids []K) (ok bool) {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return false
		}
		if ctx.Err() != nil { // both at once
			<-places
			return false
		}
		number := begun
		begun++
		running.Go(func() {
			defer func() { <-places }()
			defer func() {
				if p := recover(); p != nil {
					panicked.CompareAndSwap(nil, &p)
					cancel(errPanic)
				}
			}()
			counts := Counts{Seen: len(ids), Failed: len(ids)} // stays if do ends the goroutine
			defer func() { r.end(number, counts) }()
			counts = do(ctx, ids)
		})
		return true
	}
	if ctx.Err() != nil {
		return Counts{}, ctx.Err()
	}
	var next []K
	for id := range ids {
		if ctx.Err() != nil {
			next = nil
			break
		}
		if next = append(next, id); len(next) == batch {
			if !start(next) {
				next = nil
				break
			}
			next = nil
		}
	}
	if len(next) > 0 {
		start(next)
	}
	running.Wait()
	if p := panicked.Load(); p != nil {
		panic(*p)
	}
	return r.sum, ctx.Err()
}

var errPanic = errors.New("panic")

// A run puts the ends of batches into their order.
type run struct {
	mu       sync.Mutex
	progress func(Counts)   // nil once it has panicked; guarded by mu
	next     int            // the first batch that has not ended; guarded by mu
	done     map[int]Counts // batches after it that have ended; guarded by mu
	sum      Counts         // of the batches before it; guarded by mu
}

func (r *run) end(number int, counts Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[number] = counts
	for {
		counts, ended := r.done[r.next]
		if !ended {
			return
		}
		delete(r.done, r.next)
		r.next++
		r.sum.add(counts)
		if progress := r.progress; progress != nil {
			r.progress = nil // stays so if it panics
			progress(r.sum)
			r.progress = progress
		}
	}
}

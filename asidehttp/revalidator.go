package asidehttp

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gatewayz/aside"
)

// A Revalidator sends invalidations to a web front end that caches pages. It follows the convention of Next.js, whose route handler calls
// revalidateTag or revalidatePath.
//
//	r, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{URL: aside.NewSecret("https://www.example.com/api/revalidate"), Secret: secret})
//	c, err := aside.New(aside.Options{OnInvalidated: r.Notify})
//
// It delivers each target at least once after its last invalidation, or logs the loss and counts it in Stats. Targets are not sent in order,
// and a target that waits already is not queued twice. The queue is in memory, and is lost when the process dies. The methods may be used by
// many goroutines at once.
type Revalidator struct {
	o         RevalidatorOptions
	deliver   func(context.Context, Target) *failure // sends one request; nil once it is acknowledged
	closeIdle func()
	backlog   *backlog
	wake      chan struct{}      // wakes the loop
	ended     chan struct{}      // closed when the loop has returned
	stop      context.CancelFunc // ends the loop and its requests
}

// Format does not write the secret, whatever the verb.
func (r *Revalidator) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "asidehttp.Revalidator{%v}", r.o) }

// LogValue is Format for slog's handlers.
func (r *Revalidator) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(r)) }

// MarshalText is Format for encoding/json.
func (r *Revalidator) MarshalText() ([]byte, error) { return fmt.Append(nil, r), nil }

// RevalidatorStats counts targets since the Revalidator was made. Each target counts in one of Delivered, Coalesced, Lost and Waiting.
type RevalidatorStats struct {
	Delivered uint64 // acknowledged with a 2xx
	Coalesced uint64 // the same target, or one that covers it, was waiting
	Lost      uint64 // given up, refused by the front end, or without room in the queue
	Failed    uint64 // requests that failed and are retried
	Waiting   int    // waiting or being sent now
}

// NewRevalidator makes a Revalidator and starts it. Close ends it.
func NewRevalidator(o RevalidatorOptions) (*Revalidator, error) {
	o, to, err := o.complete()
	if err != nil {
		return nil, err
	}
	p, closeIdle := newPoster(o, to)
	o.Client = nil // its connections hold sent requests, with the secret
	ctx, stop := context.WithCancel(context.Background())
	r := &Revalidator{
		o: o, deliver: p.send, closeIdle: closeIdle, backlog: newBacklog(o),
		wake: make(chan struct{}, 1), ended: make(chan struct{}), stop: stop,
	}
	go r.run(ctx)
	return r, nil
}

// Notify queues the targets of an invalidation. It does not wait, and is made for aside.Options.OnInvalidated.
func (r *Revalidator) Notify(invalidation aside.Invalidation) { r.Send(r.o.Map(invalidation)...) }

// Send queues targets. It does not wait.
func (r *Revalidator) Send(targets ...Target) {
	r.backlog.add(targets)
	select {
	case <-r.ended: // there is no loop to log losses
		r.report(false)
	default:
		r.signal()
	}
}

// Stats returns the current counts.
func (r *Revalidator) Stats() RevalidatorStats { return r.backlog.counts() }

// Close refuses new targets, and waits until the waiting ones are delivered or lost, or until ctx ends. The remaining targets are
// then lost, and Close returns an error. Close the cache first. Close may be called more than once.
func (r *Revalidator) Close(ctx context.Context) error {
	r.backlog.close()
	r.signal()
	var cut error
	select {
	case <-r.ended:
	case <-ctx.Done():
		cut = ctx.Err()
	}
	before := r.Stats().Lost
	r.stop()
	<-r.ended
	r.closeIdle()
	if lost := r.Stats().Lost - before; lost > 0 {
		return fmt.Errorf("asidehttp: Revalidator closed with %d undelivered targets: %w", lost, cut)
	}
	return nil
}

// signal wakes the loop.
func (r *Revalidator) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run sends targets until the Revalidator is closed and empty, or ctx ends.
func (r *Revalidator) run(ctx context.Context) {
	defer close(r.ended)
	defer r.report(true)
	var sends sync.WaitGroup
	defer sends.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, done := r.begin(ctx, &sends)
		if done {
			return
		}
		if later := r.report(false); later > 0 {
			next = min(next, later)
		}
		timer.Reset(next)
		select {
		case <-r.wake:
		case <-timer.C:
		case <-ctx.Done():
			// The requests end with ctx, and put their targets back into the queue. abandon comes after that, or it would miss these targets.
			sends.Wait()
			r.backlog.abandon(ctx.Err())
			return
		}
	}
}

// begin starts a request for each target that may be sent now. It returns how long to wait for the next one, and whether all targets are done.
func (r *Revalidator) begin(ctx context.Context, sends *sync.WaitGroup) (next time.Duration, done bool) {
	for {
		d, wait, done := r.backlog.next()
		if d == nil {
			return wait, done
		}
		sends.Go(func() {
			r.backlog.finish(d, r.deliver(ctx, d.target))
			r.signal()
		})
	}
}

// report logs the news that are due, and returns the time until more are due, or 0 if there are none.
func (r *Revalidator) report(last bool) (later time.Duration) {
	due, later := r.backlog.takeNews(last)
	due.log(r.o.Logger)
	return later
}

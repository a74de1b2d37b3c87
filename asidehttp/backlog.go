package asidehttp

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// maxSending is how many requests run at once, while the front end answers.
const maxSending = 4

// A backlog is the state of a Revalidator: which targets wait, when the next one may be sent, and what became of the others. It has no goroutine
// and sends nothing. Many goroutines may call its methods at once.
type backlog struct {
	giveUpAfter time.Duration

	mu      sync.Mutex
	closing bool // no new targets; guarded by mu, as all below
	waiting queue
	sending int // the number of requests that run now
	pace    pace
	stats   RevalidatorStats
	news    news
}

func newBacklog(o RevalidatorOptions) *backlog {
	return &backlog{giveUpAfter: o.GiveUpAfter, waiting: newQueue(o.Queue), pace: pace{least: o.Backoff, most: o.MaxBackoff}}
}

// add queues targets.
func (b *backlog) add(targets []Target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, target := range targets {
		d := &delivery{target: target, asked: now, due: now}
		switch same := b.waiting.find(target); {
		case (target.Tag == "") == (target.Path == ""):
			b.lose(d, errors.New("a target is either a tag or a path"))
		case b.closing:
			b.lose(d, errors.New("the revalidator is closed"))
		case same != nil:
			// A target that is being sent is not in the queue, and so is queued a second time. One request would not be enough:
			//  1. The request arrives, and the front end reads its source.
			//  2. The source changes, and its invalidation comes here.
			//  3. The request ends. The front end caches the page of step 1.
			same.asked = now
			b.stats.Coalesced++
		case b.waiting.full(target):
			b.crowd(d)
		default:
			b.waiting.push(d)
		}
	}
}

// crowd queues a target when the queue is full. The target's Within tag takes the place of the target, and of all waiting targets within that tag.
// A target without Within takes one of the additional places. It is called with mu held.
func (b *backlog) crowd(d *delivery) {
	if d.target.Within == "" { // other targets may be within this one, as keys are within a category
		if b.waiting.fullBeyond(d.target) {
			b.lose(d, errors.New("the queue is full"))
			return
		}
		b.stats.Coalesced += uint64(b.waiting.takeWithin(d.target.Tag))
		b.waiting.push(d)
		return
	}
	whole := Target{Tag: d.target.Within}
	same := b.waiting.find(whole)
	if same == nil && b.waiting.len() >= b.waiting.most+mostWithin && !b.waiting.holdsWithin(whole.Tag) {
		b.lose(d, errors.New("the queue is full"))
		return
	}
	b.stats.Coalesced += uint64(b.waiting.takeWithin(whole.Tag))
	if same != nil {
		same.asked = d.asked
		b.stats.Coalesced++
		return
	}
	d.target = whole
	b.waiting.push(d)
}

// lose counts a lost target, for Stats and for the next log line. It is called with mu held.
func (b *backlog) lose(d *delivery, cause error) {
	b.stats.Lost++
	b.news.lose(d, cause)
}

// next removes the next target from the queue. The caller sends it and then calls finish. If no target may be sent now, d is nil, and next returns
// how long to wait. done reports whether the backlog is closed, and all targets are delivered or lost.
func (b *backlog) next() (d *delivery, wait time.Duration, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing && b.waiting.len()+b.sending == 0 {
		return nil, 0, true
	}
	room := maxSending
	if b.pace.failing() {
		room = 1 // one request at a time to a front end that fails
	}
	if b.sending >= room || b.waiting.len() == 0 {
		return nil, time.Hour, false // the loop is woken earlier: by the end of a request, and by Send
	}
	now := time.Now()
	if wait := max(b.pace.pause.Sub(now), b.waiting.due().Sub(now)); wait > 0 {
		return nil, wait, false
	}
	b.sending++
	return b.waiting.take(now, b.pace.failing()), 0, false
}

// finish notes the result of a request.
func (b *backlog) finish(d *delivery, f *failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sending--
	d.attempts++
	now := time.Now()
	switch {
	case f == nil:
		b.stats.Delivered++
		b.pace.succeed(now)
	case f.final:
		b.lose(d, errors.New(f.text))
	default:
		b.stats.Failed++
		if !b.pace.failing() {
			b.news.failing = f.text
		}
		b.pace.fail(d, f, now)
		b.retry(d, f, now)
	}
}

// retry puts a target back into the queue after its request has failed, or gives it up. It is called with mu held.
func (b *backlog) retry(d *delivery, f *failure, now time.Time) {
	patience := b.giveUpAfter
	if f.brief {
		patience = min(briefly, patience)
	}
	switch {
	case b.waiting.find(d.target) != nil: // invalidated again during the request: see add
		b.stats.Coalesced++
	case now.Sub(d.asked) >= patience:
		b.lose(d, fmt.Errorf("given up after %v: %s", patience, f.text))
	default:
		b.waiting.push(d)
	}
}

// briefly is how long a target is retried after responses that another service may send during a deployment of the front end.
const briefly = time.Minute

// close refuses new targets. The process may end soon, so targets that wait after a failure are due now.
func (b *backlog) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return
	}
	b.closing = true
	b.pace.pause = time.Time{}
	b.waiting.hurry()
}

// abandon loses all waiting targets.
func (b *backlog) abandon(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for d := range b.waiting.all() {
		b.lose(d, fmt.Errorf("closed before delivery: %w", cause))
	}
	b.waiting = newQueue(b.waiting.most)
}

// counts returns the current counts.
func (b *backlog) counts() RevalidatorStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Waiting = b.waiting.len() + b.sending
	return s
}

// takeNews is news.take, under the lock.
func (b *backlog) takeNews(last bool) (due news, later time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.news.take(time.Now(), last)
}

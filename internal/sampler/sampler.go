// Package sampler checks a sample of hits: it compares them with a fresh load, in the background, and counts how many are inconsistent.
package sampler

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/stats"
)

const (
	// samplesQueued bounds the samples of a burst. It is small: a sample keeps the values of its caller's context alive.
	samplesQueued = 16
	// checksAtOnce bounds the checks that wait for SettleTime to pass. If there are so many, the next check waits, and samples that are
	// drawn in the meantime are dropped, before their result is known: so the ratio stays right.
	checksAtOnce = 128
	// loadsAtOnce bounds loader calls, and the encoding of their values.
	loadsAtOnce = 2
)

// Options says which hits are checked.
type Options struct {
	SampleRate   float64       // the share of hits that are checked, more than 0 and at most 1
	SettleTime   time.Duration // how long an invalidation may take
	MaxPerSecond float64       // bounds the checks that begin in a second; 0 or less: no limit
}

// A Purpose is what hits are drawn for.
type Purpose int

// The purposes.
const (
	Checking Purpose = iota // the hit is checked: see Start
	Counting                // its key is counted
	Telling                 // an Observer is told of it; only hits in memory
	purposes
)

// A Sampler draws samples of hits, and checks some of them. The zero value draws none.
type Sampler struct {
	below  uint64           // the share of hits that are drawn for any purpose, of 2^64: the largest of shares
	shares [purposes]uint64 // that are drawn for each purpose
	settle time.Duration
	pause  time.Duration
	queue  chan *Sample
	checks chan struct{} // one for each check
	loads  chan struct{} // one for each check that loads

	engine *engine.Engine
	logger *slog.Logger
	found  func(Inconsistent)
}

// A Sample is a hit to check. It does not hold the value, which it would keep in memory: the check reads the cached value again.
type Sample struct {
	Context context.Context // of the call that was drawn
	Request engine.Request
	Load    engine.LoadFunc
	Equal   func(a, b any) bool // compares two pointers to values
}

// An Inconsistent is a value that a check has found to differ from what its loader returns.
type Inconsistent struct {
	Policy, Key string
	Age         time.Duration
}

// Start starts to draw and check samples, until the engine is closed. It calls found with each inconsistent value.
func (k *Sampler) Start(o Options, e *engine.Engine, logger *slog.Logger, found func(Inconsistent)) {
	k.Share(Checking, o.SampleRate)
	k.settle = o.SettleTime
	if o.MaxPerSecond > 0 {
		k.pause = time.Duration(min(float64(time.Second)/o.MaxPerSecond, float64(engine.Longest)))
	}
	k.queue = make(chan *Sample, samplesQueued)
	k.checks, k.loads = make(chan struct{}, checksAtOnce), make(chan struct{}, loadsAtOnce)
	k.engine, k.logger, k.found = e, logger, found
	e.Calls.Go(k.run)
}

// Share sets which share of the hits is drawn for a purpose: more than 0, and at most 1. It is called before the first hit.
func (k *Sampler) Share(of Purpose, share float64) {
	k.shares[of] = below(share)
	k.below = max(k.below, k.shares[of])
}

func below(share float64) uint64 {
	if share < 1 {
		return max(1, uint64(share*(1<<64)))
	}
	return math.MaxUint64
}

// golden is 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// Drawn reports whether hit number n is drawn, for one purpose at least: see Takes. It costs a multiplication, and a random number costs several
// times as much. The multiples of the golden ratio are spread evenly over 2^64, and so is every second of them, every third, and so on. So each key
// gets its share of samples, whatever the rhythm of the calls.
func (k *Sampler) Drawn(n uint64) bool { return n*golden < k.below }

// Takes reports whether a hit that was drawn is drawn for a purpose. A purpose with the largest share takes all of them.
func (k *Sampler) Takes(of Purpose) bool {
	return k.shares[of] == k.below || rand.Uint64N(k.below) < k.shares[of]
}

// Draws is Drawn and Takes for a call that has no number.
func (k *Sampler) Draws(of Purpose) bool { return k.shares[of] != 0 && rand.Uint64() < k.shares[of] }

// HasRoom reports whether Offer would take a sample, before the sample is made.
func (k *Sampler) HasRoom(ctx context.Context, counters *stats.Counters) bool {
	if len(k.queue) == cap(k.queue) { // takes no lock
		counters.Unchecked.Add()
		return false
	}
	return ctx != nil && // a hit in memory accepts a nil context
		!engine.IsAlone(ctx) // a hit inside a check is not checked, or checks would cause checks without end
}

// Offer queues a sample, or counts it as unchecked if there is no room.
func (k *Sampler) Offer(s *Sample) {
	select {
	case k.queue <- s:
	default:
		s.counters().Unchecked.Add()
	}
}

func (s *Sample) counters() *stats.Counters { return s.Request.Policy.Counters }

// run starts checks until the engine is closed.
func (k *Sampler) run() {
	for {
		var s *Sample
		select {
		case s = <-k.queue:
		case <-k.engine.Closing():
			return
		}
		// A sample that cannot be checked yet blocks the queue, so that samples are dropped only where they are offered.
		if !k.enter(k.checks) || !k.enter(k.loads) {
			return
		}
		k.engine.Calls.Go(func() {
			defer func() {
				<-k.checks
				if recover() != nil { // a codec's Name may panic
					s.counters().Unchecked.Add()
				}
			}()
			k.examine(s)
		})
		if k.pause > 0 && !k.wait(k.pause) {
			return
		}
	}
}

// enter takes a place in a channel. It reports false if the engine is closed first.
func (k *Sampler) enter(places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-k.engine.Closing():
		return false
	}
}

// wait waits, and reports false if the engine is closed first.
func (k *Sampler) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-k.engine.Closing():
		return false
	}
}

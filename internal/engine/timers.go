package engine

import (
	"sync"
	"time"
)

// timers are timers that callers use again: each caller of a batch needs one for each id. A channel and a timer take as many allocations as
// the read of a value. Each cache has its own, which stay in the bubble of a test.
type timers struct{ stopped sync.Pool }

func (p *timers) start(d time.Duration) *time.Timer {
	t, ok := p.stopped.Get().(*time.Timer)
	if !ok {
		return time.NewTimer(d)
	}
	t.Reset(d)
	return t
}

// stop gives a timer back. Nobody may receive from it any more. One that has fired is given up: with GODEBUG=asynctimerchan=1 the time may not be in
// its channel yet, and the next caller would receive it.
func (p *timers) stop(t *time.Timer) {
	if t.Stop() {
		p.stopped.Put(t)
	}
}

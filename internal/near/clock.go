package near

import (
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// tick is how often the coarse clock reads the time. To read the precise clock on every hit would cost more than the hit itself.
	tick = 10 * time.Millisecond
	// margin is the distance from a deadline below which the coarse time is not trusted. It is many ticks, because the clock's goroutine runs
	// late on a busy machine: by more than a tenth of a second where twenty programs share two processors.
	margin = 100 * tick
)

// A Clock counts nanoseconds of process time. It never jumps with the wall clock.
type Clock struct {
	coarse *otter.CoarseClock
	base   time.Time
	offset int64
}

// NewClock starts a clock. Stop ends its goroutine.
func NewClock() *Clock {
	c := &Clock{coarse: otter.NewCoarseClock(tick)}
	// The order matters. A pause between the two lines leaves the precise time behind the coarse time for good. That costs Before only
	// precise reads. In the other order, Before would take a past deadline for a future one.
	c.offset = c.coarse.NowNano()
	c.base = time.Now()
	return c
}

// Now returns the precise time.
func (c *Clock) Now() int64 { return c.offset + int64(time.Since(c.base)) }

// Before reports whether deadline lies in the future. It reads the precise clock only if deadline is closer than margin. The whole process may be
// stopped for longer than that, by SIGSTOP or with its virtual machine. The coarse time lags by that time until the clock's goroutine has run again.
// In that moment Before may take a deadline that passed during the stop for a future one.
func (c *Clock) Before(deadline int64) bool {
	return c.coarse.NowNano()+int64(margin) < deadline || c.Now() < deadline
}

// Stop ends the clock's goroutine. Now and Before still work.
func (c *Clock) Stop() { c.coarse.Stop() }

package near

import (
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// tick is how often the coarse clock reads the time. Reading the precise clock on every hit would cost more than the
	// hit itself.
	tick = 10 * time.Millisecond
	// doubt is how near to a deadline the coarse time is not trusted any more: several ticks, because the clock's
	// goroutine may run late on a busy machine.
	doubt = 10 * tick
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
	// In this order: a pause between the two leaves the precise time behind the coarse one for good, which costs Before
	// nothing but precise reads. The other way round, it would take what is over for what lies ahead.
	c.offset = c.coarse.NowNano()
	c.base = time.Now()
	return c
}

// Now returns the precise time.
func (c *Clock) Now() int64 { return c.offset + int64(time.Since(c.base)) }

// Before reports whether deadline lies in the future. It reads the precise clock only when deadline is close. After the
// whole process was stopped (by SIGSTOP, or with its virtual machine) the coarse time lags by as long as that took, until
// the clock's goroutine has run again; in that moment a deadline that went by meanwhile may be taken for one ahead.
func (c *Clock) Before(deadline int64) bool {
	return c.coarse.NowNano()+int64(doubt) < deadline || c.Now() < deadline
}

// Stop ends the clock's goroutine; the clock goes on telling the time.
func (c *Clock) Stop() { c.coarse.Stop() }

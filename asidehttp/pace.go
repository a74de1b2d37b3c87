package asidehttp

import (
	"math/rand/v2"
	"time"
)

// A pace says when requests may be sent to a front end that fails. Each failure in a row doubles the pause before the next request. The lock of
// the backlog guards it.
type pace struct {
	least, most time.Duration // RevalidatorOptions.Backoff and MaxBackoff
	failures    int           // in a row
	pause       time.Time     // no request is sent before this time
	succeeded   time.Time     // the last time that a target was delivered
}

// failing reports whether the last request has failed.
func (p *pace) failing() bool { return p.failures > 0 }

// succeed notes that a target was delivered, which ends the pause.
func (p *pace) succeed(now time.Time) { p.failures, p.pause, p.succeeded = 0, time.Time{}, now }

// fail notes a failed request. It sets the pause before any request, and when the target of this one is due again.
func (p *pace) fail(d *delivery, f *failure, now time.Time) {
	// The front end refuses this target alone if the target fails again, and others were delivered in between. Then the others need no pause.
	alone := d.attempts > 1 && p.succeeded.After(d.failed) && f.after == 0
	// Requests that ran at once fail at once, and count as one failure:
	//  1. Several requests are sent.
	//  2. The front end becomes unavailable. The first request fails, and starts the pause.
	//  3. The others fail during that pause. They show nothing new, and do not double it.
	if !alone && !now.Before(p.pause) {
		p.failures++
		p.pause = now.Add(min(max(p.backoff(p.failures), f.after), p.most))
	}
	d.failed = now
	d.due = now.Add(p.backoff(d.attempts)) // for a target that is refused alone
}

// backoff is how long to wait after n consecutive failures. It is randomized, so that processes that failed together do not retry together.
func (p *pace) backoff(n int) time.Duration {
	d := p.most
	if n < 32 && p.least<<(n-1) > 0 {
		d = min(d, p.least<<(n-1))
	}
	return d/2 + rand.N(d/2+1)
}

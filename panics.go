package aside

import (
	"github.com/gatewayz/aside/internal/flight"
)

const (
	longestPanic = 1 << 10 // bytes of the text of a panic in the log
	longestStack = 8 << 10 // of its stack: what is cut off is who has called the cache's own code
)

// logPanics logs the first panic among the results of a loader, where one is due. Its callers get an error each, in which the stack
// is easily lost.
func (c *Cache) logPanics(slots []*slot) {
	for _, s := range slots {
		if p, ok := s.err.(*flight.PanicError); ok {
			if c.panicLog.Allow(c.clock.Now()) {
				c.opts.Logger.Error("aside: a loader panicked; its callers get an error", "policy", s.plan.policy.name(), "key", s.key,
					"panic", cut(p.Error(), longestPanic), "stack", cut(string(p.Stack), longestStack))
			}
			return
		}
	}
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

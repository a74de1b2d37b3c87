package aside

import (
	"log/slog"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/redisstore"
)

// health logs each change of state once. Of a connection that comes and goes it logs a few, then one line in stateLogPause: the
// state as it is by then, with how many changes were left out.
type health struct {
	began  time.Time
	logger *slog.Logger

	mu    sync.Mutex
	spent time.Time        // when as many lines as may be logged at once can be logged again; guarded by mu
	last  redisstore.State // guarded by mu
	out   int              // changes that were not logged since the last line, last among them; guarded by mu
	later *time.Timer      // logs last; nil while all is logged; guarded by mu
	ended bool             // guarded by mu
}

const (
	stateLogPause = 5 * time.Second
	stateLogBurst = 4 // lines at once: two outages
)

func (h *health) start(logger *slog.Logger) { h.began, h.logger = time.Now(), logger }

func (h *health) onState(s redisstore.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = s
	h.out++
	if h.later != nil || h.ended {
		return
	}
	if wait := h.wait(); wait > 0 {
		h.later = time.AfterFunc(wait, h.logLater)
		return
	}
	h.log()
}

func (h *health) logLater() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.later = nil; !h.ended {
		h.log()
	}
}

// wait is how long to wait before a line may be logged. The lock is held.
func (h *health) wait() time.Duration {
	return time.Until(h.spent.Add(-(stateLogBurst - 1) * stateLogPause))
}

// log logs the last state. The lock is held.
func (h *health) log() {
	if now := time.Now(); h.spent.Before(now) {
		h.spent = now
	}
	h.spent = h.spent.Add(stateLogPause)
	var more []any
	if h.out > 1 {
		more = []any{"changes_not_logged", h.out - 1}
	}
	h.out = 0
	switch s := h.last; {
	case s.Up && s.Silent:
		h.logger.Warn("aside: connected to redis, which refuses PUBLISH: other processes follow a change only when what they have read is "+
			redisstore.UntrackedLife.String()+" old", more...)
	case s.Up:
		h.logger.Info("aside: connected to redis", more...)
	default:
		h.logger.Warn("aside: redis is away; values are kept in memory for DegradedTTL until it is back", append([]any{"reason", healthOf(s).Reason}, more...)...)
	}
}

// stop ends what is to be logged later.
func (h *health) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended = true; h.later != nil {
		h.later.Stop()
	}
}

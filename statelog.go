package aside

import (
	"log/slog"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/redisstore"
)

// health logs each change of state once. Of a connection that comes and goes it logs a few, then one line in stateLogPause: the
// state as it is by then, with how many changes were left out. A connection breaks, say, and then there is a reason why no other one
// can be made: while Redis is away, it is looked once in reasonPause whether the reason is another one than the log says.
type health struct {
	began  time.Time
	logger *slog.Logger

	mu    sync.Mutex
	now   func() redisstore.State // nil before there is something to ask; guarded by mu
	spent time.Time               // when as many lines as may be logged at once can be logged again; guarded by mu
	last  redisstore.State        // guarded by mu
	out   int                     // changes that were not logged since the last line, last among them; guarded by mu
	later *time.Timer             // logs last; nil while all is logged; guarded by mu
	ended bool                    // guarded by mu
	said  string                  // the reason in the last line, and its details; empty while Redis is in use; guarded by mu
	look  *time.Timer             // looks for another reason; nil where none is said; guarded by mu
}

const (
	stateLogPause = 5 * time.Second
	stateLogBurst = 4 // lines at once: two outages
	reasonPause   = 10 * time.Second
)

func (h *health) start(logger *slog.Logger) { h.began, h.logger = time.Now(), logger }

// ask has the state asked for by now from now on.
func (h *health) ask(now func() redisstore.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = now
}

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
	h.said = ""
	if h.look != nil {
		h.look.Stop()
		h.look = nil
	}
	switch s := h.last; {
	case s.Up && s.Silent:
		h.logger.Warn("aside: connected to redis, which refuses PUBLISH: other processes follow a change only when what they have read is "+
			redisstore.UntrackedLife.String()+" old", more...)
	case s.Up:
		h.logger.Info("aside: connected to redis", more...)
	default:
		h.said = saidOf(s)
		why := []any{"reason", healthOf(s).Reason}
		if detail := redisstore.Detail(s.Cause); detail != "" {
			why = append(why, "error", detail)
		}
		h.logger.Warn("aside: redis is away; values are kept in memory for DegradedTTL until it is back", append(why, more...)...)
		if !h.ended {
			h.look = time.AfterFunc(reasonPause, h.lookAgain)
		}
	}
}

// saidOf is all that a line says of why Redis is away: two answers of a server can differ in what the reason leaves out.
func saidOf(s redisstore.State) string { return healthOf(s).Reason + redisstore.Detail(s.Cause) }

// lookAgain logs the reason why Redis is away where it is another one than was logged, and looks again later.
func (h *health) lookAgain() {
	h.mu.Lock()
	now := h.now
	h.mu.Unlock()
	var s redisstore.State
	if now != nil {
		s = now() // not under the lock: a state is told to us under others
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended || h.look == nil || h.last.Up: // or it is back, and that is logged later
	case h.later == nil && !s.Up && s.Cause != nil && saidOf(s) != h.said:
		h.last = s
		h.out++
		h.log()
	default:
		h.look.Reset(reasonPause)
	}
}

// stop ends what is to be logged later.
func (h *health) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended = true; h.later != nil {
		h.later.Stop()
	}
	if h.look != nil {
		h.look.Stop()
	}
}

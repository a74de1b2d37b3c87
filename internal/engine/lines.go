package engine

import (
	"log/slog"
	"time"

	"github.com/gatewayz/aside/internal/causes"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/stats"
)

// A SlowLoad is a call of a loader that has taken longer than Options.SlowLoad.
type SlowLoad struct {
	Policy string
	Key    string // of a batch the first one that ended so
	Keys   int    // how many ended so
	How    stats.Ending
	Took   time.Duration
}

// reportEnd tells of a call of the loader that has failed, or was slow. A panic has a line with its stack, and a failure in the background one that says
// what callers get.
func (e *Engine) reportEnd(l *Load, as end, took time.Duration) {
	policy, first := l.attempts[0].Policy, l.attempts[0]
	if as.how.Failed() {
		text := cut(causes.Text(as.err), longestPanic)
		if e.opts.OnFailedLoad != nil {
			e.opts.OnFailedLoad(FailedLoad{policy.Name, as.of.Key, as.keys, as.how, took, text})
		}
		if as.how != stats.EndedPanic && first.old == nil {
			if suppressed, ok := policy.logs.failures.Allow(e.Clock.Now()); ok {
				e.opts.Logger.LogAttrs(first.valuesOfCaller(), slog.LevelWarn, "aside: a load failed",
					slog.String("policy", policy.Name), slog.String("key", as.of.Key), slog.Int("count", as.keys), slog.String("outcome", as.how.String()),
					slog.Duration("took", took), slog.Int("waiters", l.waiters()), slog.String("error", text), loglimit.Suppressed(suppressed))
			}
		}
	}
	if e.opts.SlowLoad == 0 || took < e.opts.SlowLoad {
		return
	}
	if e.opts.OnSlowLoad != nil {
		e.opts.OnSlowLoad(SlowLoad{policy.Name, as.of.Key, as.keys, as.how, took})
	}
	if suppressed, ok := policy.logs.slow.Allow(e.Clock.Now()); ok {
		e.opts.Logger.LogAttrs(first.valuesOfCaller(), slog.LevelWarn, "aside: a load was slow",
			slog.String("policy", policy.Name), slog.String("key", as.of.Key), slog.Int("count", as.keys), slog.String("outcome", as.how.String()),
			slog.Duration("took", took), loglimit.Suppressed(suppressed))
	}
}

// logOverload logs that a load was refused.
func (e *Engine) logOverload(a *attempt, why string) {
	if suppressed, ok := a.Policy.logs.overloads.Allow(e.Clock.Now()); ok {
		e.opts.Logger.LogAttrs(a.valuesOfCaller(), slog.LevelWarn, "aside: loads are refused",
			slog.String("policy", a.Policy.Name), slog.String("cause", why), loglimit.Suppressed(suppressed))
	}
}

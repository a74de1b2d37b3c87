package asidehttp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/logs"
)

// A warmer is a function of Options.Warmers.
type warmer = func(context.Context) (aside.Warmed, error)

// warmers are those of a handler's options, without the invalid ones.
type warmers map[string]warmer

// warmings are the runs of the warmers of a cache. All handlers of the cache share them. They have a row for each name that was started, and names
// come from Options alone. The zero value is ready.
type warmings struct {
	mu     sync.Mutex
	byName map[string]*warming // guarded by mu
}

// A warming is the runs of one name, one at a time. The lock of its warmings guards it.
type warming struct {
	running bool
	started time.Time // of the run that is running
	last    *warmRun  // nil before the end of the first run
	runs    int       // that have ended
	errors  int       // of these with an error or a panic

	ended loglimit.Counter // log lines; it has a lock of its own
}

// start starts a warmer in the background, unless a run of that name is running. It reports whether one is. The context of the run ends when over is
// closed.
func (all *warmings) start(name string, run warmer, over <-chan struct{}, log *slog.Logger) (running bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	w := all.byName[name]
	if w == nil {
		if w = (&warming{}); all.byName == nil {
			all.byName = make(map[string]*warming)
		}
		all.byName[name] = w
	}
	if w.running {
		return true
	}
	w.running, w.started = true, time.Now()
	go all.run(name, w, run, over, logs.Guard(log))
	return false
}

// run calls a warmer and notes how it ends.
func (all *warmings) run(name string, w *warming, run warmer, over <-chan struct{}, log *slog.Logger) {
	ctx, end := context.WithCancelCause(context.Background()) // not the request's: the run outlives it
	go func() {
		select {
		case <-over:
			end(aside.ErrClosed)
		case <-ctx.Done():
		}
	}()
	var warmed aside.Warmed
	err := errExit
	var stack []byte
	defer func() {
		if p := recover(); p != nil {
			err, stack = fmt.Errorf("%w: %s", errPanic, text(p)), debug.Stack()
		}
		end(nil)
		last := newWarmRun(w.started, time.Now(), warmed, err) // without the lock: the error's methods are the program's
		all.mu.Lock()
		w.running, w.runs = false, w.runs+1
		if err != nil {
			w.errors++
		}
		w.last = last
		all.mu.Unlock()
		if n, due := w.ended.Count(); due {
			logWarmed(log, name, *last, err, stack, n)
		}
	}()
	warmed, err = run(ctx)
}

// Why a warmer has no result.
var (
	errExit  = errors.New("the warmer ended its goroutine: it must return an error instead of calling runtime.Goexit")
	errPanic = errors.New("the warmer panicked")
)

// logWarmed logs the end of a run, and how many runs have ended since the last line.
func logWarmed(log *slog.Logger, name string, last warmRun, err error, stack []byte, runs int) {
	attrs := []slog.Attr{
		slog.String("name", shortened(name)), slog.Int("seen", last.Seen), slog.Int("fresh", last.Fresh), slog.Int("loaded", last.Loaded),
		slog.Int("not_found", last.NotFound), slog.Int("failed", last.Failed), slog.Bool("elsewhere", last.Elsewhere),
		slog.Duration("took", last.Ended.Sub(last.Started)), slog.Int("runs", runs),
	}
	level := slog.LevelInfo
	line := "asidehttp: warmed"
	if err != nil {
		level = slog.LevelError
		line = "asidehttp: a warmer failed"
		attrs = append(attrs, slog.String("error", shortened(text(err))))
	}
	if stack != nil {
		attrs = append(attrs, slog.String("stack", string(stack)))
	}
	log.LogAttrs(context.Background(), level, line, attrs...)
}

// text is the text of an error or of a panic's value. Its methods are the program's, and may panic.
func text(v any) (s string) {
	defer func() {
		if recover() != nil {
			s = fmt.Sprintf("%T, whose text panics", v)
		}
	}()
	if err, ok := v.(error); ok {
		return err.Error()
	}
	return fmt.Sprint(v)
}

// harmless is the text of a warmer's error for a client. Only the texts of this library are shown: an error of the program's own may contain an
// address with a password. The log has that one.
func harmless(err error) (s string) {
	const other = "the warmer failed: the log of this server has its error"
	defer func() {
		if recover() != nil { // methods of the error
			s = other
		}
	}()
	var own *aside.Error
	switch {
	case err == errExit:
		return err.Error()
	case errors.Is(err, errPanic):
		return "the warmer panicked: the log of this server has the stack"
	case errors.Is(err, aside.ErrClosed):
		return "the cache was closed"
	case errors.As(err, &own):
		return own.Message
	case errors.Is(err, context.DeadlineExceeded):
		return "the time of the warmer was up"
	case errors.Is(err, context.Canceled):
		return "the warmer was cancelled"
	}
	return other
}

// report shows the runs of a name.
func (all *warmings) report(name string) warmReport {
	all.mu.Lock()
	defer all.mu.Unlock()
	r := warmReport{Name: name}
	if w := all.byName[name]; w != nil {
		r.Running, r.Last, r.Runs, r.Errors = w.running, w.last, w.runs, w.errors
		if w.running {
			started := w.started
			r.Started = &started
		}
	}
	return r
}

// Package logs protects the library's goroutines from the program's log handler. The handler runs on a goroutine of its own. If it panics,
// blocks, or ends that goroutine, log lines are lost and nothing else happens.
package logs

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	mostLines = 128                    // how many lines wait for the handler; further lines are lost
	patience  = 100 * time.Millisecond // how long a call waits for the handler to return, so that its line is normally written by then
)

// Guard returns a logger that writes to the handler of Readable(logger). The logger never panics. It blocks for patience at most, and only
// once for a handler that hangs. When the handler accepts a line again, the logger reports how many lines were lost. It needs no Close:
// it has no goroutine while it has no lines.
func Guard(logger *slog.Logger) *slog.Logger {
	return slog.New(&guard{queue: &queue{handler: Readable(logger).Handler()}})
}

// A guard is a handler whose methods do not call the program's code.
type guard struct {
	queue *queue
	with  []func(slog.Handler) slog.Handler // the WithAttrs and WithGroup calls to apply to the handler
}

// Enabled is true from Info on: the goroutine asks the handler's own Enabled before it passes a line. Below, where there may be a line for each call, the
// handler is asked here, so that lines that nobody wants cost no more than that. A handler that panics, or does not return from a line, wants none.
func (g *guard) Enabled(ctx context.Context, level slog.Level) (yes bool) {
	if level >= slog.LevelInfo {
		return true
	}
	if g.queue.stuck.Load() {
		return false
	}
	defer func() { _ = recover() }()
	return g.queue.handler.Enabled(ctx, level)
}

// Handle keeps the values of ctx for the handler, such as the trace of a call. The line may be written after the call has ended.
func (g *guard) Handle(ctx context.Context, r slog.Record) error {
	g.queue.add(&line{ctx: context.WithoutCancel(ctx), record: r.Clone(), with: g.with, done: make(chan struct{})})
	return nil
}

func (g *guard) WithAttrs(attrs []slog.Attr) slog.Handler {
	return g.and(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (g *guard) WithGroup(name string) slog.Handler {
	return g.and(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (g *guard) and(apply func(slog.Handler) slog.Handler) slog.Handler {
	return &guard{g.queue, append(slices.Clip(g.with), apply)}
}

type line struct {
	ctx    context.Context
	record slog.Record
	with   []func(slog.Handler) slog.Handler
	done   chan struct{} // closed when the handler has returned
}

// A queue holds lines in their order. Its goroutine ends when the queue is empty.
type queue struct {
	handler slog.Handler

	mu      sync.Mutex
	lines   []*line     // guarded by mu
	running bool        // there is a goroutine; guarded by mu
	stuck   atomic.Bool // the handler has not returned from a line within patience; written under mu
	lost    int         // lost lines that are not reported yet; guarded by mu
}

func (q *queue) add(l *line) {
	q.mu.Lock()
	if len(q.lines) >= mostLines {
		q.lost++
		q.mu.Unlock()
		return
	}
	q.lines = append(q.lines, l)
	if !q.running {
		q.running = true
		go q.run()
	}
	stuck := q.stuck.Load()
	q.mu.Unlock()
	if stuck {
		return
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
		q.mu.Lock()
		defer q.mu.Unlock()
		select {
		case <-l.done: // the handler returned at the same moment
		default:
			q.stuck.Store(true)
		}
	}
}

// run passes lines to the handler until the queue is empty. If the handler ends the goroutine, another goroutine continues.
func (q *queue) run() {
	over := false
	defer func() {
		if !over {
			go q.run()
		}
	}()
	for {
		q.mu.Lock()
		if len(q.lines) == 0 {
			q.running, over = false, true
			q.mu.Unlock()
			return
		}
		l := q.lines[0]
		q.lines[0] = nil
		q.lines = q.lines[1:]
		q.mu.Unlock()
		q.pass(l, 1)
	}
}

// pass passes a line to the handler. If the handler panics or ends the goroutine, lines counts as lost. The next line that is written is
// followed by a report.
func (q *queue) pass(l *line, lines int) {
	passed := false
	defer func() {
		_ = recover()
		q.mu.Lock()
		if !passed {
			q.lost += lines
		}
		q.stuck.Store(false)
		q.mu.Unlock()
		close(l.done)
	}()
	h := q.handler
	for _, apply := range l.with {
		h = apply(h)
	}
	if h.Enabled(l.ctx, l.record.Level) {
		_ = h.Handle(l.ctx, l.record) // there is no place to report that a line was not written
	}
	passed = true
	q.mu.Lock()
	lost := q.lost
	q.lost = 0
	q.mu.Unlock()
	if lost > 0 {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "aside: log lines lost: the Logger's handler panicked or was too slow", 0)
		r.Add("count", lost)
		q.pass(&line{ctx: context.Background(), record: r, done: make(chan struct{})}, lost)
	}
}

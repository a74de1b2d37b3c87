// Package logs stands between goroutines that nobody may hold up or end and the log handler of the program. The handler runs on a
// goroutine of its own: it may panic, block, or end that, and costs no more than lines.
package logs

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	mostLines = 128                    // that wait for the handler; further ones are lost
	patience  = 100 * time.Millisecond // how long a line waits for the handler to come back, so that as a rule it is written by then
)

// Guard returns a logger that writes by way of logger's handler, as Readable does, and never panics, and blocks for no longer than a moment, once. It
// says how many lines were lost as soon as the handler takes one again. Closing it is not needed: without lines it has no goroutine.
func Guard(logger *slog.Logger) *slog.Logger {
	return slog.New(&guard{queue: &queue{handler: Readable(logger).Handler()}})
}

// A guard is a handler whose methods run no code of the program's.
type guard struct {
	queue *queue
	with  []func(slog.Handler) slog.Handler // what is to be applied to the handler
}

// Enabled is always true: what the handler has to say about that is asked when it gets the line.
func (g *guard) Enabled(context.Context, slog.Level) bool { return true }

func (g *guard) Handle(_ context.Context, r slog.Record) error {
	g.queue.add(&line{record: r.Clone(), with: g.with, done: make(chan struct{})})
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
	record slog.Record
	with   []func(slog.Handler) slog.Handler
	done   chan struct{} // closed when the handler has come back
}

// A queue holds lines in their order. Its goroutine ends when there are none.
type queue struct {
	handler slog.Handler

	mu      sync.Mutex
	lines   []*line // guarded by mu
	running bool    // there is a goroutine; guarded by mu
	stuck   bool    // the handler has a line that it did not come back from in time; guarded by mu
	lost    int     // lines that nobody has been told of; guarded by mu
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
	stuck := q.stuck
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
		case <-l.done: // at the same moment
		default:
			q.stuck = true
		}
	}
}

// run passes lines to the handler until there are none. If that ends the goroutine, another one goes on.
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

// pass hands a line to the handler. If it panics or ends the goroutine, so many lines are lost, and the next one that is written
// says so.
func (q *queue) pass(l *line, lines int) {
	passed := false
	defer func() {
		_ = recover()
		q.mu.Lock()
		if !passed {
			q.lost += lines
		}
		q.stuck = false
		q.mu.Unlock()
		close(l.done)
	}()
	h := q.handler
	for _, apply := range l.with {
		h = apply(h)
	}
	ctx := context.Background()
	if h.Enabled(ctx, l.record.Level) {
		_ = h.Handle(ctx, l.record) // whom should one tell that a line was not written?
	}
	passed = true
	q.mu.Lock()
	lost := q.lost
	q.lost = 0
	q.mu.Unlock()
	if lost > 0 {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "aside: log lines lost: the Logger's handler panicked or was too slow", 0)
		r.Add("lines", lost)
		q.pass(&line{record: r, done: make(chan struct{})}, lost)
	}
}

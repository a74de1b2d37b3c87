package logs

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handler is one of the program's that the test can spoil. Lines come one at a time.
type handler struct {
	slog.Handler
	before func(message string)
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	h.before(r.Message)
	return h.Handler.Handle(ctx, r)
}

// spoilt is a guarded logger, and what it has written.
func spoilt(before func(message string)) (*slog.Logger, *bytes.Buffer) {
	var buf bytes.Buffer
	plain := slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	return Guard(slog.New(handler{plain, before})), &buf
}

func nothing(string) {}

func TestLinesAreWrittenInTheirOrderWhenTheCallReturns(t *testing.T) {
	t.Parallel()
	log, buf := spoilt(nothing)
	log.Debug("not enabled")
	log.Info("one", "n", 1)
	log.Warn("two")
	log.With("a", 1).WithGroup("g").With("b", 2).Error("three", "c", 3)
	log.Info("four")
	require.Equal(t, "level=INFO msg=one n=1\nlevel=WARN msg=two\nlevel=ERROR msg=three a=1 g.b=2 g.c=3\nlevel=INFO msg=four\n", buf.String())
}

// Hazard 77.
func TestAHandlerThatPanicsOrExitsCostsItsLinesOnly(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"panics": func() { panic("oops") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, buf := spoilt(func(message string) {
				if message == "bad" {
					end()
				}
			})
			log.Info("one")
			log.Info("bad")
			log.Info("bad")
			log.Info("two")
			require.Equal(t, 3, strings.Count(buf.String(), "\n"), buf)
			require.Contains(t, buf.String(), "count=2")
			require.Contains(t, buf.String(), "msg=two\n")
		})
	}
}

func TestAHandlerThatBlocksHoldsUpNobodyForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		log, buf := spoilt(func(string) { <-release })
		began := time.Now()
		for i := range 1000 {
			log.Info(strconv.Itoa(i))
		}
		require.Equal(t, patience, time.Since(began), "the first one waits for a moment")
		close(release)
		synctest.Wait()
		require.Equal(t, 1+mostLines+1, strings.Count(buf.String(), "\n"))
		require.Contains(t, buf.String(), "count="+strconv.Itoa(1000-1-mostLines))
		log.Info("last")
		require.True(t, strings.HasSuffix(buf.String(), "msg=last\n"), buf)
	})
}

// An asked is a handler that wants what its function says.
type asked struct {
	slog.Handler
	enabled func(ctx context.Context, level slog.Level) bool
}

func (h asked) Enabled(ctx context.Context, level slog.Level) bool { return h.enabled(ctx, level) }

type callKey struct{}

// Debug lines may come with every call, so the handler is asked first, with the call's context. What an operator should see is never asked for on the
// caller's goroutine.
func TestTheHandlerIsAskedWhetherItWantsDebugLines(t *testing.T) {
	t.Parallel()
	var levels []slog.Level
	log := Guard(slog.New(asked{slog.DiscardHandler, func(ctx context.Context, level slog.Level) bool {
		levels = append(levels, level)
		return ctx.Value(callKey{}) == "this one"
	}}))
	require.True(t, log.Enabled(t.Context(), slog.LevelInfo))
	require.True(t, log.Enabled(t.Context(), slog.LevelWarn))
	require.Empty(t, levels)
	require.False(t, log.Enabled(t.Context(), slog.LevelDebug))
	require.True(t, log.Enabled(context.WithValue(t.Context(), callKey{}, "this one"), slog.LevelDebug))
	require.Equal(t, []slog.Level{slog.LevelDebug, slog.LevelDebug}, levels)

	log = Guard(slog.New(asked{slog.DiscardHandler, func(context.Context, slog.Level) bool { panic("oops") }}))
	require.False(t, log.Enabled(t.Context(), slog.LevelDebug))
}

// A handler that hangs may do so in Enabled too.
func TestAHandlerThatHangsWantsNoDebugLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		hangs := handler{slog.NewTextHandler(new(bytes.Buffer), &slog.HandlerOptions{Level: slog.LevelDebug}), func(string) { <-release }}
		log := Guard(slog.New(hangs))
		require.True(t, log.Enabled(t.Context(), slog.LevelDebug))
		log.Info("hangs")
		require.False(t, log.Enabled(t.Context(), slog.LevelDebug))
		close(release)
		synctest.Wait()
		require.True(t, log.Enabled(t.Context(), slog.LevelDebug))
	})
}

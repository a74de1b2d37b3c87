package logs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnreadableCharactersAreEscaped(t *testing.T) {
	t.Parallel()
	const control = "a\u0085\u009b31m\x7f\u202e\u2028\U000e0001é\U0001f600b"
	const want = `a\\u0085\\u009b31m\\u007f\\u202e\\u2028\\udb40\\udc01é😀b`
	for name, logger := range map[string]func(*slog.Logger) *slog.Logger{"readable": Readable, "guarded": Guard} {
		var buf bytes.Buffer
		log := logger(slog.New(slog.NewJSONHandler(&buf, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}})))
		log.With("with", control).WithGroup("group").Info(control, "text", control, "error", errors.New(control), slog.Group("inner", "text", control), "lines", "a\nb", "n", 1)
		require.Equal(t, fmt.Sprintf(`{"msg":"%[1]s","with":"%[1]s","group":{"text":"%[1]s","error":"%[1]s","inner":{"text":"%[1]s"},"lines":"a\nb","n":1}}`+"\n", want), buf.String(), name)
	}
}

// A handler that does something with errors gets them as they are.
func TestAnErrorWhoseTextIsReadableIsPassedOn(t *testing.T) {
	t.Parallel()
	cause := errors.New("plain")
	var got any
	log := Readable(slog.New(slog.NewJSONHandler(new(bytes.Buffer), &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == "error" {
			got = a.Value.Any()
		}
		return a
	}})))
	log.Info("x", "error", cause)
	require.Equal(t, cause, got)
}

type spoiltError struct{ text *string }

func (e *spoiltError) Error() string { return *e.text }

// Handlers of slog write something of an error whose methods panic. So no line is lost for one.
func TestAnErrorWhoseMethodsPanicCostsNoLine(t *testing.T) {
	t.Parallel()
	for name, logger := range map[string]func(*slog.Logger) *slog.Logger{"readable": Readable, "guarded": Guard} {
		var buf bytes.Buffer
		log := logger(slog.New(slog.NewTextHandler(&buf, nil)))
		require.NotPanics(t, func() { log.Info("typed nil", "error", (*spoiltError)(nil)) }, name)
		require.NotPanics(t, func() { log.Info("spoilt", "error", &spoiltError{}) }, name)
		require.Contains(t, buf.String(), "typed nil", name)
		require.Contains(t, buf.String(), "msg=spoilt", name)
		require.NotContains(t, buf.String(), "lost", name)
	}
}

package asidetest

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Logbook is where a logger writes to, for tests that read it while the cache goes on.
type Logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *Logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *Logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

type LogLine struct{ Level, Msg, Cause string }

// Lines are those about what has happened: from Info on, without the lines about the start and the end of a cache.
func (l *Logbook) Lines(t *testing.T) (lines []LogLine) {
	t.Helper()
	for text := range strings.Lines(l.String()) {
		var line LogLine
		require.NoError(t, json.Unmarshal([]byte(text), &line), text)
		if line.Level != "DEBUG" && line.Msg != "aside: started" && line.Msg != "aside: closed" {
			lines = append(lines, line)
		}
	}
	return lines
}

// With is how many lines have all of parts in them.
func (l *Logbook) With(parts ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n
}

func (l *Logbook) Logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Nobody is an address where nobody listens.
func Nobody(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

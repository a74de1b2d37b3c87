package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A value of the environment that is no good ends the command before it fills a database, and the message names its variable.
func TestWrongEnvironments(t *testing.T) {
	for _, variable := range []string{"CACHE_API_KEY=short", "CACHE_READ_KEY=short", "REVALIDATE_URL=nonsense", "CACHE_SECRET=short", "REDIS_PORT=six"} {
		t.Run(variable, func(t *testing.T) {
			memoryOnly(t)
			name, value, _ := strings.Cut(variable, "=")
			t.Setenv(name, value)
			var stdout, stderr output
			require.Equal(t, 2, run(t.Context(), []string{"-addr", "127.0.0.1:0"}, &stdout, &stderr))
			require.Empty(t, stdout.String())
			require.NotContains(t, stderr.String(), "filling")
			if prefix, _, _ := strings.Cut(name, "_"); prefix != "REVALIDATE" && name != "CACHE_SECRET" { // their packages name the options
				require.Contains(t, stderr.String(), name)
			}
		})
	}
}

// Control-C while the database is filled is no failure of the database.
func TestTheEndOfAStart(t *testing.T) {
	memoryOnly(t)
	var stdout, stderr output
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"-addr", "127.0.0.1:0", "-users", "5000"}, &stdout, &stderr) }()
	require.Eventually(t, func() bool { return strings.Contains(stderr.String(), "filling") }, time.Minute, time.Millisecond, "%s", &stderr)
	stop()
	require.Equal(t, 0, <-code, "%s", &stderr)
	require.Contains(t, stderr.String(), "stopped before it was ready")
	require.NotContains(t, stderr.String(), "gateway:")
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

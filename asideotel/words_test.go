package asideotel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"

	"github.com/gatewayz/aside"
)

// An error of Redis has few words: its code, or why there was no answer. Its text, which can name keys and hosts, is in none of them.
func TestWordsForErrorsOfRedis(t *testing.T) {
	t.Parallel()
	for text, err := range map[string]error{
		"NOPERM":     errors.New("NOPERM User secret has no permissions"),
		"timeout":    fmt.Errorf("read: %w", os.ErrDeadlineExceeded),
		"connection": io.EOF,
	} {
		require.Equal(t, text, redisErrorType(err))
	}
	require.Equal(t, "timeout", redisErrorType(context.DeadlineExceeded))
	require.Equal(t, "connection", redisErrorType(errors.New("")))
	require.Equal(t, "connection", redisErrorType(errors.New("dial tcp secret:6379")))
	require.Equal(t, "deadline_exceeded", errorType(aside.Op{Kind: aside.OpCall}, aside.End{Err: context.DeadlineExceeded}))
}

func TestTheAddressOfAServer(t *testing.T) {
	t.Parallel()
	for node, want := range map[string][]attribute.KeyValue{
		"redis.example:6380": {attribute.String("server.address", "redis.example"), attribute.Int("server.port", 6380)},
		"[::1]:6379":         {attribute.String("server.address", "::1"), attribute.Int("server.port", 6379)},
		"/run/redis.sock":    {attribute.String("server.address", "/run/redis.sock")},
	} {
		require.Equal(t, want, appendRedis(nil, aside.Op{Node: node})[2:])
	}
}

// Labels without end take no memory without end.
func TestWhatIsMadeOnceIsBounded(t *testing.T) {
	t.Parallel()
	var m made[int, string]
	for i := range 2 * mostMade {
		require.Equal(t, strconv.Itoa(i), m.get(i, func() string { return strconv.Itoa(i) }))
	}
	require.Len(t, m.of, mostMade)
	require.Equal(t, "0", m.get(0, func() string { panic("it is there") }))
}

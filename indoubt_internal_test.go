package aside

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/journal"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// A flight that waits for another process's load looks again and again. What has come into quarantine since it began, without
// breaking its fence, as when the server that had confirmed it is lost, it does not read either.
func TestAFlightThatWaitsDoesNotReadWhatHasComeIntoQuarantine(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	open := func() *Cache {
		c, err := New(Options{
			Redis:     rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true},
			OpTimeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		require.Eventually(t, c.store.Up, 20*time.Second, time.Millisecond)
		return c
	}
	policy := Policy{Name: "items", Category: "items", TTL: time.Hour}
	key := policy.Key("a")
	value := func(v string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return v, nil }
	}
	old, c := open(), open()
	c.journal = journal.New() // what is entered in this one is not sent
	_, err := GetOrLoad(t.Context(), old, key, value("old"))
	require.NoError(t, err)
	exists := func() bool { return server.MustDo(t, "EXISTS", key.String()) == int64(1) }
	require.Eventually(t, exists, 20*time.Second, time.Millisecond)
	server.MustDo(t, "RENAME", key.String(), "{"+key.String()+"}aside")
	server.MustDo(t, "SET", "{"+key.String()+"}!l", "another's", "PX", "60000")
	leases := func() int {
		stats, ok := server.MustDo(t, "INFO", "commandstats").(string)
		require.True(t, ok)
		_, stats, _ = strings.Cut(stats, "cmdstat_evalsha:calls=")
		n, _, _ := strings.Cut(stats, ",")
		calls, err := strconv.Atoi(n)
		require.NoError(t, err)
		return calls
	}
	before := leases()
	got := make(chan string, 1)
	go func() {
		v, _ := GetOrLoad(t.Context(), c, key, value("new"))
		got <- v
	}()
	require.Eventually(t, func() bool { return leases() > before }, 20*time.Second, time.Millisecond, "it has seen whose turn it is")
	c.journal.Enter("", key.text)
	server.MustDo(t, "RENAME", "{"+key.String()+"}aside", key.String())
	require.Equal(t, "new", <-got)
}

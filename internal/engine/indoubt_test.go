package engine

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/journal"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// A flight that waits for another process's load looks again and again. What has come into quarantine since it began, without
// breaking its fence, as when the server that had confirmed it is lost, it does not read either.
func TestAFlightThatWaitsDoesNotReadWhatHasComeIntoQuarantine(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	r := requestOf(items(), "a")
	key := r.Key
	old, e := connected(t, server.Addr()), connected(t, server.Addr())
	e.journal = journal.New() // what is entered in this one is not sent
	_, err := answer(t, old, requestOf(items(), "a"), loads("old"))
	require.NoError(t, err)
	exists := func() bool { return server.MustDo(t, "EXISTS", key) == int64(1) }
	require.Eventually(t, exists, 20*time.Second, time.Millisecond)
	server.MustDo(t, "RENAME", key, "{"+key+"}aside")
	server.MustDo(t, "SET", "{"+key+"}!l", "another's", "PX", "60000")
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
		out, err := answer(t, e, r, loads("new"))
		if err != nil {
			t.Error(err)
		}
		got <- *out.Value.(*string)
	}()
	require.Eventually(t, func() bool { return leases() > before }, 20*time.Second, time.Millisecond, "it has seen whose turn it is")
	e.journal.Enter("", key)
	server.MustDo(t, "RENAME", "{"+key+"}aside", key)
	require.Equal(t, "new", <-got)
}

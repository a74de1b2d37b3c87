package aside

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/outside"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 141: what one caller has of what waits to be told leaves some to the next one.
func TestOneCallerLeavesRoomForWhatIsNotTold(t *testing.T) {
	t.Parallel()
	told := &told{}
	n := 0
	for ; n < 1000; n++ {
		if _, ok := told.reserve("flood", manyNames("c:", 1000)); !ok {
			break
		}
	}
	require.Less(t, n, 1000)
	_, ok := told.reserve("deploy", manyNames("c:", 1000))
	require.True(t, ok)
}

// Hazard 142: a pattern has its room as an entry while it is waited for, and not as what was reserved for it too.
func TestAPatternThatIsWaitedForTakesItsRoomOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c, err := New(Options{
		Redis: rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, ForceSingleClient: true}, OpTimeout: inTime, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, c.store.Up, inTime, time.Millisecond)
	policy := Policy{Name: "items", Category: "items", TTL: time.Hour}
	gate := proxy.HoldRequests(func(args []string) bool { return strings.EqualFold(args[0], "SCAN") })
	done := make(chan error, 1)
	go func() {
		_, err := c.InvalidatePattern(outside.With(t.Context(), "one"), policy.Match(Wildcard))
		done <- err
	}()
	gate.Wait(t)
	n := 0 // all callers may have 64 patterns, and one caller no more than it leaves to the others
	for ; n < 64; n++ {
		if _, ok := c.journal.Reserve("one", []string{keyspace.PatternPrefix + "items:" + strconv.Itoa(n)}); !ok {
			break
		}
	}
	gate.Release()
	require.NoError(t, <-done)
	require.Equal(t, 32-1, n)
}

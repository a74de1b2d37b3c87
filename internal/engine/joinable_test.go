package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 148: the time between a reply and the goroutine that waits for it.
//
//  1. A flight reads a key. The generation of its category is known in memory, so it is not read.
//  2. The reply arrives. The flight's goroutine does not run yet.
//  3. The push arrives that the category was invalidated by another process.
//  4. A caller comes that knows of the invalidation. It must not join the flight.
func TestNobodyJoinsAReadFromBeforeThePushOfAKnownGeneration(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{keyspace.CategoryTag("items"), keyspace.All} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			e, p := connected(t, proxy.Addr()), items()
			require.NoError(t, e.Set(t.Context(), requestOf(p, "a"), given("old")))
			_, err := answer(t, e, requestOf(p, "other"), loads("v")) // by which the generations are known
			require.NoError(t, err)
			require.Eventually(t, func() bool { return e.Near.Generation(tag) != nil }, inTime, 1e6)

			gate := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == "items:a" })
			read := make(chan error, 1)
			go func() {
				_, err := answer(t, e, requestOf(p, "a"), loads("another"))
				read <- err
			}()
			gate.Wait(t)
			e.Near.Push(tag)
			r := requestOf(p, "a")
			call, leads := e.flights.Join(newAttempt(r).flightKey())
			require.True(t, leads, "the read may be from before the push")
			call.Forsake(errClosed)
			_, _ = call.Wait(t.Context())
			gate.Release()
			require.NoError(t, <-read)
		})
	}
}

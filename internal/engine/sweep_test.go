package engine

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redistest"
)

// What was in doubt and is sent again is swept and counted like anything else.
func TestWhatIsConfirmedAgainIsSweptAndCounted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	e := connected(t, proxy.Addr())
	tagged := requestOf(items(), "a")
	tagged.Tags = append(tagged.Tags[:len(tagged.Tags):len(tagged.Tags)], "%t:x")
	require.NoError(t, e.Set(t.Context(), tagged, given("v")))
	require.NoError(t, e.Set(t.Context(), requestOf(items(), "b"), given("v")))
	for _, tt := range []struct {
		bumped string
		names  []string
	}{
		{"%t:x", []string{keyspace.Sequence, "%t:x"}},
		{"%c:items", []string{"%c:items"}},
	} {
		gate := proxy.HoldReplies(func(args []string) bool {
			return strings.EqualFold(args[0], "EVALSHA") && args[3] == tt.bumped
		})
		tickets := make(chan *invalidate.Ticket, 1)
		go func() {
			tickets <- e.Invalidator.Retire(t.Context(), "", invalidate.Event{}, tt.names...)
		}()
		gate.Wait(t)
		e.journal.ConnectionLost()
		gate.Release()
		r := <-tickets
		require.False(t, r.Confirmed, tt.bumped)
		require.NoError(t, r.Wait(t.Context()))
		removed, err := r.WaitCleanup(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, removed, tt.bumped)
	}
}

package redisstore

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redistest"
)

// A new connection may find a server that does not tell of changes, while a read by the last one is on its way.
func TestAReadUnderWayWhenTrackingIsFoundMissingLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	s := connected(t, proxy.Addr())
	clock := near.NewClock()
	t.Cleanup(clock.Stop)
	memory := near.New(near.Options{MaxEntries: 100, MaxBytes: 1 << 20}, clock)
	t.Cleanup(memory.Close)
	f := memory.Fence(key, nil)
	defer f.End()
	held := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" })
	reads := make(chan []Read, 1)
	go func() { reads <- s.Get(context.Background(), Get{Key: key, Fence: f}) }()
	held.Wait(t)
	s.announcements.rotate(new(near.Validity))
	only(s).untracked.Store(true)
	held.Release()
	r := (<-reads)[0]
	require.NoError(t, r.Err)
	require.Empty(t, s.pending)
	require.NotSame(t, s.announcements.validity(), r.Validity, "whose fence was never armed for it")
}

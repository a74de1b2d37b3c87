package invalidate

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/quota"
)

func manyNames(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = prefix + strconv.Itoa(i)
	}
	return names
}

// What waits to be told is bounded in bytes, and does not become everything because of somebody outside.
func TestWhatIsNotToldYetIsBounded(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 1000} {
		var all atomic.Int64
		release := make(chan struct{})
		free := sync.OnceFunc(func() { close(release) })
		defer free()
		f := inMemory(t, func(e Event) {
			<-release
			if e.All {
				all.Add(1)
			}
		})
		order := func(caller string, keys ...string) bool {
			end, ok := f.Reserve(caller, keys...)
			if ok {
				f.Remove(t.Context(), caller, keys, nil)
				end()
			}
			return ok
		}
		refused := 0
		for i := range 20_000 {
			if !order("outside", manyNames("p:"+strconv.Itoa(i)+":", size)...) {
				if refused++; refused > 100 {
					break
				}
			}
		}
		require.NotZero(t, refused)
		f.notifier.mu.Lock()
		require.Less(t, f.notifier.size, mostWaitingSize/4)
		f.notifier.mu.Unlock()
		require.True(t, order("another", "p:another's"), "one caller leaves room to the next one")
		f.Remove(t.Context(), "", []string{"p:own"}, nil)
		free()
		f.close()
		require.Zero(t, all.Load())
		_, taken := f.notifier.outside.Taken()
		require.Equal(t, quota.Use{}, taken)
	}
}

// Hazard 141: what one caller has of what waits to be told leaves some to the next one.
func TestOneCallerLeavesRoomForWhatIsNotTold(t *testing.T) {
	t.Parallel()
	var n notifier
	orders := 0
	for ; orders < 1000; orders++ {
		if _, ok := n.reserve("flood", manyNames("c:", 1000)); !ok {
			break
		}
	}
	require.Less(t, orders, 1000)
	_, ok := n.reserve("deploy", manyNames("c:", 1000))
	require.True(t, ok)
}

// Where the program's own invalidations are too many to be delivered, the hook is called once, with everything.
func TestWhatIsTooMuchToDeliverIsEverything(t *testing.T) {
	t.Parallel()
	n := &notifier{wake: make(chan struct{}, 1)}
	for i := range mostWaiting {
		n.add("", Event{Category: strconv.Itoa(i)})
	}
	require.Len(t, n.waiting, mostWaiting)
	n.add("", Event{Category: "one too many"})
	e, ok := n.next()
	require.True(t, ok)
	require.True(t, e.All)
	require.False(t, e.At.IsZero())
	_, ok = n.next()
	require.False(t, ok)
	require.Zero(t, n.size)
}

func TestAHookThatPanicsIsCalledWithTheNextEvent(t *testing.T) {
	t.Parallel()
	var got []string
	n := &notifier{wake: make(chan struct{}, 1), logger: slog.New(slog.DiscardHandler), hook: func(e Event) {
		got = append(got, e.Pattern)
		if e.Pattern == "first" {
			panic("the hook's own")
		}
	}}
	n.add("", Event{Pattern: "first"})
	n.add("", Event{Pattern: "second"})
	closed := make(chan struct{})
	close(closed)
	n.run(closed)
	require.Equal(t, []string{"first", "second"}, got)
}

// A replay confirms an invalidation before it queues the event. In between, the hook was not called for each event.
func TestNotifiedWaitsForTheEventsOfAReplay(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	f := inMemory(t, func(Event) { calls.Add(1) })
	defer f.close()
	require.NoError(t, f.Notified(t.Context()))
	end := f.replay()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, f.Notified(ended), context.Canceled)
	notified := make(chan error, 1)
	go func() { notified <- f.Notified(t.Context()) }()
	f.notify("", Event{Keys: []string{"a"}})
	end()
	require.NoError(t, <-notified)
	require.EqualValues(t, 1, calls.Load())
}

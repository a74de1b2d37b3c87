package bulkhead

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A load does what the cache does with a place: it is ended under a lock of its own, under which it reports who waits for it.
type load struct {
	mu       sync.Mutex
	place    *Place // nil once it is left
	deserted bool
	ended    bool

	beforeEnd func() // called when it is to be ended
}

func (l *load) end(p *Place) bool {
	if l.beforeEnd != nil {
		l.beforeEnd()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.deserted || l.place != p {
		return false
	}
	l.ended = true
	return true
}

func (l *load) desert(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deserted == yes || l.place == nil {
		return
	}
	if l.deserted = yes; l.place.Deserted(yes) && yes {
		l.ended = true
	}
}

func (l *load) leave() {
	l.mu.Lock()
	p := l.place
	l.place = nil
	l.mu.Unlock()
	p.Leave()
}

// running enters a load at once.
func running(t *testing.T, b *Bulkhead) *load {
	t.Helper()
	l := new(load)
	l.place = b.TryEnter(l.end)
	require.NotNil(t, l.place)
	return l
}

// A waiter is a load that Enter has not let in at once.
type waiter struct {
	load
	ok   bool
	done atomic.Bool // Enter has returned
}

func entering(ctx context.Context, b *Bulkhead, bypass <-chan struct{}) *waiter {
	w := new(waiter)
	go func() {
		w.place, w.ok = b.Enter(ctx, bypass, w.end)
		w.done.Store(true)
	}()
	synctest.Wait()
	return w
}

func (w *waiter) runs() bool    { return w.done.Load() && w.ok && !w.place.lent }
func (w *waiter) refused() bool { return w.done.Load() && !w.ok }

func TestThoseThatWaitGetTheirPlacesInTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(2, 3)
		one, two := running(t, b), running(t, b)
		require.Nil(t, b.TryEnter(nil))
		require.True(t, b.Full())
		var all []*waiter
		for range 3 {
			all = append(all, entering(t.Context(), b, nil))
		}
		require.True(t, entering(t.Context(), b, nil).refused(), "the queue is full")
		for i, leave := range []func(){one.leave, two.leave, func() { all[0].leave() }} {
			require.False(t, all[i].done.Load())
			leave()
			synctest.Wait()
			require.True(t, all[i].runs())
		}
		all[1].leave()
		require.False(t, b.Full())
		all[2].leave()
		running(t, b)
		running(t, b)
		require.True(t, b.Full())
	})
}

func TestAWaitThatEndsMakesRoomInTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(1, 1)
		first := running(t, b)
		ctx, cancel := context.WithCancel(t.Context())
		gone := entering(ctx, b, nil)
		cancel()
		synctest.Wait()
		require.True(t, gone.done.Load())
		require.True(t, gone.ok)
		require.True(t, gone.place.lent)
		next := entering(t.Context(), b, nil)
		require.False(t, next.done.Load())
		gone.leave() // it has no place to give back
		synctest.Wait()
		require.False(t, next.done.Load())
		first.leave()
		synctest.Wait()
		require.True(t, next.runs())
		next.leave()
	})
}

func TestALoadThatBypassesTheQueueTakesNoPlaceAndGivesNoneBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(1, 1)
		first := running(t, b)
		bypass := make(chan struct{})
		queued := entering(t.Context(), b, bypass)
		require.False(t, queued.done.Load())
		close(bypass)
		synctest.Wait()
		late := entering(t.Context(), b, bypass)
		for _, w := range []*waiter{queued, late} {
			require.True(t, w.done.Load())
			require.True(t, w.ok)
			require.True(t, w.place.lent)
			w.desert(true)
			require.True(t, w.ended, "it ends at once when nobody waits for it")
			w.leave()
			require.True(t, b.Full())
		}
		first.leave()
		at := entering(t.Context(), b, bypass)
		require.True(t, at.runs(), "where a place is free it takes that")
	})
}

func TestABorrowedPlaceIsTakenAwayByALoadThatFindsNoneFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(1, 0)
		leave, ok := b.Borrow(func() { t.Error("preempted while nobody needed the place") })
		require.True(t, ok)
		require.True(t, b.Full())
		_, ok = b.Borrow(nil)
		require.False(t, ok, "it waits for none, and preempts none")
		leave()
		require.False(t, b.Full())

		preempted := 0
		leave, ok = b.Borrow(func() { preempted++ })
		require.True(t, ok)
		w := entering(t.Context(), b, nil)
		require.True(t, w.runs())
		require.Equal(t, 1, preempted)
		leave()
		require.True(t, b.Full(), "the place is given back once")
		require.True(t, entering(t.Context(), b, nil).refused())
		w.leave()
		require.False(t, b.Full())
	})
}

func TestNoMoreLoadsRunThanThereArePlacesWhateverHappens(t *testing.T) {
	t.Parallel()
	const places = 3
	b := New(places, 4)
	var runs, most atomic.Int64
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
				l := new(load)
				p, ok := b.Enter(ctx, nil, l.end)
				cancel()
				if !ok {
					continue
				}
				if !p.lent {
					n := runs.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
				}
				l.mu.Lock()
				l.place = p
				l.mu.Unlock()
				l.desert(true)
				l.desert(i%2 == 0)
				if !p.lent {
					runs.Add(-1)
				}
				l.leave()
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, most.Load(), int64(places))
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Equal(t, places, b.free)
	require.Zero(t, b.ending)
	require.Zero(t, b.waiting.Len())
	require.Zero(t, b.deserted.Len())
}

package bulkhead

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestALoadEndsTheOneThatIsDesertedLongestAndWaitsForItsPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(2, 0)
		first, second := running(t, b), running(t, b)
		first.desert(true)
		second.desert(true)
		require.False(t, first.ended || second.ended, "nobody needs their places")
		w := entering(t.Context(), b, nil)
		require.True(t, first.ended)
		require.False(t, second.ended)
		require.False(t, w.done.Load(), "not before the other has come back")
		other := entering(t.Context(), b, nil)
		require.True(t, second.ended)
		require.True(t, entering(t.Context(), b, nil).refused(), "there is no third one to end, and no queue")
		first.leave()
		synctest.Wait()
		require.True(t, w.runs())
		second.leave()
		synctest.Wait()
		require.True(t, other.runs())
		require.Zero(t, b.ending)
		require.Zero(t, b.deserted.Len())
	})
}

func TestWhileOthersWaitALoadThatIsDesertedEndsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(1, 1)
		first := running(t, b)
		w := entering(t.Context(), b, nil)
		require.False(t, first.ended)
		first.desert(true)
		require.True(t, first.ended)
		next := entering(t.Context(), b, nil)
		require.False(t, next.done.Load(), "who waits for a place that comes back takes no room in the queue")
		require.True(t, entering(t.Context(), b, nil).refused())
		first.leave()
		synctest.Wait()
		require.True(t, w.runs())
		require.Zero(t, b.ending)
	})
}

func TestALoadThatIsWantedAgainIsNotEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(1, 0)
		first := running(t, b)
		first.desert(true)
		first.desert(false)
		require.True(t, entering(t.Context(), b, nil).refused())
		require.False(t, first.ended)
		require.Zero(t, b.deserted.Len())
		require.Zero(t, b.ending)
	})
}

// A load is taken from the list of the deserted, and ended a moment later:
//
//  1. Enter chooses the load.
//  2. Somebody waits for the load again, or it comes back.
//  3. The load cannot be ended. Enter chooses another one, or has to wait in the queue, or is refused.
func TestALoadThatIsWantedAgainJustBeforeItIsEnded(t *testing.T) {
	t.Parallel()
	t.Run("and no room in the queue", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := New(1, 0)
			first := running(t, b)
			first.desert(true)
			first.beforeEnd = func() { first.desert(false) }
			require.True(t, entering(t.Context(), b, nil).refused())
			require.Zero(t, b.ending)
			require.Zero(t, b.waiting.Len())
			first.beforeEnd = nil
			first.desert(true)
			require.False(t, first.ended, "nobody waits for its place any more")
		})
	})
	t.Run("and another one deserted", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := New(2, 0)
			first, second := running(t, b), running(t, b)
			first.desert(true)
			second.desert(true)
			first.beforeEnd = func() { first.desert(false) }
			w := entering(t.Context(), b, nil)
			require.False(t, first.ended)
			require.True(t, second.ended)
			second.leave()
			synctest.Wait()
			require.True(t, w.runs())
			require.Zero(t, b.ending)
		})
	})
	t.Run("and deserted once more", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := New(1, 0)
			first := running(t, b)
			first.desert(true)
			first.beforeEnd = func() { first.desert(false); first.desert(true) }
			w := entering(t.Context(), b, nil)
			require.True(t, first.ended)
			first.leave()
			synctest.Wait()
			require.True(t, w.runs())
			require.Zero(t, b.ending)
		})
	})
	t.Run("and its place given back", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := New(1, 0)
			first := running(t, b)
			first.desert(true)
			first.beforeEnd = first.leave
			w := entering(t.Context(), b, nil)
			require.True(t, w.runs())
			require.False(t, first.ended)
			require.Zero(t, b.ending)
		})
	})
}

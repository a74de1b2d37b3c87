package near

import (
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/stretchr/testify/require"
)

// A sweeping is one that was asked for.
type sweeping struct {
	removed atomic.Int64
	done    chan struct{}
}

func retire(c *Cache, tags ...string) *sweeping {
	s := &sweeping{done: make(chan struct{})}
	c.RetireAll(tags, &s.removed, s.done)
	return s
}

func (s *sweeping) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// halt keeps every sweep from getting past the entry of key, until release.
func halt(c *Cache, key string) (release func()) {
	held, released := make(chan struct{}), make(chan struct{})
	go c.store.Compute(key, func(*Entry, bool) (*Entry, otter.ComputeOp) {
		close(held)
		<-released
		return nil, otter.CancelOp
	})
	<-held
	return func() { close(released) }
}

func TestWhoAsksForASweepDoesNotWaitForIt(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	require.True(t, insert(c, "k", entry(clock, "v", time.Hour, learn(c, "tag", 7, nil).Validity)))
	release := halt(c, "k")
	s := retire(c, "tag")
	require.Nil(t, c.Get("k"), "it is out of date at once")
	require.False(t, s.over())
	require.Equal(t, 1, c.Len())
	release()
	<-s.done
	require.EqualValues(t, 1, s.removed.Load())
	require.Zero(t, c.Len())
}

func TestASweepCountsForEachInvalidationWhatItIsAbout(t *testing.T) {
	t.Parallel()
	inBubble(t, roomy, func(t *testing.T, c *Cache, clock *Clock) {
		put := func(n int, name string, ttl time.Duration, tags ...string) {
			var list []*Validity
			for _, tag := range tags {
				list = append(list, learnFirst(c, tag))
			}
			for i := range n {
				require.True(t, insert(c, name+strconv.Itoa(i), entry(clock, name, ttl, list...)))
			}
		}
		put(1, "of a", time.Hour, "a", "other")
		put(2, "of b", time.Hour, "other", "b")
		put(4, "of both", time.Hour, "b", "a")
		put(8, "of neither", time.Hour, "other")
		put(16, "expired of a", time.Second, "a")
		put(32, "of c and d", time.Hour, "c", "d")
		time.Sleep(time.Second)
		first, second, third, none := retire(c, "b", "never"), retire(c, "a"), retire(c, "c", "d"), retire(c, "a")
		for _, s := range []*sweeping{first, second, third, none} {
			<-s.done
		}
		require.EqualValues(t, 2+4, first.removed.Load())
		require.EqualValues(t, 1, second.removed.Load(), "what carries both counts once")
		require.EqualValues(t, 32, third.removed.Load())
		require.Zero(t, none.removed.Load(), "nothing rested on it any more")
		require.Equal(t, 8, c.Len())
		require.Empty(t, c.sweeper.counts, "what is swept takes no memory")
	})
}

func TestWhatIsInvalidatedDuringASweepIsCounted(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	require.True(t, insert(c, "a", entry(clock, "v", time.Hour, learnFirst(c, "tag a"))))
	const n = 100 // some of them before it for a sweep, and some behind
	for i := range n {
		require.True(t, insert(c, strconv.Itoa(i), entry(clock, "v", time.Hour, learnFirst(c, "tag b"))))
	}
	release := halt(c, "a")
	first := retire(c, "tag a")
	require.True(t, await(func() bool {
		c.sweeper.mu.Lock()
		defer c.sweeper.mu.Unlock()
		return c.sweeper.pending == nil
	}), "it is under way")
	second := retire(c, "tag b")
	release()
	<-second.done
	require.True(t, first.over())
	require.EqualValues(t, 1, first.removed.Load())
	require.EqualValues(t, n, second.removed.Load())
	require.Zero(t, c.Len())
}

func TestNoSweepIsBegunOfACacheThatIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _, shut := open(roomy)
		shut()
		s := retire(c, "tag")
		synctest.Wait()
		require.False(t, s.over())
	})
}

func TestSweepsTakeAFifthOfTheTime(t *testing.T) {
	t.Parallel()
	require.Zero(t, rest(0))
	require.Equal(t, 400*time.Millisecond, rest(100*time.Millisecond))
	require.Equal(t, sweepEvery, rest(time.Hour), "the process may have been stopped")
}

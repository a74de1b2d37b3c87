package history

import (
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// A source has counters that a test moves.
type source struct {
	mu    sync.Mutex
	calls map[string]uint64 // by label; half of them are hits; guarded by mu, as all below
	reads int
	ended bool
}

// add counts calls.
func (s *source) add(label string, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[label] += n
}

// end ends the history, and waits for its timer.
func (s *source) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	time.Sleep(Step)
	synctest.Wait()
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

func (s *source) metrics() aside.Metrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := aside.Metrics{At: time.Now(), Labels: map[string]aside.LabelMetrics{}, Redis: map[string]aside.Histogram{"read": times(s.calls["a"])}}
	for label, n := range s.calls {
		m.Labels[label] = aside.LabelMetrics{
			Hits: n / 2, Misses: n - n/2, Loads: n / 4, Errors: n / 8, Causes: map[aside.Cause]uint64{aside.CauseAbsent: n - n/2}, LoadTimes: times(n),
		}
	}
	return m
}

// times has n observations: of 1 s if n is above 1000, and of 1 ms up to that.
func times(n uint64) aside.Histogram {
	h := aside.Histogram{Count: n, Buckets: []aside.Bucket{{Upper: 0.001, Count: min(n, 1000)}}}
	if n > 1000 {
		h.Buckets = append(h.Buckets, aside.Bucket{Upper: 1, Count: n - 1000})
	}
	return h
}

func (s *source) read() (aside.Metrics, bool) {
	m := s.metrics()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return m, !s.ended
}

func TestAPeriodHasWhatItBrought(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{calls: map[string]uint64{"a": 1000, "b": 8}}
		h := New(s.read)
		defer s.end()
		for range 2 * 60 * 6 { // two hours
			time.Sleep(Step)
			synctest.Wait()
			s.add("a", 80)
		}
		for _, of := range []struct{ within, most time.Duration }{{time.Minute, 70 * time.Second}, {5 * time.Minute, 310 * time.Second}, {time.Hour, 65*time.Minute + Step}} {
			p := h.Last(of.within, s.metrics())
			require.GreaterOrEqual(t, p.Took, of.within)
			require.LessOrEqual(t, p.Took, of.most)
			// The calls of a step come at its end, just after the snapshot.
			calls := uint64(p.Took/Step)*80 + 80
			require.Equal(t, calls, p.Labels["a"].Calls, of.within)
			require.Equal(t, calls/2, p.Labels["a"].Hits)
			require.Equal(t, calls/2, p.Labels["a"].Causes[aside.CauseAbsent])
			require.Equal(t, calls, p.Labels["a"].LoadTimes.Count)
			require.Equal(t, 1.0, p.Labels["a"].LoadTimes.Quantile(0.01), "those of 1 ms are older")
			require.Equal(t, calls, p.Redis["read"].Count)
			require.Zero(t, p.Labels["b"].Calls)
			require.Equal(t, calls, p.Total.Calls)
		}
		life := h.Last(0, s.metrics())
		require.Zero(t, life.Took)
		require.Equal(t, s.calls["a"]+8, life.Total.Calls)
		require.Equal(t, s.calls["a"], life.Redis["read"].Count)
	})
}

func TestANewHistoryHasAShorterPeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{calls: map[string]uint64{"a": 1000}}
		h := New(s.read)
		defer s.end()
		time.Sleep(3 * time.Second)
		s.add("a", 60)
		s.add("new", 12)
		p := h.Last(time.Hour, s.metrics())
		require.Equal(t, 3*time.Second, p.Took)
		require.EqualValues(t, 60, p.Labels["a"].Calls)
		require.EqualValues(t, 12, p.Labels["new"].Calls, "a label of which no snapshot knows")
		require.Empty(t, h.Course().Labels, "there is one snapshot")
	})
}

func TestAHistoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{calls: map[string]uint64{}}
		h := New(s.read)
		defer s.end()
		for step := range 3 * 60 * 6 {
			s.add(fmt.Sprintf("label %02d", step%50), 8)
			time.Sleep(Step)
			synctest.Wait()
			h.mu.Lock()
			require.LessOrEqual(t, len(h.points), 361)
			require.LessOrEqual(t, len(h.whole), 50)
			h.mu.Unlock()
		}
		p := h.Last(0, s.metrics())
		require.Len(t, p.Labels, MostLabels+1)
		require.EqualValues(t, 3*60*6*8, p.Total.Calls, "nothing is lost")
		require.EqualValues(t, s.calls["label 00"], p.Labels["label 00"].Calls)
		var others uint64
		for i := MostLabels; i < 50; i++ {
			others += s.calls[fmt.Sprintf("label %02d", i)]
		}
		require.Equal(t, others, p.Labels[Others].Calls)

		c := h.Course()
		require.Len(t, c.Labels, MostLabels+1)
		require.Equal(t, time.Minute, c.Step)
		var calls, hits uint64
		for _, bars := range c.Labels {
			require.LessOrEqual(t, len(bars.Calls), MostBars)
			for i := range bars.Calls {
				calls, hits = calls+bars.Calls[i], hits+bars.Hits[i]
			}
		}
		require.InDelta(t, 360*8, calls, 12*8, "the last hour, but for a part that has begun before it, and one that has not ended")
		text, err := json.Marshal(c.Labels)
		require.NoError(t, err)
		require.Less(t, len(text), 16<<10)
		require.InDelta(t, calls/2, hits, 60*33)
	})
}

// As long as a part of a course is shown, it has the same numbers: the bars move, and do not change.
func TestThePartsOfACourseStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{calls: map[string]uint64{"a": 0}}
		h := New(s.read)
		defer s.end()
		known := map[time.Time]uint64{}
		for step := range uint64(2 * 60 * 6) {
			s.add("a", step*step%97)
			time.Sleep(Step)
			synctest.Wait()
			c := h.Course()
			if c.Step != time.Minute {
				continue
			}
			calls := c.Labels["a"].Calls
			for i, n := range calls {
				at := c.From.Add(time.Duration(i) * c.Step)
				if before, ok := known[at]; ok {
					require.Equal(t, before, n, at)
				}
				known[at] = n
			}
		}
		require.Greater(t, len(known), 60)
	})
}

func TestAHistoryEndsWithItsCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{calls: map[string]uint64{"a": 1}}
		h := New(s.read)
		stacks := make([]byte, 1<<20)
		require.NotContains(t, string(stacks[:runtime.Stack(stacks, true)]), "created by github.com/gatewayz/aside/asidehttp/internal/history.New", "it is a timer, and no goroutine")
		time.Sleep(10*Step + 1)
		require.Equal(t, 11, s.count())
		s.end()
		require.Equal(t, 12, s.count())
		time.Sleep(time.Hour)
		require.Equal(t, 12, s.count(), "the timer is not set again")
		require.EqualValues(t, 1, h.Last(0, s.metrics()).Total.Calls, "what it has stays")
	})
	s := &source{ended: true}
	h := New(s.read)
	require.Nil(t, h.timer)
	require.Zero(t, h.Last(time.Minute, s.metrics()).Total.Calls)
}

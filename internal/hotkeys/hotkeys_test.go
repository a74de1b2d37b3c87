package hotkeys

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A zipf draws keys by Zipf's law.
type zipf struct {
	cumulated []float64
	share     map[string]float64
	keys      []string // the most frequent first
}

func newZipf(keys int, exponent float64) *zipf {
	z := &zipf{share: make(map[string]float64, keys)}
	sum := 0.0
	for i := range keys {
		sum += math.Pow(float64(i+1), -exponent)
		z.cumulated = append(z.cumulated, sum)
		z.keys = append(z.keys, fmt.Sprint("items:", i))
	}
	for i, key := range z.keys {
		z.share[key] = math.Pow(float64(i+1), -exponent) / sum
	}
	return z
}

func (z *zipf) draw(r *rand.Rand) string {
	i, _ := slices.BinarySearch(z.cumulated, r.Float64()*z.cumulated[len(z.cumulated)-1])
	return z.keys[i]
}

// With 10,000 samples, the tenth key and the eleventh cannot always be told apart: their shares differ by less than chance does. So the true top ten
// are among the first so many.
func TestTheHottestKeysAreFoundAndTheirSharesAreWithinTheirBounds(t *testing.T) {
	t.Parallel()
	const samples, slots, seeds = 10_000, 100, 20
	for _, exponent := range []float64{1, 1.2, 1.5} {
		z := newZipf(10_000, exponent)
		all, off, exact := 0, 0, 0
		for seed := range uint64(seeds) {
			r := rand.New(rand.NewPCG(seed, 1))
			c := New(slots, 0)
			minutes := time.Duration(seed % 3) // in which the calls come
			at := func(i int) int64 { return int64(minutes*time.Minute) / samples * int64(i) }
			for i := range samples {
				c.Add(z.draw(r), at(i))
			}
			top := c.Top(at(samples))
			require.Len(t, top, slots)
			place := make(map[string]int)
			for i, k := range top {
				place[k.Key] = i
				all++
				if math.Abs(k.Share-z.share[k.Key]) > k.Within {
					off++
				}
				require.Less(t, k.Within, 0.03)
			}
			require.Equal(t, z.keys[0], top[0].Key)
			if minutes > 0 {
				continue // of earlier calls less is known
			}
			worst := 0
			for _, key := range z.keys[:10] {
				require.Contains(t, place, key)
				worst = max(worst, place[key])
			}
			require.Less(t, worst, 15)
			if worst < 10 {
				exact++
			}
		}
		require.LessOrEqual(t, off, all/300)
		require.GreaterOrEqual(t, exact, seeds/6, "mostly the true top ten are the first ten")
	}
}

// Whatever the order of the keys: the count of a slot is too large by its excess at most, and every key with more than one call in the number of
// slots has one.
func TestCountsAreWithinTheirExcess(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		slots, keys, calls := 1+r.IntN(20), 1+r.IntN(60), 1+r.IntN(2000)
		c := New(slots, 0)
		exact := make(map[string]float64)
		for i := range calls {
			key := fmt.Sprint(r.IntN(keys))
			if r.IntN(3) == 0 {
				key = fmt.Sprint(i) // one that comes once
			}
			exact[key]++
			c.Add(key, 0)
		}
		require.LessOrEqual(t, len(c.slots), slots)
		for i, s := range c.slots {
			require.LessOrEqual(t, exact[s.key], s.count)
			require.GreaterOrEqual(t, exact[s.key], s.count-s.excess)
			require.Equal(t, i, s.element)
			require.Same(t, s, c.byKey[s.key])
			require.LessOrEqual(t, c.slots[max(0, i-1)/2].count, s.count)
		}
		for key, n := range exact {
			if n > float64(calls)/float64(slots) {
				require.Contains(t, c.byKey, key)
			}
		}
	}
}

func TestCallsCountForHalfAfterAMinute(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return int64(time.Hour + d) }
	c := New(10, at(0))
	share := func(key string, d time.Duration) float64 {
		for _, k := range c.Top(at(d)) {
			if k.Key == key {
				return k.Share
			}
		}
		return 0
	}
	for range 1000 {
		c.Add("a", at(time.Second))
	}
	for range 1000 {
		c.Add("b", at(HalfLife+time.Second))
	}
	require.InDelta(t, 1.0/3, share("a", HalfLife+2*time.Second), 1e-9)
	require.InDelta(t, 2.0/3, share("b", HalfLife+2*time.Second), 1e-9)
	for range 1000 {
		c.Add("c", at(3*HalfLife)) // two more have passed
	}
	require.InDelta(t, 250.0/1375*0.5, share("a", 3*HalfLife), 1e-9)
	require.InDelta(t, 250.0/1375, share("b", 3*HalfLife), 1e-9)
	require.Len(t, c.Top(at(3*HalfLife)), 3)
	require.Empty(t, c.Top(at(time.Hour)), "after an hour without a call nothing is hot")
	c.Add("d", at(time.Hour))
	require.Equal(t, "d", c.Top(at(time.Hour))[0].Key)
}

func TestAShareOfFewCallsIsUncertain(t *testing.T) {
	t.Parallel()
	c := New(10, 0)
	c.Add("a", 0)
	require.Equal(t, []Key{{"a", 1, 1}}, c.Top(0))
	require.Empty(t, New(1, 0).Top(0))
}

func TestALongKeyIsShortened(t *testing.T) {
	t.Parallel()
	c := New(2, 0)
	long := strings.Repeat("k", Longest)
	c.Add(long+"1", 0)
	c.Add(long+"2", 0)
	require.Len(t, c.Top(0), 1)
	require.Equal(t, long, c.Top(0)[0].Key)
}

// A hit must not wait because another one is being counted.
func TestACallIsLeftOutWhileAnotherOneIsCounted(t *testing.T) {
	t.Parallel()
	c := New(2, 0)
	c.mu.Lock()
	c.Add("a", 0)
	c.mu.Unlock()
	require.Empty(t, c.Top(0))
}

func TestManyCountAtOnce(t *testing.T) {
	t.Parallel()
	c := New(20, 0)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				c.Add(fmt.Sprint((g+i)%100), int64(i)*int64(time.Second))
				if i%100 == 0 {
					for _, k := range c.Top(int64(i) * int64(time.Second)) {
						if k.Share < 0 || k.Share > 1 || k.Within < 0 || k.Within > 1 {
							t.Errorf("%+v", k)
						}
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAdd(b *testing.B) {
	z, r := newZipf(10_000, 1), rand.New(rand.NewPCG(1, 1))
	keys := make([]string, 1<<14)
	for i := range keys {
		keys[i] = z.draw(r)
	}
	c := New(100, 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Add(keys[i%len(keys)], 0)
	}
}

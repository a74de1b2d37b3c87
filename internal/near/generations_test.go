package near

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tagsOf are different tags of one shard, as many as are taken.
func tagsOf(c *Cache) func(yield func(tag string) bool) {
	return func(yield func(string) bool) {
		s := c.shard("0")
		for i := 0; ; i++ {
			if tag := strconv.Itoa(i); c.shard(tag) == s && !yield(tag) {
				return
			}
		}
	}
}

// collect has the garbage collector find out what nobody holds any more.
func collect() {
	runtime.GC()
	runtime.GC() // what a collection under way has marked before
}

func TestAGenerationThatAnEntryRestsOnIsNotForgotten(t *testing.T) {
	t.Parallel()
	const carried, passing = 200, 5000 // a shard of this cache holds a fifth of them for itself
	tests := map[string]func(c *Cache, tag string) *Validity{
		"it was read":                    func(c *Cache, tag string) *Validity { return learn(c, tag, 7, new(Validity)).Validity },
		"it was read, and then known":    func(c *Cache, tag string) *Validity { learn(c, tag, 7, nil); return c.Generation(tag).Validity },
		"it was read by two connections": learnTwice,
		"it was made here":               learnFirst,
		"its value is not known":         holdTag,
	}
	for name, know := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, clock := newCache(t, Options{MaxEntries: 1000, MaxBytes: 1 << 20})
			var tags []string
			passed := 0
			for tag := range tagsOf(c) {
				if len(tags) < carried {
					require.True(t, insert(c, "entry "+tag, entry(clock, tag, time.Hour, know(c, tag))))
					tags = append(tags, tag)
					continue
				}
				learn(c, tag, 1, nil)
				if passed++; passed%1000 == 0 {
					collect()
				}
				if passed == passing {
					break
				}
			}
			for _, tag := range tags {
				require.NotNil(t, c.Get("entry "+tag), "nothing has changed")
			}
			for i, tag := range tags {
				if i%2 == 0 {
					c.Retire(tag)
				} else {
					c.Push(tag)
				}
				require.Nil(t, c.Get("entry "+tag), "its tag was invalidated")
			}
		})
	}
}

func TestAGenerationThatALoadHasIsNotForgotten(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, Options{MaxEntries: 1000, MaxBytes: 1 << 20})
	var g *Generation
	passed := 0
	for tag := range tagsOf(c) {
		if g == nil {
			g = learn(c, tag, 7, nil)
		} else if learn(c, tag, 1, nil); passed == 5000 {
			break
		}
		passed++
	}
	collect()
	require.True(t, g.Valid(), "nothing has changed")
	c.Retire("0")
	require.False(t, g.Valid())
	require.False(t, insert(c, "k", entry(clock, "v", time.Hour, g.Validities(nil)...)), "its tag was invalidated during the load")
}

func learnFirst(c *Cache, tag string) *Validity {
	f := c.Fence(tag, nil)
	defer f.End()
	return c.LearnFirst(f, 7).Validity
}

func holdTag(c *Cache, tag string) *Validity {
	f := c.Fence(tag, nil)
	defer f.End()
	return c.Hold(f)
}

// learnTwice reads the generation of a tag through one connection, and then through another. What was stored with the first one
// carries its validity.
func learnTwice(c *Cache, tag string) *Validity {
	v := learn(c, tag, 7, new(Validity)).Validity
	learn(c, tag, 7, new(Validity))
	return v
}

func TestTheNumberOfGenerationsThatNobodyHoldsIsBounded(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		o    Options
		most int // for each shard
	}{
		"a small cache": {Options{MaxEntries: 1, MaxBytes: 1 << 20}, 1 << 10},
		"a large cache": {Options{MaxEntries: 64_000, MaxBytes: 1 << 20}, 2000 + 1<<10},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := newCache(t, test.o)
			s := c.shard("0")
			var tags []string
			known := func() (n int) {
				for _, tag := range tags {
					if c.Generation(tag) != nil {
						n++
					}
				}
				return n
			}
			for tag := range tagsOf(c) {
				require.NotNil(t, learn(c, tag, 1, nil))
				require.NotNil(t, c.Generation(tag), "the newest one is kept")
				tags = append(tags, tag)
				if len(tags) == test.most {
					collect()
					require.Equal(t, test.most, known(), "room that is there is used")
				}
				if len(tags)%test.most == 0 {
					collect()
					require.LessOrEqual(t, s.generations.Len(), 2*test.most)
				}
				if len(tags) == 6*test.most {
					break
				}
			}
			collect()
			require.Equal(t, test.most, known())
			for _, tag := range tags {
				c.Retire(tag)
			}
			require.Zero(t, known())
			require.Zero(t, s.generations.Len(), "a tag that was retired takes no memory")
		})
	}
}

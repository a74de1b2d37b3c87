// Package hotkeys finds the keys that are asked for most, from a sample of the calls, in bounded memory.
//
// It is the algorithm Space-Saving (Metwally, Agrawal and El Abbadi, 2005: "Efficient Computation of Frequent and Top-k Elements in Data Streams"). There
// are so many slots, each with a key and a count. A key without a slot takes the one with the smallest count, and that count with it: the count of a slot
// is too large by at most the count that it was taken with. So a key whose share of the calls is more than one in the number of slots always has a slot.
package hotkeys

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// OneIn is how many calls there are for each that is counted.
const OneIn = 1024

// HalfLife is how long it takes until a call counts for half.
const HalfLife = time.Minute

// Longest is how many bytes of a key are looked at. Longer keys that begin with the same bytes are counted together.
const Longest = 512

// A Counter counts keys. It is safe for concurrent use. Make it with New.
type Counter struct {
	mu      sync.Mutex
	most    int              // slots
	slots   []*slot          // a heap, the smallest count first; guarded by mu
	byKey   map[string]*slot // guarded by mu
	sum     float64          // of the weights of all calls that were counted; guarded by mu
	squares float64          // of the squares of these; guarded by mu
	halved  int64            // when the weights were halved last; guarded by mu
}

// A slot is a key with its count, the sum of the weights of its calls.
type slot struct {
	key     string
	count   float64
	excess  float64 // the count is too large by at most so much
	element int     // its index in the heap
}

// A Key is a key with its share of the calls.
type Key struct {
	Key    string
	Share  float64 // from 0 to 1
	Within float64 // how far off Share may be
}

// New makes a Counter with so many slots, which must be positive. now is the time, in nanoseconds on any clock.
func New(slots int, now int64) *Counter {
	return &Counter{most: slots, byKey: make(map[string]*slot, slots), halved: now}
}

// Add counts a call that was drawn. It does not block: while another goroutine counts, the call is left out. now is a time on the clock of New.
func (c *Counter) Add(key string, now int64) {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	c.halve(now)
	c.sum++
	c.squares++
	key = key[:min(len(key), Longest)]
	s := c.byKey[key]
	switch {
	case s != nil:
	case len(c.slots) < c.most:
		s = &slot{key: strings.Clone(key), element: len(c.slots)}
		c.byKey[s.key] = s
		c.slots = append(c.slots, s)
		c.up(s)
	default:
		s = c.slots[0]
		delete(c.byKey, s.key)
		s.key, s.excess = strings.Clone(key), s.count
		c.byKey[s.key] = s
	}
	s.count++
	c.down(s)
}

// halve halves all weights, once for each HalfLife that has passed.
func (c *Counter) halve(now int64) {
	times := (now - c.halved) / int64(HalfLife)
	if times <= 0 {
		return
	}
	c.halved += times * int64(HalfLife)
	factor := math.Pow(0.5, float64(times))
	if c.sum *= factor; c.sum < 1e-6 {
		c.slots, c.sum, c.squares = nil, 0, 0
		clear(c.byKey)
		return
	}
	c.squares *= factor * factor
	for _, s := range c.slots { // their order stays
		s.count *= factor
		s.excess *= factor
	}
}

// up moves a slot towards the smallest count.
func (c *Counter) up(s *slot) {
	for s.element > 0 {
		parent := c.slots[(s.element-1)/2]
		if parent.count <= s.count {
			return
		}
		c.swap(s, parent)
	}
}

// down moves a slot towards the largest counts.
func (c *Counter) down(s *slot) {
	for {
		first := 2*s.element + 1
		if first >= len(c.slots) {
			return
		}
		child := c.slots[first]
		if first+1 < len(c.slots) && c.slots[first+1].count < child.count {
			child = c.slots[first+1]
		}
		if s.count <= child.count {
			return
		}
		c.swap(s, child)
	}
}

func (c *Counter) swap(a, b *slot) {
	a.element, b.element = b.element, a.element
	c.slots[a.element], c.slots[b.element] = a, b
}

// Top returns the keys that have slots, the largest shares first. It may block for as long as a call of Top takes.
//
// The share of a key is in the middle of what it can be by the slot's count. Within is half of that range, and three standard deviations of a sample of so
// many calls. So the share of all calls is further off in about one of three hundred cases.
func (c *Counter) Top(now int64) []Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.halve(now)
	top := make([]Key, len(c.slots))
	for i, s := range c.slots {
		k := Key{Key: s.key, Share: (s.count - s.excess/2) / c.sum}
		// Of n calls with equal weights, squares/sum² is 1/n. The deviation is not 0 where none or all of the calls are of the key: one in n may be of
		// another kind.
		least := min(0.5, c.squares/(c.sum*c.sum))
		likely := min(max(k.Share, least), 1-least)
		k.Within = min(1, s.excess/2/c.sum+3*math.Sqrt(likely*(1-likely)*c.squares)/c.sum)
		top[i] = k
	}
	slices.SortFunc(top, func(a, b Key) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), strings.Compare(a.Key, b.Key))
	})
	return top
}

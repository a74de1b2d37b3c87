package near

import (
	"slices"
	"sync"
	"sync/atomic"
)

// remembered is how many retired tags a cache remembers.
const remembered = 256

// A retired remembers the tags that this process has retired last. The validity of a generation ends when its tag is retired, and also when Redis
// pushes any change of the tag's key, such as a longer life.
type retired struct {
	count atomic.Uint64 // how many were retired
	mu    sync.Mutex
	tags  [remembered]string // the last ones: that with number n is at n%remembered; guarded by mu
}

// Retired returns a mark for RetiredSince.
func (c *Cache) Retired() (mark uint64) { return c.retired.count.Load() }

// RetiredSince reports whether this process may have retired the tag after the mark was returned. It is exact for the last tags that were retired.
func (c *Cache) RetiredSince(tag string, mark uint64) bool {
	r := &c.retired
	if r.count.Load() == mark {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.count.Load() - mark
	if n >= remembered {
		return true
	}
	if from, to := mark%remembered, (mark+n)%remembered; from < to {
		return slices.Contains(r.tags[from:to], tag)
	} else {
		return slices.Contains(r.tags[from:], tag) || slices.Contains(r.tags[:to], tag)
	}
}

// note comes before the generation of the tag is revoked, under the same lock of a shard.
func (r *retired) note(tag string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.count.Load()
	r.tags[n%remembered] = tag
	r.count.Store(n + 1)
}

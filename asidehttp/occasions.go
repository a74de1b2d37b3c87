package asidehttp

import (
	"crypto/sha256"
	"sync"
	"time"
)

// occasions counts what has a line in the log at most once in refusedPause. The zero value is ready.
type occasions struct {
	mu       sync.Mutex
	since    int       // the last line; guarded by mu
	reported time.Time // when that was; guarded by mu
}

// count reports whether a line is due, and how many occasions it stands for.
func (o *occasions) count() (n int, due bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since++
	n = o.since
	if due = time.Since(o.reported) >= refusedPause; due {
		o.since, o.reported = 0, time.Now()
	}
	return n, due
}

// occasionsOfKeys are those of each valid key, so that none hides another. The zero value is ready.
type occasionsOfKeys struct {
	mu    sync.Mutex
	byKey map[[sha256.Size]byte]*occasions // as many as are configured; guarded by mu
}

// count is count of the occasions of a key.
func (o *occasionsOfKeys) count(key [sha256.Size]byte) (n int, due bool) {
	o.mu.Lock()
	own := o.byKey[key]
	if own == nil {
		if own = (&occasions{}); o.byKey == nil {
			o.byKey = make(map[[sha256.Size]byte]*occasions)
		}
		o.byKey[key] = own
	}
	o.mu.Unlock()
	return own.count()
}

// noted is what is refused, of which whoever sends much must not fill the log. All handlers of a cache count together: who asks two of them
// gets no more lines. The zero value is ready.
type noted struct {
	refused    occasions       // requests without a valid key
	denied     occasionsOfKeys // requests that their key's scopes do not allow
	turnedAway occasionsOfKeys // orders that were refused for want of room
}

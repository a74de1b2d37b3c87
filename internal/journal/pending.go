package journal

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
)

// An unconfirmed entry has one or more invalidations of one key, tag or pattern.
type unconfirmed struct {
	number   uint64     // of the last one
	waiters  []*Pending // the oldest first
	overflow bool       // it is for everything, since there was no room for names
	caller   string     // in whose share it is: see account
	since    time.Time  // when it was entered
}

// A Usage is what a Journal holds.
type Usage struct {
	Unconfirmed int           // entries
	Patterns    int           // of them
	Keys        int           // of them
	Tags        int           // of them, categories included, without the sequence
	Oldest      time.Duration // how long the oldest entry has waited; 0 without entries
}

// Usage returns what the journal holds. A nil journal holds nothing.
func (j *Journal) Usage() (u Usage) {
	if j == nil || j.waiting.Load() == 0 {
		return u
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	u.Unconfirmed, u.Patterns = len(j.entries), len(j.patterns)
	for name, e := range j.entries {
		u.Oldest = max(u.Oldest, time.Since(e.since))
		switch {
		case name == keyspace.Sequence:
		case keyspace.IsTag(name):
			u.Tags++
		case !strings.HasPrefix(name, keyspace.PatternPrefix):
			u.Keys++
		}
	}
	return u
}

// Waiting returns a Pending for each entry.
func (j *Journal) Waiting() (all []*Pending) {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, e := range j.entries {
		all = append(all, e.wait(name, j.sent))
	}
	return all
}

// A Pending is shared by the invalidations of one name between two tries to send it. Their callers wait with it.
type Pending struct {
	number    uint64        // of the last of their invalidations
	confirmed chan struct{} // closed when Redis has carried it out
	failed    chan struct{} // closed by Fail when a try has failed; nil but for a pattern
	failing   sync.Once
	count     *Count // nil for a key
}

// Confirmed is closed when Redis has carried out the invalidation.
func (p *Pending) Confirmed() <-chan struct{} { return p.confirmed }

// Failed is closed when a try to carry out a pattern has failed. It is nil but for a pattern.
func (p *Pending) Failed() <-chan struct{} { return p.failed }

// Count counts the values that are removed for the invalidation. It is nil for a key.
func (p *Pending) Count() *Count { return p.count }

// Fail closes Failed.
func (p *Pending) Fail() {
	if p.failed != nil {
		p.failing.Do(func() { close(p.failed) })
	}
}

// wait returns a Pending for the entry's last invalidation. Invalidations up to the number sent may be confirmed before the last one, so the last
// one does not share their Pending.
func (e *unconfirmed) wait(name string, sent uint64) *Pending {
	const most = 8 // bounds the list if each try fails and is followed by another invalidation
	n := len(e.waiters)
	if n > 0 && (e.waiters[n-1].number > sent || n >= most) {
		e.waiters[n-1].number = e.number
		return e.waiters[n-1]
	}
	w := &Pending{number: e.number, confirmed: make(chan struct{})}
	if strings.HasPrefix(name, "%") && name != keyspace.Sequence {
		w.count = NewCount()
	}
	if strings.HasPrefix(name, keyspace.PatternPrefix) {
		w.failed = make(chan struct{})
	}
	e.waiters = append(e.waiters, w)
	return w
}

// A Count counts the values that are removed for one or more invalidations.
type Count struct {
	Removed atomic.Int64
	Done    chan struct{} // closed when no more are removed
}

// NewCount makes a Count.
func NewCount() *Count { return &Count{Done: make(chan struct{})} }

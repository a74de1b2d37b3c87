// Package recent keeps the last events of one kind, in bounded memory, for people who ask what has just happened.
package recent

import (
	"strings"
	"sync"
)

// Most is how many events a Ring keeps.
const Most = 128

// A Ring keeps the last events. It is safe for concurrent use. The zero value is ready, and takes memory as events come. Its lock is held for a
// copy alone, so a Ring may be used under any other lock.
type Ring[T any] struct {
	mu     sync.Mutex
	events []T // guarded by mu
	oldest int // its index, once there are Most; guarded by mu
}

// Add adds an event, in place of the oldest one if there are Most. What an event refers to must not change any more.
func (r *Ring[T]) Add(event T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) < Most {
		r.events = append(r.events, event)
		return
	}
	r.events[r.oldest] = event
	r.oldest = (r.oldest + 1) % Most
}

// All returns the events, the oldest first. The list is the caller's.
func (r *Ring[T]) All() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]T, 0, len(r.events))
	all = append(all, r.events[r.oldest:]...)
	return append(all, r.events[:r.oldest]...)
}

// Texts returns copies of the first texts, at most so many, each shortened to so many bytes. The copies do not keep alive what the texts are parts of.
func Texts(texts []string, most, bytes int) []string {
	few := make([]string, min(len(texts), most))
	for i := range few {
		few[i] = Text(texts[i], bytes)
	}
	return few
}

// Text returns a copy of a text that is shortened to so many bytes, and an ellipsis.
func Text(text string, bytes int) string {
	if len(text) <= bytes {
		return strings.Clone(text)
	}
	return strings.ToValidUTF8(text[:bytes], "") + "…"
}

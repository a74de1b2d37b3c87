// Package weakmap finds values by name without keeping them alive. It is for values that must be found for as long as they are in use. A
// plain map of them would grow without bound.
package weakmap

import (
	"iter"
	"weak"
)

// A Map finds a value by its name for as long as the program references the value elsewhere. The Map itself holds the newest values, so
// these are found even without another reference. It is not safe for concurrent use. Make it with New.
type Map[V any] struct {
	byName  map[string]weak.Pointer[V]
	held    []*V // a ring
	oldest  int  // the oldest value in held, once held is full
	most    int  // how many values are held at most
	pruneAt int  // the number of names at which Note prunes
}

// New makes a Map that holds the newest values itself, at most so many.
func New[V any](most int) Map[V] { return Map[V]{most: most} }

// Find returns the value of a name. It returns nil if the name has none, or its value was collected.
func (m *Map[V]) Find(name string) *V { return m.byName[name].Value() }

// Note makes v the value of a name.
func (m *Map[V]) Note(name string, v *V) {
	if len(m.held) < m.most {
		m.held = append(m.held, v)
	} else {
		m.held[m.oldest] = v
		m.oldest = (m.oldest + 1) % m.most
	}
	if m.byName == nil || len(m.byName) >= m.pruneAt {
		m.prune()
	}
	m.byName[name] = weak.Make(v)
}

// Take returns the value of a name and removes the name.
func (m *Map[V]) Take(name string) *V {
	v := m.Find(name)
	delete(m.byName, name)
	return v
}

// All iterates over the values that Find would find.
func (m *Map[V]) All() iter.Seq2[string, *V] {
	return func(yield func(string, *V) bool) {
		for name, p := range m.byName {
			if v := p.Value(); v != nil && !yield(name, v) {
				return
			}
		}
	}
}

// Len returns how many names take memory.
func (m *Map[V]) Len() int { return len(m.byName) }

// prune removes the names whose values were collected. The next time it runs is when there are twice as many names as it leaves. So the
// cost of a name does not depend on how many there are.
func (m *Map[V]) prune() {
	left := make(map[string]weak.Pointer[V]) // a new map: one that was large once keeps its memory
	for name, v := range m.All() {
		left[name] = weak.Make(v)
	}
	m.byName, m.pruneAt = left, 2*max(len(left), m.most)
}

// Package weakmap finds values by name that somebody else holds. It is for what must be found for as long as it is in use, and
// of which there would be more and more if it were kept.
package weakmap

import (
	"iter"
	"weak"
)

// A Map finds a value by its name for as long as somebody holds it. The newest values it holds itself, so that they are found
// although nobody else does. It is not safe for concurrent use. Make it with New.
type Map[V any] struct {
	byName  map[string]weak.Pointer[V]
	held    []*V // a ring
	oldest  int  // of held, once it is full
	most    int  // how many are held
	pruneAt int  // how many names there are when those are looked for whose value nobody holds any more
}

// New makes a Map that holds most values itself.
func New[V any](most int) Map[V] { return Map[V]{most: most} }

// Find returns the value of a name, or nil: then nobody holds one.
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

// Take is Find, and the name has no value afterwards.
func (m *Map[V]) Take(name string) *V {
	v := m.Find(name)
	delete(m.byName, name)
	return v
}

// All are the values that Find would find.
func (m *Map[V]) All() iter.Seq2[string, *V] {
	return func(yield func(string, *V) bool) {
		for name, p := range m.byName {
			if v := p.Value(); v != nil && !yield(name, v) {
				return
			}
		}
	}
}

// Len is how many names take memory.
func (m *Map[V]) Len() int { return len(m.byName) }

// prune drops the names whose value nobody holds any more, as far as the garbage collector has found out. It then waits until
// there are twice as many as are left, so that a name costs the same however many there are.
func (m *Map[V]) prune() {
	left := make(map[string]weak.Pointer[V]) // a map that was large once stays so
	for name, v := range m.All() {
		left[name] = weak.Make(v)
	}
	m.byName, m.pruneAt = left, 2*max(len(left), m.most)
}

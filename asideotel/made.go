package asideotel

import "sync"

// made are values that are made once for each key: names, and sets of attributes. There are few of them. Where a program has labels without end, only the
// first are kept. The zero value is ready, and safe for concurrent use.
type made[K comparable, V any] struct {
	mu sync.RWMutex
	of map[K]V // guarded by mu
}

const mostMade = 4096

func (m *made[K, V]) get(key K, make func() V) V {
	m.mu.RLock()
	v, ok := m.of[key]
	m.mu.RUnlock()
	if ok {
		return v
	}
	v = make()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[K]V{}
	}
	if len(m.of) < mostMade {
		m.of[key] = v
	}
	return v
}

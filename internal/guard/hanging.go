package guard

import "sync"

// Hanging counts, for each address, the calls of a function of the program's that have not returned in time. Each keeps a goroutine,
// perhaps for ever, so their number is bounded: the function is then not called for that address until one of them has returned.
// Other addresses may work. A nil Hanging counts nothing.
type Hanging struct {
	mu    sync.Mutex
	calls map[string]int // guarded by mu
}

const mostHanging = 3

// Full reports whether no further call may begin.
func (h *Hanging) Full(addr string) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[addr] >= mostHanging
}

// Note counts a call that should have returned, or with -1 one that has returned at last.
func (h *Hanging) Note(addr string, n int) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls == nil {
		h.calls = make(map[string]int)
	}
	if h.calls[addr] += n; h.calls[addr] == 0 {
		delete(h.calls, addr)
	}
}

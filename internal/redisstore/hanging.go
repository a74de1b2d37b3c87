package redisstore

import "sync"

// Hanging counts, for each address, the calls of a function of the program's that have not returned in time. Each keeps a goroutine, for
// ever perhaps, so there are only so many: then the function is not called for that address until one of them has returned. Another
// address may be well. A nil one counts nothing.
type Hanging struct {
	mu    sync.Mutex
	calls map[string]int // guarded by mu
}

const mostHanging = 3

// Full reports whether there is to be no further call.
func (h *Hanging) Full(addr string) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[addr] >= mostHanging
}

// Note counts a call that should have returned, or with -1 one that has at last.
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

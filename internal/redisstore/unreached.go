package redisstore

import (
	"sync"
)

// unreached are addresses that could not be reached when they were last tried. They are tried last the next time: a Sentinel on a
// dead host costs the time limit of a dial.
type unreached struct {
	mu    sync.Mutex
	addrs map[string]bool // guarded by mu
}

func (u *unreached) note(addr string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		delete(u.addrs, addr)
		return
	}
	if u.addrs == nil {
		u.addrs = make(map[string]bool)
	}
	if len(u.addrs) < mostUnreached {
		u.addrs[addr] = true
	}
}

const mostUnreached = 64

// last returns a copy of addrs with the unreached ones at the end.
func (u *unreached) last(addrs []string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var first, last []string
	for _, addr := range addrs {
		if u.addrs[addr] {
			last = append(last, addr)
		} else {
			first = append(first, addr)
		}
	}
	return append(first, last...)
}

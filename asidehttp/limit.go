package asidehttp

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxClients = 4096 // buckets of their own, some 100 bytes each
	maxHops    = 32   // addresses of X-Forwarded-For that are looked at
	sweepPause = time.Second
)

// A limiter is a token bucket for each client. Several limiters can have their buckets in common: what a client has taken by one of them
// counts for all, and each says how many it may take, and how fast they come back.
type limiter struct {
	rate, burst float64 // tokens a second, and at most
	proxies     []netip.Prefix
	*buckets
}

type buckets struct {
	mu      sync.Mutex
	clients map[netip.Prefix]*bucket // guarded by mu, as all below
	rest    bucket                   // of the clients for which there was no room
	swept   time.Time
}

type bucket struct {
	taken float64 // tokens that have not come back yet
	at    time.Time
}

// take takes a token from the client's bucket. Where there is none it returns in how long there will be.
func (l *limiter) take(client netip.Addr) (wait time.Duration, ok bool) {
	if l.rate < 0 {
		return 0, true
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucketOf(client, now)
	b.taken = l.taken(b, now)
	b.at = now
	if missing := b.taken + 1 - l.burst; missing > 0 {
		return time.Duration(missing / l.rate * float64(time.Second)), false
	}
	b.taken++
	return 0, true
}

func (l *limiter) taken(b *bucket, now time.Time) float64 {
	return max(0, b.taken-l.rate*max(0, now.Sub(b.at).Seconds()))
}

// bucketOf wants mu. A bucket that is full again says no more than one that was never used, so those make room. Were a used one
// thrown out for a newcomer, a client with many addresses could have its own forgotten.
func (l *limiter) bucketOf(client netip.Addr, now time.Time) *bucket {
	bits := 32
	if client.Is6() {
		bits = 64 // what one subscriber has for himself at least
	}
	id, _ := client.Prefix(bits) // the zero one for the zero address: those share a bucket
	if b := l.clients[id]; b != nil {
		return b
	}
	if len(l.clients) >= maxClients && now.Sub(l.swept) >= sweepPause {
		l.swept = now
		for id, b := range l.clients {
			if l.taken(b, now) <= 0 {
				delete(l.clients, id)
			}
		}
	}
	if len(l.clients) >= maxClients {
		return &l.rest
	}
	b := &bucket{at: now}
	l.clients[id] = b
	return b
}

// client returns the address that a request comes from, the zero one where it cannot be told.
func (l *limiter) client(r *http.Request) netip.Addr {
	addr := parseAddr(r.RemoteAddr)
	if !l.trusts(addr) {
		return addr
	}
	// Each proxy appends whom it got the request from: what is to the left of the first one that is not ours anybody may have
	// written.
	list := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	for hop := 0; list != "" && hop < maxHops; hop++ {
		i := strings.LastIndexByte(list, ',')
		next := parseAddr(strings.TrimSpace(list[i+1:]))
		list = list[:max(i, 0)]
		if !next.IsValid() {
			break
		}
		if addr = next; !l.trusts(addr) {
			break
		}
	}
	return addr
}

func (l *limiter) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(l.proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// parseAddr reads an address with or without a port.
func parseAddr(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		withPort, _ := netip.ParseAddrPort(text)
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone("")
}

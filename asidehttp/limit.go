package asidehttp

import (
	"crypto/sha256"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxClients = 4096        // buckets in each table of clients, some 100 bytes each
	maxHops    = 32          // addresses of X-Forwarded-For that are read, from the right
	sweepPause = time.Second // between two searches for full buckets
)

// A limiter has a token bucket for each valid key, and one for each client that sends requests without a valid key. Such requests use no tokens
// of a key. Limiters with the same rate and burst can share their buckets.
type limiter struct {
	rate, burst float64 // tokens a second, and the size of a bucket
	proxies     []netip.Prefix
	*buckets
}

// buckets are the token buckets of limiters with one rate and burst.
type buckets struct {
	mu      sync.Mutex
	keys    map[[sha256.Size]byte]*bucket // by digest, as many as are configured; guarded by mu, as all below
	clients map[netip.Prefix]*bucket
	wider   map[netip.Prefix]*bucket // shared by clients of one network, if clients is full
	rest    bucket                   // shared by all others, if wider is full too
	swept   time.Time
}

func newBuckets() *buckets {
	return &buckets{keys: make(map[[sha256.Size]byte]*bucket), clients: make(map[netip.Prefix]*bucket), wider: make(map[netip.Prefix]*bucket)}
}

// A bucket is full at first.
type bucket struct {
	taken float64 // tokens that were missing at the time at
	at    time.Time
}

// takeKey takes a token from the bucket of a valid key. If there is none, it returns the time until there is.
func (l *limiter) takeKey(sum [sha256.Size]byte) (wait time.Duration, ok bool) {
	return l.takeFrom(func(now time.Time) *bucket {
		b := l.keys[sum]
		if b == nil {
			b = &bucket{at: now}
			l.keys[sum] = b
		}
		return b
	})
}

// take takes a token from the bucket of a client that has sent no valid key.
func (l *limiter) take(client netip.Addr) (wait time.Duration, ok bool) {
	return l.takeFrom(func(now time.Time) *bucket { return l.bucketOf(client, now) })
}

// takeFrom takes a token from the bucket that bucketAt returns. It calls bucketAt with mu held.
func (l *limiter) takeFrom(bucketAt func(now time.Time) *bucket) (wait time.Duration, ok bool) {
	if l.rate < 0 {
		return 0, true
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := bucketAt(now)
	b.taken = l.taken(b, now)
	b.at = now
	if missing := b.taken + 1 - l.burst; missing > 0 {
		return time.Duration(missing / l.rate * float64(time.Second)), false
	}
	b.taken++
	return 0, true
}

// taken is how many tokens of a bucket are missing now.
func (l *limiter) taken(b *bucket, now time.Time) float64 {
	return max(0, b.taken-l.rate*max(0, now.Sub(b.at).Seconds()))
}

// bucketOf returns the bucket of a client. It is called with mu held. A full bucket is dropped to make room, since it equals a new one. No other
// bucket is dropped: a client with many addresses could get rid of its own in that way. Clients for which there is no room share the bucket of
// their network.
func (l *limiter) bucketOf(client netip.Addr, now time.Time) *bucket {
	narrow, wide := 32, 8
	if client.Is6() {
		narrow = 64 // one subscriber has at least such a network
		wide = 16
	}
	if len(l.clients) >= maxClients && now.Sub(l.swept) >= sweepPause {
		l.swept = now
		l.sweep(l.clients, now)
		l.sweep(l.wider, now)
	}
	id, _ := client.Prefix(narrow) // the zero prefix for unknown addresses, which share a bucket
	if b := l.in(l.clients, id, now); b != nil {
		return b
	}
	id, _ = client.Prefix(wide)
	if b := l.in(l.wider, id, now); b != nil {
		return b
	}
	return &l.rest
}

// in returns the bucket of id, or nil if the table has no room for it. It is called with mu held.
func (l *limiter) in(table map[netip.Prefix]*bucket, id netip.Prefix, now time.Time) *bucket {
	b := table[id]
	if b == nil && len(table) < maxClients {
		b = &bucket{at: now}
		table[id] = b
	}
	return b
}

// sweep drops full buckets. It is called with mu held.
func (l *limiter) sweep(table map[netip.Prefix]*bucket, now time.Time) {
	for id, b := range table {
		if l.taken(b, now) <= 0 {
			delete(table, id)
		}
	}
}

// client returns the address of a request's client, or the zero address if it is unknown.
func (l *limiter) client(r *http.Request) netip.Addr {
	addr := parseAddr(r.RemoteAddr)
	if !l.trusts(addr) {
		return addr
	}
	// Each proxy appends the address that it got the request from. So the list is read from the right. The client may have forged everything
	// before the first address that is not a trusted proxy.
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

// parseAddr parses an address with or without a port.
func parseAddr(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		withPort, _ := netip.ParseAddrPort(text)
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone("")
}

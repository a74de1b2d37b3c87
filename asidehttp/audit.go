package asidehttp

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/logs"
)

// audit logs who has invalidated what. It logs no secret: keys of the cache contain hashes of user ids.
func (h *handler) audit(ctx context.Context, who visitor, o order, c *count, p *problem, took time.Duration) {
	if p != nil && p.after > 0 {
		h.gate.turnAway(who)
		return
	}
	if h.gate.audits.sumUp(who, o, c, p) {
		return
	}
	names := make(quoted, 0, mostNamed)
	for _, name := range o.names[:min(len(o.names), mostNamed)] {
		names = append(names, shortened(name))
	}
	text := "asidehttp: invalidated"
	attrs := []slog.Attr{
		slog.String("key", who.name), slog.String("client", who.addr.String()),
		slog.String("by", o.selector), slog.Any("names", names), slog.Int("count", len(o.names)),
		slog.Duration("took", took),
	}
	if p != nil {
		text = "asidehttp: not invalidated"
		attrs = append(attrs, slog.Int("status", p.status), slog.String("error", p.detail))
	} else {
		attrs = append(attrs, slog.Int("status", http.StatusOK), slog.Int64("removed", c.removed()),
			slog.Bool("complete", c.Complete), slog.Bool("confirmed", *c.Confirmed))
	}
	h.gate.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, text, attrs...)
}

// auditWarm logs who has started a warmer.
func (h *handler) auditWarm(ctx context.Context, who visitor, o order, running bool) {
	if h.gate.audits.sumUp(who, o, nil, nil) {
		return
	}
	text := "asidehttp: warming ordered"
	h.gate.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, text,
		slog.String("key", who.name), slog.String("client", who.addr.String()), slog.String("name", shortened(o.names[0])),
		slog.Bool("already_running", running))
}

// auditBypass logs who has had calls bypass the cache, or has ended that. Each order has a line of its own.
func (h *handler) auditBypass(ctx context.Context, who visitor, o order, p *problem) {
	attrs := []slog.Attr{
		slog.String("key", who.name), slog.String("client", who.addr.String()), slog.String("category", shortened(o.names[0])), slog.Bool("on", o.on),
	}
	text := "asidehttp: bypass ordered"
	if p != nil {
		text = "asidehttp: bypass not ordered"
		attrs = append(attrs, slog.Int("status", p.status), slog.String("error", p.detail))
	}
	h.gate.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, text, attrs...)
}

// An order has a log line of its own while its key sends no more than auditRate orders a second on average, and auditBurst at once. Further orders
// are summed up in one line a second, so that many orders do not fill the log.
const (
	auditRate  = 1
	auditBurst = 10
)

// audits sums up the orders of a key that sends many.
type audits struct {
	log   *slog.Logger // guarded: a timer calls it, and its handler may block
	limit *limiter

	mu   sync.Mutex
	sums map[[sha256.Size]byte]*sum // by key, of orders without a line so far; guarded by mu
}

func newAudits(log *slog.Logger) *audits {
	return &audits{
		log: logs.Guard(log), limit: &limiter{rate: auditRate, burst: auditBurst, buckets: newBuckets()},
		sums: make(map[[sha256.Size]byte]*sum),
	}
}

// A sum is the orders of one key since its last line.
type sum struct {
	who                                            visitor // the sender of the first order
	since                                          time.Time
	orders, names, failed, incomplete, unconfirmed int
	removed                                        int64
	by                                             map[string]int // the number of orders by selector, and of those for everything
	first                                          quoted         // the first names
	problem                                        string         // the error of the last order that failed
}

// sumUp adds an order to the next line of its key. It returns false if the order gets a line of its own now.
func (a *audits) sumUp(who visitor, o order, c *count, p *problem) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sums[who.sum]
	if s == nil {
		wait, ok := a.limit.takeKey(who.sum)
		if ok {
			return false
		}
		s = &sum{who: who, since: time.Now(), by: make(map[string]int)}
		a.sums[who.sum] = s
		time.AfterFunc(wait+time.Millisecond, func() { a.write(who.sum) })
	}
	s.add(o, c, p)
	return true
}

func (s *sum) add(o order, c *count, p *problem) {
	s.orders++
	s.names += len(o.names)
	kind := o.selector
	if kind == byCategory && o.names[0] == everything {
		kind = "everything"
	}
	s.by[kind]++
	if len(s.first) < mostNamed {
		s.first = append(s.first, shortened(o.names[0]))
	}
	if p != nil {
		s.failed++
		s.problem = p.detail
		return
	}
	if c == nil { // an order to warm removes nothing
		return
	}
	s.removed += c.removed()
	if !c.Complete {
		s.incomplete++
	}
	if !*c.Confirmed {
		s.unconfirmed++
	}
}

// write logs the summary of one key.
func (a *audits) write(key [sha256.Size]byte) {
	a.mu.Lock()
	s := a.sums[key]
	delete(a.sums, key)
	a.limit.takeKey(key) // a summary counts as one line
	a.mu.Unlock()
	by := make([]any, 0, len(s.by))
	for _, kind := range []string{"everything", byCategory, byPattern, byKeys, byTags, byWarm} {
		if n := s.by[kind]; n > 0 {
			by = append(by, slog.Int(kind, n))
		}
	}
	attrs := []slog.Attr{
		slog.String("key", s.who.name), slog.String("client", s.who.addr.String()), slog.Int("orders", s.orders), slog.Group("by", by...),
		slog.Any("names", s.first), slog.Int("count", s.names), slog.Int64("removed", s.removed), slog.Int("incomplete", s.incomplete),
		slog.Int("unconfirmed", s.unconfirmed), slog.Int("failed", s.failed), slog.Duration("within", time.Since(s.since)),
	}
	if s.problem != "" {
		attrs = append(attrs, slog.String("error", s.problem))
	}
	text := "asidehttp: invalidated (summary)"
	a.log.LogAttrs(context.Background(), slog.LevelInfo, text, attrs...)
}

// Package asidehttp serves the administration of an aside cache over HTTP, and notifies web front ends of its invalidations.
//
//	mux.Handle("/api/cache/invalidate", asidehttp.Handler(c, asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret(os.Getenv("CACHE_API_KEY"))}}))
//
// [Handler], [Metrics] and [Health] return http.Handlers, for the standard library's mux and for other routers: chi takes them
// directly, gin through gin.WrapH, echo through echo.WrapHandler. A [Revalidator] sends invalidations to a web front end.
//
// It is a package of its own, so that a backend without these handlers does not import net/http.
package asidehttp

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/nearby"
)

// Handler returns the administration API of a cache:
//
//	POST                       {"category":"models"}, {"pattern":"sessions:ABC:*"}, {"keys":["models:all:all"]} or {"tags":["supplier 3"]}
//	GET  ?metrics=true         as Metrics does
//	GET  ?metrics=true&pattern=models:*
//
// A request needs Authorization: Bearer with one of the keys of o.
//
// A POST (Content-Type: application/json, at most 64 KiB) has one of these selectors:
//
//   - "category": a category of c.Policies, or "all" for everything, which needs ScopeAll. List policies in Options.Policies, rows of
//     aside.TTL included, so that their categories are known before their first use.
//   - "pattern": see aside.ParsePattern.
//   - "keys": up to 1,000 keys as Key.String returns them, see Policy.ParseKey.
//   - "tags": up to 1,000 tags.
//
// Optional fields are "wait", how many seconds the response may take, from 0 to 30 (default 5), and "dry_run": true, which counts matching
// entries and invalidates nothing. The response is
//
//	{"success":true,"invalidated":{"redis_entries":12,"complete":true,"confirmed":true,"took_ms":1.9},"timestamp":1763700000000}
//
// When the response arrives, this process no longer serves older values of the selected entries. redis_entries is the number of removed
// entries; in memory mode it is memory_entries. complete says whether the removal was finished within wait; otherwise it goes on in the
// background. confirmed says whether Redis has acknowledged the invalidation; otherwise it is retried until it has.
//
// A dry run has "dry_run":true and "matched" instead of "invalidated", and needs ScopeRead too, since it shows what a listing shows. Two
// requests count at a time, one of each key, for 4 s at most, for a category twice as long. A dry run that takes longer than that, or than
// wait, is not complete.
//
// The server's WriteTimeout must be longer than wait. Its ReadTimeout bounds the time to read the body of a request with a valid key. A request
// that is refused before its body is read is answered at once, and its connection is closed.
//
// Invalid requests have no effect. The response is an RFC 9457 problem document that says how to fix the request: 400
// (malformed), 401 (no valid key), 403 (the key lacks the scope), 405 (wrong method), 413 (the body is too large),
// 415 (not JSON), 422 (an unknown category, an invalid pattern or key, or a name of more than 1,024 bytes), 429 (too many
// requests, with Retry-After) and 503 (the cache is closed; Redis is unavailable and a dry run cannot count; or too many invalidations of keys
// without ScopeAll are pending, with Retry-After). Responses have Cache-Control: no-store.
func Handler(c *aside.Cache, o Options) http.Handler {
	h := newHandler(c, o)
	return h.gate.guard(func(w http.ResponseWriter, r *http.Request, who visitor) *problem {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			return h.show(w, r, who, true)
		case http.MethodPost:
			return h.post(w, r, who)
		}
		return notAllowed(w, "GET, HEAD, POST", "use POST to invalidate, or GET with ?metrics=true")
	})
}

type handler struct {
	cache *aside.Cache
	gate  *gate
	turns *turns // as in shared
}

func newHandler(c *aside.Cache, o Options) *handler {
	with := sharedOf(c)
	h := &handler{cache: c, gate: newGate(o), turns: with.turns}
	h.gate.noted = with.noted
	h.gate.limit.buckets = with.bucketsOf(allowance{h.gate.limit.rate, h.gate.limit.burst})
	return h
}

// A gate checks keys and rates of requests.
type gate struct {
	keys  *keyring
	limit *limiter
	log   *slog.Logger

	audits *audits

	*noted // as in shared
}

// refuse logs a request without a valid key, at most every ten seconds: many requests must not fill the log.
func (g *gate) refuse(client netip.Addr) {
	if n, due := g.refused.Count(); due {
		g.log.Warn("asidehttp: refused: no valid key", "client", client.String(), "requests", n)
	}
}

func newGate(o Options) *gate {
	g := &gate{log: o.logger(), noted: new(noted)}
	g.audits = newAudits(g.log)
	var errs [2]error
	g.keys, errs[0] = o.keyring()
	g.limit, errs[1] = o.limiter()
	if err := errors.Join(errs[:]...); err != nil {
		g.log.Error("asidehttp: invalid options ignored, they grant no access", "error", err)
	}
	if len(g.keys.list) == 0 {
		g.log.Warn("asidehttp: no key is configured: every request is denied")
	}
	return g
}

// A visitor is the sender of a request with a valid key.
type visitor struct {
	credential
	addr netip.Addr
}

// guard checks the key first, which takes one hash, and then the rate: requests without a valid key use up nothing of a key's allowance.
func (g *gate) guard(next func(http.ResponseWriter, *http.Request, visitor) *problem) http.Handler {
	serve := func(w http.ResponseWriter, r *http.Request) *problem {
		addr := g.limit.client(r)
		who, known := g.keys.find(r)
		var wait time.Duration
		var ok bool
		if known {
			wait, ok = g.limit.takeKey(who.sum)
		} else {
			g.refuse(addr)
			wait, ok = g.limit.take(addr)
		}
		if !ok {
			seconds := int64(min(max(wait+time.Second-1, time.Second), time.Hour) / time.Second)
			w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
			return newProblem(http.StatusTooManyRequests, "too many requests: wait as many seconds as Retry-After says")
		}
		if !known {
			w.Header().Set("WWW-Authenticate", `Bearer realm="aside"`)
			return newProblem(http.StatusUnauthorized, "send Authorization: Bearer with a key of this service")
		}
		return next(w, r, visitor{who, addr})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		harden(w.Header())
		if r.Method != http.MethodPost {
			leaveBody(w, r)
		}
		if p := serve(w, r); p != nil {
			if !p.bodyRead {
				leaveBody(w, r)
			}
			p.write(w)
		}
	})
}

// allow returns a problem if a key lacks the wanted scopes.
func (g *gate) allow(w http.ResponseWriter, who visitor, wanted scopes) *problem {
	if who.may&wanted == wanted {
		return nil
	}
	scope := wanted.wanted()
	if n, due := g.denied.count(who.sum); due {
		g.log.Warn("asidehttp: denied", "key", who.name, "client", who.addr.String(), "scope", scope, "requests", n)
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="aside", error="insufficient_scope", scope="`+string(scope)+`"`)
	return newProblem(http.StatusForbidden, "this key lacks the scope %q: send one that has it", scope)
}

// An answer to a POST.
type answer struct {
	Success     bool   `json:"success"`
	DryRun      bool   `json:"dry_run,omitempty"`
	Invalidated *count `json:"invalidated,omitempty"`
	Matched     *count `json:"matched,omitempty"`
	Timestamp   int64  `json:"timestamp"` // milliseconds
}

type count struct {
	RedisEntries  int64   `json:"redis_entries"`
	MemoryEntries *int64  `json:"memory_entries,omitempty"` // in memory mode
	Complete      bool    `json:"complete"`
	Confirmed     *bool   `json:"confirmed,omitempty"`
	TookMS        float64 `json:"took_ms"`
}

func (h *handler) post(w http.ResponseWriter, r *http.Request, who visitor) *problem {
	if p := h.gate.allow(w, who, mayInvalidate); p != nil {
		return p
	}
	if r.URL.RawQuery != "" {
		return badRequest("a POST has no query: %s", example)
	}
	o, p := readOrder(w, r)
	if p == nil {
		if p = h.carryOut(w, r, who, o); p != nil {
			p.bodyRead = true
		}
	}
	return p
}

func (h *handler) carryOut(w http.ResponseWriter, r *http.Request, who visitor, o order) *problem {
	if o.dryRun { // its response shows what a listing shows
		if p := h.gate.allow(w, who, mayRead); p != nil {
			return p
		}
	}
	if o.selector == byCategory && o.names[0] == everything {
		if p := h.gate.allow(w, who, mayEmpty); p != nil {
			return p
		}
	}
	s, p := h.resolve(o)
	if p != nil {
		return p
	}
	start := time.Now()
	a := answer{Success: true, DryRun: o.dryRun}
	ctx, cancel := context.WithTimeout(r.Context(), o.wait)
	defer cancel()
	if o.dryRun {
		a.Matched, p = h.matched(ctx, who, s)
	} else {
		a.Invalidated, p = h.invalidated(onBehalfOf(ctx, who), s)
		h.audit(r.Context(), who, o, a.Invalidated, p, time.Since(start))
	}
	if p != nil {
		return p
	}
	done := a.Invalidated
	if o.dryRun {
		done = a.Matched
	}
	done.TookMS = milliseconds(time.Since(start))
	a.Timestamp = time.Now().UnixMilli()
	write(w, http.StatusOK, "application/json", a)
	return nil
}

// everything is the category that stands for all categories.
const everything = "all"

// A selection is an order with the names resolved to the cache's types.
type selection struct {
	kind     string // everything, or a selector
	category *aside.Policy
	pattern  aside.Pattern
	keys     []aside.Key
	policies []*aside.Policy // of the keys
	tags     []string
}

// resolve resolves the names of an order.
func (h *handler) resolve(o order) (s selection, p *problem) {
	known := policies(h.cache.Policies())
	_, unusable := h.cache.Invalidate(context.Background()) // without keys: reports only whether the cache is usable
	if unusable != nil && !errors.Is(unusable, aside.ErrClosed) {
		return s, problemOf(aside.ErrClosed) // a nil cache
	}
	defer func() {
		if p != nil && unusable != nil {
			p = problemOf(aside.ErrClosed) // a closed cache knows no names, so this is the real cause
		}
	}()
	s.kind = o.selector
	switch o.selector {
	case byCategory:
		if o.names[0] == everything {
			s.kind = everything
			return s, nil
		}
		s.category, p = known.of(o.names[0])
	case byPattern:
		s.pattern, p = known.pattern(o.names[0])
	case byKeys:
		for i, text := range o.names {
			category, _, _ := strings.Cut(text, ":")
			policy, p := known.of(category)
			if p != nil {
				return s, unacceptable("keys[%d] is not a key: %s", i, p.detail)
			}
			key, err := policy.ParseKey(text)
			if err != nil {
				return s, unacceptable("keys[%d]: %s", i, message(err))
			}
			s.keys, s.policies = append(s.keys, key), append(s.policies, policy)
		}
	case byTags:
		s.tags = o.names
	}
	return s, p
}

type policies []aside.Policy

// of returns one of the policies of a category.
func (known policies) of(category string) (*aside.Policy, *problem) {
	var names []string
	for i := range known {
		if known[i].Category == category {
			return &known[i], nil
		}
		names = append(names, known[i].Category)
	}
	if len(names) == 0 {
		return nil, unacceptable("there is no category %s: this server has used none yet, and lists none in Options.Policies; %s is everything", quote(category), everything)
	}
	return nil, unacceptable("there is no category %s: the categories are %s, and %s for everything",
		quote(category), nearby.Names(category, names), everything)
}

// pattern parses a pattern, which must begin with a known category: another one is probably misspelt.
func (known policies) pattern(text string) (aside.Pattern, *problem) {
	pattern, err := aside.ParsePattern(text)
	if err != nil {
		return pattern, unacceptable("%s", message(err))
	}
	category, _, _ := strings.Cut(text, ":")
	_, p := known.of(category)
	return pattern, p
}

// invalidated invalidates a selection, and waits for confirmation and cleanup until ctx ends.
func (h *handler) invalidated(ctx context.Context, s selection) (*count, *problem) {
	var receipt aside.Receipt
	var err error
	switch s.kind {
	case everything:
		receipt, err = h.cache.InvalidateAll(ctx)
	case byCategory:
		receipt, err = h.cache.InvalidateCategory(ctx, s.category.Category)
	case byPattern:
		receipt, err = h.cache.InvalidatePattern(ctx, s.pattern)
	case byKeys:
		receipt, err = h.cache.Invalidate(ctx, s.keys...)
	case byTags:
		receipt, err = h.cache.InvalidateTags(ctx, s.tags...)
	}
	if err != nil {
		return nil, problemOf(err)
	}
	confirmed := receipt.Confirmed || receipt.Wait(ctx) == nil
	removed, err := receipt.WaitCleanup(ctx)
	return h.counted(removed, err == nil && confirmed, &confirmed), nil
}

// counted puts the number of entries in the field for Redis or for memory mode.
func (h *handler) counted(n int64, complete bool, confirmed *bool) *count {
	c := &count{RedisEntries: n, Complete: complete, Confirmed: confirmed}
	if h.cache.Health().State == aside.StateMemory {
		c.RedisEntries, c.MemoryEntries = 0, &n
	}
	return c
}

// problemOf turns an error of the cache into a problem for the client.
func problemOf(err error) *problem {
	if own := (*aside.Error)(nil); errors.As(err, &own) {
		if own.Code == aside.CodeOverloaded {
			return noRoom(own)
		}
		return unacceptable("%s", own.Message)
	}
	return newProblem(http.StatusServiceUnavailable, "the cache is closed: this server is stopping, ask another one")
}

func message(err error) string {
	if own := (*aside.Error)(nil); errors.As(err, &own) {
		return own.Message
	}
	return err.Error()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// audit logs who has invalidated what. It logs no secret. Keys contain hashes of user ids.
func (h *handler) audit(ctx context.Context, who visitor, o order, c *count, p *problem, took time.Duration) {
	if p != nil && p.after > 0 {
		h.gate.turnAway(who)
		return
	}
	if h.gate.audits.sumUp(who, o, c, p) {
		return
	}
	const most = 10 // names, of 128 bytes each
	names := make(quoted, 0, most)
	for _, name := range o.names[:min(len(o.names), most)] {
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

// shortened shortens a name for the log.
func shortened(name string) string {
	if len(name) > mostOfName {
		return strings.ToValidUTF8(name[:mostOfName], "") + "…"
	}
	return name
}

func (c *count) removed() int64 {
	if c.MemoryEntries != nil {
		return *c.MemoryEntries
	}
	return c.RedisEntries
}

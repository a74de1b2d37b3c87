package asidehttp

import (
	"net/http"
	"net/url"

	"github.com/gatewayz/aside"
)

// AdminHandler returns the administration API of a cache:
//
//	POST                       {"category":"models"}, {"pattern":"sessions:ABC:*"}, {"keys":["models:all:all"]} or {"tags":["supplier 3"]}
//	GET  ?metrics=true         as Metrics does
//	GET  ?metrics=true&pattern=models:*
//	POST                       {"warm":"models"}
//	GET  ?warm=models
//	POST                       {"bypass":"models","on":true}
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
// entries; in memory mode the count is in memory_entries, and redis_entries is 0. complete says whether the removal was finished within wait; otherwise it goes on in the
// background. confirmed says whether Redis has acknowledged the invalidation; otherwise it is retried until it has.
//
// A dry run has "dry_run":true and "matched" instead of "invalidated", and needs ScopeRead too, since it shows what a listing shows. Two
// requests count at a time, one for each bearer key. Counting stops after 4 s, for a category after 8 s, and at the end of wait. A dry run
// that is stopped is not complete.
//
// "warm" starts a function of Options.Warmers in the background, unless a run of that name is running, and needs ScopeWarm. It goes alone. The
// response has status 202:
//
//	{"success":true,"warm":{"name":"models","already_running":false},"timestamp":1763700000000}
//
// GET ?warm=models, with ScopeRead or ScopeWarm, shows whether it runs, and what became of the ids of the last run in this process:
//
//	{"warm":{"name":"models","running":false,"runs":1,"errors":0,"last":{"started":"…","ended":"…","seen":500,"fresh":12,"loaded":480,
//	 "not_found":8,"failed":0,"elsewhere":false,"took_ms":1520.3}}}
//
// "bypass" has the calls of a category, or of "all", bypass the cache in this process, and with "on":false ends that: see Cache.Bypass. It needs
// ScopeAll, goes with "on" alone, and is an invalid request with "dry_run". The response has what is bypassed now:
//
//	{"success":true,"bypassed":["models"],"timestamp":1763700000000}
//
// The server's WriteTimeout must be longer than wait. Its ReadTimeout bounds the time to read the body of a request with a valid key. A request
// that is refused before its body is read is answered at once, and its connection is closed.
//
// Invalid requests have no effect. The response is an RFC 9457 problem document that says how to fix the request: 400
// (malformed), 401 (no valid key), 403 (the key lacks the scope), 405 (wrong method), 413 (the body is too large),
// 415 (not JSON), 422 (an unknown category or warmer, an invalid pattern or key, or a name of more than 1,024 bytes), 429 (too many
// requests, with Retry-After) and 503 (the cache is closed; Redis is unavailable and a dry run cannot count; or too many invalidations of keys
// without ScopeAll are pending, with Retry-After). Responses have Cache-Control: no-store.
func AdminHandler(c *aside.Cache, o Options) http.Handler {
	h := newHandler(c, o)
	return h.gate.guard(func(w http.ResponseWriter, r *http.Request, who visitor) *problem {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			if query, err := url.ParseQuery(r.URL.RawQuery); err == nil && query.Has("warm") {
				return h.showWarmer(w, who, query)
			}
			return h.show(w, r, who, true)
		case http.MethodPost:
			return h.post(w, r, who)
		}
		return notAllowed(w, "GET, HEAD, POST", "use POST to invalidate, or GET with ?metrics=true")
	})
}

// A handler is what AdminHandler, Metrics and Dashboard have in common.
type handler struct {
	cache *aside.Cache
	gate  *gate
	turns *turns // all handlers of a cache share them

	warmers  warmers
	warmings *warmings // all handlers of a cache share them
}

func newHandler(c *aside.Cache, o Options) *handler { return newHandlerFor(c, o, nil) }

// newHandlerFor returns a handler that admits the program's own sessions too, unless s is nil.
func newHandlerFor(c *aside.Cache, o Options, s session) *handler {
	with := sharedOf(c)
	h := &handler{cache: c, gate: newGate(o, s), turns: with.turns, warmings: &with.warmings}
	h.warmers, _ = o.warmers() // the gate logs the errors
	h.gate.noted = with.noted
	h.gate.limit.buckets = with.bucketsOf(allowance{h.gate.limit.rate, h.gate.limit.burst})
	return h
}

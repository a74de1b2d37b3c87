package asidehttp

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gatewayz/aside"
)

// Metrics returns a handler that answers GET with the cache's counters by label, and with the keys of a pattern if the query has one:
//
//	{"metrics":{"models":{"hits":1250,"misses":50,"errors":0,"hitRate":0.96,…},…},
//	 "redis":{"total_keys":3,"pattern":"models:*","keys":["models:all:all",…],"complete":true}}
//
// It needs a key with ScopeRead. "keys" has at most 100 keys. Counting scans Redis in small portions, for 4 s at most. Two requests to all
// handlers of the cache count at a time, one of each key; others wait for their turn, 5 s at most. "complete" is false if that was not enough,
// or if Redis failed, and "error" then says why. The server's WriteTimeout must be longer than both together. In memory mode "memory" replaces
// "redis". Handler serves the same, with ?metrics=true.
func Metrics(c *aside.Cache, o Options) http.Handler {
	h := newHandler(c, o)
	return h.gate.guard(func(w http.ResponseWriter, r *http.Request, who visitor) *problem {
		if !reads(r) {
			return notAllowed(w, "GET, HEAD", "use GET, with ?pattern=models:* to see keys too")
		}
		return h.show(w, r, who, false)
	})
}

func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// show answers with the metrics. If explicit is set, the query must have metrics=true.
func (h *handler) show(w http.ResponseWriter, r *http.Request, who visitor, explicit bool) *problem {
	if p := h.gate.allow(w, who, mayRead); p != nil {
		return p
	}
	const form = "use ?metrics=true, with &pattern=models:* to see keys too"
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("the query cannot be read: %s", form)
	}
	for name, values := range query {
		if name != "pattern" && name != "metrics" || len(values) > 1 {
			return badRequest("the query has a parameter that is not known, or one twice: %s", form)
		}
	}
	if query.Get("metrics") != "true" && (explicit || query.Has("metrics")) {
		return badRequest("say what to show: %s, or POST to invalidate", form)
	}
	var a struct {
		aside.Metrics
		Redis  *keys `json:"redis,omitempty"`
		Memory *keys `json:"memory,omitempty"`
	}
	if query.Has("pattern") {
		pattern, p := policies(h.cache.Policies()).pattern(query.Get("pattern"))
		if p != nil {
			return p
		}
		if list := h.list(r.Context(), who, pattern); h.cache.Health().State == aside.StateMemory {
			a.Memory = list
		} else {
			a.Redis = list
		}
	}
	a.Metrics = h.cache.Metrics()
	write(w, http.StatusOK, "application/json", a)
	return nil
}

// keys are the cached keys that match a pattern.
type keys struct {
	TotalKeys int64    `json:"total_keys"`
	Pattern   string   `json:"pattern"`
	Keys      []string `json:"keys"`
	Complete  bool     `json:"complete"`
	Error     string   `json:"error,omitempty"`
}

func (h *handler) list(ctx context.Context, who visitor, pattern aside.Pattern) *keys {
	const most = 100
	list := &keys{Pattern: pattern.String(), Keys: []string{}} // [] and not null
	waiting, cancel := context.WithTimeout(ctx, defaultWait)
	defer cancel()
	err := h.count(ctx, waiting, who, pattern, func(info aside.KeyInfo) bool {
		if len(list.Keys) < most && !slices.Contains(list.Keys, info.Key) {
			list.Keys = append(list.Keys, info.Key)
		}
		return true
	}, &list.TotalKeys)
	slices.Sort(list.Keys)
	if list.Complete = err == nil; err != nil {
		list.Error = message(err)
	}
	return list
}

// count counts the cached entries of a pattern until ctx or its turn ends. It waits for its turn until waiting ends.
func (h *handler) count(ctx, waiting context.Context, who visitor, pattern aside.Pattern, counts func(aside.KeyInfo) bool, n *int64) error {
	end, err := h.turns.take(waiting, who.sum)
	if err != nil {
		return errNoTurn
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, mostOfATurn)
	defer cancel()
	for info, err := range h.cache.Keys(ctx, pattern) {
		if ctx.Err() != nil {
			return errTurnOver
		}
		if err != nil {
			return err
		}
		if counts(info) {
			*n++
		}
	}
	return nil
}

// matched counts what a selection would invalidate, until ctx ends.
func (h *handler) matched(ctx context.Context, who visitor, s selection) (*count, *problem) {
	patterns := []aside.Pattern{s.pattern} // the zero one, of everything, for tags and everything
	counts := func(aside.KeyInfo) bool { return true }
	switch s.kind {
	case byCategory:
		patterns = []aside.Pattern{s.category.Match(aside.Wildcard), s.category.Match()} // the latter of the key without parts
	case byKeys:
		patterns = patterns[:0]
		var texts []string
		wanted := setOf(s.keys, aside.Key.String)
		for i, key := range s.keys {
			name, match := s.policies[i].Category, s.policies[i].Match(aside.Wildcard)
			if key.String() == name { // it has no parts
				match = s.policies[i].Match()
			}
			if !slices.Contains(texts, match.String()) {
				texts = append(texts, match.String())
				patterns = append(patterns, match)
			}
		}
		counts = func(info aside.KeyInfo) bool {
			found := wanted[info.Key]
			delete(wanted, info.Key) // Redis may show it again
			return found
		}
	case byTags:
		wanted := setOf(s.tags, func(tag string) string { return tag })
		counts = func(info aside.KeyInfo) bool {
			return slices.ContainsFunc(info.Tags, func(tag string) bool { return wanted[tag] })
		}
	}
	var n int64
	for _, pattern := range patterns {
		err := h.count(ctx, ctx, who, pattern, counts, &n)
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, errTurnOver):
			return h.counted(n, false, nil), nil
		default:
			return nil, newProblem(http.StatusServiceUnavailable, "what there is cannot be counted now: %s", message(err))
		}
	}
	return h.counted(n, true, nil), nil
}

func setOf[T any](list []T, name func(T) string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, v := range list {
		set[name(v)] = true
	}
	return set
}

// HealthOptions configures Health. The zero value is valid.
type HealthOptions struct {
	// FailDegraded makes Health answer 503 while the cache is degraded, for an alert. Do not use it for a load balancer: an outage of Redis
	// would remove all servers at once, although they still serve.
	FailDegraded bool
}

// Health returns a handler that answers GET with the cache's health:
//
//	{"state":"connected","since":"2025-11-21T08:00:00Z","tracking":true}
//
// The status is 200 while the cache is degraded too, since it still serves, unless o.FailDegraded is set. It is 503 once the cache is closed.
// The handler needs no key, since probes have none. It shows no hosts, keys or users.
func Health(c *aside.Cache, o HealthOptions) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		harden(w.Header())
		leaveBody(w, r)
		if !reads(r) {
			notAllowed(w, "GET, HEAD", "use GET").write(w)
			return
		}
		health, status := c.Health(), http.StatusOK
		_, closed := c.Invalidate(r.Context()) // of no key: it only says whether it could
		if closed != nil || o.FailDegraded && health.State == aside.StateDegraded {
			status = http.StatusServiceUnavailable
		}
		write(w, status, "application/json", health)
	})
}

// Tags is the default of RevalidatorOptions.Map. It maps an invalidation to tags of the front end, with a prefix for each kind:
// "category:models", "key:models:openrouter:all", "tag:supplier 3", and "all" for everything. A pattern is mapped to its category. So give
// a page that shows a gateway's models the tags "all", "category:models" and "key:models:openrouter:all". Keys are Within their category, and
// tags Within "tags": a page with tags of the cache needs the tag "tags" too.
func Tags(i aside.Invalidation) []Target {
	var targets []Target
	for _, key := range i.Keys {
		category, _, _ := strings.Cut(key, ":")
		targets = append(targets, Target{Tag: "key:" + key, Within: "category:" + category})
	}
	for _, tag := range i.Tags {
		targets = append(targets, Target{Tag: "tag:" + tag, Within: "tags"})
	}
	category, _, _ := strings.Cut(i.Pattern, ":")
	for _, name := range []string{i.Category, category} {
		if name != "" {
			targets = append(targets, Target{Tag: "category:" + name})
		}
	}
	if i.All {
		targets = append(targets, Target{Tag: everything})
	}
	return targets
}

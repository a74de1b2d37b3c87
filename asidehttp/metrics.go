package asidehttp

import (
	"net/http"
	"net/url"

	"github.com/gatewayz/aside"
)

// Metrics returns a handler that answers GET with the cache's counters by label, and with the keys of a pattern if the query has one:
//
//	{"metrics":{"models":{"hits":1250,"misses":50,"errors":0,"hitRate":0.96,…},…},
//	 "redis":{"total_keys":3,"pattern":"models:*","keys":["models:all:all",…],"complete":true}}
//
// It needs a key with ScopeRead. "keys" has at most 100 keys. Counting scans Redis in small portions, for 4 s at most. Two requests to all
// handlers of the cache count at a time, one for each bearer key. Other requests wait for their turn, 5 s at most. "complete" is false if a
// request got no turn or was stopped, or if Redis failed; "error" then says why. The server's WriteTimeout must be longer than 9 s. In memory
// mode "memory" replaces "redis". AdminHandler serves the same, with ?metrics=true.
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

// show answers with the metrics. If explicit is set, the query must have metrics=true, as that of AdminHandler.
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

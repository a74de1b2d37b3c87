// Package asidehttp serves the administration of an aside cache over HTTP, for any router that takes an http.Handler.
//
//	mux.Handle("/api/cache/invalidate", asidehttp.Handler(c, asidehttp.Options{APIKeys: []string{os.Getenv("CACHE_API_KEY")}}))
//
// It is a package of its own so that a backend that mounts nothing does not import net/http for it.
package asidehttp

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/gatewayz/aside"
)

// Options configures a Handler.
type Options struct {
	// APIKeys are the bearer keys that are let in, several for the time of a rotation. White space around them does not
	// count, and empty ones are passed over, so that a variable that is not set opens nothing. Without any key every
	// request is denied.
	APIKeys []string
}

// Format writes no key, whatever the verb.
func (o Options) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "asidehttp.Options{%d keys}", len(digests(o.APIKeys)))
}

// LogValue is Format for slog's handlers.
func (o Options) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// Handler answers
//
//	GET ?metrics=true    Authorization: Bearer KEY
//
// with the cache's counters by label:
//
//	{"metrics":{"models":{"hits":1250,"misses":50,"errors":0,"hitRate":0.96,…},…}}
//
// Everything else is refused with problem details (RFC 9457): 401 without a known key, 405 for other methods, 400 for
// a query that it does not know. No answer may be stored by anyone (Cache-Control: no-store).
func Handler(c *aside.Cache, o Options) http.Handler {
	return &handler{cache: c, keys: digests(o.APIKeys)}
}

type handler struct {
	cache *aside.Cache
	keys  [][sha256.Size]byte
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !h.authorized(r) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="aside"`)
		problem(w, http.StatusUnauthorized, "send Authorization: Bearer with a key of this service")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem(w, http.StatusMethodNotAllowed, "use GET with ?metrics=true")
		return
	}
	query := r.URL.Query()
	for name := range query {
		if name != "metrics" {
			problem(w, http.StatusBadRequest, "the query has a parameter other than metrics: use ?metrics=true")
			return
		}
	}
	if query.Get("metrics") != "true" {
		problem(w, http.StatusBadRequest, "say what to show: use ?metrics=true")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(h.cache.Metrics()) // the client has gone: nobody is left to tell
}

// digests hashes keys, so that all have one length and are compared in constant time, and drops empty ones.
func digests(keys []string) (sums [][sha256.Size]byte) {
	for _, key := range keys {
		if key = strings.TrimSpace(key); key != "" { // a key that was read from a file often ends with a newline
			sums = append(sums, sha256.Sum256([]byte(key)))
		}
	}
	return sums
}

// authorized compares with every key, also after a match, so that the time tells neither which one nor how much of it.
func (h *handler) authorized(r *http.Request) bool {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(key)))
	match := 0
	for i := range h.keys {
		match |= subtle.ConstantTimeCompare(sum[:], h.keys[i][:])
	}
	return match == 1 && strings.EqualFold(scheme, "Bearer")
}

// problem writes problem details as RFC 9457 defines them.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(status), status, detail})
}

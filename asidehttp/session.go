package asidehttp

import (
	"crypto/sha256"
	"net/http"
	"strings"
)

// A session asks DashboardOptions.Allow who sends a request.
type session func(*http.Request) (name string, scopes []Scope)

// find returns the credential of a request without a key. A request with a bearer key that is not known is refused, so that a wrong key is noticed.
// So is a request that another site has caused: a browser adds cookies to it.
func (s session) find(r *http.Request) (who credential, ok bool) {
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return credential{}, false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return credential{}, false
	}
	name, list := s(r)
	var may scopes
	for _, scope := range list {
		may |= scopeBits[scope] // an unknown scope grants nothing
	}
	if may == 0 {
		return credential{}, false
	}
	if name == "" {
		name = "session"
	}
	// The digest is that of no key: a key has 1,024 bytes at most, and no session its name.
	return credential{sum: sha256.Sum256([]byte("session\x00" + strings.Repeat("\x00", maxKey) + name)), name: name, may: may}, true
}

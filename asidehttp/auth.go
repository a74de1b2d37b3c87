package asidehttp

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// scopes are the permissions of a key, a bit each.
type scopes uint8

const (
	mayRead scopes = 1 << iota
	mayInvalidate
	mayEmpty // invalidate everything
	mayWarm
	maySeeValues
)

var scopeBits = map[Scope]scopes{
	ScopeRead:       mayRead,
	ScopeInvalidate: mayInvalidate,
	ScopeWarm:       mayWarm,
	ScopeValues:     maySeeValues,
	ScopeAll:        mayRead | mayInvalidate | mayEmpty | mayWarm | maySeeValues,
}

// wanted names the scope that a key lacks.
func (s scopes) wanted() Scope {
	switch s {
	case mayRead:
		return ScopeRead
	case mayInvalidate:
		return ScopeInvalidate
	case mayWarm:
		return ScopeWarm
	case maySeeValues:
		return ScopeValues
	}
	return ScopeAll
}

// A credential is a key as the handler keeps it, without its secret.
type credential struct {
	sum  [sha256.Size]byte
	name string
	may  scopes
}

// A keyring is the keys of a handler's options.
type keyring struct {
	list  []credential
	equal func(a, b []byte) int // in constant time
}

func newKeyring() *keyring { return &keyring{equal: subtle.ConstantTimeCompare} }

// find returns the credential of a request's key. Its duration shows neither which key is close nor how much of it is right: it compares
// digests, which have one length and no prefix that a client could choose, and it compares all keys, even after a match. A request without a
// key takes the same path. A key that is configured twice has the scopes of both entries.
func (r *keyring) find(req *http.Request) (who credential, ok bool) {
	scheme, secret := "", ""
	if sent := req.Header.Values("Authorization"); len(sent) == 1 {
		scheme, secret, _ = strings.Cut(sent[0], " ")
		secret = strings.TrimSpace(secret)
	}
	if len(secret) > maxKey || !strings.EqualFold(scheme, "Bearer") {
		secret = ""
	}
	sum := sha256.Sum256([]byte(secret))
	found, may := 0, 0
	for i := range r.list {
		equal := r.equal(sum[:], r.list[i].sum[:])
		found = subtle.ConstantTimeSelect(equal, i+1, found)
		may |= subtle.ConstantTimeSelect(equal, int(r.list[i].may), 0)
	}
	if found == 0 || secret == "" {
		return credential{}, false
	}
	who = r.list[found-1]
	who.may = scopes(may)
	return who, true
}

package asidehttp

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// A gate admits requests: it checks their keys, their rates and their scopes.
type gate struct {
	keys     *keyring
	sessions session // nil: nobody is admitted without a key
	limit    *limiter
	log      *slog.Logger

	audits *audits

	*noted // all handlers of a cache share it
}

func newGate(o Options, s session) *gate {
	g := &gate{sessions: s, log: o.logger(), noted: new(noted)}
	g.audits = newAudits(g.log)
	var errs [3]error
	g.keys, errs[0] = o.keyring()
	g.limit, errs[1] = o.limiter()
	_, errs[2] = o.warmers()
	if err := errors.Join(errs[:]...); err != nil {
		g.log.Error("asidehttp: invalid options ignored, they grant no access", "error", err)
	}
	if len(g.keys.list) == 0 && s == nil {
		g.log.Warn("asidehttp: no key is configured: every request is denied")
	}
	return g
}

// A visitor is the sender of a request with a valid key.
type visitor struct {
	credential
	addr netip.Addr
}

// guard returns a handler that calls next for admitted requests. It checks the key first, which takes one hash, and then the rate. So requests
// without a valid key use up nothing of a key's allowance.
func (g *gate) guard(next func(http.ResponseWriter, *http.Request, visitor) *problem) http.Handler {
	serve := func(w http.ResponseWriter, r *http.Request) *problem {
		addr := g.limit.client(r)
		who, known := g.keys.find(r)
		if !known && g.sessions != nil {
			who, known = g.sessions.find(r)
		}
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

// allow returns a problem if a key lacks one of the wanted scopes, and logs it at most every ten seconds for each key.
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

// refuse logs a request without a valid key. It logs at most every ten seconds, so that many requests do not fill the log.
func (g *gate) refuse(client netip.Addr) {
	if n, due := g.refused.Count(); due {
		g.log.Warn("asidehttp: refused: no valid key", "client", client.String(), "requests", n)
	}
}

package asidehttp

import (
	"context"
	"net/http"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/outside"
)

// onBehalfOf names the key of an order, and marks the orders of a key without ScopeAll. While Redis is unavailable, invalidations are
// pending. When there is no more room for them, the cache invalidates everything instead. It refuses a marked order before that happens.
func onBehalfOf(ctx context.Context, who visitor) context.Context {
	ctx = aside.WithActor(ctx, who.name)
	if who.may&mayEmpty != 0 {
		return ctx
	}
	return outside.With(ctx, string(who.sum[:])) // two keys may have one name
}

// turnAway logs an order that is refused because too many invalidations are pending, at most every ten seconds for each key.
func (g *gate) turnAway(who visitor) {
	if n, due := g.turnedAway.count(who.sum); due {
		g.log.Warn("asidehttp: not invalidated: too many pending invalidations", "key", who.name, "client", who.addr.String(), "requests", n)
	}
}

// noRoom is the problem for such an order.
func noRoom(err *aside.Error) *problem {
	p := newProblem(http.StatusServiceUnavailable, "%s: wait as many seconds as Retry-After says", err.Message)
	p.after = err.RetryAfter
	return p
}

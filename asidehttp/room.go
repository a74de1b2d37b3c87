package asidehttp

import (
	"context"
	"net/http"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/outside"
)

// onBehalfOf marks what a key orders that may not invalidate everything. While Redis is away, what is invalidated waits for it, and
// where there is no more room for that, everything is invalidated instead. What is so marked is refused before.
func onBehalfOf(ctx context.Context, who visitor) context.Context {
	if who.may&mayEmpty != 0 {
		return ctx
	}
	return outside.With(ctx, string(who.sum[:])) // two keys may have one name
}

// noRoom is the problem of an order that was refused for want of room.
func noRoom(err *aside.Error) *problem {
	p := newProblem(http.StatusServiceUnavailable, "%s: wait as many seconds as Retry-After says", err.Message)
	p.after = err.RetryAfter
	return p
}

// turnAway notes an order that was refused for want of room: whoever sends many must not fill the log.
func (g *gate) turnAway(who visitor) {
	if n, due := g.turnedAway.count(who.sum); due {
		g.log.Warn("asidehttp: not invalidated: too many pending invalidations", "key", who.name, "client", who.addr.String(), "requests", n)
	}
}

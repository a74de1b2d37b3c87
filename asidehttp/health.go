package asidehttp

import (
	"net/http"

	"github.com/gatewayz/aside"
)

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
		_, closed := c.Invalidate(r.Context()) // without keys: reports only whether the cache is closed
		if closed != nil || o.FailDegraded && health.State == aside.StateDegraded {
			status = http.StatusServiceUnavailable
		}
		write(w, status, "application/json", health)
	})
}

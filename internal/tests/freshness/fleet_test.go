package freshness_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/fleet"
	"github.com/gatewayz/aside/internal/redistest"
)

// The short form of make freshness: eight operating-system processes ask for one key all the time, over several expiries.
func TestAnExpiryIsOneLoadOfAFleet(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *fleet.Config){
		"Stale":        func(c *fleet.Config) { c.Strategy.Stale = c.TTL },
		"RefreshAhead": func(c *fleet.Config) { c.Strategy.RefreshAhead = 0.5 },
		"both":         func(c *fleet.Config) { c.Strategy.Stale, c.Strategy.RefreshAhead = c.TTL, 0.5 },
		"Stale, and the process that loads is killed": func(c *fleet.Config) {
			c.Strategy.Stale, c.KillEvery, c.LeaseTTL = 2*c.TTL, 2, time.Second
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			o := asidetest.At(server.Addr())
			c := fleet.Config{
				Processes: 8, Process: "fleet", Rate: 200, TTL: 2 * time.Second, Load: 200 * time.Millisecond, For: 7 * time.Second, OpTimeout: o.OpTimeout,
				Addr: server.Addr(), Username: o.Redis.Username, Password: o.Redis.Password, Cluster: !o.Redis.ForceSingleClient,
			}
			change(&c)
			r := fleet.Run(t, c)
			t.Logf("%+v", r)
			require.Empty(t, r.Broken(c))
			require.Equal(t, c.KillEvery > 0, r.Killed > 0)
		})
	}
}

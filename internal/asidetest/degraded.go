package asidetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// Away makes a cache whose server is killed once the cache has something in memory.
func Away(t *testing.T, o aside.Options, prepare func(c *aside.Cache)) *aside.Cache {
	t.Helper()
	server := redistest.Start(t)
	o.Redis, o.OpTimeout = At(server.Addr()).Redis, At(server.Addr()).OpTimeout
	c := Connected(t, o)
	prepare(c)
	server.Kill()
	Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	return c
}

func RequireStale(t *testing.T, c *aside.Cache, key aside.Key, want string, opts ...aside.CallOption) {
	t.Helper()
	r, err := aside.Lookup(t.Context(), c, key, Value("loaded"), opts...)
	require.NoError(t, err)
	require.Equal(t, aside.StatusStale, r.Status)
	require.Equal(t, aside.TierMemory, r.Tier)
	require.Equal(t, want, r.Value)
	require.Zero(t, r.TTL)
	require.Equal(t, "redis is unavailable", r.Reason)
}

func RequireLoaded(t *testing.T, c *aside.Cache, key aside.Key, opts ...aside.CallOption) {
	t.Helper()
	r, err := aside.Lookup(t.Context(), c, key, Value("loaded"), opts...)
	require.NoError(t, err)
	require.Equal(t, aside.StatusFallback, r.Status)
	require.Equal(t, "loaded", r.Value)
}

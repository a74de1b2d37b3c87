package asidehttp_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

func connectedTo(t *testing.T, addr string, told func(aside.Invalidation)) *aside.Cache {
	t.Helper()
	c, err := aside.New(aside.Options{
		Redis: rueidis.ClientOption{InitAddress: []string{addr}}, Logger: slog.New(slog.DiscardHandler), DegradedTTL: time.Hour,
		Policies: []aside.Policy{aside.TTL.UserProfile, aside.TTL.ModelsAll}, OnInvalidated: told,
	})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	eventually(t, "connected", func() bool { return c.Health().State == aside.StateConnected })
	return c
}

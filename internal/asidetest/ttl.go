package asidetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// TTLOf is the time that a value just loaded under p may be served. The clock of a bubble stands still, so it is exact.
func TTLOf(t *testing.T, c *aside.Cache, p *aside.Policy, opts ...aside.CallOption) time.Duration {
	t.Helper()
	r, err := aside.Lookup(t.Context(), c, p.Key(t.Name(), "fresh"), func(context.Context) (string, error) { return "v", nil }, append(opts, aside.Refresh())...)
	require.NoError(t, err)
	again, err := aside.Lookup[string](t.Context(), c, p.Key(t.Name(), "fresh"), func(context.Context) (string, error) {
		return "", fmt.Errorf("%s was not stored", p.Name)
	})
	require.NoError(t, err)
	require.Equal(t, r.TTL, again.TTL, "what the loading caller is told is what the next one finds")
	return r.TTL
}

// Unreachable is a loader that must not be reached.
func Unreachable(context.Context) (string, error) { return "", fmt.Errorf("the loader was called") }

package freshness_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 230: Redis takes longer to store a value than the value lives.
func TestNobodyJoinsALoadWhoseValueIsNotFreshAnyMore(t *testing.T) {
	t.Parallel()
	w := asidetest.Watch(t, redistest.Start(t))
	for attempt := 1; ; attempt++ {
		key := brief(func(*aside.Policy) {}).Key(attempt)
		gate := w.Proxy.HoldRequests(func(args []string) bool { return asidetest.IsFill(args, key.String()) })
		r, err := aside.Lookup(t.Context(), w.Cache, key, asidetest.Value("old"))
		require.NoError(t, err)
		ends := time.Now().Add(r.TTL)
		gate.Wait(t)
		late := func() (string, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			return aside.GetOrLoad(ctx, w.Cache, key, asidetest.Value("new"))
		}
		v, err := late()
		joined := err == nil && v == "old" && time.Now().Before(ends)
		asidetest.Eventually(t, "it is past its TTL", func() bool { return time.Now().After(ends) })
		v, err = late()
		gate.Release()
		if err == nil {
			require.Equal(t, "new", v)
		}
		if joined { // the fill was still on its way, so the flight was there
			return
		}
		require.Less(t, attempt, 20, "nobody has joined the load")
	}
}

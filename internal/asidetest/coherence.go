package asidetest

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// A Versioned is a source whose value changes.
type Versioned struct {
	Version atomic.Int64
	Loads   atomic.Int64
}

func (s *Versioned) Load(context.Context) (int64, error) {
	s.Loads.Add(1)
	return s.Version.Load(), nil
}

// Pair makes two caches on one server, which know of each other no more than two processes would.
func Pair(t *testing.T, addr string) (a, b *aside.Cache) {
	t.Helper()
	o := At(addr)
	o.Policies = []aside.Policy{Items}
	return Connected(t, o), Connected(t, o)
}

// InMemory asks for key until memory answers.
func InMemory[T any](t *testing.T, c *aside.Cache, key aside.Key, load func(context.Context) (T, error), opts ...aside.CallOption) T {
	t.Helper()
	var r aside.Result[T]
	Eventually(t, "memory answers for "+key.String(), func() bool {
		var err error
		r, err = aside.Lookup(t.Context(), c, key, load, opts...)
		require.NoError(t, err)
		return r.Tier == aside.TierMemory
	})
	return r.Value
}

package asidetest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

func Always(v string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return v, nil }
}

// Gone waits until v1 is not what is cached, and then makes sure that it does not come back.
func Gone(t *testing.T, c *aside.Cache, key aside.Key) {
	t.Helper()
	Eventually(t, "the old value is gone", func() bool {
		v, err := aside.Get[string](t.Context(), c, key)
		return err != nil || v != "v1"
	})
	v, err := aside.GetOrLoad(t.Context(), c, key, Always("v3"))
	require.NoError(t, err)
	require.NotEqual(t, "v1", v)
}

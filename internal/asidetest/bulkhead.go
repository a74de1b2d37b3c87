package asidetest

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// InBubble makes a cache in memory whose time is a test's.
func InBubble(t *testing.T, o aside.Options, test func(t *testing.T, c *aside.Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(o)
		require.NoError(t, err)
		defer c.Close()
		test(t, c)
	})
}

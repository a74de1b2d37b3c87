package asidetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

func Infos(t *testing.T, c *aside.Cache, p aside.Pattern) map[string]aside.KeyInfo {
	t.Helper()
	all := map[string]aside.KeyInfo{}
	for info, err := range c.Keys(t.Context(), p) {
		require.NoError(t, err)
		all[info.Key] = info
	}
	return all
}

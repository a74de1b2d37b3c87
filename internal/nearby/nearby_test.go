package nearby

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNames(t *testing.T) {
	t.Parallel()
	known := []string{"user", "models", "models", "Sessions"}
	require.Equal(t, "models, Sessions, user", Names("model", known))
	require.Equal(t, []string{"user", "models", "models", "Sessions"}, known, "the caller's list stays as it is")
	require.Empty(t, Names("model", nil))

	for i := range 3000 {
		known = append(known, fmt.Sprintf("tenant-%04d", i))
	}
	require.Equal(t, "tenant-1490, tenant-1491, tenant-1492, tenant-1493, tenant-1494, tenant-1495, tenant-1496, tenant-1497, tenant-1498, tenant-1499, "+
		"tenant-1500, tenant-1501, tenant-1502, tenant-1503, tenant-1504, tenant-1505, tenant-1506, tenant-1507, tenant-1508, tenant-1509 and 2983 more",
		Names("Tenant-1500", known))
	for _, name := range []string{"", "a", "model", "zebra", strings.Repeat("x", 1000)} {
		text := Names(name, known)
		require.Equal(t, 19, strings.Count(text, ", "), name)
		require.True(t, strings.HasSuffix(text, " and 2983 more"), text)
	}
	require.True(t, strings.HasPrefix(Names("model", known), "models, "))
	require.LessOrEqual(t, len(Names("x", []string{strings.Repeat("ö", 1000)})), 70)
}

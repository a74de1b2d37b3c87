package faults_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// 1. There is a copy of the data, with K in it. A invalidates K, and asks for nothing in a minute.
// 2. The data is exchanged for the copy, which knows of no invalidation.
// 3. A invalidates something else, and writes that down before it looks whether the data is still the same.
// 4. It is not, but all that was invalidated is written down there: K is not sent again.
func TestAnExchangeWhileAProcessRestsIsNoticedByItsNextInvalidation(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("nodes of a cluster have one database")
	}
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	key := asidetest.Items.Key("k")
	asidetest.Stored(t, b, key, "old")
	for _, name := range server.MustDo(t, "KEYS", "*").([]any) {
		server.MustDo(t, "COPY", name.(string), name.(string), "DB", "1")
	}
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	tries, since := server.Calls(t, "evalsha"), time.Now()
	require.Eventually(t, func() bool { // both rest
		if now := server.Calls(t, "evalsha"); now != tries {
			tries, since = now, time.Now()
		}
		return time.Since(since) > 4*time.Second
	}, 3*time.Minute, 100*time.Millisecond)
	server.MustDo(t, "SWAPDB", "0", "1")
	_, err = a.Invalidate(t.Context(), asidetest.Items.Key("other"))
	require.NoError(t, err)
	var r aside.Result[string]
	require.Eventually(t, func() bool {
		r, err = aside.Lookup(t.Context(), b, key, asidetest.Value("new"))
		require.NoError(t, err)
		return r.Value == "new"
	}, asidetest.Bound, 100*time.Millisecond)
}

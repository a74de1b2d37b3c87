package aside_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

func TestAResultTellsACallThatHasSharedALoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, held := memoryCache(t), asidetest.NewHeld()
		key := asidetest.Items.Key("a")
		look := func() aside.Result[string] {
			r, err := aside.Lookup(t.Context(), c, key, held.Load("v"))
			require.NoError(t, err)
			require.Equal(t, "v", r.Value)
			return r
		}
		first, second := make(chan aside.Result[string], 1), make(chan aside.Result[string], 1)
		go func() { first <- look() }()
		<-held.Began
		go func() { second <- look() }()
		synctest.Wait()
		close(held.Release)

		r := <-first
		require.False(t, r.Shared)
		require.Equal(t, aside.ReasonNotCached, r.Reason)
		r = <-second
		require.True(t, r.Shared)
		require.Equal(t, aside.ReasonSharedLoad+": "+aside.ReasonNotCached, r.Reason)
		require.Equal(t, aside.StatusMiss, r.Status)
		require.Positive(t, r.TTL)
		r = look()
		require.False(t, r.Shared)
		require.Equal(t, aside.StatusHit, r.Status)

		// A loader that shares its own load with nobody.
		r, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) { return "v2", nil }, aside.Refresh())
		require.NoError(t, err)
		require.False(t, r.Shared)
	})
}

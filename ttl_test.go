package aside_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

func TestPoliciesAreThoseThatTheCacheKnows(t *testing.T) {
	t.Parallel()
	listed := aside.Policy{Name: "Listed", Category: "things", TTL: time.Minute}
	met := aside.Policy{Category: "met", TTL: time.Minute}
	c, err := aside.New(aside.Options{Policies: []aside.Policy{listed}})
	require.NoError(t, err)
	defer c.Close()
	names := func() (names []string) {
		for _, p := range c.Policies() {
			names = append(names, p.Category+"/"+p.Name)
		}
		return names
	}
	require.Contains(t, names(), "things/Listed")
	require.NotContains(t, names(), "met/")
	require.Len(t, names(), 1, "a row of the table counts once it is used")
	_, _ = aside.Get[int](context.Background(), c, met.Key(1))
	require.Contains(t, names(), "met/")
	require.Len(t, names(), 2)
	_, _ = aside.Get[int](context.Background(), c, aside.TTL.UserCredits.Key(1))
	require.Contains(t, names(), "user/UserCredits")
	require.Len(t, names(), 3)
	c.Policies()[0].Category = "changed"
	require.False(t, slices.ContainsFunc(c.Policies(), func(p aside.Policy) bool { return p.Category == "changed" }))
	require.Empty(t, (*aside.Cache)(nil).Policies())
	require.Empty(t, new(aside.Cache).Policies())
}

func TestLabelsAreThoseThatTheCacheCountsUnder(t *testing.T) {
	t.Parallel()
	c, err := aside.New(aside.Options{Policies: []aside.Policy{
		{Name: "a", Category: "things", TTL: time.Minute}, {Name: "b", Category: "things", TTL: time.Minute}, {Name: "c", Category: "things", Label: "c", TTL: time.Minute},
	}})
	require.NoError(t, err)
	require.Equal(t, []string{"c", "things"}, c.Labels(), "before anything is counted")
	met := aside.Policy{Category: "met", TTL: time.Minute}
	_, _ = aside.Get[int](t.Context(), c, met.Key(1))
	require.Equal(t, []string{"c", "met", "things"}, c.Labels())
	require.NoError(t, c.Close())
	require.Equal(t, []string{"c", "met", "things"}, c.Labels(), "a closed cache keeps its counters")
	require.Empty(t, (*aside.Cache)(nil).Labels())
	require.Empty(t, new(aside.Cache).Labels())
}

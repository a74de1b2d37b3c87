package contract_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// Each way to ask counts, also where the same hits are drawn for checks.
func TestHotKeysHaveTheirSharesOfTheCalls(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		for _, check := range []float64{0, 0.01} {
			c := newCache(aside.Options{HotKeys: 50, ConsistencyCheck: aside.ConsistencyCheck{SampleRate: check}})
			ctx := t.Context()
			load := asidetest.Value("v")
			loader := aside.NewLoader(c, asidetest.Items, func(context.Context, string) (string, error) { return "v", nil })
			_, err := loader.GetMany(ctx, []string{"half", "third", "rare"})
			require.NoError(t, err)
			asidetest.InMemory(t, c, asidetest.Items.Key("half"), load)
			rare := make([]aside.Key, 100)
			for i := range rare {
				rare[i] = asidetest.Items.Key("rare", i)
			}
			half, third, n := asidetest.Items.Key("half"), asidetest.Items.Key("third"), 0
			call := func() (err error) { // every tenth call by a slower way
				n++
				switch i := n % 60; {
				case i == 0:
					_, err = loader.GetMany(ctx, []string{"half"})
				case i == 10:
					_, err = loader.Lookup(ctx, "third")
				case i == 20:
					_, err = aside.Get[string](ctx, c, half)
				case i < 30:
					_, err = aside.GetOrLoad(ctx, c, half, load)
				case i < 50:
					_, err = loader.Get(ctx, "third")
				case n%7 == 0:
					_, err = aside.GetOrLoad(ctx, c, rare[n%len(rare)], load)
				default:
					_, err = aside.GetOrLoad(ctx, c, third, load)
				}
				return err
			}
			shares := map[string]float64{} // of the calls, by counting them
			for range 2 * 60 * 7 * len(rare) {
				require.NoError(t, call())
			}
			for i := range 60 {
				switch {
				case i == 0, i == 20, i < 30 && i != 10:
					shares["items:half"] += 1.0 / 60
				case i < 50:
					shares["items:third"] += 1.0 / 60
				default:
					shares["items:third"] += 6.0 / 7 / 60
				}
			}
			top := c.HotKeys()
			require.GreaterOrEqual(t, len(top), 2)
			for _, k := range top[:2] {
				require.Contains(t, shares, k.Key)
				require.InDelta(t, shares[k.Key], k.Share, 2*k.Within, "of six standard deviations a test is never off")
				require.Less(t, k.Within, 0.25)
			}
			require.LessOrEqual(t, len(top), 50)
		}
	})
}

func TestHotKeysAreOffByDefault(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for range 5000 {
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
		require.NoError(t, err)
	}
	require.Empty(t, c.HotKeys())
	require.Empty(t, (*aside.Cache)(nil).HotKeys())
	require.Empty(t, new(aside.Cache).HotKeys())
}

func TestHotKeysOfAClosedCacheStay(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{HotKeys: 1})
	key := asidetest.Items.Key(strings.Repeat("k", 1000))
	for i := 0; len(c.HotKeys()) == 0; i++ {
		_, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("v"))
		require.NoError(t, err)
	}
	require.NoError(t, c.Close())
	top := c.HotKeys()
	require.Equal(t, key.String()[:512], top[0].Key)
	require.InDelta(t, 1, top[0].Share, 1e-9)
}

package contract_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

type (
	unpriced struct{ ID int }
	priced   struct{ ID, Price int }
)

// One key is read as two types by one program. What was loaded as the one with fewer fields is no fresh value of the other, in which
// they would be zero: that is loaded, and what was loaded then answers both.
func TestWhatWasLoadedAsATypeWithFewerFieldsIsNoHitForOneWithMore(t *testing.T) {
	t.Parallel()
	policies := map[string]aside.Policy{
		"JSON":    {Name: "widths", Category: "widths", TTL: time.Hour},
		"CBOR":    {Name: "widths", Category: "widths", TTL: time.Hour, Codec: aside.CBOR},
		"private": {Name: "widths", Category: "widths", TTL: time.Hour, CloneOnRead: true},
	}
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
				for door, ask := range map[string]func(c *aside.Cache, key aside.Key, load func(context.Context) (priced, error)) (priced, error){
					"Lookup": func(c *aside.Cache, key aside.Key, load func(context.Context) (priced, error)) (priced, error) {
						r, err := aside.Lookup(t.Context(), c, key, load)
						return r.Value, err
					},
					"Strong": func(c *aside.Cache, key aside.Key, load func(context.Context) (priced, error)) (priced, error) {
						return aside.GetOrLoad(t.Context(), c, key, load, aside.Strong())
					},
					"many": func(c *aside.Cache, key aside.Key, load func(context.Context) (priced, error)) (priced, error) {
						got, err := aside.GetOrLoadMany(t.Context(), c, []int{1}, func(int) aside.Key { return key }, func(ctx context.Context, _ []int) (map[int]priced, error) {
							v, err := load(ctx)
							return map[int]priced{1: v}, err
						})
						return got[1], err
					},
				} {
					c := newCache(aside.Options{})
					key := policy.Key(door)
					narrowLoads, wideLoads := 0, 0
					loadNarrow := func(context.Context) (unpriced, error) { narrowLoads++; return unpriced{1}, nil }
					loadWide := func(context.Context) (priced, error) { wideLoads++; return priced{1, 12}, nil }
					n, err := aside.GetOrLoad(t.Context(), c, key, loadNarrow)
					require.NoError(t, err)
					require.Equal(t, unpriced{1}, n)
					asidetest.Eventually(t, "it is cached", func() bool { _, err := aside.Get[unpriced](t.Context(), c, key); return err == nil })
					_, err = aside.Get[priced](t.Context(), c, key)
					require.ErrorIs(t, err, aside.ErrMiss)
					w, err := ask(c, key, loadWide)
					require.NoError(t, err)
					require.Equal(t, priced{1, 12}, w, door)
					asidetest.Eventually(t, "it is cached", func() bool { _, err := aside.Get[priced](t.Context(), c, key); return err == nil })
					was := wideLoads
					for range 3 { // by turns: what has more fields stays
						n, err := aside.GetOrLoad(t.Context(), c, key, loadNarrow)
						require.NoError(t, err)
						require.Equal(t, unpriced{1}, n)
						w, err := aside.GetOrLoad(t.Context(), c, key, loadWide)
						require.NoError(t, err)
						require.Equal(t, priced{1, 12}, w)
					}
					require.Equal(t, 1, narrowLoads)
					require.Equal(t, was, wideLoads)
				}
			})
		})
	}
}

// What another build has stored, whose type had fewer fields, is read: else each field that is added would empty the cache.
func TestWhatABuildWithFewerFieldsHasStoredIsRead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, a, asidetest.Items.Key("a"), unpriced{1})
	w, err := aside.Get[priced](t.Context(), b, asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.Equal(t, priced{1, 0}, w)
}

// Hazard 135. Two parts of a program read one key, each with the fields that it needs:
//
//  1. what Redis holds has ID and Price
//  2. b reads it as a type that has only ID, and memory keeps it as that
//  3. Redis is away
//  4. b asks for ID and Price: a value is made of what memory has, with a price of 0
func TestAStaleValueOfANarrowerTypeIsNoValueOfAWiderOne(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, a, asidetest.Items.Key("a"), priced{1, 12})
	n, err := aside.Get[unpriced](t.Context(), b, asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.Equal(t, unpriced{1}, n)
	server.Kill()
	asidetest.Eventually(t, "b knows that Redis is away", func() bool { return b.Health().State == aside.StateDegraded })
	r, err := aside.Lookup(t.Context(), b, asidetest.Items.Key("a"), func(context.Context) (priced, error) { return priced{1, 12}, nil })
	require.NoError(t, err)
	require.Equal(t, priced{1, 12}, r.Value, "%s, %s", r.Status, r.Reason)
}

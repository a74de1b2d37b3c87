package contract_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// parity is the tag of an id.
func parity(id int) []string { return []string{fmt.Sprint("parity ", id%2)} }

// The tags of a Loader are on its values, whatever call has stored them.
func TestTheValuesOfATaggedLoaderHaveItsTags(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		for what, store := range map[string]func(ctx context.Context, l *aside.Loader[int, string]) error{
			"Get":     func(ctx context.Context, l *aside.Loader[int, string]) error { _, err := l.Get(ctx, 3); return err },
			"Lookup":  func(ctx context.Context, l *aside.Loader[int, string]) error { _, err := l.Lookup(ctx, 3); return err },
			"Refresh": func(ctx context.Context, l *aside.Loader[int, string]) error { _, err := l.Refresh(ctx, 3); return err },
			"GetMany": func(ctx context.Context, l *aside.Loader[int, string]) error {
				_, err := l.GetMany(ctx, []int{2, 3})
				return err
			},
			"LookupMany": func(ctx context.Context, l *aside.Loader[int, string]) error {
				_, err := l.LookupMany(ctx, []int{2, 3})
				return err
			},
			"Set": func(ctx context.Context, l *aside.Loader[int, string]) error { return l.Set(ctx, 3, "3") },
			"SetMany": func(ctx context.Context, l *aside.Loader[int, string]) error {
				return l.SetMany(ctx, map[int]string{2: "2", 3: "3"})
			},
			"Warm": func(ctx context.Context, l *aside.Loader[int, string]) error {
				_, err := l.Warm(ctx, slices.Values([]int{2, 3}), aside.Warming{Options: []aside.CallOption{aside.WithTags("warmed")}})
				return err
			},
		} {
			for _, tag := range []string{"parity 1", "called", "warmed", "parity 0"} {
				c, ctx := newCache(aside.Options{}), t.Context()
				if _, err := c.InvalidateAll(ctx); err != nil {
					t.Fatal(err)
				}
				var loads atomic.Int64
				batch := aside.NewBatchLoader(c, asidetest.Items, func(_ context.Context, ids []int) (map[int]string, error) {
					loads.Add(1)
					values := make(map[int]string)
					for _, id := range ids {
						values[id] = fmt.Sprint(id)
					}
					return values, nil
				})
				l := batch.Tagged(parity)
				require.NoError(t, store(ctx, l), what)
				asidetest.Eventually(t, "it is cached", func() bool { _, err := l.Cached(ctx, 3); return err == nil })
				before := loads.Load()
				_, err := c.InvalidateTags(ctx, tag)
				require.NoError(t, err)
				_, err = l.Get(ctx, 3)
				require.NoError(t, err)
				gone := tag == "parity 1" || tag == "warmed" && what == "Warm"
				require.Equal(t, gone, loads.Load() > before, "%s, %s", what, tag)
			}
		}
	})
}

func TestAWrongFunctionOfTaggedIsAnError(t *testing.T) {
	t.Parallel()
	c, ctx := asidetest.NewCache(t, aside.Options{}), t.Context()
	for want, tags := range map[string]func(int) []string{
		"the function of Tagged panicked: with a string": func(int) []string { panic("secret") },
		"tag": func(int) []string { return []string{""} },
	} {
		l := aside.NewLoader(c, asidetest.Items, func(context.Context, int) (string, error) { return "", nil }).Tagged(tags)
		_, err := l.GetMany(ctx, []int{1})
		_, errOne := l.Get(ctx, 1)
		_, errWarm := l.Warm(ctx, slices.Values([]int{1}), aside.Warming{})
		for _, err := range []error{err, errOne, errWarm, l.Set(ctx, 1, ""), l.SetMany(ctx, map[int]string{1: ""})} {
			require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidArgument})
			require.ErrorContains(t, err, want)
			require.NotContains(t, err.Error(), "secret")
		}
	}
	var none *aside.Loader[int, string]
	_, err := none.Tagged(parity).Get(ctx, 1)
	require.ErrorContains(t, err, "the Loader is nil or zero")
	require.Error(t, none.Set(ctx, 1, ""))
	for _, o := range []aside.CallOption{aside.Refresh(), aside.Strong(), aside.MaxStale(0)} {
		_, err := aside.NewLoader(c, asidetest.Items, func(context.Context, int) (string, error) { return "", nil }).Warm(ctx, slices.Values([]int{1}), aside.Warming{Options: []aside.CallOption{o}})
		require.ErrorContains(t, err, "Warming.Options takes none of Refresh, Strong and MaxStale")
	}
}

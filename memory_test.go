package aside_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// What carries a tag is out of date when the call returns, and takes memory until a sweep has gone through it.
func TestWhatIsInvalidatedAsAWholeInMemoryIsRemovedInTheBackground(t *testing.T) {
	t.Parallel()
	const n = 100
	for name, invalidate := range map[string]func(*aside.Cache) (aside.Receipt, error){
		"InvalidateTags": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidateTags(context.Background(), "tag", "other")
		},
		"InvalidateCategory": func(c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidateCategory(context.Background(), "items")
		},
		"InvalidateAll": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, ctx := asidetest.NewCache(t, aside.Options{}), t.Context()
				fill := func() {
					for i := range n {
						require.NoError(t, aside.Set(ctx, c, asidetest.Items.Key(i), i, aside.WithTags("tag", "other")))
					}
				}
				fill()
				r, err := invalidate(c)
				require.NoError(t, err)
				require.True(t, r.Confirmed)
				require.Zero(t, r.Removed, "the call does not go through all that there is")
				for i := range n {
					_, err := aside.Get[int](ctx, c, asidetest.Items.Key(i))
					require.ErrorIs(t, err, aside.ErrMiss)
				}
				removed, err := r.WaitCleanup(ctx)
				require.NoError(t, err)
				require.EqualValues(t, n, removed)

				fill()
				first, err := invalidate(c)
				require.NoError(t, err)
				second, err := invalidate(c)
				require.NoError(t, err)
				removed, err = second.WaitCleanup(ctx)
				require.NoError(t, err)
				require.Zero(t, removed, "it counts for the first")
				removed, err = first.WaitCleanup(ctx)
				require.NoError(t, err)
				require.EqualValues(t, n, removed)
			})
		})
	}
}

func TestNoSweepOfMemoryIsWaitedForBeyondClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, ctx := asidetest.NewCache(t, aside.Options{}), t.Context()
		r, err := c.InvalidateAll(ctx)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		if _, err = r.WaitCleanup(ctx); err != nil { // it can be over already
			require.ErrorIs(t, err, aside.ErrClosed)
		}
	})
}

func TestFailuresPushNoValuesOutOfMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, ctx := asidetest.NewCache(t, aside.Options{MaxEntries: 1000, Backoff: time.Hour}), t.Context()
		const values, failing = 500, 20_000
		for i := range values {
			require.NoError(t, aside.Set(ctx, c, asidetest.Items.Key("value", i), i))
		}
		down := errors.New("the database is down")
		load := func(context.Context) (int, error) { return 0, down }
		for i := range failing {
			for range 2 {
				_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("failing", i), load)
				require.Equal(t, down, err)
			}
		}
		synctest.Wait()
		for i := range values {
			v, err := aside.Get[int](ctx, c, asidetest.Items.Key("value", i))
			require.NoError(t, err, "%d of %d", i, values)
			require.Equal(t, i, v)
		}
		for i := range failing {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("failing", i), load)
			asidetest.RequireCode(t, err, aside.CodeBackoff)
			require.ErrorIs(t, err, down)
		}
	})
}

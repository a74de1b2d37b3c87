package contract_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// What was invalidated during its load is not cached, and its Result does not say that it is fresh: clients and proxies would keep it.
func TestWhatIsInvalidatedDuringItsLoadIsNotFresh(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{Policies: []aside.Policy{asidetest.Items}})
		for i, change := range []func(context.Context, aside.Key) error{
			func(context.Context, aside.Key) error { return nil },
			func(ctx context.Context, key aside.Key) error { _, err := c.Invalidate(ctx, key); return err },
			func(ctx context.Context, _ aside.Key) error { _, err := c.InvalidateTags(ctx, "t"); return err },
			func(ctx context.Context, _ aside.Key) error { _, err := c.InvalidateCategory(ctx, "items"); return err },
			func(ctx context.Context, _ aside.Key) error { _, err := c.InvalidateAll(ctx); return err },
			func(ctx context.Context, key aside.Key) error {
				_, err := c.InvalidateChanges(ctx, aside.Changes{Keys: []aside.Key{key}, Tags: []string{"t"}})
				return err
			},
			func(ctx context.Context, key aside.Key) error { return aside.Set(ctx, c, key, "set") },
			func(ctx context.Context, _ aside.Key) error { _, err := c.InvalidateTags(ctx, "late"); return err },
		} {
			key := asidetest.ItemKey(i)
			r, err := aside.Lookup(t.Context(), c, key, func(ctx context.Context) (string, error) {
				if i == 7 {
					aside.CurrentLoad(ctx).Tag("late")
				}
				return "loaded", change(context.Background(), key) // outside of the load: as another request of the process would
			}, aside.WithTags("t"))
			require.NoError(t, err)
			require.Equal(t, "loaded", r.Value)
			require.Equal(t, i == 0, r.TTL > 0, "change %d: %v", i, r.TTL)
		}
	})
}

package coherence_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 58: where the server does not tell of changes, whoever makes one does, by whichever door.
func TestWithoutTrackingEveryChangeIsAnnounced(t *testing.T) {
	t.Parallel()
	key, tag := asidetest.Items.Key("a"), aside.WithTags("x")
	confirmed := func(r aside.Receipt, err error) error {
		if err == nil && !r.Confirmed {
			t.Error("not confirmed")
		}
		return err
	}
	for name, door := range map[string]struct {
		change func(ctx context.Context, server *redistest.Server, c *aside.Cache) error
		of     string
	}{
		"set": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			return aside.Set(ctx, c, key, "new", tag)
		}, "items:a"},
		"set, refused": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			_ = aside.Set(ctx, c, key, strings.Repeat("too large", 1000))
			return nil
		}, "items:a"},
		"refresh": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			_, err := aside.GetOrLoad(ctx, c, key, asidetest.Value("new"), aside.Refresh(), tag)
			return err
		}, "items:a"},
		"refresh of many": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			_, err := aside.GetOrLoadMany(ctx, c, []string{"a", "b"}, func(id string) aside.Key { return asidetest.Items.Key(id) },
				func(_ context.Context, ids []string) (map[string]string, error) {
					return map[string]string{"a": "new", "b": "new"}, nil
				}, aside.Refresh())
			return err
		}, "items:a"},
		"refresh without a value": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			_, err := aside.GetOrLoad(ctx, c, key, func(ctx context.Context) (string, error) {
				aside.CurrentLoad(ctx).NoStore()
				return "new", nil
			}, aside.Refresh())
			return err
		}, "items:a"},
		"load": {func(ctx context.Context, server *redistest.Server, c *aside.Cache) error {
			server.MustDo(t, "DEL", "items:a")
			_, err := aside.GetOrLoad(ctx, c, key, asidetest.Value("new"), aside.Strong())
			return err
		}, "items:a"},
		"key": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			return confirmed(c.Invalidate(ctx, key))
		}, "items:a"},
		"pattern": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			return confirmed(c.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard)))
		}, "items:a"},
		"category": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			return confirmed(c.InvalidateCategory(ctx, "items"))
		}, "%c:items"},
		"tag": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			return confirmed(c.InvalidateTags(ctx, "x"))
		}, "%t:x"},
		"all": {func(ctx context.Context, _ *redistest.Server, c *aside.Cache) error {
			return confirmed(c.InvalidateAll(ctx))
		}, "%all"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := asidetest.StartUntracked(t)
			w := asidetest.WatchedAs(t, server, func(addr string) aside.Options {
				o := asidetest.Anonymously(addr)
				o.MaxValueBytes = 1000
				return o
			})
			b := asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
			require.False(t, w.Health().Tracking)
			asidetest.Stored(t, w.Cache, key, "old", tag)
			require.Equal(t, "old", asidetest.InMemory(t, b, key, asidetest.Value("new"), tag))
			announced := func() (n int) {
				for _, args := range w.Asked("PUBLISH") {
					if strings.HasSuffix(args[1], " "+door.of) {
						n++
					}
				}
				return n
			}
			before := announced()
			require.NoError(t, door.change(t.Context(), server, w.Cache))
			asidetest.Eventually(t, "it is announced", func() bool { return announced() > before })
			asidetest.Eventually(t, "the other process follows", func() bool {
				v, err := aside.GetOrLoad(t.Context(), b, key, asidetest.Value("new"), tag)
				require.NoError(t, err)
				return v == "new"
			})
			channels := w.Asked("PUBLISH")
			require.False(t, slices.ContainsFunc(channels, func(args []string) bool { return args[0] != "%changed" }))
		})
	}
}

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

func TestKeysTellsWhatIsCached(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		ctx := context.Background()
		packed := aside.Policy{Name: "packed", Category: "packed", TTL: time.Minute, Codec: aside.CBOR}
		a, b, none := asidetest.Items.Key("a", "*"), packed.Key("b"), asidetest.Items.Key("none")
		asidetest.InMemory(t, c, a, asidetest.Value("a value"), aside.WithTags("x:y", "z"))
		asidetest.Stored(t, c, b, []byte("bytes"))
		_, err := aside.GetOrLoad(ctx, c, none, func(context.Context) (string, error) { return "", aside.ErrNotFound })
		require.ErrorIs(t, err, aside.ErrNotFound)
		failing := asidetest.Items.Key("failing")
		_, err = aside.GetOrLoad(ctx, c, failing, func(context.Context) (string, error) { return "", context.DeadlineExceeded })
		require.Error(t, err)
		asidetest.Eventually(t, "all are stored", func() bool { return len(asidetest.Infos(t, c, aside.Pattern{})) == 3 })

		all := asidetest.Infos(t, c, aside.Pattern{})
		require.Len(t, all, 3)
		got := all["items:a:%2A"]
		if h := c.Health(); h.State == aside.StateMemory || h.Tracking { // else memory keeps it for a second
			require.Equal(t, aside.TierMemory, got.Tier)
		}
		require.Equal(t, []string{"x:y", "z"}, got.Tags)
		require.InDelta(t, time.Hour.Seconds(), got.TTL.Seconds(), 60)
		require.GreaterOrEqual(t, got.Age, time.Duration(0))
		require.Less(t, got.Age, time.Minute)
		require.Positive(t, got.Size)
		require.False(t, got.Negative)
		require.InDelta(t, time.Minute.Seconds(), all["packed:b"].TTL.Seconds(), 30)
		require.Empty(t, all["packed:b"].Tags)
		require.True(t, all["items:none"].Negative)
		require.InDelta(t, 30, all["items:none"].TTL.Seconds(), 20)
		if c.Health().State == aside.StateConnected {
			require.Equal(t, "raw", got.Codec)
			require.Equal(t, "cbor", all["packed:b"].Codec)
			require.Equal(t, aside.TierRedis, all["packed:b"].Tier, "nobody has read it yet")
		} else {
			require.Empty(t, got.Codec)
		}
		require.Empty(t, all["items:none"].Codec)

		require.Len(t, asidetest.Infos(t, c, asidetest.Items.Match(aside.Wildcard)), 2)
		require.Len(t, asidetest.Infos(t, c, asidetest.Items.Match("a", aside.Wildcard)), 1)
		require.Empty(t, asidetest.Infos(t, c, asidetest.Items.Match("b", aside.Wildcard)))
		_, err = c.InvalidateTags(ctx, "z")
		require.NoError(t, err)
		require.NotContains(t, asidetest.Infos(t, c, aside.Pattern{}), "items:a:%2A", "whether or not its memory is given back")
		_, err = c.InvalidateAll(ctx)
		require.NoError(t, err)
		require.Empty(t, asidetest.Infos(t, c, aside.Pattern{}))
	})
}

func TestKeysEndsWithItsConsumerAndWithItsContext(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		for i := range 1200 { // more than one page
			asidetest.Stored(t, c, asidetest.Items.Key(i), "v")
		}
		for _, err := range c.Keys(t.Context(), aside.Pattern{}) {
			require.NoError(t, err)
			break
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		seen, last := 0, error(nil)
		for _, err := range c.Keys(ctx, aside.Pattern{}) {
			cancel()
			if last = err; err == nil {
				seen++
			}
		}
		require.ErrorIs(t, last, context.Canceled)
		require.Positive(t, seen)
		require.Less(t, seen, 1200)
		one := func(c *aside.Cache, p aside.Pattern) (last error) {
			for _, last = range c.Keys(t.Context(), p) {
			}
			return last
		}
		_, bad := aside.ParsePattern("*")
		require.ErrorIs(t, one(c, asidetest.Items.Match(1.5)), &aside.Error{Code: aside.CodeInvalidPattern})
		require.ErrorIs(t, bad, &aside.Error{Code: aside.CodeInvalidPattern})
		require.NoError(t, c.Close())
		require.ErrorIs(t, one(c, aside.Pattern{}), aside.ErrClosed)
		require.Error(t, one(nil, aside.Pattern{}))
	})
}

func TestKeysSaysWhenRedisCannotBeRead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	server.Kill()
	var last error
	for _, last = range c.Keys(t.Context(), aside.Pattern{}) {
	}
	require.ErrorIs(t, last, &aside.Error{Code: aside.CodeUnavailable})
}

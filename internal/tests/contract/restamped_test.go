package contract_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

// extended is an extended value of the category items under key, as another process would store it now.
func extended(t *testing.T, server *redistest.Server, key string, payload []byte) (value []byte, h wire.Header) {
	t.Helper()
	for _, tag := range []string{"%all", "%c:items"} {
		g, err := redisstore.ParseGeneration([]byte(server.MustDo(t, "GET", tag).(string)))
		require.NoError(t, err)
		h.Tags = append(h.Tags, wire.Tag{Name: tag, Generation: g})
	}
	now := time.Now().UnixMicro()
	h.LoadStart, h.FreshUntil, h.DeadUntil = now, now+time.Hour.Microseconds(), now+time.Hour.Microseconds()
	h.Codec, h.Nonce, h.Extended = wire.ID(wire.Raw), wire.NewNonce(), true
	value, err := wire.Encode(key, h, payload, wire.Limits{MaxValue: 64 << 20, CompressFrom: -1})
	require.NoError(t, err)
	return value, h
}

// Hazard 37: the chunks of a restamped value have another nonce in their names than the value has.
func TestARestampedLargeValueIsReadAndItsChunksGoWithIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, asidetest.Items.Key("first"), "v") // makes the generations
	want := asidetest.Large(3*asidetest.Chunk + 5)
	value, h := extended(t, server, "items:large", want)
	fill := h.Nonce
	manifest, chunks := wire.Split(value, asidetest.Chunk)
	for range 2 {
		h.Nonce = wire.NewNonce()
		h.ETag += "v"
		var err error
		manifest, err = wire.Restamp("items:large", manifest, h)
		require.NoError(t, err)
	}
	for i, chunk := range chunks {
		server.MustDo(t, "SET", asidetest.LargeKey+fill.String()+":"+string(rune('0'+i)), string(chunk), "PX", "3600000")
	}
	server.MustDo(t, "SET", "items:large", string(manifest), "PX", "3600000")

	r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("large"), func(context.Context) ([]byte, error) { panic("it is in Redis") })
	require.NoError(t, err)
	require.Equal(t, aside.TierRedis, r.Tier)
	require.True(t, bytes.Equal(want, r.Value))
	var size int64
	for info, err := range c.Keys(t.Context(), aside.Pattern{}) {
		require.NoError(t, err)
		if info.Key == "items:large" {
			size = info.Size
		}
	}
	require.EqualValues(t, len(manifest)+len(want), size, "a listing counts the chunks")

	_, err = c.Invalidate(t.Context(), asidetest.Items.Key("large"))
	require.NoError(t, err)
	requireChunks(t, server, 4, 0, grace)
}

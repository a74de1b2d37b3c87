package asidehttp_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A body is served the same wherever it is cached.
func TestACachedBodyIsServedInEveryMode(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		key := asidetest.Items.Key("catalogue")
		content := catalogue(50_000)
		loads := 0
		look := func() aside.Result[asidehttp.Body] {
			res, err := aside.Lookup(t.Context(), c, key, func(context.Context) (asidehttp.Body, error) {
				loads++
				return asidehttp.Pack("application/json", content), nil
			})
			require.NoError(t, err)
			return res
		}
		first := look()
		require.Regexp(t, `^aside; fwd=miss(; stored)?$`, answered(t, first, asidehttp.ServeOptions{}, "GET").Header().Get("Cache-Status"))
		asidetest.Eventually(t, "a hit", func() bool { return look().Status == aside.StatusHit })
		known := loads
		hit := look()
		require.Equal(t, known, loads)
		require.Equal(t, first.Value, hit.Value)
		for _, accept := range []string{"zstd", "gzip", ""} {
			w := answered(t, hit, asidehttp.ServeOptions{}, "GET", "Accept-Encoding", accept)
			require.Equal(t, content, decoded(t, w.Header().Get("Content-Encoding"), w.Body.Bytes()))
			require.Regexp(t, `^aside; hit; ttl=3[56]\d\d; detail=(memory|redis)$`, w.Header().Get("Cache-Status"))
			require.Equal(t, 304, answered(t, hit, asidehttp.ServeOptions{}, "GET", "If-None-Match", w.Header().Get("ETag")).Code)
		}
	})
}

// Redis holds the bytes of a body as they are, and another process serves them without decoding anything.
func TestABodyIsStoredAsItIs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("catalogue")
	body := asidehttp.Pack("application/json", catalogue(50_000))
	asidetest.Eventually(t, "it is stored", func() bool {
		require.NoError(t, aside.Set(t.Context(), c, key, body))
		n, _ := server.MustDo(t, "EXISTS", key.String()).(int64)
		return n == 1
	})
	stored, _ := server.MustDo(t, "GET", key.String()).(string)
	require.True(t, strings.HasSuffix(stored, string(body)), "no JSON, no base64")
	asidetest.Eventually(t, "the other process reads it", func() bool {
		got, err := aside.Get[asidehttp.Body](t.Context(), other, key)
		return err == nil && string(got) == string(body)
	})
	res, err := aside.Lookup(t.Context(), other, key, func(context.Context) (asidehttp.Body, error) { return body, nil })
	require.NoError(t, err)
	require.Equal(t, 200, answered(t, res, asidehttp.ServeOptions{}, "GET").Code)
}

// What an older build has stored as JSON, a program still reads as a slice of bytes of its own type.
func TestAValueThatJSONHasStoredIsReadAsBytes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	byJSON, own := aside.Policy{Name: "items", Category: "items", TTL: time.Hour, Codec: aside.JSON}, asidetest.Items
	key := byJSON.Key("old")
	body := asidehttp.Pack("text/plain", []byte("content"))
	o := asidetest.At(server.Addr())
	o.Policies = []aside.Policy{byJSON}
	old := asidetest.Connected(t, o)
	asidetest.Eventually(t, "it is stored", func() bool {
		require.NoError(t, aside.Set(t.Context(), old, key, body))
		n, _ := server.MustDo(t, "EXISTS", key.String()).(int64)
		return n == 1
	})
	require.Contains(t, server.MustDo(t, "GET", key.String()), `"q0hC`) // base64
	o.Policies = []aside.Policy{own}
	c := asidetest.Connected(t, o)
	asidetest.Eventually(t, "it is read", func() bool {
		got, err := aside.Get[asidehttp.Body](t.Context(), c, own.Key("old"))
		return err == nil && string(got) == string(body)
	})
}

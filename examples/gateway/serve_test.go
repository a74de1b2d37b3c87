package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// A client that asks again gets 304, and one that takes a coding gets the bytes that lie in the cache.
func TestACatalogueIsServedAsItLiesInTheCache(t *testing.T) {
	run := start(t)
	for _, path := range []string{"/api/models?gateway=all", "/api/models?gateway=oak", "/api/models/oak:1"} {
		first := run.get(path, "")
		require.Equal(t, "public, no-cache", first.header.Get("Cache-Control"))
		require.Equal(t, "aside; fwd=miss; stored", first.header.Get("Cache-Status"))
		r, err := http.NewRequestWithContext(t.Context(), "GET", run.base+path, nil)
		require.NoError(t, err)
		r.Header.Set("If-None-Match", first.header.Get("ETag"))
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusNotModified, response.StatusCode, path)
		require.Empty(t, body)
		require.Regexp(t, `^aside; hit; ttl=\d+; detail=memory$`, response.Header.Get("Cache-Status"))
	}
}

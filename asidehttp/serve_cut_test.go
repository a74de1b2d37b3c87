package asidehttp_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// encodingWriter encodes what a handler writes, as gin-contrib/gzip does.
type encodingWriter struct {
	http.ResponseWriter
	w io.Writer
}

func (e encodingWriter) Write(b []byte) (int, error) { return e.w.Write(b) }

// A middleware ends its stream properly, whatever it was given: the client would take a part of the content for all of it, with the ETag of all.
func TestAPartOfTheContentIsNotTakenForAllOfIt(t *testing.T) {
	t.Parallel()
	for _, coding := range []asidehttp.Coding{claims("zstd", packedZeros(t, "zstd", 1000, 1<<20)), claims("gzip", packedZeros(t, "gzip", 1000, 0)), claims("gzip", []byte("no stream"))} {
		body := asidehttp.Pack("text/plain", catalogue(100_000), coding)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			asidehttp.Serve(encodingWriter{w, z}, r, aside.Result[asidehttp.Body]{Value: body}, asidehttp.ServeOptions{})
		}))
		defer server.Close()
		resp, err := server.Client().Get(server.URL) // decodes gzip
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
		require.Contains(t, string(text), "does not decode")
		require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		require.Empty(t, resp.Header.Get("ETag"))
		require.Empty(t, resp.Header.Get("Age"))
	}
}

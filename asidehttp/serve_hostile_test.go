package asidehttp_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// claims is a coding that writes other bytes than what it is given.
func claims(name string, data []byte) asidehttp.Coding {
	return asidehttp.Coding{Name: name, NewWriter: func(w io.Writer) io.WriteCloser { return &claimWriter{w, data} }}
}

type claimWriter struct {
	w    io.Writer
	data []byte
}

func (c *claimWriter) Write(b []byte) (int, error) { return len(b), nil }
func (c *claimWriter) Close() error                { _, err := c.w.Write(c.data); return err }

// packedZeros is a stream of n zeros, in gzip and in zstd with a window.
func packedZeros(t testing.TB, name string, n, window int) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if name == "zstd" {
		var err error
		w, err = zstd.NewWriter(&b, zstd.WithWindowSize(window))
		require.NoError(t, err)
	}
	zeros := make([]byte, 1<<20)
	for ; n > 0; n -= len(zeros) {
		_, err := w.Write(zeros[:min(n, len(zeros))])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// A Body that was written by somebody else says how long its content is, and holds more, less, or none.
func TestABodyIsNotDecodedBeyondItsLength(t *testing.T) {
	t.Parallel()
	content := catalogue(100_000)
	size := len(content)
	for _, name := range []string{"gzip", "zstd"} {
		for what, tt := range map[string]struct {
			data []byte
			want int
		}{
			"more":      {packedZeros(t, name, 4<<20, 1<<20), size},
			"less":      {packedZeros(t, name, 1000, 1<<20), 1000},
			"nothing":   {nil, 0},
			"no stream": {[]byte("this is no stream"), 0},
			"one byte":  {[]byte{0}, 0},
			"cut short": {packedZeros(t, name, 1<<20, 1<<20)[:20], 0},
		} {
			body := asidehttp.Pack("text/plain", content, claims(name, tt.data))
			w := served(t, body, asidehttp.ServeOptions{})
			require.Equal(t, 200, w.Code)
			require.Equal(t, strconv.Itoa(size), w.Header().Get("Content-Length"), "%s %s", name, what)
			if what == "cut short" {
				require.LessOrEqual(t, w.Body.Len(), size)
			} else {
				require.Equal(t, tt.want, w.Body.Len(), "%s %s", name, what)
			}
		}
	}
	// RFC 9659: a decoder of this coding need not have a larger window, which takes memory.
	wide := asidehttp.Pack("text/plain", content, claims("zstd", packedZeros(t, "zstd", 2<<20, 16<<20)))
	require.Zero(t, served(t, wide, asidehttp.ServeOptions{}).Body.Len())
	// A decoder that has met any of these serves the next body.
	for range 3 {
		require.Equal(t, content, served(t, asidehttp.Pack("text/plain", content), asidehttp.ServeOptions{}).Body.Bytes())
		require.Equal(t, content, served(t, asidehttp.Pack("text/plain", content, asidehttp.Gzip(1)), asidehttp.ServeOptions{}).Body.Bytes())
	}
}

// A client learns that it has not got all.
func TestABodyThatDoesNotDecodeEndsTheConnection(t *testing.T) {
	t.Parallel()
	body := asidehttp.Pack("text/plain", catalogue(100_000), claims("zstd", packedZeros(t, "zstd", 1000, 1<<20)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asidehttp.Serve(w, r, aside.Result[asidehttp.Body]{Value: body}, asidehttp.ServeOptions{})
	}))
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(server.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Len(t, data, 1000)
}

func TestWhatPackHasNotMadeIsRefused(t *testing.T) {
	t.Parallel()
	good := asidehttp.Pack("text/plain", catalogue(3000))
	bodies := []asidehttp.Body{nil, {}, asidehttp.Body(`{"a":1}`), append(good[:len(good):len(good)], 0)}
	for i := range good { // cut off anywhere
		bodies = append(bodies, good[:i])
	}
	head := string(good[:36]) // identification and sum
	for _, rest := range []string{
		"",
		"\x01\x01a\x00",                     // no coding
		"\x01\x01a\x09",                     // too many
		"\x01\x00\x01\x08identity\x01x",     // no content type
		"\x01\x02\r\n\x01\x08identity\x01x", // one that is none
		"\x01\x01a\x01\x08identity\x02xy",   // another length than that of the content
		"\x01\x01a\x01\x02br\x01x",          // nothing that can be decoded
		"\x01\x01a\x01\x04GZIP\x01x",        // no name
		"\x01\x01a\x01\x08identity\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", // longer than the body
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01a\x01\x08identity\x01x",
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01a\x01\x04gzip\x01x",
		"\x01\xff\xff\xff\xff\x0fa",
	} {
		bodies = append(bodies, asidehttp.Body(head+rest))
	}
	for _, body := range bodies {
		w := served(t, body, asidehttp.ServeOptions{MaxAge: 1e9}, "Accept-Encoding", "zstd")
		require.Equal(t, 500, w.Code, "%q", body)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.Empty(t, w.Header().Get("ETag"))
		require.Contains(t, w.Body.String(), "not a Body that Pack has made")
		require.NotEmpty(t, w.Header().Get("Cache-Status"))
	}
	require.Equal(t, 200, served(t, asidehttp.Body(head+"\x01\x01a\x01\x08identity\x01x"), asidehttp.ServeOptions{}).Code)
}

// A weight is what a writer takes of a response.
type countingWriter struct {
	header http.Header
	status int
	bytes  int64
}

func (w *countingWriter) Header() http.Header { return w.header }
func (w *countingWriter) WriteHeader(s int)   { w.status = s }
func (w *countingWriter) Write(b []byte) (int, error) {
	w.bytes += int64(len(b))
	return len(b), nil
}

// Any bytes may come from Redis, and any header from a client.
func FuzzServe(f *testing.F) {
	for _, content := range [][]byte{nil, []byte("x"), catalogue(2000)} {
		f.Add([]byte(asidehttp.Pack("application/json", content)), "gzip, zstd;q=0.5", tagOf(content, "gzip"))
	}
	f.Add([]byte(asidehttp.Pack("text/plain", catalogue(3000), claims("zstd", packedZeros(f, "zstd", 1<<20, 1<<20)))), "identity", "*")
	f.Add([]byte(asidehttp.Pack("text/plain", catalogue(3000), halves("br"))), "*;q=0", `W/"`)
	f.Fuzz(func(t *testing.T, body []byte, accept, tags string) {
		for _, method := range []string{"GET", "HEAD"} {
			r := &http.Request{Method: method, Header: http.Header{"Accept-Encoding": {accept}, "If-None-Match": {tags}}}
			w := &countingWriter{header: http.Header{}}
			asidehttp.Serve(w, r, aside.Result[asidehttp.Body]{Value: body}, asidehttp.ServeOptions{})
			switch w.status {
			case 200:
				stated, err := strconv.ParseInt(w.header.Get("Content-Length"), 10, 64)
				require.NoError(t, err)
				require.LessOrEqual(t, w.bytes, stated)
			case 304:
				require.Zero(t, w.bytes)
			case 406, 500:
			default:
				t.Fatal(w.status)
			}
			for name, values := range w.header {
				for _, v := range values {
					require.False(t, strings.ContainsAny(v, "\r\n\x00"), "%s: %q", name, v)
				}
			}
		}
	})
}

// All codings of a body decode to the same bytes.
func FuzzPack(f *testing.F) {
	f.Add([]byte(nil), "text/plain", 1)
	f.Add([]byte("x"), "", 1)
	f.Add(catalogue(1500), "application/json", 40)
	f.Add([]byte{0x1f, 0x8b, 8, 0}, "a/b", 1000)
	f.Fuzz(func(t *testing.T, content []byte, kind string, repeat int) {
		content = bytes.Repeat(content, min(max(repeat, 1), 1+1<<18/(len(content)+1)))
		body := asidehttp.Pack(kind, content, asidehttp.Gzip(1), asidehttp.Zstd(), halves("br"))
		for _, accept := range []string{"", "gzip", "zstd"} {
			w := served(t, body, asidehttp.ServeOptions{}, "Accept-Encoding", accept)
			require.Equal(t, 200, w.Code)
			coding := w.Header().Get("Content-Encoding")
			require.True(t, bytes.Equal(content, decoded(t, coding, w.Body.Bytes())), "%s", accept)
			require.Equal(t, tagOf(content, coding), w.Header().Get("ETag"))
		}
	})
}

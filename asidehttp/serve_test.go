package asidehttp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// catalogue is JSON of at least n bytes, as varied as that of models.
func catalogue(n int) []byte {
	rnd := rand.New(rand.NewPCG(8, 1))
	b := []byte(`{"object":"list","data":[`)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, `{"id":"provider-%d/model-%x","created":%d,"context_length":%d,"pricing":{"prompt":"%.9f","completion":"%.9f"},"description":"A model with %d parameters, tuned for %x."},`,
			rnd.IntN(40), rnd.Uint32(), 1_600_000_000+rnd.IntN(1e8), 4096<<rnd.IntN(6), rnd.Float64()/1e5, rnd.Float64()/1e4, rnd.IntN(1e9), rnd.Uint64())
	}
	return append(b[:len(b)-1], "]}"...)
}

// served answers a request for a body, with pairs of header fields.
func served(t testing.TB, body asidehttp.Body, o asidehttp.ServeOptions, fields ...string) *httptest.ResponseRecorder {
	t.Helper()
	return answered(t, aside.Result[asidehttp.Body]{Value: body, Status: aside.StatusHit, Tier: aside.TierMemory, TTL: time.Minute}, o, "GET", fields...)
}

func answered(t testing.TB, res aside.Result[asidehttp.Body], o asidehttp.ServeOptions, method string, fields ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/", nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	asidehttp.Serve(w, r, res, o)
	return w
}

// decoded is the content of a response, which is encoded as it says and no further.
func decoded(t testing.TB, coding string, data []byte) []byte {
	t.Helper()
	switch coding {
	case "":
		return data
	case "zstd":
		d, err := zstd.NewReader(nil)
		require.NoError(t, err)
		defer d.Close()
		plain, err := d.DecodeAll(data, nil)
		require.NoError(t, err)
		return plain
	case "gzip":
		d, err := gzip.NewReader(bytes.NewReader(data))
		require.NoError(t, err)
		plain, err := io.ReadAll(d)
		require.NoError(t, err)
		return plain
	}
	t.Fatalf("coding %q", coding)
	return nil
}

// tagOf is the ETag of a content in a coding.
func tagOf(content []byte, coding string) string {
	sum := sha256.Sum256(content)
	if coding != "" {
		coding = "-" + coding
	}
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + coding + `"`
}

// halves is a coding that is none, and saves enough: half of the body.
func halves(name string) asidehttp.Coding {
	return asidehttp.Coding{Name: name, NewWriter: func(w io.Writer) io.WriteCloser { return &halfWriter{w} }}
}

type halfWriter struct{ w io.Writer }

func (h *halfWriter) Write(b []byte) (int, error) {
	_, err := h.w.Write(b[:len(b)/2])
	return len(b), err
}
func (h *halfWriter) Close() error { return nil }

func TestEveryCodingOfABodyIsServed(t *testing.T) {
	t.Parallel()
	content := catalogue(100_000)
	body := asidehttp.Pack("application/json", content)
	require.Less(t, len(body), len(content)/2)
	for coding, accept := range map[string]string{"zstd": "zstd, gzip", "gzip": "gzip", "": ""} {
		w := served(t, body, asidehttp.ServeOptions{}, "Accept-Encoding", accept)
		require.Equal(t, 200, w.Code)
		require.Equal(t, coding, w.Header().Get("Content-Encoding"))
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.Equal(t, "Accept-Encoding", w.Header().Get("Vary"))
		require.Equal(t, strconv.Itoa(w.Body.Len()), w.Header().Get("Content-Length"))
		require.Equal(t, tagOf(content, coding), w.Header().Get("ETag"))
		require.Equal(t, "private, no-cache", w.Header().Get("Cache-Control"))
		require.Equal(t, "0", w.Header().Get("Age"))
		require.Equal(t, []string{"aside; hit; ttl=60; detail=memory"}, w.Header().Values("Cache-Status"))
		require.Equal(t, content, decoded(t, coding, w.Body.Bytes()), accept)

		head := answered(t, aside.Result[asidehttp.Body]{Value: body, Status: aside.StatusHit, Tier: aside.TierMemory, TTL: time.Minute}, asidehttp.ServeOptions{}, "HEAD", "Accept-Encoding", accept)
		require.Equal(t, w.Header(), head.Header())
		require.Zero(t, head.Body.Len())
	}
}

// RFC 9110, 12.5.3. The codings of the body are zstd and gzip, in this order.
func TestTheCodingIsTheOneThatTheClientLikesBest(t *testing.T) {
	t.Parallel()
	both := asidehttp.Pack("application/json", catalogue(10_000))
	small := asidehttp.Pack("application/json", []byte(`{"a":1}`))
	const refused = "refused"
	for _, tt := range []struct {
		accept      []string // header lines; nil: none
		both, small string
	}{
		{nil, "", ""}, // any is acceptable, and none is understood by everyone
		{[]string{""}, "", ""},
		{[]string{"gzip"}, "gzip", ""},
		{[]string{"GZip"}, "gzip", ""},
		{[]string{"x-gzip"}, "gzip", ""},
		{[]string{"zstd"}, "zstd", ""},
		{[]string{"br"}, "", ""},
		{[]string{"br, gzip"}, "gzip", ""},
		{[]string{"gzip, deflate, br, zstd"}, "zstd", ""},
		{[]string{"gzip", "zstd"}, "zstd", ""},
		{[]string{"gzip;q=1.0, zstd;q=0.5"}, "gzip", ""},
		{[]string{"gzip;q=0.501, zstd;q=0.5"}, "gzip", ""},
		{[]string{"gzip ; q=0.5 ,\tzstd ;q=0.4"}, "gzip", ""},
		{[]string{"gzip;Q=0.5, zstd;q=0.4"}, "gzip", ""},
		{[]string{"gzip;q=0"}, "", ""},
		{[]string{"gzip;q=0.000, zstd;q=0."}, "", ""},
		{[]string{"gzip;q=0.001"}, "gzip", ""},
		{[]string{"*"}, "zstd", ""},
		{[]string{"*;q=0.1"}, "zstd", ""},
		{[]string{"zstd;q=0, *"}, "gzip", ""},
		{[]string{"gzip, *;q=0"}, "gzip", refused},
		{[]string{"*;q=0"}, refused, refused},
		{[]string{"*;q=0, identity"}, "", ""},
		{[]string{"*;q=0, identity;q=0.1"}, "", ""},
		{[]string{"identity;q=0"}, refused, refused},
		{[]string{"identity;q=0, br"}, refused, refused},
		{[]string{"identity;q=0, gzip"}, "gzip", refused},
		{[]string{"identity;q=0, *"}, "zstd", refused},
		{[]string{"identity"}, "", ""},
		{[]string{"identity, gzip"}, "gzip", ""}, // equal weights
		{[]string{"identity;q=1, gzip;q=0.5"}, "", ""},
		{[]string{"identity;q=0.5, gzip;q=0.6"}, "gzip", ""},
		{[]string{"*;q=0.5, gzip;q=0.4, zstd;q=0"}, "", ""}, // the asterisk is for identity too
		// What is malformed does not count.
		{[]string{"gzip;q=2"}, "", ""},
		{[]string{"gzip;q=-1"}, "", ""},
		{[]string{"gzip;q=1.001"}, "", ""},
		{[]string{"gzip;q=0.5555"}, "", ""},
		{[]string{"gzip;q=x"}, "", ""},
		{[]string{"gzip;q"}, "", ""},
		{[]string{"gzip;q="}, "", ""},
		{[]string{"gzip;level=9"}, "", ""},
		{[]string{",,;,gzip,,"}, "gzip", ""},
		{[]string{"gzip;q=0.5, gzip;q=0"}, "gzip", ""}, // the first one counts
		{[]string{"gz ip"}, "", ""},
	} {
		for body, want := range map[string]string{string(both): tt.both, string(small): tt.small} {
			var fields []string
			for _, line := range tt.accept {
				fields = append(fields, "Accept-Encoding", line)
			}
			w := served(t, asidehttp.Body(body), asidehttp.ServeOptions{}, fields...)
			require.Equal(t, "Accept-Encoding", w.Header().Get("Vary"), tt.accept)
			if want == refused {
				require.Equal(t, 406, w.Code, "%q", tt.accept)
				require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
				require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
				require.Empty(t, w.Header().Get("ETag"))
				continue
			}
			require.Equal(t, 200, w.Code, "%q", tt.accept)
			require.Equal(t, want, w.Header().Get("Content-Encoding"), "%q", tt.accept)
		}
	}
}

// A fetch as that of Next.js keeps the ETag that it got in one coding, and asks in another one.
func TestIfNoneMatchKnowsTheETagsOfAllCodings(t *testing.T) {
	t.Parallel()
	content := catalogue(10_000)
	body := asidehttp.Pack("application/json", content)
	zstd, gzip, plain := tagOf(content, "zstd"), tagOf(content, "gzip"), tagOf(content, "")
	other := tagOf([]byte("other"), "zstd")
	for _, tt := range []struct {
		lines []string
		tag   string // of the 304; empty: 200
	}{
		{[]string{zstd}, zstd},
		{[]string{gzip}, gzip},
		{[]string{plain}, plain},
		{[]string{"W/" + plain}, "W/" + plain}, // as nginx makes it, when it encodes a body
		{[]string{tagOf(content, "gzip-br")}, tagOf(content, "gzip-br")},
		{[]string{gzip + ", " + zstd}, zstd}, // that of the coding that would be sent
		{[]string{gzip + "," + other}, gzip},
		{[]string{other, gzip}, gzip},
		{[]string{" , ," + other + " ,\t" + plain + ","}, plain},
		{[]string{"*"}, zstd},
		{[]string{other}, ""},
		{[]string{""}, ""},
		{[]string{strings.Trim(zstd, `"`)}, ""},
		{[]string{zstd[:len(zstd)-1]}, ""},
		{[]string{`"` + zstd}, ""},
		{[]string{"w/" + plain}, ""}, // case counts
		{[]string{plain[:20] + `"`}, ""},
		{[]string{plain[:len(plain)-1] + `x"`}, ""},
		{[]string{`"a b", ` + plain}, ""}, // no ETag: the rest is not read
		{[]string{plain[:len(plain)-1] + "-\x01\""}, ""},
	} {
		fields := []string{"Accept-Encoding", "zstd, gzip"}
		for _, line := range tt.lines {
			fields = append(fields, "If-None-Match", line)
		}
		for _, method := range []string{"GET", "HEAD", "POST"} {
			res := aside.Result[asidehttp.Body]{Value: body, Status: aside.StatusHit, Tier: aside.TierRedis, TTL: time.Minute, Age: 90 * time.Second}
			w := answered(t, res, asidehttp.ServeOptions{MaxAge: time.Hour}, method, fields...)
			if tt.tag == "" || method == "POST" {
				require.Equal(t, 200, w.Code, "%q", tt.lines)
				require.Equal(t, zstd, w.Header().Get("ETag"))
				continue
			}
			require.Equal(t, 304, w.Code, "%q", tt.lines)
			require.Zero(t, w.Body.Len())
			require.Equal(t, http.Header{"Etag": {tt.tag}, "Vary": {"Accept-Encoding"}, "Cache-Control": {"private, max-age=3600"},
				"Age": {"90"}, "Cache-Status": {"aside; hit; ttl=60; detail=redis"}}, w.Header())
		}
	}
}

func TestCacheControlSaysWhatTheOptionsSay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		o    asidehttp.ServeOptions
		want string
	}{
		{asidehttp.ServeOptions{}, "private, no-cache"},
		{asidehttp.ServeOptions{Public: true}, "public, no-cache"},
		{asidehttp.ServeOptions{MaxAge: time.Minute}, "private, max-age=60"},
		{asidehttp.ServeOptions{MaxAge: 1999 * time.Millisecond, Public: true}, "public, max-age=1"},
		{asidehttp.ServeOptions{MaxAge: time.Millisecond}, "private, max-age=0"},
		{asidehttp.ServeOptions{MaxAge: -time.Minute, StaleIfError: -1, StaleWhileRevalidate: -1}, "private, no-cache"},
		{asidehttp.ServeOptions{StaleIfError: time.Hour}, "private, max-age=0, stale-if-error=3600"},
		{asidehttp.ServeOptions{MaxAge: time.Minute, StaleWhileRevalidate: time.Second, StaleIfError: time.Hour, Public: true}, "public, max-age=60, stale-while-revalidate=1, stale-if-error=3600"},
	} {
		w := served(t, asidehttp.Pack("text/plain", []byte("x")), tt.o)
		require.Equal(t, tt.want, w.Header().Get("Cache-Control"))
	}
}

func TestCacheStatusSaysHowACallWasAnswered(t *testing.T) {
	t.Parallel()
	type result = aside.Result[string]
	for _, tt := range []struct {
		res  result
		name string
		want string
	}{
		{result{Status: aside.StatusHit, Tier: aside.TierMemory, TTL: 412900 * time.Millisecond}, "", "aside; hit; ttl=412; detail=memory"},
		{result{Status: aside.StatusHit, Tier: aside.TierRedis, TTL: time.Second}, "models", "models; hit; ttl=1; detail=redis"},
		{result{Status: aside.StatusStale, Tier: aside.TierMemory, Stale: 8001 * time.Millisecond, Reason: aside.ReasonStale}, "", "aside; hit; ttl=-9; detail=memory"},
		{result{Status: aside.StatusStale, Tier: aside.TierRedis, Stale: 1, Reason: aside.ReasonStale}, "", "aside; hit; ttl=-1; detail=redis"},
		{result{Status: aside.StatusStale, Tier: aside.TierMemory, Stale: time.Second, Reason: aside.ReasonLoadFailed}, "", "aside; fwd=stale; ttl=-1; detail=load-failed"},
		{result{Status: aside.StatusStale, Tier: aside.TierMemory, Stale: time.Second, Reason: aside.ReasonSlowLoad}, "", "aside; fwd=stale; ttl=-1; detail=slow-load"},
		{result{Status: aside.StatusStale, Tier: aside.TierMemory, Stale: time.Second, Reason: aside.ReasonBackoff}, "", "aside; hit; ttl=-1; detail=backoff"},
		{result{Status: aside.StatusStale, Tier: aside.TierMemory, Stale: time.Second, Reason: aside.ReasonOverloaded}, "", "aside; hit; ttl=-1; detail=overloaded"},
		{result{Status: aside.StatusStale, Tier: aside.TierMemory, Reason: "redis is unavailable"}, "", "aside; hit; ttl=0; detail=stale"},
		{result{Status: aside.StatusMiss, Tier: aside.TierOrigin, TTL: time.Minute}, "", "aside; fwd=miss; stored"},
		{result{Status: aside.StatusMiss, Tier: aside.TierOrigin, TTL: time.Minute, Shared: true}, "", "aside; fwd=miss; stored; collapsed"},
		{result{Status: aside.StatusMiss, Tier: aside.TierOrigin}, "", "aside; fwd=miss"},
		{result{Status: aside.StatusFallback, Tier: aside.TierOrigin}, "", "aside; fwd=miss; detail=unavailable"},
		{result{}, "", "aside"},
		{result{}, "*a:/1", "*a:/1"},
		{result{}, "1st", `"1st"`},
		{result{}, "the \"cache\"\\", `"the \"cache\"\\"`},
		{result{}, "é\r\nX: y", `"????X: y"`},
	} {
		h := http.Header{}
		asidehttp.SetCacheStatus(h, tt.res, tt.name)
		require.Equal(t, []string{tt.want}, h["Cache-Status"])
	}
	w := httptest.NewRecorder()
	w.Header().Set("Cache-Status", "inner; hit")
	asidehttp.Serve(w, httptest.NewRequest("GET", "/", nil), aside.Result[asidehttp.Body]{Value: asidehttp.Pack("", nil)}, asidehttp.ServeOptions{Name: "outer", Key: aside.TTL.ModelsAll.Key("all", "a\"b")})
	require.Equal(t, []string{"inner; hit", `outer; key="models:all:a\"b"`}, w.Header()["Cache-Status"])
	require.Equal(t, "application/octet-stream", w.Header().Get("Content-Type"))
}

func TestWhatPackKeeps(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	failing := asidehttp.Coding{Name: "bad", NewWriter: func(io.Writer) io.WriteCloser { return &halfWriter{failedWriter{}} }}
	for _, tt := range []struct {
		name    string
		content []byte
		codings []asidehttp.Coding
		accept  string
		coding  string
	}{
		{"empty", nil, nil, "gzip, zstd", ""},
		{"below 1 KiB", bytes.Repeat([]byte("a"), 1023), nil, "gzip, zstd", ""},
		{"1 KiB", bytes.Repeat([]byte("a"), 1024), nil, "gzip, zstd", "zstd"},
		{"noise", noise, nil, "gzip, zstd", ""},
		{"the first coding is preferred", catalogue(5000), []asidehttp.Coding{asidehttp.Gzip(9), asidehttp.Zstd()}, "zstd, gzip", "gzip"},
		{"another coding", catalogue(5000), []asidehttp.Coding{halves("br"), asidehttp.Gzip(1)}, "br, gzip", "br"},
		{"identity from beside another coding", catalogue(5000), []asidehttp.Coding{halves("br")}, "gzip", ""},
		{"identity from gzip", catalogue(5000), []asidehttp.Coding{halves("br"), asidehttp.Gzip(1)}, "", ""},
		{"a coding that fails", catalogue(5000), []asidehttp.Coding{failing, asidehttp.Gzip(1)}, "bad, gzip", "gzip"},
	} {
		w := served(t, asidehttp.Pack("text/plain; charset=utf-8", tt.content, tt.codings...), asidehttp.ServeOptions{}, "Accept-Encoding", tt.accept)
		require.Equal(t, 200, w.Code, tt.name)
		require.Equal(t, tt.coding, w.Header().Get("Content-Encoding"), tt.name)
		require.Equal(t, tagOf(tt.content, tt.coding), w.Header().Get("ETag"), tt.name)
		if tt.coding == "br" {
			require.Equal(t, tt.content[:len(tt.content)/2], w.Body.Bytes(), tt.name)
		} else {
			require.Equal(t, string(tt.content), string(decoded(t, tt.coding, w.Body.Bytes())), tt.name)
		}
	}
	for _, kind := range []string{"", "text/plain\r\nX: y", "é", strings.Repeat("a", 1025)} {
		require.Equal(t, "application/octet-stream", served(t, asidehttp.Pack(kind, nil), asidehttp.ServeOptions{}).Header().Get("Content-Type"))
	}
}

type failedWriter struct{}

func (failedWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAWrongCodingNamesItsField(t *testing.T) {
	t.Parallel()
	many := make([]asidehttp.Coding, 8)
	for want, codings := range map[string][]asidehttp.Coding{
		`asidehttp.Pack: Coding.Name is "": use the name of a content coding in lower case, such as br`:         {{NewWriter: halves("x").NewWriter}},
		`asidehttp.Pack: Coding.Name is "GZIP": use the name of a content coding in lower case, such as br`:     {halves("GZIP")},
		`asidehttp.Pack: Coding.Name is "identity": use the name of a content coding in lower case, such as br`: {halves("identity")},
		`asidehttp.Pack: Coding.Name is "*": use the name of a content coding in lower case, such as br`:        {halves("*")},
		`asidehttp.Pack: Coding.Name is "a\r\nb": use the name of a content coding in lower case, such as br`:   {halves("a\r\nb")},
		`asidehttp.Pack: Coding.NewWriter of br is nil`:                                                         {{Name: "br"}},
		`asidehttp.Pack: Coding.Name gzip is there twice`:                                                       {asidehttp.Gzip(1), asidehttp.Gzip(2)},
		`asidehttp.Pack: 8 codings: use at most 7`:                                                              many,
	} {
		require.PanicsWithValue(t, want, func() { asidehttp.Pack("", nil, codings...) })
	}
	require.PanicsWithValue(t, "asidehttp.Gzip: level is 0: use 1 to 9", func() { asidehttp.Gzip(0) })
	require.PanicsWithValue(t, "asidehttp.Gzip: level is 10: use 1 to 9", func() { asidehttp.Gzip(10) })
}

// A middleware that encodes has set Content-Encoding before the handler.
func TestAMiddlewareThatEncodesGetsTheContent(t *testing.T) {
	t.Parallel()
	content := catalogue(10_000)
	w := httptest.NewRecorder()
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Add("Vary", "Origin, accept-encoding")
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept-Encoding", "gzip, zstd")
	asidehttp.Serve(w, r, aside.Result[asidehttp.Body]{Value: asidehttp.Pack("application/json", content)}, asidehttp.ServeOptions{})
	require.Equal(t, content, w.Body.Bytes())
	require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
	require.Empty(t, w.Header().Get("Content-Length"))
	require.Equal(t, tagOf(content, "gzip"), w.Header().Get("ETag"))
	require.Equal(t, []string{"Origin, accept-encoding"}, w.Header().Values("Vary"))
}

// Over a connection, where net/http looks at the lengths too.
func TestABodyOverAConnection(t *testing.T) {
	t.Parallel()
	content := catalogue(100_000)
	body := asidehttp.Pack("application/json", content)
	c := newCache(t, aside.Options{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, err := aside.Lookup(r.Context(), c, aside.TTL.ModelsAll.Key("all", "all"), func(context.Context) (asidehttp.Body, error) { return body, nil })
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		asidehttp.Serve(w, r, res, asidehttp.ServeOptions{Key: aside.TTL.ModelsAll.Key("all", "all")})
	}))
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	for i, accept := range []string{"gzip", "zstd", "identity"} {
		for _, method := range []string{"GET", "HEAD"} {
			r, err := http.NewRequest(method, server.URL, nil)
			require.NoError(t, err)
			r.Header.Set("Accept-Encoding", accept)
			resp, err := client.Do(r)
			require.NoError(t, err)
			data, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			status := resp.Header.Get("Cache-Status")
			if i == 0 && method == "GET" {
				require.Equal(t, `aside; fwd=miss; stored; key="models:all:all"`, status)
			} else {
				require.Regexp(t, `^aside; hit; ttl=\d+; detail=memory; key="models:all:all"$`, status)
			}
			if method == "GET" {
				require.EqualValues(t, len(data), resp.ContentLength)
				require.Equal(t, content, decoded(t, resp.Header.Get("Content-Encoding"), data))
				r.Header.Set("If-None-Match", resp.Header.Get("ETag"))
				r.Header.Set("Accept-Encoding", "gzip;q=0.5, zstd")
				resp, err := client.Do(r)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, 304, resp.StatusCode)
				require.Equal(t, r.Header.Get("If-None-Match"), resp.Header.Get("ETag"))
			}
		}
	}
}

package asidehttp_test

import (
	"net/http"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// large is a hit in memory.
func large(body asidehttp.Body) aside.Result[asidehttp.Body] {
	return aside.Result[asidehttp.Body]{Value: body, Status: aside.StatusHit, Tier: aside.TierMemory, TTL: 1e12}
}

func request(fields ...string) *http.Request {
	r := &http.Request{Method: "GET", Header: http.Header{}}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	return r
}

const browser = "gzip, deflate, br, zstd"

func TestServingALargeBodyAllocatesLittle(t *testing.T) {
	content := make([]byte, 24<<20)
	res := large(asidehttp.Pack("application/json", content, claims("zstd", content[:20<<20]))) // 20 MiB are written
	r := request("Accept-Encoding", browser, "If-None-Match", `"another", W/"one"`)
	const rounds = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		w := &countingWriter{header: http.Header{}}
		asidehttp.Serve(w, r, res, asidehttp.ServeOptions{MaxAge: 1e10, Public: true})
		require.EqualValues(t, 20<<20, w.bytes, "written")
	}
	runtime.ReadMemStats(&after)
	perCall := (after.TotalAlloc - before.TotalAlloc) / rounds
	t.Log(perCall, "bytes")
	require.Less(t, perCall, uint64(2<<10), "of the whole process")
}

// go test -run xxx -bench Serve -benchmem ./asidehttp
func BenchmarkServe(b *testing.B) {
	res := large(asidehttp.Pack("application/json", catalogue(20<<20)))
	for name, r := range map[string]*http.Request{
		"20MB/zstd":     request("Accept-Encoding", browser),
		"20MB/gzip":     request("Accept-Encoding", "gzip"),
		"20MB/304":      request("Accept-Encoding", browser, "If-None-Match", tagOf(catalogue(20<<20), "gzip")),
		"20MB/identity": request(),
	} {
		b.Run(name, func(b *testing.B) {
			w := &countingWriter{header: http.Header{}}
			for b.Loop() {
				clear(w.header)
				asidehttp.Serve(w, r, res, asidehttp.ServeOptions{MaxAge: 1e10, Public: true})
			}
			b.ReportMetric(float64(w.bytes)/float64(b.N)/1e6, "MB")
		})
	}
}

// The work of a loader, once for each load.
func BenchmarkPack(b *testing.B) {
	content := catalogue(20 << 20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		asidehttp.Pack("application/json", content)
	}
}

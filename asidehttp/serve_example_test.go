package asidehttp_test

import (
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// A catalogue is encoded once for each load. Each request gets the bytes that lie in the cache.
func ExampleServe() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	models := aside.Policy{Category: "models", TTL: time.Hour}
	fetchAll := func(context.Context) ([]byte, error) {
		return []byte(`{"data":[` + strings.Repeat(`{"id":"a model"},`, 1000) + `{}]}`), nil
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /models", func(w http.ResponseWriter, r *http.Request) {
		catalogue, err := aside.Lookup(r.Context(), c, models.Key("all"), func(ctx context.Context) (asidehttp.Body, error) {
			b, err := fetchAll(ctx)
			if err != nil {
				return nil, err
			}
			return asidehttp.Pack("application/json", b), nil
		})
		if err != nil {
			http.Error(w, "the catalogue could not be loaded", http.StatusBadGateway)
			return
		}
		asidehttp.Serve(w, r, catalogue, asidehttp.ServeOptions{})
	})

	get := func(field, value string) http.Header {
		r := httptest.NewRequest("GET", "/models", nil)
		r.Header.Set(field, value)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		status, _, _ := strings.Cut(w.Header().Get("Cache-Status"), "; ttl=")
		fmt.Printf("%d %q %s\n", w.Code, w.Header().Get("Content-Encoding"), status)
		return w.Header()
	}
	first := get("Accept-Encoding", "gzip, br")
	get("Accept-Encoding", "gzip, zstd")
	get("If-None-Match", first.Get("ETag"))
	// Output:
	// 200 "gzip" aside; fwd=miss; stored
	// 200 "zstd" aside; hit
	// 304 "" aside; hit
}

// Another coding beside those of the package: here that of the standard library. Brotli is added in the same way.
func ExamplePack() {
	deflate := asidehttp.Coding{Name: "deflate", NewWriter: func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }}
	body := asidehttp.Pack("text/plain", []byte(strings.Repeat("the same again, ", 1000)), deflate, asidehttp.Gzip(9))

	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept-Encoding", "gzip, deflate")
	w := httptest.NewRecorder()
	asidehttp.Serve(w, r, aside.Result[asidehttp.Body]{Value: body}, asidehttp.ServeOptions{MaxAge: time.Minute, Public: true})
	fmt.Println(w.Header().Get("Content-Encoding"), w.Header().Get("Cache-Control"))
	// Output:
	// deflate public, max-age=60
}

// A handler that encodes a value itself.
func ExampleSetCacheStatus() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	models := aside.Policy{Category: "models", TTL: time.Hour}

	w := httptest.NewRecorder()
	res, err := aside.Lookup(context.Background(), c, models.Key("count"), func(context.Context) (int, error) { return 42, nil })
	asidehttp.SetCacheStatus(w.Header(), res, "")
	if err == nil {
		_ = json.NewEncoder(w).Encode(res.Value)
	}
	fmt.Print(w.Header().Get("Cache-Status"), " ", w.Body)
	// Output:
	// aside; fwd=miss; stored 42
}

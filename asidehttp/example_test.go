package asidehttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func ExampleHandler() {
	os.Setenv("CACHE_API_KEY", "s3cret")
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	mux := http.NewServeMux()
	mux.Handle("/api/cache/invalidate", asidehttp.Handler(c, asidehttp.Options{APIKeys: []string{os.Getenv("CACHE_API_KEY")}}))

	rankings := aside.TTL.RankingsModels.Key("models", "all")
	for range 4 {
		_, _ = aside.GetOrLoad(context.Background(), c, rankings, func(context.Context) ([]string, error) { return []string{"a", "b"}, nil })
	}

	r := httptest.NewRequest("GET", "/api/cache/invalidate?metrics=true", nil)
	fmt.Println(answer(mux, r))
	r.Header.Set("Authorization", "Bearer s3cret")
	fmt.Println(answer(mux, r))
	fmt.Println(c.Metrics().Labels["rankings"].HitRate())
	// Output:
	// 401
	// 200
	// 0.75
}

func answer(h http.Handler, r *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

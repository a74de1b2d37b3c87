package asidehttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func ExampleAdminHandler() {
	os.Setenv("CACHE_API_KEY", "an example key, 16 bytes at least")
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	mux := http.NewServeMux()
	mux.Handle("/api/cache/invalidate", asidehttp.AdminHandler(c, asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret(os.Getenv("CACHE_API_KEY"))}}))

	rankings := aside.TTL.RankingsModels.Key("models", "all")
	for range 4 {
		_, _ = aside.GetOrLoad(context.Background(), c, rankings, func(context.Context) ([]string, error) { return []string{"a", "b"}, nil })
	}
	fmt.Println(c.Metrics().Labels["rankings"].HitRate())

	send := func(method, query, key, body string) {
		r := httptest.NewRequest(method, "/api/cache/invalidate"+query, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		var answer struct {
			Invalidated struct {
				Entries int `json:"memory_entries"` // on Redis: redis_entries
			}
			Detail string
		}
		_ = json.Unmarshal(w.Body.Bytes(), &answer)
		if w.Code != http.StatusOK {
			fmt.Println(w.Code, answer.Detail)
			return
		}
		fmt.Println(w.Code, answer.Invalidated.Entries)
	}
	send("GET", "?metrics=true", "an example key, 16 bytes at least", "")
	send("POST", "", "an example key, 16 bytes at least", `{"category":"rankings"}`)
	send("POST", "", "guess", `{"category":"rankings"}`)
	send("POST", "", "an example key, 16 bytes at least", `{"pattern":"rankings:*","category":"rankings"}`)
	// Output:
	// 0.75
	// 200 0
	// 200 1
	// 401 send Authorization: Bearer with a key of this service
	// 400 the body has both pattern and category: send one of them, and a second request for the other
}

// Keys of a narrower scope: a dashboard looks, a deployment invalidates but cannot empty the cache, and the operator's key is
// configured by its hash alone.
func ExampleOptions() {
	o := asidehttp.Options{Keys: []asidehttp.Key{
		{Name: "dashboard", Secret: aside.NewSecret(os.Getenv("DASHBOARD_KEY")), Scopes: []asidehttp.Scope{asidehttp.ScopeRead}},
		{Name: "deployment", Secret: aside.NewSecret(os.Getenv("DEPLOYMENT_KEY")), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
		{Name: "operator", SHA256: "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0", Scopes: []asidehttp.Scope{"everything"}},
	}}
	fmt.Println(o.Validate())
	// Output:
	// asidehttp: Options.Keys[2] has an unknown scope "everything": the scopes are "read", "invalidate", "warm", "values" and "all"
}

func ExampleMetrics() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	_ = aside.Set(context.Background(), c, aside.TTL.ModelsAll.Key("all", "all"), "…")

	h := asidehttp.Metrics(c, asidehttp.Options{Keys: []asidehttp.Key{{Name: "dashboard", Secret: aside.NewSecret("an example key, 16 bytes at least"), Scopes: []asidehttp.Scope{asidehttp.ScopeRead}}}})
	r := httptest.NewRequest("GET", "/api/cache/metrics?pattern=models:*", nil)
	r.Header.Set("Authorization", "Bearer an example key, 16 bytes at least")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var answer struct {
		Memory json.RawMessage // on Redis: redis
	}
	_ = json.Unmarshal(w.Body.Bytes(), &answer)
	fmt.Println(w.Code, string(answer.Memory))
	// Output:
	// 200 {"total_keys":1,"pattern":"models:*","keys":["models:all:all"],"complete":true}
}

func ExampleHealth() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	w := httptest.NewRecorder()
	asidehttp.Health(c, asidehttp.HealthOptions{}).ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
	var health aside.Health
	_ = json.Unmarshal(w.Body.Bytes(), &health)
	fmt.Println(w.Code, health.State)
	// Output:
	// 200 memory
}

// A web front end that keeps pages of its own hears of what was invalidated.
func ExampleRevalidator() {
	frontEnd := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct{ Tag, Path string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		fmt.Println("revalidate", body.Tag, r.Header.Get("X-Revalidate-Secret") == "an example key, 16 bytes at least")
	}))
	defer frontEnd.Close()

	front, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{URL: aside.NewSecret(frontEnd.URL + "/api/revalidate"), Secret: aside.NewSecret("an example key, 16 bytes at least")})
	if err != nil {
		panic(err)
	}
	c, err := aside.New(aside.Options{OnInvalidated: front.Notify})
	if err != nil {
		panic(err)
	}
	_, _ = c.InvalidateCategory(context.Background(), "models")

	c.Close() // first the cache, which has the last invalidations told
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println(front.Close(ctx))
	// Output:
	// revalidate category:models true
	// <nil>
}

// A handler that leaves the answer to an error of the cache to the package.
func ExampleError() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	users := aside.NewLoader(c, aside.Policy{Category: "users", TTL: time.Minute}, func(context.Context, int) (string, error) { return "", aside.ErrNotFound })
	handler := func(w http.ResponseWriter, r *http.Request) {
		name, err := users.Get(r.Context(), 7)
		if err != nil {
			asidehttp.Error(w, err)
			return
		}
		fmt.Fprintln(w, name)
	}

	w := httptest.NewRecorder()
	handler(w, httptest.NewRequest(http.MethodGet, "/users/7", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 404 {"type":"about:blank","title":"Not Found","status":404}
}

package browser

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// The keys of the tests. None of them may be in what the browser keeps, or in the log.
const (
	keyAll   = "canary-of-a-key-for-everything"
	keyRead  = "canary-of-a-key-that-reads"
	keyWrong = "canary-of-a-key-that-is-wrong"
)

var (
	models   = aside.Policy{Name: "models", Category: "models", TTL: time.Hour}
	sessions = aside.Policy{Name: "sessions", Category: "sessions", TTL: time.Hour}
)

func newCache(t *testing.T, o aside.Options) *aside.Cache {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	if o.Policies == nil {
		o.Policies = []aside.Policy{models, sessions}
	}
	c, err := aside.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// load asks for a key n times: the first call loads.
func load(t *testing.T, c *aside.Cache, key aside.Key, n int, opts ...aside.CallOption) {
	t.Helper()
	for range n {
		_, err := aside.GetOrLoad(context.Background(), c, key, func(context.Context) (string, error) { return "value of " + key.String(), nil }, opts...)
		require.NoError(t, err)
	}
}

func options() asidehttp.DashboardOptions {
	return asidehttp.DashboardOptions{
		Options: asidehttp.Options{
			Keys: []asidehttp.Key{
				{Name: "operator", Secret: aside.NewSecret(keyAll), Scopes: []asidehttp.Scope{asidehttp.ScopeAll}},
				{Name: "reader", Secret: aside.NewSecret(keyRead), Scopes: []asidehttp.Scope{asidehttp.ScopeRead}},
			},
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		},
		Name: "test cache", Values: true,
	}
}

// A site is a server with a dashboard, and what was asked of it.
type site struct {
	url      string // of the page
	origin   string
	requests atomic.Int64
}

func serve(t *testing.T, path string, h http.Handler) *site {
	t.Helper()
	s := &site{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.origin, s.url = server.URL, server.URL+path
	return s
}

// dashboard serves the dashboard of a cache at /admin/cache/.
func dashboard(t *testing.T, c *aside.Cache, o asidehttp.DashboardOptions) *site {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/admin/cache/", asidehttp.Dashboard(c, o))
	return serve(t, "/admin/cache/", mux)
}

// mounts are the ways to mount a dashboard. Each is opened without the slash at its end.
func mounts() map[string]func(t *testing.T, c *aside.Cache) *site {
	return map[string]func(t *testing.T, c *aside.Cache) *site{
		"plain": func(t *testing.T, c *aside.Cache) *site {
			return serve(t, "/admin/cache", asidehttp.Dashboard(c, options()))
		},
		"StripPrefix": func(t *testing.T, c *aside.Cache) *site {
			return serve(t, "/ops/tools/a%20b", http.StripPrefix("/ops/tools", asidehttp.Dashboard(c, options())))
		},
		"a proxy that takes a prefix off": func(t *testing.T, c *aside.Cache) *site {
			mux := http.NewServeMux()
			mux.Handle("/inner/cache/", asidehttp.Dashboard(c, options()))
			mux.Handle("/inner/cache", asidehttp.Dashboard(c, options())) // or the mux would redirect to a path that the proxy does not know
			inner := serve(t, "/", mux)
			to, err := url.Parse(inner.origin)
			require.NoError(t, err)
			proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				r.Out.URL.Path = "/inner" + strings.TrimPrefix(r.In.URL.Path, "/outside/of/it")
			}}
			return serve(t, "/outside/of/it/cache", proxy)
		},
	}
}

// answer is what a program gets for a request with a key.
func answer(t *testing.T, method, target, key, body string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	w, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	return w.StatusCode, string(b)
}

// A process of its own serves the dashboard of a cache that has answered calls, and prints where. It ends with its standard input.
func serveAlone(calls, misses int) {
	c, err := aside.New(aside.Options{Policies: []aside.Policy{models}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	h := asidehttp.Dashboard(c, options())
	for i := range calls {
		_, err := aside.GetOrLoad(context.Background(), c, models.Key(i%misses), func(context.Context) (int, error) { return i, nil })
		if err != nil {
			panic(err)
		}
	}
	server := httptest.NewServer(h)
	fmt.Println(server.URL)
}

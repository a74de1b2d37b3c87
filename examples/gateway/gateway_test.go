package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// No goroutine may outlive a server, its upstreams and its cache, except a timer of the Redis client that ends by itself within a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

const tinyCatalogue = `{
	"maple/small": {"litellm_provider": "maple", "max_tokens": 1000},
	"maple/large model?": {"litellm_provider": "maple", "max_tokens": 9000},
	"oak:1": {"litellm_provider": "oak", "input_cost_per_token": 1e-07},
	"pine": {"litellm_provider": "pine"},
	"nobody's": {"mode": "chat"}
}`

const operatorKey = "key-of-the-operator"

// running is a server with its upstreams, database and cache.
type running struct {
	t       *testing.T
	base    string
	backend *backend
	cache   *aside.Cache
	keys    *policySet
	mu      sync.Mutex
	samples []sample // guarded by mu
}

// start runs a server with a small catalogue, in memory mode, until the test ends.
func start(t *testing.T) *running {
	t.Helper()
	return startWith(t, newPolicies())
}

// startWith is start with other policies.
func startWith(t *testing.T, keys *policySet) *running {
	t.Helper()
	return startOn(t, keys, aside.Options{})
}

// startOn is startWith with options of the cache, as for a Redis.
func startOn(t *testing.T, keys *policySet, opts aside.Options) *running {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	cat, err := parseCatalogue([]byte(tinyCatalogue))
	require.NoError(t, err)
	b := &backend{catalogue: cat}
	b.upstreams, err = startUpstreams(cat, 0, 0, quiet)
	require.NoError(t, err)
	b.models = newModelSource(b.upstreams, cat, &b.calls, quiet)
	b.store, err = openStore(t.Context(), filepath.Join(t.TempDir(), "gateway.db"), fillSize{users: 10, events: 500}, &b.calls, quiet)
	require.NoError(t, err)
	opts.Secret, opts.Policies, opts.Logger = aside.NewSecret("a secret of sixteen bytes or more"), keys.list(), quiet
	cache, err := aside.New(opts)
	require.NoError(t, err)

	run := &running{t: t, backend: b, cache: cache, keys: keys}
	admin := map[string]http.Handler{"/api/cache/invalidate": asidehttp.AdminHandler(cache, asidehttp.Options{
		APIKeys: []aside.Secret{aside.NewSecret(operatorKey)}, Warmers: warmers(newWarmings(b, cache, keys)), Logger: quiet,
	})}
	srv := newServer(b, cache, keys, admin, quiet)
	srv.observe = func(s sample) {
		run.mu.Lock()
		defer run.mu.Unlock()
		run.samples = append(run.samples, s)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	run.base = "http://" + listener.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- srv.serve(ctx, listener) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		require.NoError(t, <-served)
		require.NoError(t, cache.Close())
		require.NoError(t, b.close())
	})
	return run
}

// reply is an answer of the server.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) hit() bool { return strings.HasPrefix(r.header.Get("Cache-Status"), "aside; hit") }

// ask sends a request. With an empty key it sends no Authorization header.
func (run *running) ask(method, path, key, body string) reply {
	run.t.Helper()
	request, err := http.NewRequestWithContext(run.t.Context(), method, run.base+path, strings.NewReader(body))
	require.NoError(run.t, err)
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(run.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(run.t, err)
	return reply{response.StatusCode, response.Header, string(text)}
}

func (run *running) get(path, key string) reply {
	run.t.Helper()
	return run.ask(http.MethodGet, path, key, "")
}

// decode sends a GET request, which must succeed, and decodes the answer.
func decode[T any](run *running, path, key string) (value T) {
	run.t.Helper()
	r := run.get(path, key)
	require.Equal(run.t, http.StatusOK, r.status, r.body)
	require.NoError(run.t, json.Unmarshal([]byte(r.body), &value))
	return value
}

var publicRoutes = []string{
	"/api/models",
	"/api/models?gateway=maple",
	"/api/models/maple/small",
	"/api/models/maple/large%20model%3F",
	"/api/ranking/models",
	"/api/ranking/apps",
}

var userRoutes = []string{
	"/api/chat/sessions?limit=10&offset=0",
	"/api/chat/sessions/1",
	"/api/chat/stats",
	"/api/chat/search?q=Cache",
	"/api/user/me",
	"/api/user/credits",
	"/api/user/activity/stats",
	"/api/user/activity/stats?period=month",
}

func TestEveryRouteHitsTheSecondTime(t *testing.T) {
	run := start(t)
	for _, path := range slices.Concat(publicRoutes, userRoutes) {
		key := ""
		if slices.Contains(userRoutes, path) {
			key = demoKey(1)
		}
		first, second := run.get(path, key), run.get(path, key)
		require.Equal(t, http.StatusOK, first.status, "%s: %s", path, first.body)
		require.Equal(t, "application/json", first.header.Get("Content-Type"), path)
		require.True(t, json.Valid([]byte(first.body)), path)
		require.Contains(t, first.header.Get("Cache-Status"), "fwd=miss", path)
		require.True(t, second.hit(), "%s: %s", path, second.header.Get("Cache-Status"))
		require.Equal(t, first.body, second.body, path)
	}
	require.True(t, run.get("/api/models?gateway=all", "").hit(), "all is the default")
	require.True(t, run.get("/api/chat/sessions?limit=010", demoKey(1)).hit(), "one number, one key")
	require.True(t, run.get("/api/chat/search?q=+cACHE+", demoKey(1)).hit(), "one search, one key")
}

func TestTheCatalogueHoldsEveryModelOnce(t *testing.T) {
	run := start(t)
	type answer struct {
		Gateway string   `json:"gateway"`
		Missing []string `json:"missing"`
		Data    []model  `json:"data"`
	}
	ids := func(a answer) (ids []string) {
		for _, m := range a.Data {
			ids = append(ids, m.ID)
		}
		return ids
	}
	all := decode[answer](run, "/api/models?gateway=all", "")
	require.Equal(t, []string{"maple/large model?", "maple/small", "oak:1", "pine"}, ids(all))
	require.JSONEq(t, `{"litellm_provider": "oak", "input_cost_per_token": 1e-07}`, string(all.Data[2].Info))
	require.Empty(t, all.Missing)
	require.Equal(t, []string{"pine"}, ids(decode[answer](run, "/api/models?gateway=pine", "")))
	require.Equal(t, "maple", decode[model](run, "/api/models/maple/small", "").Gateway)
}

func TestABrokenUpstreamIsLeftOutForAMinute(t *testing.T) {
	run := start(t)
	oak := run.backend.upstreams.servers[1]
	require.Equal(t, "oak", oak.gateway)
	require.NoError(t, oak.http.Close())

	first, second := run.get("/api/models", ""), run.get("/api/models", "")
	for _, r := range []reply{first, second} {
		require.Equal(t, http.StatusOK, r.status)
		require.Contains(t, r.body, `"missing":["oak"]`)
		require.NotContains(t, r.body, "oak:1")
		require.Contains(t, r.body, "pine")
	}
	require.True(t, second.hit())
	require.Regexp(t, `ttl=(60|5\d);`, second.header.Get("Cache-Status"))
	r := run.get("/api/models?gateway=oak", "")
	require.Equal(t, http.StatusBadGateway, r.status)
	require.NotContains(t, r.body, "127.0.0.1", "where upstreams are is nobody's business")
}

func TestWithoutAnyUpstreamThereIsNoCatalogue(t *testing.T) {
	run := start(t)
	for _, up := range run.backend.upstreams.servers {
		require.NoError(t, up.http.Close())
	}
	require.Equal(t, http.StatusBadGateway, run.get("/api/models", "").status)
}

func TestUsersSeeOnlyWhatIsTheirs(t *testing.T) {
	run := start(t)
	for _, path := range userRoutes {
		one, other := run.get(path, demoKey(1)), run.get(path, demoKey(2))
		require.False(t, other.hit(), path)
		require.NotEqual(t, one.body, other.body, path)
	}
	require.Equal(t, int64(2), decode[profile](run, "/api/user/me", demoKey(2)).ID)
	for range 2 { // the second answer comes from the cache, and must belong to the same user
		require.Equal(t, http.StatusOK, run.get("/api/chat/sessions/1", demoKey(1)).status)
		require.Equal(t, http.StatusNotFound, run.get("/api/chat/sessions/1", demoKey(2)).status)
	}
	r := run.ask(http.MethodPost, "/api/chat/sessions/1/messages", demoKey(2), `{"content":"not mine"}`)
	require.Equal(t, http.StatusNotFound, r.status)
	require.NotContains(t, run.get("/api/chat/sessions/1", demoKey(1)).body, "not mine")
}

func TestWhatIsNotThereIsRemembered(t *testing.T) {
	run := start(t)
	require.Equal(t, http.StatusNotFound, run.get("/api/chat/sessions/9999", demoKey(1)).status)
	before := run.backend.calls.snapshot()
	r := run.get("/api/chat/sessions/9999", demoKey(1))
	require.Equal(t, http.StatusNotFound, r.status)
	require.True(t, r.hit())
	require.Equal(t, before, run.backend.calls.snapshot())
}

func TestAMessageShowsAtOnce(t *testing.T) {
	run, key := start(t), demoKey(1)
	sessionPath, listPath := "/api/chat/sessions/3", "/api/chat/sessions?limit=10&offset=0"
	oldSession := decode[session](run, sessionPath, key)
	oldStats := decode[chatStats](run, "/api/chat/stats", key)
	oldCredits := decode[credits](run, "/api/user/credits", key)
	decode[sessionPage](run, listPath, key)
	decode[sessionPage](run, "/api/chat/sessions?limit=20&offset=20", key)

	r := run.ask(http.MethodPost, sessionPath+"/messages", key, `{"content":"Is the teapot still warm?"}`)
	require.Equal(t, http.StatusCreated, r.status, r.body)

	newSession := decode[session](run, sessionPath, key)
	require.Len(t, newSession.Messages, len(oldSession.Messages)+1)
	require.Equal(t, "Is the teapot still warm?", newSession.Messages[len(oldSession.Messages)].Content)
	page := decode[sessionPage](run, listPath, key)
	require.Equal(t, int64(3), page.Sessions[0].ID)
	require.Equal(t, "Is the teapot still warm?", page.Sessions[0].Latest)
	require.False(t, run.get("/api/chat/sessions?limit=20&offset=20", key).hit(), "every page moves")
	require.Equal(t, oldStats.Messages+1, decode[chatStats](run, "/api/chat/stats", key).Messages)
	require.Less(t, decode[credits](run, "/api/user/credits", key).Balance, oldCredits.Balance)
}

func TestAnAnswerHasABoundThoughASessionHasNone(t *testing.T) {
	run, key := start(t), demoKey(1)
	path := "/api/chat/sessions/3"
	old := decode[session](run, path, key)
	text := strings.Repeat("x", 15<<10)
	for range messagesPage + 5 {
		r := run.ask(http.MethodPost, path+"/messages", key, `{"content":"`+text+`"}`)
		require.Equal(t, http.StatusCreated, r.status, r.body)
	}
	latest := decode[session](run, path, key)
	require.Len(t, latest.Messages, messagesPage)
	older := fmt.Sprintf("%s?before=%d", path, latest.Messages[0].ID)
	rest := decode[session](run, older, key)
	require.Len(t, rest.Messages, len(old.Messages)+5)
	require.Equal(t, old.Messages, rest.Messages[:len(old.Messages)])
	require.Equal(t, text, rest.Messages[len(old.Messages)].Content)
	require.True(t, run.get(older, key).hit())
	require.Empty(t, decode[session](run, path+"?before=1", key).Messages)
}

func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	web := webServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	require.Positive(t, web.WriteTimeout)
	require.Positive(t, web.ReadTimeout)
	web.WriteTimeout = 100 * time.Millisecond
	written := make(chan error, 1)
	web.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, 64<<20))
		written <- err
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var served sync.WaitGroup
	served.Go(func() { require.ErrorIs(t, web.Serve(listener), http.ErrServerClosed) })
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
	require.NoError(t, err)
	require.ErrorIs(t, <-written, os.ErrDeadlineExceeded)
	require.NoError(t, web.Close())
	served.Wait()
}

func TestKeysTellNoAPIKey(t *testing.T) {
	run := start(t)
	for _, path := range userRoutes {
		run.get(path, demoKey(7))
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	require.Len(t, run.samples, len(userRoutes))
	for _, s := range run.samples {
		key := s.key.String()
		require.NotEmpty(t, key)
		require.NotContains(t, key, demoKey(7))
		require.Regexp(t, `^(sessions|stats|user|activity):[A-Za-z0-9_-]{16}(:|$)`, key)
	}
}

func TestKeysAreThoseOfTheDesign(t *testing.T) {
	keys := newPolicies()
	for want, key := range map[string]aside.Key{
		"models:all:all":            keys.modelsKey("all"),
		"models:openrouter:all":     keys.modelsKey("openrouter"),
		"sessions:ABC123:list:50:0": keys.listKey("ABC123", 50, 0),
		"sessions:ABC123:456:full":  keys.sessionKey("ABC123", 456),
		"user:DEF456:profile":       keys.profileKey("DEF456"),
		"user:DEF456:credits":       keys.creditsKey("DEF456"),
		"stats:ABC123":              keys.chatStatsKey("ABC123"),
		"activity:ABC123:stats:day": keys.activityKey("ABC123", "day"),
		"rankings:models:all":       keys.rankModelsKey(),
		"rankings:apps:all":         keys.rankAppsKey(),
	} {
		require.NoError(t, key.Err())
		require.Equal(t, want, key.String())
	}
}

func TestWrongRequestsAreProblems(t *testing.T) {
	run := start(t)
	user := demoKey(1)
	for _, c := range []struct {
		method, path, key, body string
		status                  int
	}{
		{"GET", "/api/user/me", "", "", 401},
		{"GET", "/api/user/me", "gw-demo-9999", "", 401},
		{"GET", "/api/chat/sessions", "' OR 1=1 --", "", 401},
		{"POST", "/api/chat/sessions/1/messages", "", `{"content":"x"}`, 401},
		{"GET", "/api/models?gateway=nowhere", "", "", 404},
		{"GET", "/api/models/no-such-model", "", "", 404},
		{"GET", "/api/nothing", "", "", 404},
		{"DELETE", "/api/models", "", "", 405},
		{"GET", "/api/chat/sessions/1/messages", user, "", 405},
		{"GET", "/api/chat/sessions/x", user, "", 400},
		{"GET", "/api/chat/sessions/0", user, "", 400},
		{"GET", "/api/chat/sessions?limit=0", user, "", 400},
		{"GET", "/api/chat/sessions?limit=49", user, "", 400},
		{"GET", "/api/chat/sessions?limit=many", user, "", 400},
		{"GET", "/api/chat/sessions?offset=7", user, "", 400},
		{"GET", "/api/chat/sessions?offset=-50", user, "", 400},
		{"GET", "/api/chat/sessions?offset=99999999999999999999", user, "", 400},
		{"GET", "/api/chat/search", user, "", 400},
		{"GET", "/api/chat/search?q=+a+", user, "", 400},
		{"GET", "/api/chat/search?q=%ff%fe%fd", user, "", 400},
		{"GET", "/api/chat/search?q=" + strings.Repeat("a", 101), user, "", 400},
		{"GET", "/api/user/activity/stats?period=year", user, "", 400},
		{"GET", "/api/chat/sessions/1?before=-1", user, "", 400},
		{"GET", "/api/chat/sessions/1?before=x", user, "", 400},
		{"POST", "/api/chat/sessions/1/messages", user, `{"content":" "}`, 400},
		{"POST", "/api/chat/sessions/1/messages", user, `{"content":"x"} and more`, 400},
		{"POST", "/api/chat/sessions/1/messages", user, `{"role":"system","content":"x"}`, 400},
		{"POST", "/api/chat/sessions/1/messages", user, `{"content":"` + strings.Repeat("x", 70_000) + `"}`, 400},
		{"GET", "/api/cache/invalidate?metrics=true", user, "", 401},
	} {
		r := run.ask(c.method, c.path, c.key, c.body)
		require.Equal(t, c.status, r.status, "%s %s: %s", c.method, c.path, r.body)
		require.Equal(t, "application/problem+json", r.header.Get("Content-Type"), c.path)
		var p problem
		require.NoError(t, json.Unmarshal([]byte(r.body), &p), c.path)
		require.Equal(t, c.status, p.Status, c.path)
		require.NotEmpty(t, p.Detail, c.path)
		require.NotContains(t, strings.ToLower(r.body), "sql", c.path)
	}
}

func TestASearchTakesItsTextLiterally(t *testing.T) {
	run := start(t)
	require.NotEmpty(t, decode[searchResult](run, "/api/chat/search?q=cache", demoKey(1)).Hits)
	for _, q := range []string{"%25%25", "c_che", "%5C%5C", "%27%27"} {
		require.Empty(t, decode[searchResult](run, "/api/chat/search?q="+q, demoKey(1)).Hits, q)
	}
}

func TestTheOperatorSeesTheMetrics(t *testing.T) {
	run := start(t)
	run.get("/api/models", "")
	run.get("/api/models", "")
	metrics := decode[struct {
		Metrics map[string]struct {
			Hits    uint64  `json:"hits"`
			HitRate float64 `json:"hitRate"`
		} `json:"metrics"`
	}](run, "/api/cache/invalidate?metrics=true", operatorKey)
	require.Equal(t, uint64(1), metrics.Metrics["models"].Hits)
	require.InDelta(t, 0.5, metrics.Metrics["models"].HitRate, 1e-9)
}

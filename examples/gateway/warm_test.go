package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// warmedRoutes are those whose values a gateway with the tiny catalogue warms.
var warmedRoutes = []string{
	"/api/models", "/api/models?gateway=maple", "/api/models?gateway=oak", "/api/models?gateway=pine", "/api/ranking/models", "/api/ranking/apps",
}

// warm warms as at a start, and returns what the log has.
func (run *running) warm() string {
	var out output
	screen := newConsole(&out)
	warmUp(run.t.Context(), newWarmings(run.backend, run.cache, run.keys), screen, slog.New(slog.NewTextHandler(screen, nil)))
	return out.String()
}

func TestAfterAWarmingTheFirstVisitorsHit(t *testing.T) {
	run := start(t)
	log := run.warm()
	require.Regexp(t, `msg="warmed 4 catalogues in \S+: 4 loaded, 0 fresh, 0 failed"\n.*msg="warmed 2 rankings in \S+: 2 loaded, 0 fresh, 0 failed"\n$`, log)
	before := run.backend.calls.snapshot()
	for _, path := range warmedRoutes {
		r := run.get(path, "")
		require.True(t, r.hit(), "%s: %s", path, r.header.Get("Cache-Status"))
		require.True(t, json.Valid([]byte(r.body)), path)
	}
	require.Equal(t, before, run.backend.calls.snapshot())
	require.Contains(t, run.warm(), "0 loaded, 4 fresh, 0 failed", "in memory too, a warming loads what is missing")
}

func TestAnUpstreamThatFailsStopsNoWarming(t *testing.T) {
	run := start(t)
	oak := run.backend.upstreams.servers[1]
	require.Equal(t, "oak", oak.gateway)
	require.NoError(t, oak.http.Close())
	log := run.warm()
	require.Regexp(t, `level=WARN msg="warmed 4 catalogues in \S+: 3 loaded, 0 fresh, 1 failed"`, log)
	require.Regexp(t, `level=WARN msg="values are not warmed: their first requests load them" catalogues=oak error="upstream: oak: `, log)
	require.Contains(t, log, "warmed 2 rankings")
	require.Equal(t, http.StatusBadGateway, run.get("/api/models?gateway=oak", "").status)
	require.True(t, run.get("/api/models?gateway=pine", "").hit())
	all := run.get("/api/models", "")
	require.Contains(t, all.body, `"missing":["oak"]`)
	require.Regexp(t, `hit; ttl=(60|5\d);`, all.header.Get("Cache-Status"), "a catalogue without one upstream is kept for a minute")
}

// patient returns options for a Redis. On a busy machine, it exceeds the default time limits now and then, and a value is then loaded again.
func patient(server *redistest.Server) aside.Options {
	opts := aside.Options{OpTimeout: 5 * time.Second, LeaseTTL: time.Minute}
	opts.Redis = rueidis.ClientOption{InitAddress: []string{server.Addr()}, ConnWriteTimeout: 2500 * time.Millisecond}
	opts.Redis.Dialer.KeepAlive = 250 * time.Millisecond // with which so long a ConnWriteTimeout is allowed
	return opts
}

func TestTwoGatewaysOnOneRedisWarmOnce(t *testing.T) {
	server := redistest.Start(t)
	var both [2]*running
	for i := range both {
		both[i] = startOn(t, newPolicies(), patient(server))
	}
	counted := func() (n [numOps]int64) {
		for _, run := range both {
			for o, calls := range run.backend.calls.snapshot() {
				n[o] += calls
			}
		}
		return n
	}
	begun, held := make(chan struct{}), make(chan struct{})
	var warmed sync.WaitGroup
	warmed.Go(func() {
		first := newWarming(both[0].cache, "catalogues", []string{"birch"}, both[0].keys.modelsKey, func(context.Context, string) ([]byte, error) {
			close(begun)
			<-held
			return []byte("[]"), nil
		})
		warmed, err := first.run(t.Context(), warmingHooks{})
		require.NoError(t, err)
		require.Equal(t, 1, warmed.Loaded)
	})
	<-begun
	require.Contains(t, both[1].warm(), "catalogues are not warmed here: another process warms them")
	close(held)
	warmed.Wait()
	for _, run := range both {
		warmed.Go(func() { run.warm() })
	}
	warmed.Wait()
	once := [numOps]int64{opModelsAll: 1, opModelsGateway: 3, opRankModels: 1, opRankApps: 1}
	require.Equal(t, once, counted())
	for _, run := range both {
		require.Regexp(t, `0 loaded, 4 fresh, 0 failed"\n.*0 loaded, 2 fresh, 0 failed"`, run.warm())
		for _, path := range warmedRoutes {
			require.True(t, run.get(path, "").hit(), path)
		}
	}
	require.Equal(t, once, counted())
}

func TestAnOperatorWarms(t *testing.T) {
	run := start(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, run.base+"/api/cache/invalidate", strings.NewReader(`{"warm":"catalogues"}`))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+operatorKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusAccepted, response.StatusCode)
	require.Eventually(t, func() bool {
		return strings.Contains(run.get("/api/cache/invalidate?warm=catalogues", operatorKey).body, `"loaded":4`)
	}, time.Minute, 5*time.Millisecond)
	require.True(t, run.get("/api/models", "").hit())
}

// The upstreams take 40 s or longer here, so the warming goes on during the whole test.
func TestAGatewayServesWhileItWarmsAndEndsWhenItIsTold(t *testing.T) {
	memoryOnly(t)
	var stdout, stderr output
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-addr", "127.0.0.1:0", "-users", "10", "-speedup", "1", "-upstream-min", "40s", "-upstream-max", "45s"}, &stdout, &stderr)
	}()
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
	require.Eventually(t, func() bool { return address.MatchString(stdout.String()) }, time.Minute, 5*time.Millisecond, "%s", &stderr)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.FindString(stdout.String())+"/api/user/me", nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+demoKey(1))
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	http.DefaultClient.CloseIdleConnections()
	require.NotContains(t, stderr.String(), "warm")
	stop()
	require.Equal(t, 0, <-code, "%s", &stderr)
	require.Regexp(t, `level=INFO msg="warming stopped after \S+ with 0 of 25 catalogues: context canceled"`, stderr.String())
	require.NotContains(t, stderr.String(), "not warmed", "the upstreams have not failed")
	require.NotContains(t, stderr.String(), "rankings")
}

func TestWhatAPersonSeesFirst(t *testing.T) {
	memoryOnly(t)
	first := func(args ...string) (stdout, stderr string) {
		var out, errs output
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		code := make(chan int, 1)
		go func() {
			code <- run(ctx, append(args, "-addr", "127.0.0.1:0", "-users", "10", "-speedup", "10000"), &out, &errs)
		}()
		require.Eventually(t, func() bool {
			return strings.Contains(out.String(), "operator") && (len(args) > 0 || strings.Contains(errs.String(), "rankings"))
		}, time.Minute, 5*time.Millisecond, "%s", &errs)
		stop()
		require.Equal(t, 0, <-code, "%s", &errs)
		return out.String(), errs.String()
	}
	stdout, stderr := first()
	require.Regexp(t, `^\nLook at the cache: http://127\.0\.0\.1:\d+/admin/cache/, with the key of this run: \w+\n\nThe gateway serves on http://127\.0\.0\.1:\d+: 2267 models of 24 upstreams, and the chats of 10 users\.\nIts cache is in memory\.`, stdout)
	require.Regexp(t, `\n  curl .*http://127\.0\.0\.1:\d+/api/models\?gateway=all'\n`, strings.Join(strings.SplitAfter(stdout, "\n")[:10], ""))
	require.LessOrEqual(t, strings.Count(stdout, "\n"), 22, "it fits on a screen, with the bar below")
	require.Contains(t, stdout, "set CACHE_API_KEY")
	require.NotContains(t, stderr, "WARN")
	require.Contains(t, stderr, "warmed 25 catalogues in ")

	t.Setenv("CACHE_API_KEY", operatorKey)
	stdout, stderr = first("-warm=false")
	require.Contains(t, stdout, `{"warm":"catalogues"}`)
	require.LessOrEqual(t, strings.Count(stdout, "\n"), 25)
	require.NotContains(t, stdout+stderr, operatorKey)
	require.NotContains(t, stderr, "warm")
}

// Another process finds the ETag of a catalogue in Redis, and what it keeps is in Redis for all.
func TestAGatewayKeepsWhatAnotherOneHasLoaded(t *testing.T) {
	server := redistest.Start(t)
	keys := newPolicies().compressed(3600)
	keys.modelsAll.Stale, keys.modelsAll.StaleIfError = time.Hour, time.Hour
	first := startOn(t, keys, patient(server))
	body := first.get("/api/models", "").body
	awaitNoLease(t, server)
	second := startOn(t, keys, patient(server))
	require.Eventually(t, func() bool {
		require.Equal(t, body, second.get("/api/models", "").body)
		return second.cache.Metrics().Labels["models"].NotModified > 0
	}, time.Minute, 10*time.Millisecond)
}

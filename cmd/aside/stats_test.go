package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
)

var withKey = shell{"ASIDE_API_KEY=" + asidetest.Canary}

// serving is the address at which a handler is served.
func serving(t *testing.T, h http.HandlerFunc) string {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// atAddress is a command of the page, with another address.
func atAddress(args []string, url string) []string {
	args = append([]string(nil), args...)
	args[len(args)-1] = url
	return args
}

func TestStatsAndWatch(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for range 4 {
		_, err := aside.GetOrLoad(t.Context(), c, products.Key("7"), func(context.Context) (product, error) {
			begun := time.NewTimer(20 * time.Millisecond) // a source that takes its time
			<-begun.C
			return product{"lamp"}, nil
		})
		require.NoError(t, err)
	}
	metrics := asidehttp.Metrics(c, asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret(asidetest.Canary)}, Logger: asidetest.Quiet()})
	url := serving(t, metrics.ServeHTTP)
	for _, section := range []string{"stats", "watch"} {
		commands, outputs := documented(t, section)
		out := withKey.ok(t, atAddress(commands[0], url)...)
		require.Equal(t, general(outputs[0]), general(out), "docs/cli.md: %s", out)
	}
	two := withKey.ok(t, "stats", "-api", url, "-api", url+"/")
	require.Contains(t, two, url+"\nLABEL")
	require.Contains(t, two, url+"/\nLABEL")
	var got map[string]map[string]struct{ Hits int }
	require.NoError(t, json.Unmarshal([]byte(withKey.ok(t, "stats", "-json", "-api", url)), &got))
	require.Equal(t, 3, got[url]["products"].Hits)

	_, errs, code := shell{"ASIDE_API_KEY=another key, of 16 bytes or more"}.run(t, "stats", "-api", url)
	require.Equal(t, exitFinding, code)
	require.Contains(t, errs, "401 Unauthorized send Authorization: Bearer")
}

func TestWatchComparesReadingsOfOneProcess(t *testing.T) {
	t.Parallel()
	// Two processes behind a load balancer, which answer in turn. One has counted a million times as much.
	var turn atomic.Int64
	answers := func(process func(n int64) string) string {
		turn.Store(0)
		return serving(t, func(w http.ResponseWriter, r *http.Request) {
			n := turn.Add(1)
			fmt.Fprintf(w, `{"process":%q,"metrics":{"products":{"hits":%d}}}`, process(n), map[bool]int64{true: 1_000_000, false: 1}[n%2 == 0])
		})
	}
	out, errs, code := withKey.run(t, "watch", "-n", "4", "-every", "100ms", "-api", answers(func(n int64) string { return fmt.Sprint("p", n%2) }))
	require.Equal(t, exitOK, code)
	require.Contains(t, errs, "another process has answered\n", "the first reading of the second")
	require.Regexp(t, `(?s)^(\S+ +HITS/S +MISSES/S +HIT% +LOADS/S +ERRORS/S\nproducts +0\.0 +0\.0 +- .*?){3}$`, out)

	_, errs, code = withKey.run(t, "watch", "-n", "2", "-every", "100ms", "-api", serving(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"metrics":{"products":{"hits":%d}}}`, 1_000_000/turn.Add(1))
	}))
	require.Equal(t, exitOK, code)
	require.Contains(t, errs, "another process has answered, or it was started again")
}

func TestTheKeyStaysWhereItWasSent(t *testing.T) {
	t.Parallel()
	var reached atomic.Bool
	elsewhere := serving(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	url := serving(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) })
	_, errs, code := withKey.run(t, "stats", "-api", url)
	require.Equal(t, exitFinding, code)
	require.Contains(t, errs, "302 Found")
	require.False(t, reached.Load())
}

// What answers at the address of a process may be anything.
func TestAHostileAnswerIsNoCommandForTheTerminal(t *testing.T) {
	t.Parallel()
	status := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			fmt.Fprint(conn, "HTTP/1.1 500 \x1b[2J\u009b\r\nConnection: close\r\n\r\n")
			conn.Close()
		}
	})
	out, errs, code := withKey.run(t, "stats", "-api", status)
	require.Equal(t, exitFinding, code)
	require.Empty(t, out)
	require.Contains(t, errs, `500 \x1b[2J\u009b`)
	label := serving(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{\"metrics\":{\"a\u009b2J\":{}}}") })
	require.Contains(t, withKey.ok(t, "stats", "-api", label), `a\u009b2J`)
	require.Contains(t, withKey.ok(t, "stats", "-json", "-api", label), `"a\u009b2J"`)
}

func TestStatsRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sh   shell
		args []string
		code int
		want string
	}{
		{withKey, nil, exitUsage, "give -api URL"},
		{withKey, []string{"x"}, exitUsage, "it takes no arguments"},
		{shell{}, []string{"-api", "http://localhost"}, exitUsage, "set ASIDE_API_KEY"},
		{withKey, []string{"-api", "localhost:8080"}, exitUsage, "-api is no URL"},
		{withKey, []string{"-api", "http://u:" + asidetest.Canary + "@localhost"}, exitUsage, "the key in ASIDE_API_KEY"},
		{withKey, []string{"-api", "http://" + asidetest.Nobody(t)}, exitFinding, "connection refused"},
		{withKey, []string{"-api", serving(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") })}, exitFinding, "the answer is none of asidehttp"},
	} {
		for _, verb := range []string{"stats", "watch"} {
			_, errs, code := c.sh.run(t, append([]string{verb}, c.args...)...)
			require.Equal(t, c.code, code, "%v: %s", c.args, errs)
			require.Contains(t, errs, c.want)
		}
	}
	_, _, code := withKey.run(t, "watch", "-every", "1ms", "-api", "http://localhost")
	require.Equal(t, exitUsage, code)
}

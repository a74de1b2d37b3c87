package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidetest"
)

// The first line that the command prints leads to a page that shows the cache.
func TestTheDashboardIsTheFirstThingToLookAt(t *testing.T) {
	memoryOnly(t)
	var stdout, stderr output
	ctx, stop := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-addr", "127.0.0.1:0", "-users", "10", "-speedup", "10000"}, &stdout, &stderr)
	}()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		require.Equal(t, 0, <-code, "%s", &stderr)
	}()
	first := regexp.MustCompile(`^\s*Look at the cache: (http://\S+/admin/cache/), with the key of this run: (\w+)\n`)
	require.Eventually(t, func() bool { return first.MatchString(stdout.String()) }, time.Minute, 5*time.Millisecond, "%s", &stderr)
	found := first.FindStringSubmatch(stdout.String())
	ask := func(url, key string) (int, string) {
		r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+key)
		w, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer w.Body.Close()
		b, err := io.ReadAll(w.Body)
		require.NoError(t, err)
		return w.StatusCode, string(b)
	}
	status, body := ask(found[1], "")
	require.Equal(t, 200, status)
	require.Contains(t, body, "<!doctype html>")
	status, body = ask(found[1]+"session.json", found[2])
	require.Equal(t, 200, status)
	require.Contains(t, body, `"heading":"gateway"`)
	status, _ = ask(found[1]+"session.json", found[2]+"x")
	require.Equal(t, 401, status)
	require.NotContains(t, stderr.String(), found[2])
}

// A server that others can reach makes no key, and has no page without one of the operators.
func TestAServerForOthersMakesNoKey(t *testing.T) {
	h, key := dashboardOf(asidetest.New(t, aside.Options{}), nil, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)})
	require.Nil(t, h)
	require.Empty(t, key)
	require.Empty(t, pageLine("http://x", "", false))
}

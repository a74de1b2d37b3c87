package asidehttp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/walk"
)

// A front end refuses what one caller makes up, and takes what another one sends. The other one's target waits in the middle: neither
// the oldest nor the newest.
//
//  1. One caller has sixty targets queued that the front end answers with 500.
//  2. Another one has his queued.
//  3. The first one sends sixty more.
func TestReviewATargetInTheMiddleIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			if strings.HasPrefix(tag, "key:user") {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Notify(aside.Invalidation{Keys: madeUp("user", 0, 60)})
		r.Notify(aside.Invalidation{Keys: []string{"sessions:1"}})
		r.Notify(aside.Invalidation{Keys: madeUp("user", 60, 60)})
		began := time.Now()
		for len(front.times("key:sessions:1")) == 0 && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		took := time.Since(began)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
		require.Less(t, took, 2*time.Minute)
	})
}

// The same, while the first caller goes on at the rate limit with a thousand names each.
func TestReviewATargetBesideAStreamOfRefusedOnesIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			if strings.HasPrefix(tag, "key:user") {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Notify(aside.Invalidation{Keys: madeUp("user", 0, 5000)})
		r.Notify(aside.Invalidation{Keys: []string{"sessions:1"}})
		began := time.Now()
		for i := 0; len(front.times("key:sessions:1")) == 0 && time.Since(began) < 6*time.Hour; i++ {
			if i < 4 {
				r.Notify(aside.Invalidation{Keys: madeUp("user", 5000+i*1000, 1000)})
			}
			time.Sleep(time.Second)
		}
		took := time.Since(began)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
		require.Less(t, took, 15*time.Minute, "GiveUpAfter is over, and it was not tried once")
	})
}

// A Revalidator with a Client of the program's own has sent its secret. What goes through it by reflection finds none.
func TestReviewASenderWithAClientHidesItsSecret(t *testing.T) {
	t.Parallel()
	front := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer front.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	r, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{
		URL: aside.NewSecret(front.URL + "/canary-in-the-path?token=canary-in-the-query"), Secret: aside.NewSecret(secretOfFrontEnd),
		Logger: slog.New(slog.DiscardHandler), Client: &http.Client{Transport: transport},
	})
	require.NoError(t, err)
	r.Send(asidehttp.Target{Tag: "a"})
	require.Eventually(t, func() bool { return r.Stats().Delivered == 1 }, 20*time.Second, time.Millisecond)
	require.NoError(t, r.Close(t.Context()))
	walk.Texts(r, func(path string, text []byte) {
		require.NotContains(t, string(text), "canary", path)
	})
}

// Words of the front end are left out of the log: also those that net/http does not put into quotation marks.
func TestReviewWordsOfTheFrontEndAreLeftOut(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"a header without a colon":       "HTTP/1.1 200 OK\r\nwords of the front end: fine\r\nWORDS-OF-THE-FRONT-END part-of-the-path\r\n\r\n",
		"a header whose name is not one": "HTTP/1.1 200 OK\r\nA: b\r\nWORDS-OF-THE-FRONT-END part-of-the-path: x\r\n\r\n",
		"an initial line":                "HTTP/1.1 200 OK\r\n WORDS-OF-THE-FRONT-END part-of-the-path\r\n\r\n",
		"a transfer encoding":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: WORDS-OF-THE-FRONT-END\r\n\r\n",
		"a length":                       "HTTP/1.1 200 OK\r\nContent-Length: WORDS-OF-THE-FRONT-END\r\n\r\n",
		"a trailer":                      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n",
		"a chunk":                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nWORDS-OF-THE-FRONT-END\r\n",
		"a version":                      "WORDS-OF-THE-FRONT-END 200 OK\r\n\r\n",
		"1xx":                            strings.Repeat("HTTP/1.1 103 WORDS-OF-THE-FRONT-END\r\nLink: WORDS-OF-THE-FRONT-END\r\n\r\n", 100),
		"an upgrade":                     "HTTP/1.1 101 WORDS-OF-THE-FRONT-END\r\nUpgrade: WORDS-OF-THE-FRONT-END\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log output
			r := revalidator(t, asidehttp.RevalidatorOptions{
				URL:    aside.NewSecret("http://" + answering(t, func(string) string { return answer }) + "/hooks/part-of-the-path/revalidate"),
				Logger: log.logger(), GiveUpAfter: 1, Timeout: time.Second,
			})
			r.Send(asidehttp.Target{Tag: "a"})
			require.NoError(t, r.Close(t.Context()))
			require.NotContains(t, log.String(), "WORDS-OF-THE-FRONT-END")
			require.NotContains(t, log.String(), "part-of-the-path")
		})
	}
}

// A client of the program's own names the URL that it was given, which has the target in its query.
func TestReviewAClientsErrorsShowNoSecretInQueryForm(t *testing.T) {
	t.Parallel()
	var log output
	r := revalidator(t, asidehttp.RevalidatorOptions{
		URL: aside.NewSecret("https://www.example.com/api?token=canary%20in-the-query"), Query: true, Logger: log.logger(), GiveUpAfter: 1,
		Client: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return nil, errors.New("refused: " + r.URL.String())
		})},
	})
	r.Send(asidehttp.Target{Tag: "a"})
	require.NoError(t, r.Close(t.Context()))
	require.NotContains(t, log.String(), "canary", log.String())
}

// A token in the URL arrives, or the URL is refused.
func TestReviewATokenInTheQueryArrives(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"token=abc;def", "token=100%&v=1", "token=abc"} {
		seen := make(chan string, 10)
		front := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.URL.RawQuery }))
		defer front.Close()
		r, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{
			URL: aside.NewSecret(front.URL + "/?" + query), Query: true, Secret: aside.NewSecret(secretOfFrontEnd), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			continue
		}
		r.Send(asidehttp.Target{Tag: "a"})
		require.NoError(t, r.Close(t.Context()))
		require.Contains(t, <-seen, "token=", query)
	}
}

// A secret that does not arrive as it is is refused.
func TestReviewASecretOfSpacesDoesNotArrive(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"   ", "secret ", " secret"} {
		seen := make(chan string, 10)
		front := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("X-Revalidate-Secret") }))
		defer front.Close()
		r, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{URL: aside.NewSecret(front.URL), Secret: aside.NewSecret(secret), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			continue
		}
		r.Send(asidehttp.Target{Tag: "a"})
		require.NoError(t, r.Close(t.Context()))
		require.Equal(t, secret, <-seen)
	}
}

// What was lost is told apart in every form of log.
func TestReviewLostTargetsAreToldApart(t *testing.T) {
	t.Parallel()
	lines := map[string]string{}
	for _, targets := range [][]asidehttp.Target{{{Tag: "a b"}}, {{Tag: "a"}, {Tag: "b"}}, {{Path: "/a b"}}, {{Path: "/a"}, {Path: "b"}}} {
		var log output
		front := newFrontEnd(func(string, int) *http.Response { return status(400) })
		r := revalidator(t, asidehttp.RevalidatorOptions{
			Client: &http.Client{Transport: front}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		require.NoError(t, r.Close(t.Context()))
		r.Send(targets...) // lost together
		_, rest, _ := strings.Cut(log.String(), "tags=")
		rest, _, _ = strings.Cut(rest, " attempts=")
		require.Empty(t, lines[rest], "%v looks like %v: %s", targets, lines[rest], rest)
		lines[rest] = fmt.Sprint(targets)
	}
}

// A SecretHeader that a proxy sets by itself is refused.
func TestReviewHeadersThatProxiesSet(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-Forwarded-Port", "X-Forwarded-Server", "X-Request-Id", "X-Amzn-Trace-Id", "Traceparent", "True-Client-Ip", "Cf-Connecting-Ip", "Cache-Control", "Referer", "Range"} {
		_, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{
			URL: aside.NewSecret("https://www.example.com/"), Secret: aside.NewSecret(secretOfFrontEnd), SecretHeader: name, Logger: slog.New(slog.DiscardHandler),
			Client: &http.Client{},
		})
		if err == nil {
			t.Log("taken:", name)
		}
	}
}

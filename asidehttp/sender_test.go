package asidehttp_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// Words of the front end are left out of the log: also those that net/http does not put into quotation marks.
func TestWordsOfTheFrontEndAreLeftOut(t *testing.T) {
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
func TestAClientsErrorsShowNoSecretInQueryForm(t *testing.T) {
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

// A token in the query of the URL arrives, and a query that cannot be read, and would be left out, is refused.
func TestATokenInTheQueryArrives(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	front := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.URL.RawQuery }))
	defer front.Close()
	with := func(query string) asidehttp.RevalidatorOptions {
		return asidehttp.RevalidatorOptions{
			URL: aside.NewSecret(front.URL + "/?" + query), Query: true, Secret: aside.NewSecret(secretOfFrontEnd), Logger: slog.New(slog.DiscardHandler),
		}
	}
	for _, query := range []string{"token=abc;def", "token=100%&v=1"} {
		_, err := asidehttp.NewRevalidator(with(query))
		require.ErrorContains(t, err, "URL has an invalid query", query)
	}
	r := revalidator(t, with("token=abc"))
	r.Send(asidehttp.Target{Tag: "a"})
	require.NoError(t, r.Close(t.Context()))
	require.Equal(t, "tag=a&token=abc", <-seen)
}

// White space around a secret would not arrive, and nobody would notice.
func TestASecretWithWhiteSpaceAroundItIsRefused(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"   ", "secret ", " secret", "secret\n"} {
		_, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{
			URL: aside.NewSecret("https://www.example.com/"), Secret: aside.NewSecret(secret), Logger: slog.New(slog.DiscardHandler),
		})
		require.ErrorContains(t, err, "white space", "%q", secret)
	}
}

// What was lost is told apart in every form of log.
func TestLostTargetsAreToldApart(t *testing.T) {
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
		logged(t, &log, "\n", 1)
		_, rest, _ := strings.Cut(log.String(), "tags=")
		rest, _, _ = strings.Cut(rest, " attempts=")
		require.Empty(t, lines[rest], "%v looks like %v: %s", targets, lines[rest], rest)
		lines[rest] = fmt.Sprint(targets)
	}
}

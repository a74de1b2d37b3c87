package asidehttp_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// answering is a server that answers each request with what answer makes of its request line, in HTTP or not.
func answering(t *testing.T, answer func(line string) string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				line, _ := in.ReadString('\n')
				if r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(line), in))); err == nil {
					line += r.Header.Get("X-Revalidate-Secret")
				}
				_, _ = io.WriteString(conn, answer(line))
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// Whatever a front end, or what stands in its place, answers: the log is short, and holds neither secret nor URL.
func TestForeignAnswersDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 9<<20)
	for name, answer := range map[string]func(line string) string{
		"a status line of 9 MB":  func(string) string { return "HTTP/1.1 400 " + long + "\r\nContent-Length: 0\r\n\r\n" },
		"a status line of 60 kB": func(string) string { return "HTTP/1.1 400 " + long[:60_000] + "\r\nContent-Length: 0\r\n\r\n" },
		"the request in its status line": func(line string) string {
			return "HTTP/1.1 400 " + strings.ReplaceAll(line, "\r\n", " ") + "\r\nContent-Length: 0\r\n\r\n"
		},
		"the request, not in HTTP": func(line string) string { return line + "\r\n\r\n" },
		"the request for a status": func(line string) string { return "HTTP/1.1 " + strings.ReplaceAll(line, "\r\n", " ") + "\r\n\r\n" },
		"the request for a header": func(line string) string { return "HTTP/1.1 200 OK\r\n" + line + "\r\n\r\n" },
		"a line of something":      func(string) string { return long[:1000] + "\r\n\r\n" },
		"9 MB of something":        func(string) string { return long },
		"a wrong redirect": func(line string) string {
			return "HTTP/1.1 307 x\r\nContent-Length: 0\r\nLocation: http://[::" + strings.Fields(line)[1] + "\r\n\r\n"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, client := range []*http.Client{nil, {Transport: &http.Transport{DisableKeepAlives: true}}} {
				var log output
				r := revalidator(t, asidehttp.RevalidatorOptions{
					URL:    aside.NewSecret("http://" + answering(t, answer) + "/canary-in-the-path?token=canary-in-the-query&v=1"),
					Client: client, Logger: log.logger(), GiveUpAfter: 1,
				})
				r.Send(asidehttp.Target{Tag: "a"})
				require.NoError(t, r.Close(t.Context()))
				require.EqualValues(t, 1, r.Stats().Lost)
				logged(t, &log, "revalidations given up", 1)
				text := log.String()
				require.NotContains(t, text, "canary")
				require.Less(t, len(text), 2000, "%.200s", text)
				require.NotContains(t, text, "xxxx")
			}
		})
	}
}

// A client of the program's own may say anything in its errors.
func TestAClientsErrorsShowNoSecret(t *testing.T) {
	t.Parallel()
	var log output
	url := "https://www.example.com/canary-in-the-path?token=canary%20in-the-query"
	r := revalidator(t, asidehttp.RevalidatorOptions{
		URL: aside.NewSecret(url), Logger: log.logger(), GiveUpAfter: 1,
		Client: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return nil, errors.New("refused: " + r.URL.String() + " " + r.URL.Path + " " + r.URL.Query().Get("token") + " " + r.Header.Get("X-Revalidate-Secret") + strings.Repeat(" again", 10_000))
		})},
	})
	r.Send(asidehttp.Target{Tag: "a"})
	require.NoError(t, r.Close(t.Context()))
	logged(t, &log, "refused: ", 1)
	require.NotContains(t, log.String(), "canary")
	require.Less(t, len(log.String()), 2000)
}

// Programs put something else in the place of http.DefaultTransport, to count or to log. It is used then.
func TestADefaultTransportThatWasReplaced(t *testing.T) {
	const env = "ASIDE_TEST_ALONE"
	if os.Getenv(env) != "1" {
		t.Parallel()
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.timeout", "5m")
		cmd.Env = append(os.Environ(), env+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("its process has ended: %v\n%.2000s", err, out)
		}
		return
	}
	front := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer front.Close()
	original := http.DefaultTransport
	defer func() { http.DefaultTransport = original }()
	used := 0
	var typedNil *http.Transport
	for name, transport := range map[string]http.RoundTripper{
		"another": roundTrip(func(r *http.Request) (*http.Response, error) { used++; return original.RoundTrip(r) }),
		"nil":     nil, "a nil *http.Transport": typedNil,
	} {
		http.DefaultTransport = transport
		r := revalidator(t, asidehttp.RevalidatorOptions{URL: aside.NewSecret(front.URL), GiveUpAfter: 1})
		r.Send(asidehttp.Target{Tag: "a"})
		require.NoError(t, r.Close(t.Context()), name)
		require.EqualValues(t, 1, r.Stats().Delivered+r.Stats().Lost, name)
	}
	require.Equal(t, 1, used)
	original.(*http.Transport).CloseIdleConnections()
}

// A secret in a header that HTTP sets by itself would not arrive, and nobody would notice.
func TestASecretNeedsAHeaderThatArrives(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	front := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer front.Close()
	for _, header := range []string{
		"Host", "host", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "TE", "Trailer", "Upgrade", "Keep-Alive", "Expect",
		"User-Agent", "Content-Type", "Accept-Encoding", "Proxy-Connection", "Proxy-Authorization", "X-Forwarded-For", "Forwarded", "Via",
		"Referer", "Cache-Control", "Range", "X-Forwarded-Port", "x-forwarded-server", "X-Forwarded-Client-Cert", "X-Real-IP", "X-Request-ID", "X-Amzn-Trace-Id",
		"X-Amz-Cf-Id", "X-Cloud-Trace-Context", "traceparent", "tracestate", "baggage", "X-B3-TraceId", "True-Client-IP", "CF-Connecting-IP", "cf-ray",
		"Fastly-Client-IP", "Fly-Client-IP", "X-Envoy-External-Address", "X-Azure-FDID",
	} {
		_, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{URL: aside.NewSecret(front.URL), Secret: aside.NewSecret(secretOfFrontEnd), SecretHeader: header})
		require.ErrorContains(t, err, fmt.Sprintf("SecretHeader %q", header))
		require.ErrorContains(t, err, "X-Revalidate-Secret")
	}
	for _, header := range []string{"", "Authorization", "X-Revalidate-Secret", "x-own", "X-Forwarder-Secret", "Cfg-Secret", "X-Api-Key"} {
		r := revalidator(t, asidehttp.RevalidatorOptions{URL: aside.NewSecret(front.URL), SecretHeader: header})
		r.Send(asidehttp.Target{Tag: "a"})
		require.NoError(t, r.Close(t.Context()))
		if header == "" {
			header = "X-Revalidate-Secret"
		}
		require.Equal(t, secretOfFrontEnd, (<-got).Get(header))
	}
}

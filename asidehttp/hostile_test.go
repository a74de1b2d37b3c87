package asidehttp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
)

// Whatever outsiders send, from wherever: who has a key is served, up to what his key may ask.
func TestOutsidersTakeNothingFromAKey(t *testing.T) {
	t.Parallel()
	const rate, everyNth = 5000, 500 // requests a second; the operator asks 10 times a second
	for name, outsider := range map[string]struct {
		requests int
		client   func(i int) string
		operator func(i int) string
		limited  bool
	}{
		"from 100,000 networks": {100_000, func(i int) string {
			return netip.AddrFrom4([4]byte{byte(1 + i%220), byte(i >> 16), byte(i >> 8), byte(i)}).String()
		}, func(i int) string {
			return netip.AddrFrom4([4]byte{240, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		}, false},
		"from networks of IPv6":       {20_000, func(i int) string { return fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&255) }, func(int) string { return "198.51.100.7" }, true},
		"from the operator's address": {20_000, func(int) string { return "198.51.100.7" }, func(int) string { return "198.51.100.7" }, true},
	} {
		requests := outsider.requests
		synctest.Test(t, func(t *testing.T) {
			c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			defer c.Close()
			o := options(io.Discard)
			o.Rate, o.TrustedProxies = 0, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} // the default limits
			h := asidehttp.AdminHandler(c, o)
			send := func(client, key string) int {
				r := httptest.NewRequest("GET", "/?metrics=true", nil)
				r.Header = http.Header{"Authorization": {"Bearer " + key}, "X-Forwarded-For": {client}}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				return w.Code
			}
			outsiders, operator := map[int]int{}, map[int]int{}
			for i := range requests {
				outsiders[send(outsider.client(i), keyWrong)]++
				if i%everyNth == 0 {
					operator[send(outsider.operator(i), keyAll)]++
				}
				time.Sleep(time.Second / rate)
			}
			t.Logf("%s: outsiders %v, operator %v", name, outsiders, operator)
			require.Equal(t, map[int]int{200: requests / everyNth}, operator, name)
			require.Equal(t, requests, outsiders[401]+outsiders[429], name)
			require.Equal(t, outsider.limited, outsiders[429] > 0, name)
		})
	}
}

// What one key asks is not counted against another, from one address, and a key is held to its own allowance from wherever it asks.
func TestEachKeyHasAnAllowance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		o := options(io.Discard)
		o.Rate, o.Burst, o.TrustedProxies = 1, 5, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		h := asidehttp.Metrics(c, o)
		served := func(key string) (n int) {
			for i := range 20 {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header = http.Header{"Authorization": {"Bearer " + key}, "X-Forwarded-For": {fmt.Sprintf("198.51.100.%d", i)}}
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code == 200 {
					n++
				}
			}
			return n
		}
		require.Equal(t, 5, served(keyRead))
		require.Equal(t, 5, served(keyAll))
		require.Equal(t, 0, served(keyRead))
		time.Sleep(3 * time.Second)
		require.Equal(t, 3, served(keyRead))
	})
}

// A dry run tells what a listing tells.
func TestADryRunNeedsTheScopeOfAListing(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	left := seed(t, c)
	for _, selector := range []string{`"category":"models"`, `"pattern":"models:*"`, `"keys":["models:all:all"]`, `"tags":["supplier 3"]`} {
		body := `{` + selector + `,"dry_run":true}`
		w := ask(h, "POST", "/", body, "Bearer "+keyChange)
		require.Equal(t, 403, w.Code, body)
		require.Contains(t, w.Header().Get("WWW-Authenticate"), `scope="read"`)
		require.Equal(t, 403, ask(h, "POST", "/", body, "Bearer "+keyRead).Code, body)
		require.Equal(t, 200, ask(h, "POST", "/", body, "Bearer "+keyHashed).Code, body)
	}
	require.Equal(t, seeded, left())
}

// slowly sends a request and the beginning of its body, over a connection of its own, and returns what it gets for that. The rest of the
// body never comes. The connection has to be closed then.
func slowly(t *testing.T, addr, method, length, key string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(asidetest.Bound)))
	_, err = fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n", method, key, length)
	require.NoError(t, err)
	body := `{"category":`
	if strings.Contains(length, "chunked") {
		body = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
	}
	_, err = io.WriteString(conn, body)
	require.NoError(t, err)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	require.NoError(t, err, "%s, %s: no answer to a body that does not come", method, length)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	_, err = in.ReadByte()
	require.ErrorIs(t, err, io.EOF, "the connection is closed")
	return resp
}

// Nobody is kept waiting, or keeps a connection, by a body that nobody asks for.
func TestAnAnswerDoesNotWaitForABody(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	left := seed(t, c)
	for _, tt := range []struct {
		name    string
		handler http.Handler
		method  string
		key     string
		status  int
	}{
		{"an unknown key", asidehttp.AdminHandler(c, options(io.Discard)), "POST", keyWrong, 401},
		{"an unknown key, metrics", asidehttp.Metrics(c, options(io.Discard)), "POST", keyWrong, 401},
		{"a key that may not", asidehttp.AdminHandler(c, options(io.Discard)), "POST", keyRead, 403},
		{"another method", asidehttp.AdminHandler(c, options(io.Discard)), "PUT", keyAll, 405},
		{"metrics", asidehttp.Metrics(c, options(io.Discard)), "GET", keyAll, 200},
		{"metrics by POST", asidehttp.Metrics(c, options(io.Discard)), "POST", keyAll, 405},
		{"health", asidehttp.Health(c, asidehttp.HealthOptions{}), "GET", "", 200},
		{"health by POST", asidehttp.Health(c, asidehttp.HealthOptions{}), "POST", "", 405},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(tt.handler) // it has no ReadTimeout
			defer server.Close()
			for _, length := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
				require.Equal(t, tt.status, slowly(t, server.Listener.Addr().String(), tt.method, length, tt.key).StatusCode, length)
			}
		})
	}
	require.Equal(t, seeded, left())
}

// A client that sends all of a large body, quickly, gets its answer too: it is not lost with the connection.
func TestAnAnswerArrivesBesideALargeBody(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	server := httptest.NewServer(asidehttp.AdminHandler(c, options(io.Discard)))
	defer server.Close()
	for range 20 {
		for _, size := range []int{1000, 60_000, 200_000} {
			r, err := http.NewRequest("POST", server.URL, bytes.NewReader(make([]byte, size)))
			require.NoError(t, err)
			resp, err := server.Client().Do(r)
			require.NoError(t, err, size)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, 401, resp.StatusCode)
		}
	}
}

// The body of a request without a valid key is not looked at.
func TestABodyOfAnOutsiderIsNotRead(t *testing.T) {
	t.Parallel()
	h := asidehttp.AdminHandler(newCache(t, aside.Options{}), options(io.Discard))
	body := &counting{Reader: io.LimitReader(spaces{}, 1<<20)}
	r := httptest.NewRequest("POST", "/", body)
	r.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + keyWrong}}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 401, w.Code)
	require.Equal(t, "close", w.Header().Get("Connection"))
	require.Zero(t, body.n)

	// Who has sent all of his body keeps his connection, and so does who has none.
	require.Empty(t, ask(h, "POST", "/", `{"category":"nothing"}`, "Bearer "+keyAll).Header().Get("Connection"))
	require.Empty(t, ask(h, "POST", "/", `{"categories":"nothing"}`, "Bearer "+keyAll).Header().Get("Connection"))
	require.Empty(t, ask(h, "GET", "/?metrics=true", "", "Bearer "+keyWrong).Header().Get("Connection"))
}

// A proxy that is written as IPv4 in IPv6 is that proxy; a network of which that is but a part says nothing.
func TestProxiesWrittenAsIPv4InIPv6(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"::ffff:192.0.2.0/120": true, "::ffff:192.0.2.1/128": true, "::ffff:0.0.0.0/96": true, "192.0.2.0/24": true,
		"::ffff:192.0.2.0/95": false, "::ffff:0:0/64": false,
	} {
		var log output
		o := options(&log)
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(text)}
		if !ok {
			require.ErrorContains(t, o.Validate(), "TrustedProxies", text)
			require.ErrorContains(t, o.Validate(), netip.MustParsePrefix(text).String())
			continue
		}
		require.NoError(t, o.Validate(), text)
		h := asidehttp.AdminHandler(newCache(t, aside.Options{}), o)
		r := httptest.NewRequest("GET", "/?metrics=true", nil) // from 192.0.2.1
		r.Header = http.Header{"X-Forwarded-For": {"198.51.100.7"}}
		h.ServeHTTP(httptest.NewRecorder(), r)
		logged(t, &log, `"client":"198.51.100.7"`, 1)
	}
}

// A key that can be guessed opens nothing.
func TestShortKeysOpenNothing(t *testing.T) {
	t.Parallel()
	const short, enough = "canary-of-15-by", "canary-of-16-byt"
	all := []asidehttp.Scope{asidehttp.ScopeAll}
	for i, o := range []asidehttp.Options{
		{APIKeys: keysOf("x")}, {APIKeys: keysOf(enough, short)}, {APIKeys: keysOf("  " + short + "\n\n")},
		{Keys: []asidehttp.Key{{Name: "deploy", Secret: keysOf(short)[0], Scopes: all}}},
	} {
		var log output
		o.Logger = log.logger()
		require.ErrorContains(t, o.Validate(), "at least 16", i)
		require.ErrorContains(t, o.Validate(), "openssl rand -hex 32", i)
		require.NotContains(t, o.Validate().Error(), "canary")
		h := asidehttp.AdminHandler(newCache(t, aside.Options{}), o)
		require.Equal(t, 401, ask(h, "GET", "/?metrics=true", "", "Bearer "+short).Code, i)
		require.Equal(t, 401, ask(h, "GET", "/?metrics=true", "", "Bearer x").Code, i)
		logged(t, &log, "at least 16", 1)
	}
	require.NoError(t, asidehttp.Options{APIKeys: keysOf("", " \n", enough)}.Validate())
}

func TestADryRunCountsAKeyWithoutParts(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	for _, key := range []aside.Key{aside.TTL.ModelsAll.Key(), aside.TTL.ModelsAll.Key("all"), aside.TTL.RankingsModels.Key()} {
		require.NoError(t, aside.Set(t.Context(), c, key, "v"))
	}
	for body, want := range map[string]int64{
		`{"keys":["models"],"dry_run":true}`:                         1,
		`{"keys":["models:all"],"dry_run":true}`:                     1,
		`{"keys":["models","models:all","rankings"],"dry_run":true}`: 3,
		`{"category":"models","dry_run":true}`:                       2,
		`{"category":"rankings","dry_run":true}`:                     1,
		`{"pattern":"models:*","dry_run":true}`:                      1,
		`{"category":"all","dry_run":true}`:                          3,
	} {
		w := ask(h, "POST", "/", body, "Bearer "+keyAll)
		require.Equal(t, 200, w.Code, w.Body)
		var a struct {
			Matched struct {
				Entries int64 `json:"memory_entries"`
			}
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
		require.Equal(t, want, a.Matched.Entries, body)
		w = ask(h, "POST", "/", strings.Replace(body, `,"dry_run":true`, "", 1), "Bearer "+keyAll)
		var did struct {
			Invalidated struct {
				Entries int64 `json:"memory_entries"`
			}
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &did))
		require.Equal(t, want, did.Invalidated.Entries, "what a dry run counts is what goes: %s", body)
		for _, key := range []aside.Key{aside.TTL.ModelsAll.Key(), aside.TTL.ModelsAll.Key("all"), aside.TTL.RankingsModels.Key()} {
			require.NoError(t, aside.Set(t.Context(), c, key, "v"))
		}
	}
}

// The audit line tells one name with a space from two, in every form of log.
func TestNamesAreToldApartInTheAuditLine(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	for form, handler := range map[string]func(io.Writer) slog.Handler{
		"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"json": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
		"a handler that formats": func(w io.Writer) slog.Handler {
			return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				return slog.String(a.Key, fmt.Sprintf("%v", a.Value.Any()))
			}})
		},
	} {
		names := func(body string) string {
			var log output
			o := options(io.Discard)
			o.Logger = slog.New(handler(&log))
			require.Equal(t, 200, ask(asidehttp.AdminHandler(c, o), "POST", "/", body, "Bearer "+keyAll).Code)
			logged(t, &log, "\n", 1)
			_, rest, found := strings.Cut(log.String(), "names")
			require.True(t, found)
			rest, _, found = strings.Cut(rest, "count")
			require.True(t, found)
			return rest
		}
		seen := map[string]string{}
		for _, body := range []string{`{"tags":["a b"]}`, `{"tags":["a","b"]}`, `{"tags":["a\",\"b"]}`, `{"tags":["a,b"]}`, `{"tags":["[a b]"]}`} {
			text := names(body)
			require.Empty(t, seen[text], "%s: %s looks like %s: %s", form, body, seen[text], text)
			seen[text] = body
		}
	}
}

// Over HTTP/2 a body that nobody asks for ends its own stream, and not the connection that others share.
func TestAnAnswerDoesNotWaitForABodyOverHTTP2(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(asidehttp.AdminHandler(newCache(t, aside.Options{}), options(io.Discard)))
	server.EnableHTTP2 = true
	var connections atomic.Int64
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	for range 5 {
		body, never := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), asidetest.Bound)
		r, err := http.NewRequestWithContext(ctx, "POST", server.URL, body)
		require.NoError(t, err)
		resp, err := server.Client().Do(r)
		require.NoError(t, err)
		require.Equal(t, []int{401, 2}, []int{resp.StatusCode, resp.ProtoMajor})
		require.NoError(t, resp.Body.Close())
		never.Close()
		cancel()
	}
	require.EqualValues(t, 1, connections.Load())
}

package asidehttp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/redistest"
)

// Whatever is asked, of whichever handler, with Redis or without: no answer is a failure of the server or may be stored, a refusal changes
// nothing and says what to send, and only a POST with a key that may invalidates.
func FuzzHandler(f *testing.F) {
	for which := range uint8(9) {
		for _, p := range posts() {
			if len(p.body) < 4096 {
				f.Add(which, "POST", "", "application/json", uint8(0), "", []byte(p.body))
				f.Add(which, "POST", "", "application/json", uint8(4), "198.51.100.7, ::ffff:10.0.0.1", bytes.Replace([]byte(p.body), []byte("{"), []byte(`{"dry_run":true,`), 1))
			}
		}
		for _, query := range []string{"", "metrics=true", "metrics=true&pattern=models:*", "pattern=%zz", "metrics=true&pattern=sessions:[a-z]*", "pattern=user:?%2A*"} {
			f.Add(which, "GET", query, "", uint8(2), "unknown", []byte(nil))
		}
		f.Add(which, "POST", "", "application/json; charset=utf-8", uint8(3), "[2001:db8::1%eth0]:80,,", []byte(`{"category":"all"}`))
		f.Add(which, "DELETE", "x", "text/plain", uint8(18), "Bearer guess", []byte(`{`))
	}
	c := newCache(f, aside.Options{})
	var nobody aside.Options
	nobody.Redis.InitAddress = []string{"127.0.0.1:1"} // nobody is there
	inMemory := seed(f, c)
	lefts := []func(testing.TB) int{func(testing.TB) int { return inMemory() }}
	lefts = append(lefts, lefts[0]) // nobody can read what is on a server that is away
	nobody.Policies = c.Policies()  // of what is seeded
	absent := newCache(f, nobody)
	o := options(io.Discard)
	o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::ffff:10.0.0.0/104")}
	handlers := []http.Handler{
		asidehttp.AdminHandler(c, o), asidehttp.Metrics(c, o), asidehttp.Health(c, asidehttp.HealthOptions{}),
		asidehttp.AdminHandler(absent, o), asidehttp.Metrics(absent, o), asidehttp.Health(absent, asidehttp.HealthOptions{}),
	}
	onServer := c
	if _, err := exec.LookPath("redis-server"); err == nil || os.Getenv("ASIDE_REQUIRE_REDIS") != "" {
		onServer = onRedis(f, redistest.Start(f), c.Policies()...)
		handlers = append(handlers, asidehttp.AdminHandler(onServer, o), asidehttp.Metrics(onServer, o), asidehttp.Health(onServer, asidehttp.HealthOptions{}))
		left := seed(f, onServer)
		lefts = append(lefts, func(t testing.TB) int {
			n := left()
			if n < seeded { // what cannot be read on a busy machine for a moment is not gone
				eventually(t, "connected", func() bool { return onServer.Health().State == aside.StateConnected })
				n = left()
			}
			return n
		})
	}
	creds := append(credentials(), credential{name: "what the fuzzer makes up"})
	f.Fuzz(func(t *testing.T, which uint8, method, query, kind string, who uint8, extra string, body []byte) {
		number := int(which) % len(handlers)
		handler, metrics, health, away := number%3 == 0, number%3 == 1, number%3 == 2, number/3 == 1
		left, seeds := lefts[number/3], c
		if number/3 == 2 {
			seeds = onServer
		}
		cred := creds[int(who)%len(creds)]
		if cred.authorization == nil && len(extra) > 0 {
			cred.authorization = []string{extra}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // it is done long before
		if away {
			ctx, cancel = context.WithTimeout(context.Background(), 2*time.Millisecond) // nothing will confirm it
		}
		defer cancel()
		r := (&http.Request{
			Method: method, URL: &url.URL{Path: "/", RawQuery: query}, RemoteAddr: "192.0.2.1:1234", ContentLength: -1,
			Header: http.Header{"Content-Type": {kind}, "Authorization": cred.authorization, "X-Forwarded-For": {extra}}, Body: io.NopCloser(bytes.NewReader(body)),
		}).WithContext(ctx)
		w := httptest.NewRecorder()
		handlers[number].ServeHTTP(w, r)
		gone := seeded - left(t)
		defer func() {
			if gone > 0 {
				seed(t, seeds)
			}
		}()
		fail := func(text string) {
			t.Errorf("%s: handler %d, %s ?%q with %s, %q: %d %v %s", text, number, method, query, cred.name, body, w.Code, w.Header(), w.Body)
		}
		if w.Code != 200 && (w.Code < 400 || w.Code >= 500) && !(away && w.Code == 503) {
			fail("an unexpected status")
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			fail("it may be stored")
		}
		if bytes.Contains(w.Body.Bytes(), []byte("canary")) && !bytes.Contains(body, []byte("canary")) && !strings.Contains(query, "canary") {
			fail("a secret is shown")
		}
		if gone > 0 && (w.Code != 200 || method != "POST" || !cred.change || !handler || away) {
			fail("values are gone")
		}
		if gone == seeded && !cred.empty {
			fail("everything is gone")
		}
		var answer struct {
			Success bool
			Metrics any
			State   string
			Status  int
			Detail  string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			fail("not JSON")
		}
		switch {
		case w.Code != 200 && (answer.Status != w.Code || answer.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json"):
			fail("no problem details")
		case w.Code == 200 && (handler && method == "POST") != answer.Success:
			fail("success is wrong")
		case w.Code == 200 && (!health && (method == "GET" || method == "HEAD")) != (answer.Metrics != nil):
			fail("metrics are wrong")
		case w.Code == 200 && (metrics || health) && method != "GET" && method != "HEAD":
			fail("another method was let in")
		case health && w.Code == 200 && answer.State == "":
			fail("no state")
		case !health && !cred.known && w.Code != 401:
			fail("an unknown key was let in")
		}
	})
}

package asidehttp_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// Whatever is asked: no answer is a failure of the server or may be stored, a refusal changes nothing and says what to send, and
// only a POST with a key that may invalidates.
func FuzzHandler(f *testing.F) {
	for _, p := range posts() {
		if len(p.body) < 4096 {
			f.Add("POST", "", "application/json", uint8(0), []byte(p.body))
		}
	}
	for _, query := range []string{"metrics=true", "metrics=true&pattern=models:*", "pattern=%zz", "metrics=true&pattern=sessions:[a-z]*", "metrics=true&pattern=user:?%2A*"} {
		f.Add("GET", query, "", uint8(0), []byte(nil))
	}
	f.Add("POST", "", "application/json; charset=utf-8", uint8(3), []byte(`{"category":"all"}`))
	f.Add("DELETE", "x", "text/plain", uint8(9), []byte(`{`))
	c := newCache(f, aside.Options{})
	h := asidehttp.Handler(c, options(io.Discard))
	left := seed(f, c)
	creds := credentials()
	f.Fuzz(func(t *testing.T, method, query, kind string, who uint8, body []byte) {
		cred := creds[int(who)%len(creds)]
		r := &http.Request{
			Method: method, URL: &url.URL{Path: "/", RawQuery: query}, RemoteAddr: "192.0.2.1:1234", ContentLength: -1,
			Header: http.Header{"Content-Type": {kind}, "Authorization": cred.authorization}, Body: io.NopCloser(bytes.NewReader(body)),
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		gone := seeded - left()
		defer func() {
			if gone > 0 {
				seed(t, c)
			}
		}()
		fail := func(text string) {
			t.Errorf("%s: %s ?%q with %s, %q: %d %v %s", text, method, query, cred.name, body, w.Code, w.Header(), w.Body)
		}
		if w.Code != 200 && (w.Code < 400 || w.Code >= 500) {
			fail("an unexpected status")
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			fail("it may be stored")
		}
		if bytes.Contains(w.Body.Bytes(), []byte("canary")) && !bytes.Contains(body, []byte("canary")) {
			fail("a secret is shown")
		}
		if gone > 0 && (w.Code != 200 || method != "POST" || !cred.change) {
			fail("values are gone")
		}
		if gone == seeded && !cred.empty {
			fail("everything is gone")
		}
		var answer struct {
			Success bool
			Metrics any
			Status  int
			Detail  string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			fail("not JSON")
		}
		switch {
		case w.Code != 200 && (answer.Status != w.Code || answer.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json"):
			fail("no problem details")
		case w.Code == 200 && method == "POST" != answer.Success:
			fail("success is wrong")
		case w.Code == 200 && (method == "GET" || method == "HEAD") != (answer.Metrics != nil):
			fail("metrics are wrong")
		case !cred.known && w.Code != 401:
			fail("an unknown key was let in")
		}
	})
}

package asidehttp_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/redistest"
)

// An answer comes within its wait, whatever Redis does, and what hangs costs no more.
func TestReviewAnAnswerComesWithinItsWait(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connectedTo(t, server.Addr(), nil)
	h := asidehttp.Handler(c, options(io.Discard))
	server.Pause()
	t.Cleanup(server.Resume)
	for range 3 {
		for _, body := range []string{
			`{"category":"models","wait":0}`, `{"keys":["models:1"],"wait":0}`, `{"tags":["x"],"wait":0}`, `{"pattern":"models:*","wait":0}`,
			`{"category":"models","wait":0,"dry_run":true}`, `{"tags":["x"],"wait":1,"dry_run":true}`,
		} {
			began := time.Now()
			w := ask(h, "POST", "/", body, "Bearer "+keyAll)
			t.Logf("%6v %s %v %s", time.Since(began).Round(time.Millisecond), body, w.Code, strings.TrimSpace(w.Body.String()))
		}
	}
	began := time.Now()
	w := ask(h, "GET", "/?metrics=true&pattern=models:*", "", "Bearer "+keyAll)
	t.Logf("%6v listing %v", time.Since(began).Round(time.Millisecond), w.Code)
}

// An answer to a wrong category does not grow with what the cache knows.
func TestReviewAnAnswerToAWrongCategoryIsShort(t *testing.T) {
	t.Parallel()
	var o aside.Options
	for i := range 3000 {
		o.Policies = append(o.Policies, aside.Policy{Name: fmt.Sprint("p", i), Category: fmt.Sprintf("tenant-%d", i), TTL: time.Minute})
	}
	c := newCache(t, o)
	w := ask(asidehttp.Handler(c, options(io.Discard)), "POST", "/", `{"category":"x"}`, "Bearer "+keyChange)
	require.Equal(t, 422, w.Code)
	require.Less(t, w.Body.Len(), 4096)
}

func TestReviewSizeOfTheAnswerToNobody(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(asidehttp.Handler(newCache(t, aside.Options{}), options(io.Discard)))
	defer s.Close()
	resp, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	all, _ := httputil.DumpResponse(resp, true)
	t.Log(len(all), "bytes")
}

// What New says of wrong options holds no secret.
func TestReviewErrorsOfNewHoldNoSecret(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{
		"redis://:canary@localhost:6379", "redis://canary:x@localhost", ":canary@localhost:6379", "user:canary@localhost:6379", "canary@localhost",
		"localhost:canary", "//:canary@localhost:6379", "redis:canary@localhost:6379", "localhost:6379?password=canary", "localhost:6379/canary",
	} {
		var log output
		c, err := aside.New(aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{addr}}, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
		if err != nil {
			require.NotContains(t, err.Error(), "canary", addr)
			continue
		}
		time.Sleep(300 * time.Millisecond)
		health := fmt.Sprintf("%+v", c.Health())
		w := httptest.NewRecorder()
		asidehttp.Health(c, asidehttp.HealthOptions{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		t.Log(addr, "taken:", health, strings.TrimSpace(log.String()))
		c.Close()
		if strings.Contains(health+w.Body.String()+log.String(), "canary") {
			t.Error(addr, health, log.String())
		}
	}
}

// One key's names in the journal are its own, whatever it is called.
func TestReviewNamesOfKeys(t *testing.T) {
	t.Parallel()
	o := asidehttp.Options{Logger: slog.New(slog.DiscardHandler), Keys: []asidehttp.Key{
		{Name: "deploy", Secret: aside.NewSecret(keyChange), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
		{Name: "deploy", Secret: aside.NewSecret(keyOld), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
	}}
	if o.Validate() != nil {
		return
	}
	server := redistest.Start(t)
	c := connectedTo(t, server.Addr(), nil)
	o.Rate = -1
	h := asidehttp.Handler(c, o)
	server.Kill()
	eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })
	for i := range 40 {
		ask(h, "POST", "/", bodyOf(t, "keys", madeUp("user", 1000*i, 1000)), "Bearer "+keyChange)
	}
	require.Equal(t, 200, ask(h, "POST", "/", bodyOf(t, "keys", madeUp("models", 0, 1000)), "Bearer "+keyOld).Code)
}

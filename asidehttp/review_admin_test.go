package asidehttp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/redistest"
)

func connectedTo(t *testing.T, addr string, told func(aside.Invalidation)) *aside.Cache {
	t.Helper()
	c, err := aside.New(aside.Options{
		Redis: rueidis.ClientOption{InitAddress: []string{addr}}, Logger: slog.New(slog.DiscardHandler), DegradedTTL: time.Hour,
		Policies: []aside.Policy{aside.TTL.UserProfile, aside.TTL.ModelsAll}, OnInvalidated: told,
	})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	eventually(t, "connected", func() bool { return c.Health().State == aside.StateConnected })
	return c
}

// The log has no more than a line a second at level Warn, whatever a key sends that may not do what it asks.
func TestReviewAKeyWithoutItsScopeDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		var log output
		o := options(&log)
		o.Rate = 0
		h := asidehttp.Handler(c, o)
		for range 100 {
			for range 10 {
				ask(h, "POST", "/", `{"category":"models"}`, "Bearer "+keyRead)
			}
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, strings.Count(log.String(), "\n"), 100+1)
	})
}

// The log has a line about requests without a valid key every ten seconds at most.
func TestReviewOneLineOfOutsidersForAllHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		var log output
		o := options(&log)
		handlers := []http.Handler{asidehttp.Handler(c, o), asidehttp.Metrics(c, o)}
		for range 9 {
			for _, h := range handlers {
				ask(h, "GET", "/?metrics=true", "", "Bearer "+keyWrong)
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	})
}

// What keys without ScopeAll invalidate leaves nothing in Redis, however it is named.
func TestReviewNothingIsLeftInRedisOfMadeUpNames(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connectedTo(t, server.Addr(), nil)
	h := asidehttp.Handler(c, options(io.Discard))
	size := func() int64 { return server.MustDo(t, "DBSIZE").(int64) }
	ask(h, "POST", "/", `{"category":"user"}`, "Bearer "+keyChange)
	ask(h, "POST", "/", `{"tags":["x"]}`, "Bearer "+keyChange)
	before := size()
	for i := range 10 {
		eventually(t, "there is room", func() bool {
			return ask(h, "POST", "/", bodyOf(t, "keys", madeUp("user", 1000*i, 1000)), "Bearer "+keyChange).Code == 200
		})
		eventually(t, "there is room", func() bool {
			return ask(h, "POST", "/", bodyOf(t, "tags", madeUp("t", 1000*i, 1000)), "Bearer "+keyChange).Code == 200
		})
		eventually(t, "there is room", func() bool {
			return ask(h, "POST", "/", bodyOf(t, "pattern", fmt.Sprintf("user:%d:*", i)), "Bearer "+keyChange).Code == 200
		})
		eventually(t, "there is room", func() bool {
			return ask(h, "POST", "/", bodyOf(t, "pattern", fmt.Sprintf("user:%d", i)), "Bearer "+keyChange).Code == 200
		})
	}
	require.LessOrEqual(t, size()-before, int64(3), "%v", server.MustDo(t, "KEYS", "*"))
}

// Two keys that count all the time do not keep a third one from its listing.
func TestReviewTwoReadersDoNotKeepAThirdFromItsListing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := connectedTo(t, proxy.Addr(), nil)
	for i := range 150 {
		args := []string{"MSET"}
		for j := range 1000 {
			args = append(args, fmt.Sprintf("models:%d:%d", i, j), "foreign")
		}
		server.MustDo(t, args...)
	}
	both := []asidehttp.Scope{asidehttp.ScopeRead, asidehttp.ScopeInvalidate}
	for i := range 200 {
		require.NoError(t, aside.Set(t.Context(), c, aside.TTL.ModelsAll.Key("real", i), "v"))
	}
	h := asidehttp.Handler(c, asidehttp.Options{
		APIKeys: keysOf(keyAll), Logger: slog.New(slog.DiscardHandler),
		Keys: []asidehttp.Key{
			{Name: "one", Secret: aside.NewSecret(keyRead), Scopes: both}, {Name: "two", Secret: aside.NewSecret(keyOld), Scopes: both},
		},
	})
	proxy.SetDelay(3 * time.Millisecond)
	began := time.Now()
	alone := ask(h, "GET", "/?metrics=true&pattern=models:*", "", "Bearer "+keyAll)
	_, list, _ := strings.Cut(alone.Body.String(), `"redis":`)
	t.Logf("%v operator alone: %.150s", time.Since(began).Round(time.Millisecond), list)
	require.NotContains(t, list, `"total_keys":0`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 4)
	for _, key := range []string{keyRead, keyOld} {
		for range 2 {
			go func() {
				defer func() { done <- struct{}{} }()
				for ctx.Err() == nil {
					r := httptest.NewRequestWithContext(ctx, "POST", "/", strings.NewReader(`{"tags":["x"],"dry_run":true,"wait":30}`))
					r.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + key}}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					if ctx.Err() == nil {
						t.Logf("%v %v %s", time.Since(began).Round(time.Millisecond), w.Code, bytes.TrimSpace(w.Body.Bytes()))
						time.Sleep(100 * time.Millisecond)
					}
				}
			}()
		}
	}
	time.Sleep(500 * time.Millisecond)
	listed := 0
	for range 5 {
		w := ask(h, "GET", "/?metrics=true&pattern=models:*", "", "Bearer "+keyAll)
		_, list, _ := strings.Cut(w.Body.String(), `"redis":`)
		t.Logf("%v operator: %.150s", time.Since(began).Round(time.Millisecond), list)
		if !strings.Contains(list, `"total_keys":0`) {
			listed++
		}
	}
	cancel()
	for range 4 {
		<-done
	}
	require.NotZero(t, listed, "none of five listings has shown a key")
}

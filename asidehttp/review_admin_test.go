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

// Keys without ScopeAll have everything invalidated, without Redis losing anything.
//
//  1. The connection breaks. Two keys fill what they may of the journal.
//  2. The connection comes back, and all of it is sent and confirmed, before the record of that is written.
//  3. The connection breaks again, and comes back: the server knows of none of it, and more is missing than is remembered.
func TestReviewAConnectionThatBreaksTwiceInvalidatesEverything(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	told := make(chan aside.Invalidation, 1<<20)
	c := connectedTo(t, proxy.Addr(), func(i aside.Invalidation) { told <- i })
	bystander := connectedTo(t, server.Addr(), nil)
	keep := aside.TTL.ModelsAll.Key("kept")
	require.NoError(t, aside.Set(t.Context(), bystander, keep, "v"))
	h := asidehttp.Handler(c, asidehttp.Options{
		Keys: []asidehttp.Key{
			{Name: "one", Secret: aside.NewSecret(keyChange), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
			{Name: "two", Secret: aside.NewSecret(keyOld), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
		}, Logger: slog.New(slog.DiscardHandler), Rate: -1,
	})
	post := func(key string, from int) int {
		return ask(h, "POST", "/", bodyOf(t, "keys", madeUp("user", from, 1000)), "Bearer "+key).Code
	}
	// Some of what is invalidated while all is well, and written down.
	for i := range 15 {
		require.Equal(t, 200, post(keyChange, 1_000_000+1000*i))
		require.Len(t, (<-told).Keys, 1000)
	}
	mark := func() string {
		for _, name := range server.MustDo(t, "KEYS", "%mark:*").([]any) {
			v, _ := server.Do("GET", fmt.Sprint(name))
			if fmt.Sprint(v) >= "15000" {
				return fmt.Sprint(v)
			}
		}
		return ""
	}
	eventually(t, "it is written down", func() bool { return mark() != "" })

	proxy.Refuse(true)
	proxy.CloseConnections()
	eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })
	accepted := 0
	for i := range 40 {
		for _, key := range []string{keyChange, keyOld} {
			if post(key, 100_000*(1+len(key))+1000*i) == 200 {
				accepted++
			}
		}
	}
	t.Log(accepted, "thousand accepted while it is away")
	gate := proxy.HoldRequests(func(args []string) bool { // what is written down is late
		return len(args) > 3 && strings.HasPrefix(args[3], "%mark:")
	})
	proxy.Refuse(false)
	for n := 0; n < accepted*1000; {
		select {
		case i := <-told:
			n += len(i.Keys)
			require.False(t, i.All)
		case <-time.After(20 * time.Second):
			t.Fatal("not told of all", n)
		}
	}
	t.Log("held:", gate.Held(), "mark:", mark())
	proxy.CloseConnections()
	gate.Release()
	again := 0
	defer func() { t.Log(again, "sent again; mark:", mark()) }()
	deadline := time.After(10 * time.Second)
	for over := false; !over; {
		select {
		case i := <-told:
			again += len(i.Keys)
			require.False(t, i.All, "everything was invalidated on behalf of keys that may not")
		case <-deadline:
			over = true
		}
	}
	_, err := aside.Get[string](context.Background(), bystander, keep)
	require.NoError(t, err)
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

package asidehttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/redistest"
)

// flooded is a cache with a handler and a front end, and what they were told.
type flooded struct {
	cache, other *aside.Cache // of two processes
	handler      http.Handler
	sender       *asidehttp.Revalidator

	mu     sync.Mutex
	told   int
	pieces []string // categories, and "all"; guarded by mu
}

func flood(t *testing.T, server *redistest.Server) *flooded {
	t.Helper()
	front := newFrontEnd(func(string, int) *http.Response { return status(200) })
	return floodWith(t, server, -1, front, io.Discard,
		aside.TTL.UserProfile, aside.TTL.ModelsAll, aside.TTL.SessionsList)
}

func floodWith(t *testing.T, server *redistest.Server, rate float64, front http.RoundTripper, log io.Writer, policies ...aside.Policy) *flooded {
	t.Helper()
	logger := slog.New(slog.NewJSONHandler(log, nil))
	f := &flooded{sender: revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Logger: logger})}
	t.Cleanup(func() {
		ctx, cancel := contextThatHasEnded(t)
		defer cancel()
		_ = f.sender.Close(ctx)
	})
	o := aside.Options{
		DegradedTTL: 24 * time.Hour, Policies: policies,
		OnInvalidated: func(i aside.Invalidation) {
			f.mu.Lock()
			f.told++
			if i.Category != "" {
				f.pieces = append(f.pieces, i.Category)
			}
			if i.All {
				f.pieces = append(f.pieces, "all")
			}
			f.mu.Unlock()
			f.sender.Notify(i)
		},
	}
	if server != nil {
		o.Redis, o.OpTimeout = rueidis.ClientOption{InitAddress: []string{server.Addr()}}, 5*time.Second // a busy machine may be slow
	}
	o.Logger = logger
	connect := func(o aside.Options) *aside.Cache {
		c, err := aside.New(o)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		if server != nil {
			eventually(t, "connected", func() bool { return c.Health().State == aside.StateConnected })
		}
		return c
	}
	f.cache = connect(o)
	o.Logger = slog.New(slog.DiscardHandler) // it has a log of its own
	if o.OnInvalidated = nil; server != nil {
		f.other = connect(o)
	}
	f.handler = asidehttp.AdminHandler(f.cache, asidehttp.Options{
		Keys: []asidehttp.Key{
			{Name: "flood", Secret: aside.NewSecret(keyChange), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
			{Name: "deploy", Secret: aside.NewSecret(keyOld), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
		},
		APIKeys: keysOf(keyAll), Rate: rate, Logger: logger,
	})
	return f
}

// kept are values that nobody names.
func kept() []aside.Key {
	return []aside.Key{aside.TTL.ModelsAll.Key("kept"), aside.TTL.SessionsList.Key("kept")}
}

func (f *flooded) keep(t *testing.T) {
	t.Helper()
	for _, key := range kept() {
		eventually(t, "it is stored and read", func() bool { // Set returns no error where Redis is too slow to store the value
			if aside.Set(context.Background(), f.cache, key, "v") != nil {
				return false
			}
			for _, c := range []*aside.Cache{f.cache, f.other} {
				if c == nil {
					continue
				}
				if v, err := aside.Get[string](context.Background(), c, key); err != nil || v != "v" {
					return false
				}
			}
			return true
		})
	}
}

func bodyOf(t testing.TB, selector string, names any) string {
	b, err := json.Marshal(map[string]any{selector: names, "wait": 0})
	require.NoError(t, err)
	return string(b)
}

// post sends an order and returns its status. A refusal for want of room says when to come back.
func (f *flooded) post(t testing.TB, key, body string) int {
	t.Helper()
	w := ask(f.handler, "POST", "/", body, "Bearer "+key)
	if w.Code == http.StatusServiceUnavailable {
		require.Equal(t, "2", w.Header().Get("Retry-After"))
		require.Contains(t, problemOf(t, w).Detail, "nothing was invalidated; send the request again")
	}
	return w.Code
}

// While Redis is away or hangs, nobody who may not invalidate everything brings that about, whatever he sends.
func TestAKeyWithoutScopeAllDoesNotInvalidateEverything(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"away", "hung"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
			f := flood(t, server)
			f.keep(t)
			if mode == "away" {
				server.Kill()
			} else {
				server.Pause()
			}
			eventually(t, "degraded", func() bool { return f.cache.Health().State == aside.StateDegraded })

			statuses := make(map[int]int)
			for i := range 66 {
				statuses[f.post(t, keyChange, bodyOf(t, "keys", madeUp("user", 1000*i, 1000)))]++
			}
			require.Len(t, statuses, 2, "%v", statuses)
			require.NotZero(t, statuses[200])
			require.NotZero(t, statuses[503])
			for i := range 257 {
				statuses[f.post(t, keyChange, bodyOf(t, "pattern", fmt.Sprintf("user:%d:*", i)))]++
			}
			for i := range 66 {
				statuses[f.post(t, keyChange, bodyOf(t, "tags", madeUp("tag", 1000*i, 1000)))]++
			}
			for range 66 {
				statuses[f.post(t, keyChange, bodyOf(t, "category", "user"))]++
			}
			require.Len(t, statuses, 2, "%v", statuses)
			require.Equal(t, 200, f.post(t, keyOld, bodyOf(t, "keys", []string{"user:1"})), "another key finds room")
			require.Equal(t, 200, f.post(t, keyOld, bodyOf(t, "tags", []string{"a tag"})))
			require.Equal(t, 200, f.post(t, keyAll, bodyOf(t, "keys", madeUp("user", 0, 1000))), "who may invalidate everything as before")
			_, err := f.cache.Invalidate(context.Background(), aside.TTL.UserProfile.Key("own"))
			require.NoError(t, err)

			if mode == "away" {
				server.Restart()
			} else {
				server.Resume()
			}
			eventually(t, "connected", func() bool { return f.cache.Health().State == aside.StateConnected })
			receipt, err := f.cache.InvalidateTags(context.Background(), "the last one")
			require.NoError(t, err)
			require.NoError(t, receipt.Wait(t.Context()))
			eventually(t, "everything is confirmed", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.told > 0 && f.post(t, keyChange, bodyOf(t, "keys", madeUp("user", 0, 1000))) == 200
			})
			f.mu.Lock()
			require.NotContains(t, f.pieces, "all")
			f.mu.Unlock()
			for _, key := range kept() {
				for _, c := range []*aside.Cache{f.cache, f.other} {
					eventually(t, "it is still there", func() bool {
						v, err := aside.Get[string](context.Background(), c, key)
						return err == nil && v == "v"
					})
				}
			}
		})
	}
}

// A name has a longest length, and the problem says which.
func TestNamesAreBoundedInBytes(t *testing.T) {
	f := flood(t, nil)
	f.keep(t)
	long, longest := strings.Repeat("x", 64_000), strings.Repeat("x", 1024-len("models:"))
	for _, body := range []string{
		bodyOf(t, "keys", []string{"models:kept", "models:" + long}), bodyOf(t, "tags", []string{long}), bodyOf(t, "pattern", "models:"+long),
		bodyOf(t, "category", long), bodyOf(t, "keys", []string{"models:" + longest + "x"}),
	} {
		w := ask(f.handler, "POST", "/", body, "Bearer "+keyChange)
		require.Equal(t, 422, w.Code)
		require.Contains(t, w.Body.String(), "1024")
		require.Less(t, w.Body.Len(), 1000)
	}
	require.Equal(t, 200, f.post(t, keyChange, bodyOf(t, "keys", []string{"models:" + longest})))
	require.Equal(t, 422, f.post(t, keyChange, bodyOf(t, "tags", []string{longest})), "a tag is shorter still")
	for _, key := range kept() {
		_, err := aside.Get[string](context.Background(), f.cache, key)
		require.NoError(t, err)
	}
	before := heap()
	for i := range 500 {
		body := fmt.Sprintf(`{"keys":["models:%d%s"],"wait":0}`, i, long)
		require.Equal(t, 422, f.post(t, keyChange, body))
	}
	require.Less(t, heap()-before, int64(8<<20))
}

// Keys of one name, as in a rotation, have room in the journal of their own each.
func TestKeysOfOneNameHaveRoomOfTheirOwn(t *testing.T) {
	t.Parallel()
	o := asidehttp.Options{Rate: -1, Logger: slog.New(slog.DiscardHandler), Keys: []asidehttp.Key{
		{Name: "deploy", Secret: aside.NewSecret(keyChange), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
		{Name: "deploy", Secret: aside.NewSecret(keyOld), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
	}}
	server := redistest.Start(t)
	c := listing(t, server.Addr())
	h := asidehttp.AdminHandler(c, o)
	server.Kill()
	eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })
	for i := range 40 {
		ask(h, "POST", "/", bodyOf(t, "keys", madeUp("user", 1000*i, 1000)), "Bearer "+keyChange)
	}
	require.Equal(t, 503, ask(h, "POST", "/", bodyOf(t, "keys", madeUp("user", 0, 1000)), "Bearer "+keyChange).Code)
	require.Equal(t, 200, ask(h, "POST", "/", bodyOf(t, "keys", madeUp("models", 0, 1000)), "Bearer "+keyOld).Code)
}

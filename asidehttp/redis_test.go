package asidehttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func onRedis(t testing.TB, server *redistest.Server, policies ...aside.Policy) *aside.Cache {
	t.Helper()
	o := asidetest.Anonymously(server.Addr())
	o.Policies = policies
	c := newCache(t, o)
	eventually(t, "connected", func() bool { return c.Health().State == aside.StateConnected })
	return c
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(asidetest.Bound); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", asidetest.Bound, what)
		}
	}
}

// logged waits until a log has so many lines with a text: a busy machine may write them after the call that they are about.
func logged(t testing.TB, log *output, text string, lines int) {
	t.Helper()
	eventually(t, "it is logged: "+text, func() bool { return strings.Count(log.String(), text) >= lines })
}

type invalidated struct {
	RedisEntries  int64   `json:"redis_entries"`
	MemoryEntries *int64  `json:"memory_entries"`
	Complete      bool    `json:"complete"`
	Confirmed     bool    `json:"confirmed"`
	TookMS        float64 `json:"took_ms"`
}

func invalidate(t testing.TB, h http.Handler, body string) invalidated {
	t.Helper()
	w := ask(h, "POST", "/", body, "Bearer "+keyAll)
	require.Equal(t, 200, w.Code, w.Body)
	var a struct {
		Success     bool
		Invalidated *invalidated
		Matched     *invalidated
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
	require.True(t, a.Success)
	if a.Invalidated == nil {
		return *a.Matched
	}
	return *a.Invalidated
}

func TestEachSelectorOnRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := onRedis(t, server), onRedis(t, server)
	h := asidehttp.AdminHandler(c, options(io.Discard))
	server.MustDo(t, "SET", "models:foreign", "somebody else's")
	for _, p := range posts() {
		if p.status != 200 || p.name == "no wait" {
			continue
		}
		left := seed(t, c)
		// The other process has it all in its memory.
		ctx := context.Background()
		session := aside.TTL.SessionsList.Key("ABC", "list", 50, 0)
		v, err := aside.Get[string](ctx, other, session)
		require.NoError(t, err)
		require.Equal(t, "v", v)

		body := p.body
		dry := invalidate(t, h, `{"dry_run":true,`+body[indexOf(body, '{')+1:])
		require.Equal(t, int64(p.removed), dry.RedisEntries, p.name)
		require.True(t, dry.Complete, p.name)
		require.Equal(t, seeded, left(), p.name)

		got := invalidate(t, h, body)
		require.True(t, got.Complete && got.Confirmed, p.name)
		require.Nil(t, got.MemoryEntries, p.name)
		require.Equal(t, int64(p.removed), got.RedisEntries, p.name)
		require.Equal(t, seeded-p.removed, left(), p.name)
		if _, err := aside.Get[string](ctx, c, session); err != nil {
			eventually(t, "the other process follows", func() bool {
				_, err := aside.Get[string](ctx, other, session)
				return err != nil
			})
		}
	}
	require.Equal(t, "somebody else's", server.MustDo(t, "GET", "models:foreign"))
}

func indexOf(text string, c byte) int {
	for i := range len(text) {
		if text[i] == c {
			return i
		}
	}
	return -1
}

// The answer does not wait for a sweep longer than it may; the sweep goes on.
func TestAnAnswerComesAfterItsWaitAtTheLatest(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := onRedis(t, server)
	h := asidehttp.AdminHandler(c, options(io.Discard))
	ctx := context.Background()
	const n = 5000
	for i := range n {
		asidetest.Stored(t, c, aside.TTL.ModelDetail.Key(i, "detail"), i)
	}
	asidetest.Stored(t, c, aside.TTL.ChatStats.Key("ABC"), 1)

	got := invalidate(t, h, `{"category":"models","wait":0}`)
	require.True(t, got.Confirmed)
	require.False(t, got.Complete)
	require.Less(t, got.RedisEntries, int64(n))
	_, err := aside.Get[int](ctx, c, aside.TTL.ModelDetail.Key(n-1, "detail"))
	require.ErrorIs(t, err, aside.ErrMiss, "out of date all the same")
	eventually(t, "the sweep goes on", func() bool {
		keys := server.MustDo(t, "KEYS", "models:*").([]any)
		return len(keys) == 0
	})
	_, err = aside.Get[int](ctx, c, aside.TTL.ChatStats.Key("ABC"))
	require.NoError(t, err)
}

func TestWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := onRedis(t, server)
	h := asidehttp.AdminHandler(c, options(io.Discard))
	seed(t, c)
	server.Kill()
	eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })

	began, allowed := time.Now(), asidetest.Allowing(t)
	for _, body := range []string{`{"category":"models","wait":0.05}`, `{"keys":["models:all:all"],"wait":0.05}`, `{"tags":["a"],"wait":0.05}`, `{"pattern":"models:*","wait":0.05}`, `{"category":"all","wait":0.05}`} {
		got := invalidate(t, h, body)
		require.False(t, got.Confirmed, body)
		require.False(t, got.Complete, body)
	}
	require.Less(t, time.Since(began), allowed(5*time.Second))

	w := ask(h, "POST", "/", `{"category":"models","dry_run":true}`, "Bearer "+keyAll)
	require.Equal(t, 503, w.Code, w.Body)
	require.Contains(t, problemOf(t, w).Detail, "cannot be counted now")

	w = ask(h, "GET", "/?metrics=true&pattern=models:*", "", "Bearer "+keyAll)
	require.Equal(t, 200, w.Code)
	var got struct {
		Metrics map[string]any
		Redis   struct {
			Complete bool
			Error    string
			Keys     []string
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.False(t, got.Redis.Complete)
	require.NotEmpty(t, got.Redis.Error)
	require.NotContains(t, w.Body.String(), server.Addr())
	require.NotNil(t, got.Redis.Keys)
	require.NotEmpty(t, got.Metrics)

	// A request that waits hears of the confirmation when Redis is back.
	done := make(chan invalidated, 1)
	go func() { done <- invalidate(t, h, `{"category":"models","wait":30}`) }()
	server.Restart()
	require.True(t, (<-done).Confirmed)
}

func TestKeysOnRedisInTheDocumentedForm(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := onRedis(t, server)
	seed(t, c)
	server.MustDo(t, "SET", "models:foreign", "somebody else's")
	for i := range 200 {
		asidetest.Stored(t, c, aside.TTL.ActivityStats.Key(fmt.Sprint("user", i), "stats", "day"), "v")
	}
	get := func(pattern string) (a struct {
		Redis map[string]any
	}) {
		w := ask(asidehttp.AdminHandler(c, options(io.Discard)), "GET", "/?metrics=true&pattern="+pattern, "", "Bearer "+keyRead)
		require.Equal(t, 200, w.Code, w.Body)
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
		return a
	}
	require.Equal(t, map[string]any{"total_keys": 2.0, "pattern": "models:*", "keys": []any{"models:all:all", "models:openrouter:all"}, "complete": true}, get("models:*").Redis)
	many := get("activity:user*").Redis
	require.Equal(t, 200.0, many["total_keys"])
	require.Len(t, many["keys"], 100)
	require.Equal(t, map[string]any{"total_keys": 0.0, "pattern": "user:x:*", "keys": []any{}, "complete": true}, get("user:x:*").Redis)
}

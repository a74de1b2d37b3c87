package asidehttp_test

import (
	"fmt"
	"io"
	"net/http/httptest"
	"net/http/httputil"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// listing is a cache on a server, with policies of its own listed.
func listing(t *testing.T, addr string) *aside.Cache {
	t.Helper()
	o := asidetest.Anonymously(addr)
	o.DegradedTTL, o.Policies = time.Hour, []aside.Policy{aside.TTL.UserProfile, aside.TTL.ModelsAll}
	c := newCache(t, o)
	eventually(t, "connected", func() bool { return c.Health().State == aside.StateConnected })
	return c
}

// An answer to a wrong category does not grow with what the cache knows.
func TestAnAnswerToAWrongCategoryIsShort(t *testing.T) {
	t.Parallel()
	var o aside.Options
	for i := range 3000 {
		o.Policies = append(o.Policies, aside.Policy{Name: fmt.Sprint("p", i), Category: fmt.Sprintf("tenant-%04d", i), TTL: time.Minute})
	}
	c := newCache(t, o)
	h := asidehttp.AdminHandler(c, options(io.Discard))
	for _, body := range []string{`{"category":"tenant-1234x"}`, `{"keys":["tenant-1234x:1"]}`, `{"pattern":"tenant-1234x:*"}`} {
		w := ask(h, "POST", "/", body, "Bearer "+keyChange)
		require.Equal(t, 422, w.Code)
		require.Less(t, w.Body.Len(), 1024)
		require.Contains(t, w.Body.String(), "tenant-1234, ")
		require.Contains(t, w.Body.String(), " and 2980 more")
	}
	_, err := c.InvalidateCategory(t.Context(), "tenant-1234x")
	require.ErrorContains(t, err, "tenant-1234, ")
	require.Less(t, len(err.Error()), 1024)
}

// What a request costs that nobody vouches for: docs/security.md says so many bytes.
func TestTheAnswerToNobodyIsShort(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(asidehttp.AdminHandler(newCache(t, aside.Options{}), options(io.Discard)))
	defer s.Close()
	resp, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	all, err := httputil.DumpResponse(resp, true)
	require.NoError(t, err)
	require.InDelta(t, 350, len(all), 50)
}

// While Redis hangs, an answer comes when its wait is over, and says that it is not complete.
func TestAnswersComeWhileRedisHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := listing(t, server.Addr())
	h := asidehttp.AdminHandler(c, options(io.Discard))
	server.Pause()
	t.Cleanup(server.Resume)
	for _, body := range []string{
		`{"category":"models","wait":0}`, `{"keys":["models:1"],"wait":0}`, `{"tags":["x"],"wait":0}`, `{"pattern":"models:*","wait":0}`,
		`{"category":"models","wait":0,"dry_run":true}`, `{"tags":["x"],"wait":1,"dry_run":true}`,
	} {
		w := ask(h, "POST", "/", body, "Bearer "+keyAll)
		require.Contains(t, []int{200, 503}, w.Code, body)
		require.NotContains(t, w.Body.String(), `"complete":true`, body)
	}
}

// What keys without ScopeAll invalidate leaves nothing in Redis, however it is named.
func TestNothingIsLeftInRedisOfMadeUpNames(t *testing.T) {
	server := redistest.Start(t)
	c := listing(t, server.Addr())
	h := asidehttp.AdminHandler(c, options(io.Discard))
	size := func() int { return len(asidetest.WithoutProbes(server.MustDo(t, "KEYS", "*"))) }
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
	require.LessOrEqual(t, size()-before, 3, "%v", server.MustDo(t, "KEYS", "*"))
}

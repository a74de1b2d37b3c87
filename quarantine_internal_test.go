package aside

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

const inTime = 20 * time.Second

// unableToWrite is a cache on a server that it reaches through proxy, as a user who may write no value: what is entered stays in the journal.
// cacheAt makes others.
func unableToWrite(t *testing.T) (c *Cache, cacheAt func(addr string, user ...string) *Cache, server *redistest.Server, proxy *redistest.Proxy) {
	t.Helper()
	server = redistest.Start(t)
	proxy = redistest.StartProxy(t, server.Addr())
	cacheAt = func(addr string, user ...string) *Cache {
		o := Options{Redis: rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true}, OpTimeout: inTime, Logger: slog.New(slog.DiscardHandler)}
		if len(user) > 0 {
			o.Redis.Username, o.Redis.Password = user[0], user[0]
		}
		c, err := New(o)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		require.Eventually(t, func() bool { return c.Health().State == StateConnected }, inTime, time.Millisecond)
		return c
	}
	server.MustDo(t, "ACL", "SETUSER", "reader", "on", ">reader", "&*", "+@all", "%R~*", "~%*", "~{*")
	return cacheAt(proxy.Addr(), "reader"), cacheAt, server, proxy
}

// Hazard 109. Nobody who comes after an invalidation that Redis has not confirmed is given what Redis held before.
//
//  1. A Strong call begins a load. It takes its fences; nothing keeps others from joining it yet.
//  2. A key is invalidated. Redis does not confirm that yet. A caller comes, and joins the load.
//  3. The guard of the load is up, and it reads.
//  4. Redis confirms the invalidation. The reply from before comes to the load only now.
func TestWhoJoinsALoadBeforeItsGuardIsUpGetsNothingInvalidated(t *testing.T) {
	t.Parallel()
	c, cacheAt, server, proxy := unableToWrite(t)
	policy := &Policy{Name: "items", Category: "items", TTL: time.Hour}
	key := policy.Key("a")
	require.NoError(t, Set(t.Context(), cacheAt(server.Addr()), key, "old"))

	s, _, err := newSlot[string](t.Context(), c, key, []CallOption{Strong()})
	require.NoError(t, err)
	s.call, s.led = c.flights.Join(s.flightKey())
	joined, led := c.flights.Join(s.flightKey()) // by the caller of step 2: the place of the guard is empty, so when does not matter
	require.True(t, s.led && !led)
	start := make(chan struct{})
	c.flights.Run(t.Context(), inTime, func(ctx context.Context) {
		<-start
		c.lead(ctx, []*slot{s}, func(_ context.Context, ids []int, found func(int, given)) { found(ids[0], give("new", nil)) })
	}, s.call)

	// Whoever looks at the guard of another call keeps the guard of this one from being put up.
	other := s.flightKey()
	other.key += "another"
	call, _ := c.flights.Join(other)
	looking, look := make(chan struct{}), make(chan struct{})
	call.Guard(func() bool { close(looking); <-look; return true })
	done := make(chan struct{})
	go func() { defer close(done); c.flights.Join(other) }()
	<-looking
	gate := proxy.HoldReplies(func(args []string) bool { return len(args) > 1 && args[0] == "GETRANGE" && args[1] == key.text })
	close(start)
	require.Eventually(t, func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "aside.(*slot).guard")
	}, inTime, time.Millisecond, "its fences are taken")
	c.journal.Enter("", key.text)
	c.near.Delete(key.text)
	close(look)
	<-done
	gate.Wait(t)
	_, again := c.journal.Confirm(c.journal.Now(""), key.text)
	require.Nil(t, again)
	gate.Release()
	for _, waiting := range []interface {
		Wait(context.Context) (outcome, error)
	}{joined, s.call} {
		out, err := waiting.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, "new", *out.value.(*string))
	}
	call.Forsake(ErrClosed)
}

// Hazard 110. A generation that Redis was asked for before it had confirmed an invalidation is none.
//
//  1. A tag is invalidated, which Redis does not confirm yet. Nobody but the stored value names the tag.
//  2. A load reads the value, and the tag's generation as it was before.
//  3. Redis confirms the invalidation.
//  4. The reply of step 2 comes to the load only now.
func TestAGenerationThatWasReadInQuarantineIsNone(t *testing.T) {
	t.Parallel()
	c, cacheAt, server, proxy := unableToWrite(t)
	policy := &Policy{Name: "items", Category: "items", TTL: time.Hour}
	key, writer := policy.Key("a"), cacheAt(server.Addr())
	server.MustDo(t, "ACL", "SETUSER", "reader", "resetkeys", "%R~*", "~%all", "~%tags", "~%c:*", "~%mark:*", "~%probe:*", "~%watch:*", "~%v:*", "~%:*") // no tag of a value
	_, err := GetOrLoad(t.Context(), writer, key, func(ctx context.Context) (string, error) {
		Loading(ctx).Tag("green")
		return "old", nil
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return server.MustDo(t, "EXISTS", key.text) == int64(1) }, inTime, time.Millisecond)

	s, _, err := newSlot[string](t.Context(), c, key, nil)
	require.NoError(t, err)
	m := c.newMarks()
	defer m.end()
	read := func() (found bool) {
		c.fence(s, m, nil)
		pending := c.readStore(t.Context(), m, []*slot{s}, func(*slot, outcome) { found = true })
		require.Equal(t, !found, len(pending) == 1)
		return found
	}
	require.True(t, read())
	c.journal.Enter("", "%t:green")
	require.False(t, read(), "in quarantine")

	gate := proxy.HoldReplies(func(args []string) bool { return len(args) > 1 && args[0] == "GETRANGE" && args[1] == "%t:green" })
	found := make(chan bool)
	go func() { found <- read() }()
	gate.Wait(t)
	_, err = writer.InvalidateTags(t.Context(), "green")
	require.NoError(t, err)
	_, again := c.journal.Confirm(c.journal.Now(""), "%t:green")
	require.Nil(t, again)
	gate.Release()
	require.False(t, <-found)
	s.fence.End()
}

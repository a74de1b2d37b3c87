package engine

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/invalidate"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redistest"
)

const inTime = 20 * time.Second

// unableToWrite is a cache on a server that it reaches through proxy, as a user who may write no value: what is entered stays in the journal.
// cacheAt makes others.
func unableToWrite(t *testing.T) (e *Engine, engineAt func(addr string, user ...string) *Engine, server *redistest.Server, proxy *redistest.Proxy) {
	t.Helper()
	server = redistest.Start(t)
	proxy = redistest.StartProxy(t, server.Addr())
	engineAt = func(addr string, user ...string) *Engine {
		return connected(t, addr, func(o *Options) {
			if len(user) > 0 {
				o.Redis.Username, o.Redis.Password = user[0], user[0]
			}
		})
	}
	server.MustDo(t, "ACL", "SETUSER", "reader", "on", ">reader", "&*", "+@all", "%R~*", "~%*", "~{*")
	return engineAt(proxy.Addr(), "reader"), engineAt, server, proxy
}

// Hazard 109. Nobody who comes after an invalidation that Redis has not confirmed is given what Redis held before.
//
//  1. A Strong call begins a load. It takes its fences; nothing keeps others from joining it yet.
//  2. A key is invalidated. Redis does not confirm that yet. A caller comes, and joins the load.
//  3. The guard of the load is up, and it reads.
//  4. Redis confirms the invalidation. The reply from before comes to the load only now.
func TestWhoJoinsALoadBeforeItsGuardIsUpGetsNothingInvalidated(t *testing.T) {
	t.Parallel()
	e, engineAt, server, proxy := unableToWrite(t)
	r := requestOf(items(), "a")
	key := r.Key
	require.NoError(t, engineAt(server.Addr()).Set(t.Context(), requestOf(items(), "a"), given("old")))

	r.Strong = true
	a := newAttempt(r)
	a.call, a.leader = e.flights.Join(a.flightKey())
	joined, leader := e.flights.Join(a.flightKey()) // by the caller of step 2: the place of the guard is empty, so when does not matter
	require.True(t, a.leader && !leader)
	start := make(chan struct{})
	e.flights.Run(t.Context(), inTime, func(ctx context.Context) {
		<-start
		e.lead(ctx, []*attempt{a}, loads("new"))
	}, a.call)

	// Whoever looks at the guard of another call keeps the guard of this one from being put up.
	other := a.flightKey()
	other.key += "another"
	call, _ := e.flights.Join(other)
	looking, look := make(chan struct{}), make(chan struct{})
	letLook := sync.OnceFunc(func() { close(look) })
	defer letLook()
	call.JoinWhile(condition(func() bool { close(looking); <-look; return true }))
	done := make(chan struct{})
	go func() { defer close(done); e.flights.Join(other) }()
	<-looking
	gate := proxy.HoldReplies(func(args []string) bool { return len(args) > 1 && args[0] == "GETRANGE" && args[1] == key })
	close(start)
	require.Eventually(t, func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "engine.(*attempt).setJoinable")
	}, inTime, time.Millisecond, "its fences are taken")
	e.journal.Enter("", key)
	e.Near.Delete(key)
	letLook()
	<-done
	gate.Wait(t)
	_, again := e.journal.Confirm(e.journal.Now(""), key)
	require.Nil(t, again)
	gate.Release()
	for _, waiting := range []interface {
		Wait(context.Context) (Outcome, error)
	}{joined, a.call} {
		out, err := waiting.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, "new", *out.Value.(*string))
	}
	call.Forsake(errClosed)
}

// Hazard 110. A generation that Redis was asked for before it had confirmed an invalidation is none.
//
//  1. A tag is invalidated, which Redis does not confirm yet. Nobody but the stored value names the tag.
//  2. A load reads the value, and the tag's generation as it was before.
//  3. Redis confirms the invalidation.
//  4. The reply of step 2 comes to the load only now.
func TestAGenerationThatWasReadInQuarantineIsNone(t *testing.T) {
	t.Parallel()
	e, engineAt, server, proxy := unableToWrite(t)
	r, writer := requestOf(items(), "a"), engineAt(server.Addr())
	key := r.Key
	server.MustDo(t, "ACL", "SETUSER", "reader", "resetkeys", "%R~*", "~%all", "~%tags", "~%c:*", "~%mark:*", "~%probe:*", "~%watch:*", "~%{*") // no tag of a value
	_, err := answer(t, writer, requestOf(items(), "a"), func(ctx context.Context, indexes []int, found func(int, Loaded)) {
		LoadOf(ctx).Tag("green")
		found(indexes[0], given("old"))
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return server.MustDo(t, "EXISTS", key) == int64(1) }, inTime, time.Millisecond)

	a := newAttempt(r)
	m := e.tags.Snapshot()
	defer m.End()
	read := func() (found bool) {
		e.takeFences(a, m, nil)
		pending := e.readStore(t.Context(), m, []*attempt{a}, func(*attempt, Outcome) { found = true })
		require.Equal(t, !found, len(pending) == 1)
		return found
	}
	require.True(t, read())
	e.journal.Enter("", "%t:green")
	require.False(t, read(), "in quarantine")

	gate := proxy.HoldReplies(func(args []string) bool { return len(args) > 1 && args[0] == "GETRANGE" && args[1] == "%t:green" })
	found := make(chan bool)
	go func() { found <- read() }()
	gate.Wait(t)
	require.True(t, writer.Invalidator.Retire(t.Context(), "", invalidate.Event{Tags: []string{"green"}}, keyspace.Sequence, "%t:green").Confirmed)
	_, again := e.journal.Confirm(e.journal.Now(""), "%t:green")
	require.Nil(t, again)
	gate.Release()
	require.False(t, <-found)
	a.fence.End()
}

type condition func() bool

func (c condition) Joinable() bool { return c() }

package engine

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 148: the time between a reply and the goroutine that waits for it.
//
//  1. A flight reads a key. The generation of its category is known in memory, so it is not read.
//  2. The reply arrives. The flight's goroutine does not run yet.
//  3. The push arrives that the category was invalidated by another process.
//  4. A caller comes that knows of the invalidation. It must not join the flight.
func TestNobodyJoinsAReadFromBeforeThePushOfAKnownGeneration(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{keyspace.CategoryTag("items"), keyspace.All} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			e, p := connected(t, proxy.Addr()), items()
			require.NoError(t, e.Set(t.Context(), requestOf(p, "a"), given("old")))
			_, err := answer(t, e, requestOf(p, "other"), loads("v")) // by which the generations are known
			require.NoError(t, err)
			require.Eventually(t, func() bool { return e.Near.Generation(tag) != nil }, inTime, 1e6)

			gate := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == "items:a" })
			read := make(chan error, 1)
			go func() {
				_, err := answer(t, e, requestOf(p, "a"), loads("another"))
				read <- err
			}()
			gate.Wait(t)
			e.Near.Push(tag)
			r := requestOf(p, "a")
			call, leads := e.flights.Join(newAttempt(r).flightKey())
			require.True(t, leads, "the read may be from before the push")
			call.Forsake(errClosed)
			_, _ = call.Wait(t.Context())
			gate.Release()
			require.NoError(t, <-read)
		})
	}
}

// joinedAfter reports whether a caller that comes after the push about a tag would join the flight of a key.
func joinedAfter(t *testing.T, e *Engine, r Request, tag string) bool {
	t.Helper()
	call, leads := e.flights.Join(newAttempt(r).flightKey())
	require.False(t, leads, "before the push, the flight is joined")
	call.Leave()
	e.Near.Push(tag)
	call, leads = e.flights.Join(newAttempt(r).flightKey())
	if leads {
		call.Forsake(errClosed)
	}
	call.Leave()
	return !leads
}

// Hazard 148 too: memory learns the generation when the flight has begun, and has not read anything yet. So the flight does not read the generation, and
// no reply arms its fence.
func TestNobodyJoinsAReadAfterThePushOfAGenerationThatMemoryHasLearnedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{keyspace.CategoryTag("items"), keyspace.All} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			require.NoError(t, connected(t, server.Addr()).Set(t.Context(), requestOf(items(), "a"), given("old")))
			e, p := connected(t, proxy.Addr()), items()
			a := newAttempt(requestOf(p, "a"))
			a.call, a.leader = e.flights.Join(a.flightKey())
			defer a.call.Forsake(errClosed)
			m := e.prepare([]*attempt{a})
			defer endFences(m, []*attempt{a})
			require.Nil(t, e.Near.Generation(tag))
			e.takeFences(a, m, nil)
			_, err := answer(t, e, requestOf(p, "other"), loads("v"))
			require.NoError(t, err)
			require.Eventually(t, func() bool { return e.Near.Generation(tag) != nil }, inTime, 1e6)

			gate := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == "items:a" })
			read := make(chan int, 1)
			go func() { read <- len(e.readStore(t.Context(), m, []*attempt{a}, func(*attempt, Outcome) {})) }()
			gate.Wait(t)
			require.False(t, joinedAfter(t, e, requestOf(p, "a"), tag), "the read may be from before the push")
			gate.Release()
			<-read
		})
	}
}

// Hazard 190: a Strong read trusts nothing that memory knows, and memory knew the generations when it began.
func TestNobodyJoinsAStrongReadAfterThePushOfATagThatMemoryKnew(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{keyspace.CategoryTag("items"), keyspace.All} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			e, p := connected(t, proxy.Addr(), func(o *Options) { o.ChunkFrom = 100 }), items()
			require.NoError(t, e.Set(t.Context(), requestOf(p, "a"), given(strings.Repeat("old", 100))))
			_, err := answer(t, e, requestOf(p, "other"), loads("v")) // by which the generations are known
			require.NoError(t, err)
			require.Eventually(t, func() bool { return e.Near.Generation(tag) != nil }, inTime, 1e6)

			gate := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && strings.Contains(args[1], "!c:") }) // the value and the generations are read
			strong := requestOf(p, "a")
			strong.Strong = true
			read := make(chan error, 1)
			go func() {
				_, err := answer(t, e, strong, loads("another"))
				read <- err
			}()
			gate.Wait(t)
			require.False(t, joinedAfter(t, e, requestOf(p, "a"), tag))
			gate.Release()
			require.NoError(t, <-read)
		})
	}
}

// Hazard 190: a load that does not ask Redis, which has just failed. A server that answers too late still pushes.
func TestNobodyJoinsALoadThatAsksNobodyAfterThePushOfATagThatMemoryKnew(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{keyspace.CategoryTag("items"), keyspace.All} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			e, p := connected(t, proxy.Addr()), items()
			_, err := answer(t, e, requestOf(p, "other"), loads("v"))
			require.NoError(t, err)
			require.Eventually(t, func() bool { return e.Near.Generation(tag) != nil }, inTime, 1e6)

			over := &storing{over: make(chan struct{}), err: context.DeadlineExceeded} // as another flight leaves it, that could not store the value
			e.storing.begin(over, []*attempt{{Request: Request{Key: "items:a"}}})
			begun, release, loaded := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				_, err := answer(t, e, requestOf(p, "a"), func(_ context.Context, _ []int, found func(int, Loaded)) {
					close(begun)
					<-release
					found(0, given("old"))
				})
				loaded <- err
			}()
			over.over <- struct{}{} // the flight has begun, and waits for that
			<-begun
			proxy.Refuse(true)
			proxy.CloseConnections()
			require.Eventually(t, func() bool { return !e.Store.Up() }, inTime, 1e6)
			joined := joinedAfter(t, e, requestOf(p, "a"), tag)
			close(release) // first: the engine's end waits for the load
			require.False(t, joined)
			require.NoError(t, <-loaded)
		})
	}
}

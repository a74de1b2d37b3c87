package flight

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALoadInTheBackgroundIsLedByOneAndJoinedByCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		call, ok := g.Lead("k")
		require.True(t, ok)
		_, ok = g.Lead("k")
		require.False(t, ok, "it is led")
		call.Linger(time.Minute)
		begun, end := make(chan struct{}), make(chan struct{})
		g.Run(t.Context(), time.Minute, func(ctx context.Context) {
			close(begun)
			<-end
			call.Resolve(1, ctx.Err())
		}, call)
		<-begun
		joined, lead := g.Join("k")
		require.False(t, lead)
		close(end)
		v, err := joined.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, v)
		require.NoError(t, g.Close(t.Context(), errors.New("closed")))
		_, ok = g.Lead("k")
		require.False(t, ok, "the group is closed")
	})
}

func TestALoadInTheBackgroundGoesOnForItsLingerTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		call, _ := g.Lead("k")
		call.Linger(time.Minute)
		began := time.Now()
		ended := make(chan time.Duration, 1)
		g.Run(t.Context(), time.Hour, func(ctx context.Context) {
			<-ctx.Done()
			ended <- time.Since(began)
		}, call)
		require.Equal(t, time.Minute, <-ended)
		synctest.Wait()
		_, lead := g.Join("k")
		require.True(t, lead, "it is not joined any more")
	})
}

func TestALoadInTheBackgroundIsWatchedAsDesertedFromTheBeginning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		call, _ := g.Lead("k")
		call.Linger(time.Minute)
		w := &watcher{}
		watching, done := make(chan struct{}), make(chan struct{})
		g.Run(t.Context(), time.Hour, func(ctx context.Context) {
			call.Watch(w)
			close(watching)
			<-ctx.Done()
			call.Unwatch(w)
			close(done)
		}, call)
		<-watching
		require.True(t, call.EndDeserted(w), "a load with callers may take its place")
		<-done
	})
}

type watcher struct{}

func (*watcher) Deserted(bool) bool { return false }

func TestALoadIsGivenUpOnlyWhileNobodyWaitsForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		alone, _ := g.Lead("alone")
		joined, _ := g.Lead("joined")
		alone.Linger(time.Minute)
		joined.Linger(time.Minute)
		begun, goOn := make(chan struct{}), make(chan struct{})
		var given [2]bool
		g.Run(t.Context(), time.Minute, func(context.Context) {
			close(begun)
			<-goOn
			given = [2]bool{alone.GiveUp(), joined.GiveUp()}
			joined.Resolve(7, nil)
		}, alone, joined)
		<-begun
		call, _ := g.Join("joined")
		close(goOn)
		v, err := call.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 7, v)
		synctest.Wait()
		require.Equal(t, [2]bool{true, false}, given)
		_, lead := g.Join("alone")
		require.True(t, lead)
	})
}

// Hazard 31: the last callers leave with an older value.
func TestALoadGoesOnWhoseCallersHaveAnOlderValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, int]
		call, _ := g.Join("k")
		second, _ := g.Join("k")
		end := make(chan struct{})
		g.Run(t.Context(), time.Hour, func(ctx context.Context) {
			<-end
			call.Resolve(1, ctx.Err())
		}, call)
		call.LeaveBehind()
		second.LeaveBehind()
		synctest.Wait()
		late, lead := g.Join("k")
		require.False(t, lead, "it may be joined")
		late.Leave()
		last, lead := g.Join("k")
		require.False(t, lead, "it goes on after that")
		close(end)
		v, err := last.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, v)
	})
}

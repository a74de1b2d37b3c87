package tags

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
)

func TestALoadUsesAKnownGenerationOnceASecond(t *testing.T) {
	var last touches
	second := int64(time.Second)
	require.True(t, last.due(items, 0))
	require.False(t, last.due(items, second-1))
	require.True(t, last.due(items, second))
	require.False(t, last.due(items, second))
	require.True(t, last.due(keyspace.All, second), "another one")
}

func TestGenerationsThatCallsRestOnAreUsed(t *testing.T) {
	r, server, _ := newConnected(t)
	server.generations[red] = 7
	read(take(t, r, red))
	require.Equal(t, []string{items, keyspace.All, keyspace.Sequence, red}, r.inUse([]string{"items"}))
	require.Empty(t, r.inUse(nil), "a process that is not asked sends nothing")
}

func TestEveryFewSecondsGenerationsAreUsed(t *testing.T) {
	r, server, _ := newConnected(t)
	synctest.Test(t, func(t *testing.T) {
		server.touched = make(chan []string)
		ctx, cancel := context.WithCancel(t.Context())
		rounds := 0
		over := make(chan struct{})
		go func() {
			defer close(over)
			r.Touch(ctx, func() []string {
				if rounds++; rounds == 2 {
					return nil
				}
				return []string{"items"}
			})
		}()
		begun := time.Now()
		require.Contains(t, <-server.touched, items)
		require.LessOrEqual(t, time.Since(begun), 2*touchEvery)
		<-server.touched
		require.Equal(t, 3, rounds, "in the second one nothing was in use")
		cancel()
		<-over
	})
}

package contract_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// sentChunks are the keys of the chunks that a cache has sent.
func sentChunks(w asidetest.Watched) (keys []string) {
	for _, args := range w.Asked("SET") {
		if strings.HasPrefix(args[0], asidetest.LargeKey) {
			keys = append(keys, args[0])
		}
	}
	return keys
}

func ofChunk(i string) func(args []string) bool {
	return func(args []string) bool {
		return strings.EqualFold(args[0], "SET") && strings.HasPrefix(args[1], asidetest.LargeKey) && strings.HasSuffix(args[1], ":"+i)
	}
}

// Hazard 63: loads that are overtaken one after the other must not fill Redis with what nobody can read.
func TestALargeValueThatWasInvalidatedBeforeItsFillIsNotSent(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, other, key := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("large")
	for i := range uint64(5) {
		_, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(ctx context.Context) ([]byte, error) {
			_, err := other.Invalidate(ctx, key)
			return asidetest.Large(10 * asidetest.Chunk), err
		})
		require.NoError(t, err)
		asidetest.Eventually(t, "it is refused", func() bool { return asidetest.Refused(w.Cache) == i+1 })
		require.Empty(t, sentChunks(w))
		require.Empty(t, chunksOf(t, server))
	}
}

// Hazard 63: what is sent until the loss of the lease is found goes at once.
func TestALargeValueThatIsInvalidatedOnItsWayIsSentNoFurther(t *testing.T) {
	t.Parallel()
	key := asidetest.Items.Key("large")
	for name, store := range map[string]func(c *aside.Cache, v []byte) error{
		"load": func(c *aside.Cache, v []byte) error {
			_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) ([]byte, error) { return v, nil })
			return err
		},
		"set": func(c *aside.Cache, v []byte) error { return aside.Set(t.Context(), c, key, v) },
		"refresh": func(c *aside.Cache, v []byte) error {
			_, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) ([]byte, error) { return v, nil }, aside.Refresh())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
			gate := w.Proxy.HoldRequests(ofChunk("5"))
			done := make(chan error, 1)
			go func() { done <- store(w.Cache, asidetest.Large(40*asidetest.Chunk)) }()
			gate.Wait(t)
			require.NotEmpty(t, chunksOf(t, server))
			_, err := other.Invalidate(t.Context(), key)
			require.NoError(t, err)
			gate.Release()
			require.NoError(t, <-done)
			asidetest.Eventually(t, "they go", func() bool { return len(chunksOf(t, server)) == 0 })
			require.Less(t, len(sentChunks(w)), 20)
			require.EqualValues(t, 0, server.MustDo(t, "EXISTS", key.String()))
		})
	}
}

// Hazard 63: nor is anything left of what could not be sent to its end.
func TestALargeValueForWhichThereIsNoRoomLeavesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	w, key := asidetest.Watch(t, server), asidetest.Items.Key("large")
	gate := w.Proxy.HoldRequests(ofChunk("5"))
	_, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return asidetest.Large(10 * asidetest.Chunk), nil })
	require.NoError(t, err)
	gate.Wait(t)
	require.NotEmpty(t, chunksOf(t, server))
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	gate.Release()
	asidetest.Eventually(t, "they go", func() bool { return len(chunksOf(t, server)) == 0 })
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", key.String()))
}

// A fill whose reply does not come may have been carried out: its chunks are a value's.
func TestTheChunksOfAFillThatNobodyHasHeardOfStay(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.WatchedAs(t, server, func(addr string) aside.Options {
		o := asidetest.At(addr)
		o.OpTimeout = 1200 * time.Millisecond
		return o
	})
	key, want := asidetest.Items.Key("large"), asidetest.Large(2*asidetest.Chunk)
	gate := w.Proxy.HoldReplies(func(args []string) bool {
		return strings.EqualFold(args[0], "EVALSHA") && args[3] == key.String() && server.MustDo(t, "EXISTS", key.String()) == int64(1)
	})
	_, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return want, nil })
	require.NoError(t, err)
	gate.Wait(t)
	asidetest.Eventually(t, "the process gives up", func() bool { return w.Metrics().Labels["items"].RedisErrors > 0 })
	gate.Release()
	require.NoError(t, w.Close())
	got, err := aside.Get[[]byte](t.Context(), asidetest.Connected(t, asidetest.At(server.Addr())), key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

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

// chunksOf are the keys of the chunks of items:large, with how long each has to live.
func chunksOf(t *testing.T, server *redistest.Server) (left map[string]time.Duration) {
	t.Helper()
	left = map[string]time.Duration{}
	for _, key := range server.MustDo(t, "KEYS", "*!c:*").([]any) {
		require.True(t, strings.HasPrefix(key.(string), asidetest.LargeKey), key)
		if ms := server.MustDo(t, "PTTL", key.(string)).(int64); ms > 0 {
			left[key.(string)] = time.Duration(ms) * time.Millisecond
		}
	}
	return left
}

// requireChunks requires n of them with times to live in bounds.
func requireChunks(t *testing.T, server *redistest.Server, n int, least, most time.Duration) {
	t.Helper()
	left := chunksOf(t, server)
	require.Len(t, left, n)
	for key, d := range left {
		require.True(t, least <= d && d <= most, "%s: %v", key, d)
	}
}

const grace = 10 * time.Second // how long chunks outlive their value

func TestALargeValueIsStoredInChunks(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, key, want := asidetest.Watch(t, server), asidetest.Items.Key("large"), asidetest.Large(10*asidetest.Chunk)
	got := asidetest.InMemory(t, w.Cache, key, func(context.Context) ([]byte, error) { return want, nil })
	require.True(t, bytes.Equal(want, got))
	require.Less(t, server.MustDo(t, "STRLEN", key.String()), int64(1000))
	requireChunks(t, server, 10, time.Hour-time.Minute, time.Hour+grace)
	for _, args := range w.Asked("GETRANGE") {
		require.NotContains(t, args[0], asidetest.LargeKey, "who has written it does not read it again")
	}

	r, err := aside.Lookup(t.Context(), asidetest.Connected(t, asidetest.At(server.Addr())), key, func(context.Context) ([]byte, error) { panic("it is in Redis") })
	require.NoError(t, err)
	require.Equal(t, aside.TierRedis, r.Tier)
	require.True(t, bytes.Equal(want, r.Value))
}

func TestWhatIsNotLargeHasNoChunks(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]aside.Options{
		"by default":          {},
		"because it shrinks":  {},
		"for want of chunks":  {ChunkFrom: -1},
		"for a higher limit":  {ChunkFrom: 2 * asidetest.Chunk},
		"in spite of a lower": {ChunkFrom: 1 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			o.Redis, o.OpTimeout = asidetest.At(server.Addr()).Redis, asidetest.At(server.Addr()).OpTimeout
			value, chunks := asidetest.Large(asidetest.Chunk-1000), 0
			switch {
			case name == "because it shrinks":
				value = bytes.Repeat([]byte("model "), asidetest.Chunk)
			case o.ChunkFrom != 0:
				value = asidetest.Large(asidetest.Chunk + 1)
			}
			if o.ChunkFrom == 1<<10 {
				chunks = 2
			}
			asidetest.Stored(t, asidetest.Connected(t, o), asidetest.Items.Key("large"), value)
			require.Len(t, chunksOf(t, server), chunks)
			got, err := aside.Get[[]byte](t.Context(), asidetest.Connected(t, o), asidetest.Items.Key("large"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(value, got))
		})
	}
}

// Hazard 16: what chunks there are of a value that has gone goes too, a little later, for the sake of who is reading them.
func TestChunksGoWithTheirValue(t *testing.T) {
	t.Parallel()
	ctx, key := t.Context(), asidetest.Items.Key("large")
	for name, change := range map[string]func(c *aside.Cache) error{
		"invalidated": func(c *aside.Cache) error { _, err := c.Invalidate(ctx, key); return err },
		"replaced":    func(c *aside.Cache) error { return aside.Set(ctx, c, key, []byte("small")) },
		"refreshed": func(c *aside.Cache) error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) ([]byte, error) { return []byte("small"), nil }, aside.Refresh())
			return err
		},
		"refreshed, and gone": func(c *aside.Cache) error {
			_, err := aside.GetOrLoad(ctx, c, key, func(ctx context.Context) ([]byte, error) { aside.CurrentLoad(ctx).NoStore(); return nil, nil }, aside.Refresh())
			return err
		},
		"rejected": func(c *aside.Cache) error {
			_, err := c.InvalidateCategory(ctx, "items")
			if err == nil {
				_, err = aside.GetOrLoad(ctx, c, key, func(context.Context) ([]byte, error) { return []byte("small"), nil })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			c := asidetest.Connected(t, asidetest.At(server.Addr()))
			asidetest.Stored(t, c, key, asidetest.Large(3*asidetest.Chunk))
			requireChunks(t, server, 3, time.Minute, time.Hour+grace)
			require.NoError(t, change(c))
			asidetest.Eventually(t, "they are let go", func() bool {
				for _, left := range chunksOf(t, server) {
					if left > grace {
						return false
					}
				}
				return true
			})
			requireChunks(t, server, 3, time.Second, grace)
		})
	}
}

func TestALargeValueThatReplacesOneHasChunksOfItsOwn(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, key, want := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("large"), asidetest.Large(2*asidetest.Chunk)
	asidetest.Stored(t, c, key, asidetest.Large(2*asidetest.Chunk))
	asidetest.Stored(t, c, key, want)
	require.Len(t, chunksOf(t, server), 4)
	got, err := aside.Get[[]byte](t.Context(), asidetest.Connected(t, asidetest.At(server.Addr())), key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

// A chunk can be evicted like anything else.
func TestAValueThatLacksAChunkIsLoadedAndReplaced(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	key, want := asidetest.Items.Key("large"), asidetest.Large(2*asidetest.Chunk)
	asidetest.Stored(t, asidetest.Connected(t, asidetest.At(server.Addr())), key, asidetest.Large(2*asidetest.Chunk))
	for name := range chunksOf(t, server) {
		server.MustDo(t, "DEL", name)
		break
	}
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	r, err := aside.Lookup(t.Context(), c, key, func(context.Context) ([]byte, error) { return want, nil })
	require.NoError(t, err)
	require.Equal(t, "a part of the stored value is gone", r.Reason)
	require.Equal(t, aside.StatusMiss, r.Status)
	asidetest.InMemory(t, c, key, func(context.Context) ([]byte, error) { panic("it is there again") })
	got, err := aside.Get[[]byte](t.Context(), asidetest.Connected(t, asidetest.At(server.Addr())), key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

func TestADamagedChunkIsAMiss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	key := asidetest.Items.Key("large")
	asidetest.Stored(t, asidetest.Connected(t, asidetest.At(server.Addr())), key, asidetest.Large(2*asidetest.Chunk))
	for name := range chunksOf(t, server) {
		server.MustDo(t, "SETRANGE", name, "3", "damage")
		break
	}
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) ([]byte, error) { return []byte("loaded"), nil })
	require.NoError(t, err)
	require.Equal(t, "loaded", string(v))
	require.EqualValues(t, 1, c.Metrics().Labels["items"].DecodeErrors)
}

// A fill whose chunk was evicted before the manifest came must not leave a manifest that promises it.
func TestNoManifestIsStoredForAChunkThatIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, key := asidetest.Watch(t, server), asidetest.Items.Key("large")
	load := func(context.Context) ([]byte, error) { return asidetest.Large(2 * asidetest.Chunk), nil }
	gate := w.Proxy.HoldRequests(func(args []string) bool {
		return strings.EqualFold(args[0], "EVALSHA") && len(chunksOf(t, server)) > 0
	})
	_, err := aside.GetOrLoad(t.Context(), w.Cache, key, load)
	require.NoError(t, err)
	gate.Wait(t)
	requireChunks(t, server, 2, time.Second, time.Minute) // not for long, in case that there will be no manifest
	for name := range chunksOf(t, server) {
		server.MustDo(t, "DEL", name)
		break
	}
	gate.Release()
	asidetest.Eventually(t, "it is refused", func() bool { return w.Metrics().Labels["items"].RedisErrors == 1 })
	asidetest.Eventually(t, "the others go", func() bool { return len(chunksOf(t, server)) == 0 })
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", key.String()))
	asidetest.Eventually(t, "the lease is given back", func() bool { return server.MustDo(t, "EXISTS", "{"+key.String()+"}!l").(int64) == 0 })
}

// What is invalidated while its chunks are on their way is refused like any other value.
func TestALargeValueThatWasInvalidatedOnItsWayIsNotStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, other, key := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("large")
	gate := w.Proxy.HoldRequests(func(args []string) bool {
		return strings.EqualFold(args[0], "SET") && strings.HasPrefix(args[1], asidetest.LargeKey)
	})
	_, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return asidetest.Large(2 * asidetest.Chunk), nil })
	require.NoError(t, err)
	gate.Wait(t)
	_, err = other.Invalidate(t.Context(), key)
	require.NoError(t, err)
	gate.Release()
	asidetest.Eventually(t, "it is refused", func() bool { return asidetest.Refused(w.Cache) == 1 })
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", key.String()))
	asidetest.Eventually(t, "its chunks go at once", func() bool { return len(chunksOf(t, server)) == 0 })
}

// What was read in chunks is not kept if it was changed between the manifest and the last chunk.
func TestALargeValueThatIsInvalidatedWhileItIsReadIsNotKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer, w, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server), asidetest.Items.Key("large")
	asidetest.Stored(t, writer, key, asidetest.Large(2*asidetest.Chunk))
	asidetest.Stored(t, writer, asidetest.Items.Key("small"), []byte("small"))
	asidetest.Eventually(t, "a second connection is in use, which no push waits for", func() bool { return onTheirOwn(t, w, key) })
	gate := w.Proxy.HoldReplies(func(args []string) bool {
		return strings.EqualFold(args[0], "GETRANGE") && strings.HasPrefix(args[1], asidetest.LargeKey)
	})
	got := make(chan []byte)
	go func() {
		v, _ := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return nil, nil }, aside.Strong())
		got <- v
	}()
	gate.Wait(t)
	pushes := w.Metrics().InvalidationMessages
	asidetest.Stored(t, writer, key, []byte("new"))
	asidetest.Eventually(t, "the change is pushed", func() bool { return w.Metrics().InvalidationMessages > pushes })
	gate.Release()
	require.Len(t, <-got, 2*asidetest.Chunk, "who has asked before may have the old one")
	v, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
	require.Equal(t, "new", string(v))
}

// Row 17: large values have a connection of their own, so that small ones need not wait for them.
func TestLargeValuesDoNotHoldUpSmallOnes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer, w, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server), asidetest.Items.Key("large")
	want := asidetest.Large(20 * asidetest.Chunk)
	asidetest.Stored(t, writer, key, want)
	asidetest.Stored(t, writer, asidetest.Items.Key("small"), []byte("small"))
	read := func() ([]byte, error) {
		return aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return want, nil }, aside.Strong())
	}
	require.Equal(t, 1, w.Proxy.Connections(), "nobody needed a second one yet")
	_, err := read()
	require.NoError(t, err)
	id := ""
	for range 2 {
		last := id
		asidetest.Eventually(t, "a second connection is in use", func() bool {
			v, err := read()
			require.NoError(t, err)
			require.Len(t, v, 20*asidetest.Chunk)
			id = bulkConnection(t, server)
			return id != "" && id != last && onTheirOwn(t, w, key)
		})
		gate := w.Proxy.HoldReplies(func(args []string) bool {
			return strings.EqualFold(args[0], "GETRANGE") && strings.HasPrefix(args[1], asidetest.LargeKey)
		})
		got := make(chan int)
		go func() { v, _ := read(); got <- len(v) }()
		gate.Wait(t)
		require.LessOrEqual(t, gate.Held(), 4, "a few at a time")
		v, err := aside.GetOrLoad(t.Context(), w.Cache, asidetest.Items.Key("small"), func(context.Context) ([]byte, error) { panic("it is there") }, aside.Strong())
		require.NoError(t, err)
		require.Equal(t, "small", string(v), "while the large one is on its way")
		gate.Release()
		require.Equal(t, 20*asidetest.Chunk, <-got)

		// The second connection breaks, and nobody has to make another one for himself.
		server.MustDo(t, "CLIENT", "KILL", "ID", id)
	}
	require.Equal(t, aside.StateConnected, w.Health().State)
	require.Zero(t, w.Metrics().Labels["items"].LoadErrors)
}

// onTheirOwn reports whether the chunks of a value that is there travel on a connection on which a small value does not.
func onTheirOwn(t *testing.T, w asidetest.Watched, key aside.Key) bool {
	t.Helper()
	gate := w.Proxy.HoldReplies(func(args []string) bool {
		return strings.EqualFold(args[0], "GETRANGE") && strings.HasPrefix(args[1], asidetest.LargeKey)
	})
	read := make(chan error, 1)
	go func() {
		_, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { panic("it is there") }, aside.Strong())
		read <- err
	}()
	gate.Wait(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := aside.GetOrLoad(ctx, w.Cache, asidetest.Items.Key("small"), func(context.Context) ([]byte, error) { panic("it is there") }, aside.Strong())
	gate.Release()
	require.NoError(t, <-read)
	return err == nil
}

// bulkConnection is the newest one that has read something without being told of changes.
func bulkConnection(t *testing.T, server *redistest.Server) (id string) {
	for line := range strings.Lines(server.MustDo(t, "CLIENT", "LIST", "TYPE", "normal").(string)) {
		fields := map[string]string{}
		for _, field := range strings.Fields(line) {
			name, value, _ := strings.Cut(field, "=")
			fields[name] = value
		}
		if !strings.Contains(fields["flags"], "t") && fields["cmd"] == "getrange" {
			id = fields["id"]
		}
	}
	return id
}

package aside_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// large is a value that no compression makes small: n bytes, in as many chunks as it takes.
func large(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

const (
	chunk    = 256 << 10
	largeKey = "{items:large}!c:"
)

// chunksOf are the keys of the chunks of items:large, with how long each has to live.
func chunksOf(t *testing.T, server *redistest.Server) (left map[string]time.Duration) {
	t.Helper()
	left = map[string]time.Duration{}
	for _, key := range server.MustDo(t, "KEYS", "*!c:*").([]any) {
		require.True(t, strings.HasPrefix(key.(string), largeKey), key)
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
	w, key, want := watch(t, server), items.Key("large"), large(10*chunk)
	got := inMemory(t, w.Cache, key, func(context.Context) ([]byte, error) { return want, nil })
	require.True(t, bytes.Equal(want, got))
	require.Less(t, server.MustDo(t, "STRLEN", key.String()), int64(1000))
	requireChunks(t, server, 10, time.Hour-time.Minute, time.Hour+grace)
	for _, args := range w.asked("GETRANGE") {
		require.NotContains(t, args[0], largeKey, "who has written it does not read it again")
	}

	r, err := aside.Lookup(t.Context(), connected(t, at(server.Addr())), key, func(context.Context) ([]byte, error) { panic("it is in Redis") })
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
		"for a higher limit":  {ChunkFrom: 2 * chunk},
		"in spite of a lower": {ChunkFrom: 1 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			o.Redis, o.OpTimeout = at(server.Addr()).Redis, at(server.Addr()).OpTimeout
			value, chunks := large(chunk-1000), 0
			switch {
			case name == "because it shrinks":
				value = bytes.Repeat([]byte("model "), chunk)
			case o.ChunkFrom != 0:
				value = large(chunk + 1)
			}
			if o.ChunkFrom == 1<<10 {
				chunks = 2
			}
			stored(t, connected(t, o), items.Key("large"), value)
			require.Len(t, chunksOf(t, server), chunks)
			got, err := aside.Get[[]byte](t.Context(), connected(t, o), items.Key("large"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(value, got))
		})
	}
}

// Hazard 16: what chunks there are of a value that has gone goes too, a little later, for the sake of who is reading them.
func TestChunksGoWithTheirValue(t *testing.T) {
	t.Parallel()
	ctx, key := t.Context(), items.Key("large")
	for name, change := range map[string]func(c *aside.Cache) error{
		"invalidated": func(c *aside.Cache) error { _, err := c.Invalidate(ctx, key); return err },
		"replaced":    func(c *aside.Cache) error { return aside.Set(ctx, c, key, []byte("small")) },
		"refreshed": func(c *aside.Cache) error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) ([]byte, error) { return []byte("small"), nil }, aside.Refresh())
			return err
		},
		"refreshed, and gone": func(c *aside.Cache) error {
			_, err := aside.GetOrLoad(ctx, c, key, func(ctx context.Context) ([]byte, error) { aside.Loading(ctx).NoStore(); return nil, nil }, aside.Refresh())
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
			c := connected(t, at(server.Addr()))
			stored(t, c, key, large(3*chunk))
			requireChunks(t, server, 3, time.Minute, time.Hour+grace)
			require.NoError(t, change(c))
			eventually(t, "they are let go", func() bool {
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
	c, key, want := connected(t, at(server.Addr())), items.Key("large"), large(2*chunk)
	stored(t, c, key, large(2*chunk))
	stored(t, c, key, want)
	require.Len(t, chunksOf(t, server), 4)
	got, err := aside.Get[[]byte](t.Context(), connected(t, at(server.Addr())), key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

// A chunk can be evicted like anything else.
func TestAValueThatLacksAChunkIsLoadedAndReplaced(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	key, want := items.Key("large"), large(2*chunk)
	stored(t, connected(t, at(server.Addr())), key, large(2*chunk))
	for name := range chunksOf(t, server) {
		server.MustDo(t, "DEL", name)
		break
	}
	c := connected(t, at(server.Addr()))
	r, err := aside.Lookup(t.Context(), c, key, func(context.Context) ([]byte, error) { return want, nil })
	require.NoError(t, err)
	require.Equal(t, "a part of the stored value is gone", r.Reason)
	require.Equal(t, aside.StatusMiss, r.Status)
	inMemory(t, c, key, func(context.Context) ([]byte, error) { panic("it is there again") })
	got, err := aside.Get[[]byte](t.Context(), connected(t, at(server.Addr())), key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

func TestADamagedChunkIsAMiss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	key := items.Key("large")
	stored(t, connected(t, at(server.Addr())), key, large(2*chunk))
	for name := range chunksOf(t, server) {
		server.MustDo(t, "SETRANGE", name, "3", "damage")
		break
	}
	c := connected(t, at(server.Addr()))
	v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) ([]byte, error) { return []byte("loaded"), nil })
	require.NoError(t, err)
	require.Equal(t, "loaded", string(v))
	require.EqualValues(t, 1, c.Metrics().Labels["items"].DecodeErrors)
}

// A fill whose chunk was evicted before the manifest came must not leave a manifest that promises it.
func TestNoManifestIsStoredForAChunkThatIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, key := watch(t, server), items.Key("large")
	load := func(context.Context) ([]byte, error) { return large(2 * chunk), nil }
	gate := w.proxy.HoldRequests(func(args []string) bool {
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
	eventually(t, "it is refused", func() bool { return w.Metrics().Labels["items"].RedisErrors == 1 })
	eventually(t, "the others go", func() bool { return len(chunksOf(t, server)) == 0 })
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", key.String()))
	eventually(t, "the lease is given back", func() bool { return server.MustDo(t, "EXISTS", "{"+key.String()+"}!l").(int64) == 0 })
}

// What is invalidated while its chunks are on their way is refused like any other value.
func TestALargeValueThatWasInvalidatedOnItsWayIsNotStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, other, key := watch(t, server), connected(t, at(server.Addr())), items.Key("large")
	gate := w.proxy.HoldRequests(func(args []string) bool {
		return strings.EqualFold(args[0], "SET") && strings.HasPrefix(args[1], largeKey)
	})
	_, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return large(2 * chunk), nil })
	require.NoError(t, err)
	gate.Wait(t)
	_, err = other.Invalidate(t.Context(), key)
	require.NoError(t, err)
	gate.Release()
	eventually(t, "it is refused", func() bool { return refused(w.Cache) == 1 })
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", key.String()))
	eventually(t, "its chunks go at once", func() bool { return len(chunksOf(t, server)) == 0 })
}

// What was read in chunks is not kept if it was changed between the manifest and the last chunk.
func TestALargeValueThatIsInvalidatedWhileItIsReadIsNotKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer, w, key := connected(t, at(server.Addr())), watch(t, server), items.Key("large")
	stored(t, writer, key, large(2*chunk))
	stored(t, writer, items.Key("small"), []byte("small"))
	eventually(t, "a second connection is in use, which no push waits for", func() bool { return onTheirOwn(t, w, key) })
	gate := w.proxy.HoldReplies(func(args []string) bool {
		return strings.EqualFold(args[0], "GETRANGE") && strings.HasPrefix(args[1], largeKey)
	})
	got := make(chan []byte)
	go func() {
		v, _ := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return nil, nil }, aside.Strong())
		got <- v
	}()
	gate.Wait(t)
	pushes := w.Metrics().Pushes
	stored(t, writer, key, []byte("new"))
	eventually(t, "the change is pushed", func() bool { return w.Metrics().Pushes > pushes })
	gate.Release()
	require.Len(t, <-got, 2*chunk, "who has asked before may have the old one")
	v, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
	require.Equal(t, "new", string(v))
}

// Row 17: large values have a connection of their own, so that small ones need not wait for them.
func TestLargeValuesDoNotHoldUpSmallOnes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer, w, key := connected(t, at(server.Addr())), watch(t, server), items.Key("large")
	want := large(20 * chunk)
	stored(t, writer, key, want)
	stored(t, writer, items.Key("small"), []byte("small"))
	read := func() ([]byte, error) {
		return aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return want, nil }, aside.Strong())
	}
	require.Equal(t, 1, w.proxy.Connections(), "nobody needed a second one yet")
	_, err := read()
	require.NoError(t, err)
	id := ""
	for range 2 {
		last := id
		eventually(t, "a second connection is in use", func() bool {
			v, err := read()
			require.NoError(t, err)
			require.Len(t, v, 20*chunk)
			id = bulkConnection(t, server)
			return id != "" && id != last && onTheirOwn(t, w, key)
		})
		gate := w.proxy.HoldReplies(func(args []string) bool {
			return strings.EqualFold(args[0], "GETRANGE") && strings.HasPrefix(args[1], largeKey)
		})
		got := make(chan int)
		go func() { v, _ := read(); got <- len(v) }()
		gate.Wait(t)
		require.LessOrEqual(t, gate.Held(), 4, "a few at a time")
		v, err := aside.GetOrLoad(t.Context(), w.Cache, items.Key("small"), func(context.Context) ([]byte, error) { panic("it is there") }, aside.Strong())
		require.NoError(t, err)
		require.Equal(t, "small", string(v), "while the large one is on its way")
		gate.Release()
		require.Equal(t, 20*chunk, <-got)

		// The second connection breaks, and nobody has to make another one for himself.
		server.MustDo(t, "CLIENT", "KILL", "ID", id)
	}
	require.Equal(t, aside.StateConnected, w.Health().State)
	require.Zero(t, w.Metrics().Labels["items"].LoadErrors)
}

// onTheirOwn reports whether the chunks of a value that is there travel on a connection on which a small value does not.
func onTheirOwn(t *testing.T, w watched, key aside.Key) bool {
	t.Helper()
	gate := w.proxy.HoldReplies(func(args []string) bool {
		return strings.EqualFold(args[0], "GETRANGE") && strings.HasPrefix(args[1], largeKey)
	})
	read := make(chan error, 1)
	go func() {
		_, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { panic("it is there") }, aside.Strong())
		read <- err
	}()
	gate.Wait(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := aside.GetOrLoad(ctx, w.Cache, items.Key("small"), func(context.Context) ([]byte, error) { panic("it is there") }, aside.Strong())
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

package contract_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// named loads each of ids as itself, and notes what it was asked for.
type named struct {
	mu    sync.Mutex
	calls [][]string
}

func (n *named) load(_ context.Context, ids []string) (map[string][]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, slices.Clone(ids))
	values := map[string][]byte{}
	for _, id := range ids {
		values[id] = []byte(id)
	}
	return values, nil
}

func (n *named) asked() [][]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

// Hazard 76: the chunks of a large value of a batch are on their way. Whoever waits for a small one beside it, in Redis or to be
// loaded, has it by then.
func TestASmallValueDoesNotWaitForALargeOneOfItsBatch(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer, w, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server), asidetest.Items.Key("large")
	asidetest.Stored(t, writer, key, asidetest.Large(4*asidetest.Chunk))
	asidetest.Stored(t, writer, asidetest.Items.Key("small"), []byte("small"))
	asidetest.Eventually(t, "large values have a connection of their own", func() bool { return onTheirOwn(t, w, key) })
	gate := w.Proxy.HoldReplies(func(args []string) bool {
		return args[0] == "GETRANGE" && strings.HasPrefix(args[1], asidetest.LargeKey)
	})
	var src named
	got := make(chan map[string][]byte)
	go func() {
		values, err := aside.GetOrLoadMany(t.Context(), w.Cache, []string{"large", "missing", "small", "absent"}, func(id string) aside.Key { return asidetest.Items.Key(id) }, src.load, aside.Strong())
		if err != nil {
			t.Error(err)
		}
		got <- values
	}()
	gate.Wait(t)
	for _, id := range []string{"small", "missing", "absent"} {
		ctx, cancel := context.WithTimeout(t.Context(), asidetest.Bound)
		v, err := aside.GetOrLoad(ctx, w.Cache, asidetest.Items.Key(id), func(context.Context) ([]byte, error) { return []byte(id), nil })
		cancel()
		require.NoError(t, err, id)
		require.Equal(t, id, string(v))
	}
	require.Equal(t, [][]string{{"missing", "absent"}}, src.asked(), "together, in their order")
	gate.Release()
	values := <-got
	require.Len(t, values, 4)
	require.Len(t, values["large"], 4*asidetest.Chunk)
}

// What is out of date by its manifest is loaded with the others, and its chunks are not fetched for that. What turns out to be
// incomplete is loaded too.
func TestLargeValuesOfABatchThatCannotBeUsedAreLoaded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer, w, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server), asidetest.Items.Key("large")
	asidetest.Stored(t, writer, key, asidetest.Large(4*asidetest.Chunk))
	asidetest.InMemory(t, w.Cache, asidetest.Items.Key("other"), asidetest.Value("v")) // so that it knows the generations
	for name := range chunksOf(t, server) {
		server.MustDo(t, "DEL", name)
		break
	}
	var src named
	get := func() map[string][]byte {
		values, err := aside.GetOrLoadMany(t.Context(), w.Cache, []string{"a", "large", "b"}, func(id string) aside.Key { return asidetest.Items.Key(id) }, src.load)
		require.NoError(t, err)
		return values
	}
	require.Equal(t, map[string][]byte{"a": []byte("a"), "large": []byte("large"), "b": []byte("b")}, get())
	require.ElementsMatch(t, [][]string{{"a", "b"}, {"large"}}, src.asked())

	asidetest.Stored(t, writer, key, asidetest.Large(4*asidetest.Chunk))
	manifest := server.MustDo(t, "GET", key.String()).(string)
	receipt, err := writer.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	_, err = receipt.WaitCleanup(t.Context())
	require.NoError(t, err)
	server.MustDo(t, "SET", key.String(), manifest, "PX", "3600000") // as if it had not been swept yet
	asidetest.Eventually(t, "the others follow", func() bool {
		_, err := aside.Get[[]byte](t.Context(), w.Cache, asidetest.Items.Key("a"))
		return err != nil
	})
	fetched := func() (n int) {
		for _, args := range w.Proxy.Log() {
			if args[0] == "GETRANGE" && strings.HasPrefix(args[1], asidetest.LargeKey) {
				n++
			}
		}
		return n
	}
	src.calls = nil
	before := fetched()
	require.Len(t, get(), 3)
	require.Equal(t, [][]string{{"a", "large", "b"}}, src.asked())
	require.Equal(t, before, fetched())
}

// Hazard 76: while the chunks of a large value are sent, a small one of its batch is there to be used.
func TestASmallValueIsKeptWhileALargeOneOfItsBatchIsStored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.Watch(t, server)
	asidetest.Stored(t, w.Cache, asidetest.Items.Key("large"), asidetest.Large(4*asidetest.Chunk))
	asidetest.Stored(t, w.Cache, asidetest.Items.Key("small"), []byte("small"))
	asidetest.Eventually(t, "large values have a connection of their own", func() bool { return onTheirOwn(t, w, asidetest.Items.Key("large")) })
	_, err := w.InvalidateAll(t.Context())
	require.NoError(t, err)
	gate := w.Proxy.HoldRequests(func(args []string) bool {
		return strings.EqualFold(args[0], "SET") && strings.HasPrefix(args[1], asidetest.LargeKey)
	})
	pushes := w.Metrics().InvalidationMessages
	_, err = aside.GetOrLoadMany(t.Context(), w.Cache, []string{"large", "small"}, func(id string) aside.Key { return asidetest.Items.Key(id) }, func(context.Context, []string) (map[string][]byte, error) {
		return map[string][]byte{"large": asidetest.Large(4 * asidetest.Chunk), "small": []byte("small")}, nil
	})
	require.NoError(t, err)
	gate.Wait(t)
	asidetest.Eventually(t, "the small one is stored, and Redis has told of that", func() bool {
		return server.MustDo(t, "EXISTS", "items:small") == int64(1) && w.Metrics().InvalidationMessages >= pushes+1
	})
	ctx, cancel := context.WithTimeout(t.Context(), asidetest.Bound)
	defer cancel()
	r, err := aside.Lookup(ctx, w.Cache, asidetest.Items.Key("small"), func(context.Context) ([]byte, error) { panic("it is there") })
	require.NoError(t, err)
	require.Equal(t, aside.StatusHit, r.Status)
	require.Zero(t, w.Metrics().Labels["items"].RedisErrors, "the large one is still on its way")
	gate.Release()
}

// A brittleCodec decodes what begins with an x and ends the goroutine for all else.
type brittleCodec struct{}

func (brittleCodec) Name() string { return "brittle" }

func (brittleCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (brittleCodec) Unmarshal(data []byte, v any) error {
	if data[0] != 'x' {
		runtime.Goexit()
	}
	*v.(*[]byte) = data
	return nil
}

// Hazard 78: a large value is decoded on a goroutine of its own. However that ends, the batch comes to its end.
func TestABatchEndsHoweverALargeValueIsDecoded(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr()
	policy := aside.Policy{Name: "brittle", Category: "items", TTL: time.Hour, Codec: brittleCodec{}}
	key := func(id string) aside.Key { return policy.Key(id) }
	writer, c := asidetest.Connected(t, asidetest.At(addr)), asidetest.Connected(t, asidetest.At(addr))
	bad, good := append([]byte("-"), asidetest.Large(2*asidetest.Chunk)...), append([]byte("x"), asidetest.Large(3*asidetest.Chunk)...)
	asidetest.Stored(t, writer, key("large"), bad)
	asidetest.Stored(t, writer, key("larger"), good)
	began := time.Now()
	values, err := aside.GetOrLoadMany(t.Context(), c, []string{"large", "larger", "small"}, key, func(context.Context, []string) (map[string][]byte, error) {
		return map[string][]byte{"small": []byte("x")}, nil
	})
	require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoaderExit})
	require.Len(t, values, 2)
	require.Len(t, values["larger"], len(good))
	require.Less(t, time.Since(began), time.Minute, "not for want of time")
}

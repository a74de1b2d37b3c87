package freshness_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redistest"
)

// 1. The connection breaks. 2. Another process invalidates the key. 3. The connection is there again, and a load fails. Memory still holds the value.
func TestAValueThatWasInvalidatedDuringAnOutageIsNoAnswer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	p := &aside.Policy{Name: "items", Category: "items", TTL: time.Hour, StaleIfError: time.Hour, DegradedTTL: time.Hour}
	key, kept := p.Key("a"), p.Key("kept")
	for _, k := range []aside.Key{key, kept} {
		asidetest.InMemory(t, w.Cache, k, asidetest.Value("old"))
	}
	w.Proxy.Refuse(true)
	w.Proxy.CloseConnections()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return w.Health().State == aside.StateDegraded })
	_, err := other.Invalidate(t.Context(), key)
	require.NoError(t, err)
	r, err := aside.Lookup(t.Context(), w.Cache, key, down)
	require.NoError(t, err)
	require.Equal(t, "old", r.Value, "without Redis, it may be served")
	w.Proxy.Refuse(false)
	asidetest.Eventually(t, "the connection is there again", func() bool { return w.Health().State == aside.StateConnected })
	_, err = aside.Lookup(t.Context(), w.Cache, key, down)
	require.ErrorIs(t, err, errDown)
	r, err = aside.Lookup(t.Context(), w.Cache, kept, down)
	require.NoError(t, err)
	require.Equal(t, "old", r.Value)
	require.Equal(t, aside.StatusHit, r.Status)
}

// A gatedCodec stores strings, and decodes the next one only when the test lets it.
type gatedCodec struct {
	began, release chan struct{}
	armed          *atomic.Bool
}

func (gatedCodec) Name() string                  { return "gated" }
func (gatedCodec) Marshal(v any) ([]byte, error) { return []byte(*v.(*string)), nil }
func (g gatedCodec) Unmarshal(data []byte, v any) error {
	if g.armed.Swap(false) {
		close(g.began)
		<-g.release
	}
	*v.(*string) = string(data)
	return nil
}

// waits counts how often it is waited for.
type waits struct {
	context.Context
	n atomic.Int64
}

func (w *waits) Done() <-chan struct{} {
	w.n.Add(1)
	return w.Context.Done()
}

// Callers share the read of an older value. One that comes after the invalidation of a tag that only the value names does not share an earlier read.
func TestAReadOfAnOldValueIsNotSharedAfterAnInvalidationOfItsOwnTags(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	codec := gatedCodec{make(chan struct{}), make(chan struct{}), new(atomic.Bool)}
	p := brief(func(p *aside.Policy) { p.StaleIfError, p.SoftTimeout, p.Codec = time.Hour, -1, codec })
	key := p.Key("a")
	writer, reader := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, writer, key, func(ctx context.Context) (string, error) {
		aside.CurrentLoad(ctx).Tag("x")
		return "old", nil
	})
	pastTTL(t, writer, key)
	codec.armed.Store(true)
	first := asidetest.Background(t, reader, key, down)
	<-codec.began
	for _, name := range []string{keyspace.Sequence, keyspace.NamedPrefix + "x"} { // as another process invalidates the tag, and has not swept its values yet
		old := server.MustDo(t, "GET", name).(string)
		changed := "1"
		if strings.HasSuffix(old, "1") {
			changed = "2"
		}
		server.MustDo(t, "SET", name, old[:len(old)-1]+changed, "KEEPTTL")
	}
	asidetest.AllTold(t, reader)
	ctx, second := &waits{Context: t.Context()}, make(chan error, 1)
	go func() {
		_, err := aside.GetOrLoad(ctx, reader, key, down)
		second <- err
	}()
	asidetest.Eventually(t, "it waits for its load, and then for the read", func() bool { return ctx.n.Load() >= 2 })
	close(codec.release)
	require.ErrorIs(t, <-second, errDown)
	<-first
}

// Memory may not hold the value: it is very large, or was evicted. Who asks while it is refreshed gets the old one all the same.
func TestNobodyWaitsForTheRefreshOfAValueThatMemoryDoesNotHold(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.MaxBytes, o.MaxValueBytes = 1<<10, 1<<20
	c := asidetest.Connected(t, o)
	key := brief(func(p *aside.Policy) { p.Stale, p.SoftTimeout = time.Hour, -1 }).Key("a")
	old := strings.Repeat("old", 1<<10)
	_, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value(old))
	require.NoError(t, err)
	pastTTL(t, c, key)
	held := asidetest.NewHeld()
	requireStale(t, c, key, old, held.Load("new"))
	<-held.Began
	for range 5 {
		r, err := aside.Lookup(t.Context(), c, key, held.Load("new"))
		require.NoError(t, err)
		require.Equal(t, aside.StatusStale, r.Status)
		require.Equal(t, "past its TTL, being refreshed", r.Reason)
	}
	got, err := aside.GetOrLoadMany(t.Context(), c, []string{"a"}, func(string) aside.Key { return key },
		func(context.Context, []string) (map[string]string, error) { return nil, errDown })
	require.NoError(t, err)
	require.Equal(t, old, got["a"])
	fresh := asidetest.Background(t, c, key, held.Load("new"), aside.MaxStale(0))
	close(held.Release)
	require.Equal(t, "new", <-fresh)
	require.Zero(t, c.Metrics().Labels["items"].StaleOnError)
	requireCountersAddUp(t, c.Metrics().Labels["items"])
}

// A pickyCodec does not encode the value "refused".
type pickyCodec struct{}

func (pickyCodec) Name() string { return "picky" }
func (pickyCodec) Marshal(v any) ([]byte, error) {
	if *v.(*string) == "refused" {
		return nil, errors.New("refused")
	}
	return []byte(*v.(*string)), nil
}
func (pickyCodec) Unmarshal(data []byte, v any) error {
	*v.(*string) = string(data)
	return nil
}

// Memory has a value that could not be stored, and Redis the one before, which is past its TTL too. The newer one is refreshed all the same.
func TestAValueThatOnlyMemoryHasIsRefreshed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	key := brief(func(p *aside.Policy) { p.Stale, p.Codec = time.Hour, pickyCodec{} }).Key("a")
	inMemory(t, key, asidetest.Value("first"), []*aside.Cache{c})
	pastTTL(t, c, key)
	asidetest.Eventually(t, "the second value is in memory", func() bool {
		v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("refused"))
		require.NoError(t, err)
		return v == "refused"
	})
	asidetest.Eventually(t, "the third one follows", func() bool {
		v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("third"))
		require.NoError(t, err)
		require.NotEqual(t, "first", v)
		return v == "third"
	})
}

// Hazard 34: a process with shorter times than those of the build that stored the value knows the server's clock only within half a round trip.
func TestAReadersOwnTimesErrOnTheEarlySide(t *testing.T) {
	t.Parallel()
	for _, window := range []time.Duration{300 * time.Millisecond, 20 * time.Millisecond} { // the second one is less than what is unknown of the clock
		t.Run(window.String(), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			proxy.SetJitter(0, 400*time.Millisecond) // replies are slow, and requests are not
			writer, reader := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(proxy.Addr()))
			const ttl = 2 * time.Second
			of := func(stale time.Duration) *aside.Policy {
				return &aside.Policy{Name: "items", Category: "items", TTL: ttl, Stale: stale}
			}
			var loaded time.Time
			var key aside.Key
			tries := 0
			asidetest.Repeatedly(t, "the other process reads the value within its TTL", func() bool {
				tries++
				_, err := aside.GetOrLoad(t.Context(), writer, of(time.Hour).Key(tries), func(context.Context) (string, error) {
					loaded = time.Now()
					return "v", nil
				})
				require.NoError(t, err)
				key = of(window).Key(tries)
				v, err := aside.GetOrLoad(t.Context(), reader, key, down)
				return err == nil && v == "v"
			})
			for { // memory alone answers first, then Redis too
				asked := time.Now()
				_, inMemory := aside.Get[string](canceled(t), reader, key)
				if inMemory == nil {
					require.Less(t, asked.Sub(loaded), ttl+window)
				}
				if asked.Sub(loaded) > ttl+window {
					asked = time.Now()
					_, err := aside.Get[string](t.Context(), reader, key)
					require.ErrorIs(t, err, aside.ErrMiss, "after %v", asked.Sub(loaded))
					break
				}
				<-time.After(time.Millisecond)
			}
		})
	}
}

// A load that takes longer than its value lives makes no hit.
func TestALoadThatTookLongerThanItsTTLIsNoHit(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.Watch(t, server)
	p := &aside.Policy{Name: "items", Category: "items", TTL: 50 * time.Millisecond}
	key := p.Key("a")
	gate := w.Proxy.HoldRequests(func(args []string) bool {
		return asidetest.Evalsha(args, key.String()) && strings.Contains(strings.Join(args, " "), "the value")
	})
	v, err := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) (string, error) {
		<-time.After(2 * p.TTL)
		return "the value", nil
	})
	require.NoError(t, err)
	require.Equal(t, "the value", v)
	gate.Wait(t)
	_, err = aside.Get[string](canceled(t), w.Cache, key)
	require.Error(t, err)
	gate.Release()
}

// Hazard 27: a load in the background reads the key before it asks for the lease, so that it is told of changes from then on.
func TestNobodyJoinsARefreshThatAnotherProcessHasInvalidated(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	key := brief(ageing).Key("a")
	inMemory(t, key, asidetest.Value("old"), []*aside.Cache{c})
	pastTTL(t, c, key)
	held := asidetest.NewHeld()
	defer close(held.Release)
	requireStale(t, c, key, "old", held.Load("from before"))
	<-held.Began
	_, err := other.Invalidate(t.Context(), key)
	require.NoError(t, err)
	asidetest.AllTold(t, c)
	select {
	case v := <-asidetest.Background(t, c, key, asidetest.Value("new")):
		require.Equal(t, "new", v)
	case <-time.After(asidetest.Bound):
		require.Fail(t, "the caller has joined a load that began before the invalidation")
	}
}

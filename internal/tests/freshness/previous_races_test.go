package freshness_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A numbered source answers that its value is not modified wherever there is a previous one, and with the next number elsewhere.
type numbered struct{ full, same atomic.Int64 }

func (n *numbered) load(ctx context.Context) (string, error) {
	if _, ok := aside.Previous[string](ctx); ok {
		n.same.Add(1)
		return "", aside.ErrNotModified
	}
	return "v" + strconv.FormatInt(n.full.Add(1), 10), nil
}

// Hazard 149: what another process invalidates after a load has read it, and before the load has its lease, is no previous value.
func TestWhatIsInvalidatedBeforeTheLeaseIsNoPreviousValue(t *testing.T) {
	t.Parallel()
	for _, door := range []string{"key", "tag", "late tag", "category", "everything", "nothing"} {
		for kind, change := range map[string]func(*aside.Policy){"on error": onError, "stale": ageing} {
			t.Run(door+"/"+kind, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
				key, tagged := brief(change).Key("a"), aside.WithTags("of the call")
				var n numbered
				load := func(ctx context.Context) (string, error) {
					aside.CurrentLoad(ctx).TTL(time.Hour)
					return n.load(ctx)
				}
				inMemory(t, key, func(ctx context.Context) (string, error) {
					aside.CurrentLoad(ctx).Tag("of the loader")
					return "v1", nil
				}, []*aside.Cache{w.Cache}, tagged)
				n.full.Store(1)
				pastTTL(t, w.Cache, key)
				gate := w.Proxy.HoldRequests(func(args []string) bool { return args[0] == "EVALSHA" }) // for the lease, and for generations
				answer := asidetest.Background(t, w.Cache, key, load, tagged)
				gate.Wait(t) // it has read the value, and asks for the lease
				var r aside.Receipt
				var err error
				switch door {
				case "key":
					r, err = other.Invalidate(t.Context(), key)
				case "tag":
					r, err = other.InvalidateTags(t.Context(), "of the call")
				case "late tag":
					r, err = other.InvalidateTags(t.Context(), "of the loader")
				case "category":
					r, err = other.InvalidateCategory(t.Context(), "items")
				case "everything":
					r, err = other.InvalidateAll(t.Context())
				}
				require.NoError(t, err)
				require.Equal(t, door != "nothing", r.Confirmed)
				gate.Release()
				<-answer
				asidetest.AllTold(t, w.Cache)
				if door == "nothing" {
					asidetest.Eventually(t, "it is kept", func() bool { return n.same.Load() == 1 })
					freshAgain(t, w.Cache, key)
					require.EqualValues(t, 1, n.full.Load())
					return
				}
				for _, c := range []*aside.Cache{w.Cache, other} {
					v, err := aside.GetOrLoad(t.Context(), c, key, load, tagged)
					require.NoError(t, err)
					require.NotEqual(t, "v1", v, "from before the invalidation")
				}
			})
		}
	}
}

// Hazard 149: a load waits for the lease of another process. This process invalidates the key, and cannot reach Redis. What the load has read
// before that is no previous value.
func TestWhatIsInvalidatedWhileALoadWaitsIsNoPreviousValue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.DegradedTTL = time.Hour
	other, proxy := asidetest.Connected(t, o), redistest.StartProxy(t, server.Addr())
	mine := asidetest.At(proxy.Addr())
	mine.DegradedTTL = time.Hour
	c := asidetest.Connected(t, mine)
	key := brief(func(p *aside.Policy) { p.StaleIfError, p.SoftTimeout = time.Hour, -1 }).Key("a")
	var n numbered
	inMemory(t, key, asidetest.Value("v1"), []*aside.Cache{c})
	n.full.Store(1)
	pastTTL(t, c, key)
	held := asidetest.NewHeld()
	elsewhere := asidetest.Background(t, other, key, held.Load("v9"))
	<-held.Began
	asked := len(proxy.Log())
	answer := asidetest.Background(t, c, key, n.load)
	asidetest.Eventually(t, "it waits for the lease", func() bool {
		times := 0
		for _, args := range proxy.Log()[asked:] {
			if asidetest.Evalsha(args, key.String()) {
				times++
			}
		}
		return times > 2
	})
	proxy.Refuse(true)
	proxy.CloseConnections()
	r, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.False(t, r.Confirmed)
	require.Equal(t, "v2", <-answer)
	v, err := aside.GetOrLoad(t.Context(), c, key, n.load)
	require.NoError(t, err)
	require.NotEqual(t, "v1", v)
	require.Zero(t, n.same.Load())
	proxy.Refuse(false)
	close(held.Release)
	<-elsewhere
}

// A value that is not modified gets the tags of each load. It has no more of them than any other value: then it is loaded in full.
func TestAValueThatIsNotModifiedHasNoMoreTagsThanOthers(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		key := brief(func(p *aside.Policy) { p.TTL, p.StaleIfError = 50*time.Millisecond, time.Hour }).Key("a")
		var n numbered
		loads := 0
		load := func(ctx context.Context) (string, error) {
			loads++
			for i := range 40 {
				aside.CurrentLoad(ctx).Tag(fmt.Sprint("load ", loads, " tag ", i))
			}
			return n.load(ctx)
		}
		for range 5 {
			before := loads
			asidetest.Eventually(t, "it is loaded anew", func() bool {
				v, err := aside.GetOrLoad(t.Context(), c, key, load)
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(v, "v"))
				return loads > before
			})
			require.LessOrEqual(t, len(asidetest.Infos(t, c, aside.Pattern{})[key.String()].Tags), 62)
		}
		require.Greater(t, n.full.Load(), int64(1))
		require.Zero(t, c.Metrics().Labels["items"].EncodeErrors)
	})
}

// A load that fails because of what its loader has said of the value is not counted as one that found it not modified.
func TestAFailedLoadIsNotCountedAsNotModified(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, o := items(func(p *aside.Policy) { p.StaleIfError = ttl }).Key("a"), newETagged()
		o.requireLook(t, c, key, "v1", aside.StatusMiss)
		time.Sleep(ttl)
		o.word = func(l *aside.Load) { l.ETag("no\nETag") }
		o.requireLook(t, c, key, "v1", aside.StatusStale)
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, 1, m.LoadErrors)
		require.Zero(t, m.NotModified)
		require.EqualValues(t, 1, m.StaleOnError)
	})
}

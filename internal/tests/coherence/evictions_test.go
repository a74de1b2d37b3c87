package coherence_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 69: what entries in memory rest on is used in Redis too, and only as long as the entries are.
func TestGenerationsThatMemoryRestsOnAreUsedInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.Watch(t, server)
	touched := func() map[string]int {
		n := make(map[string]int)
		for _, args := range w.Asked("GETRANGE") {
			if len(args) == 3 && args[1] == "0" && args[2] == "0" && !strings.HasPrefix(args[0], "%probe:") {
				n[args[0]]++
			}
		}
		return n
	}
	asidetest.InMemory(t, w.Cache, asidetest.Items.Key("a"), asidetest.Value("v"), aside.WithTags("x"))
	for _, tag := range []string{"%all", "%c:items", "%tags", "%t:x"} {
		before := touched()[tag]
		asidetest.Eventually(t, tag+" is used while there are hits", func() bool {
			r, err := aside.Lookup(t.Context(), w.Cache, asidetest.Items.Key("a"), asidetest.Value("v"), aside.WithTags("x"))
			require.NoError(t, err)
			require.Equal(t, aside.TierMemory, r.Tier)
			return touched()[tag] > before
		})
	}
	require.Len(t, touched(), 4, "nothing else is")
}

// Hazard 69: where keys go within seconds there are many loads, and those use the generations too.
func TestGenerationsThatLoadsRestOnAreUsedInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.Watch(t, server)
	asked := func(tag string) (n int) {
		for _, args := range w.Asked("EVALSHA") {
			if args[2] == tag {
				n++
			}
		}
		return n
	}
	asidetest.InMemory(t, w.Cache, asidetest.Items.Key("a"), asidetest.Value("v"))
	n := 0
	for _, tag := range []string{"%all", "%c:items", "%tags"} {
		before := asked(tag)
		asidetest.Eventually(t, tag+" is used by loads, though it is known", func() bool {
			n++
			_, err := aside.GetOrLoad(t.Context(), w.Cache, asidetest.Items.Key(n), asidetest.Value("v"))
			require.NoError(t, err)
			return asked(tag) >= before+2
		})
		require.Less(t, asked(tag), n, "and not by each of them")
	}
	require.Zero(t, w.Metrics().Labels["items"].FillsRejected)
}

// An evicting server is one without room for all that is asked for.
type evicting struct {
	hits, loads, evicted atomic.Int64
	lost                 sync.Map // generations that were evicted -> how often
}

func (e *evicting) generations() (n int64) {
	e.lost.Range(func(_, v any) bool { n += v.(*atomic.Int64).Load(); return true })
	return n
}

// run asks a cache for keys of which the server has room for some, for d and until something is evicted, and touches the generations by
// hand if told.
func (e *evicting) run(t *testing.T, policy string, keys int, room string, d time.Duration, byHand bool) {
	const tags = 20
	server := redistest.Start(t, "--maxmemory", room, "--maxmemory-policy", policy, "--notify-keyspace-events", "Ee")
	o := asidetest.At(server.Addr())
	o.MaxEntries = keys / 20
	caches := []*aside.Cache{asidetest.Connected(t, o), asidetest.Connected(t, o)}
	var pace time.Duration
	if !asidetest.AtLength() { // the server is full from the beginning, of what was not used for a while
		pace = time.Millisecond
		server.MustDo(t, "DEBUG", "POPULATE", strconv.Itoa(keys), "cold", "300")
		asidetest.Eventually(t, "what is there has not been used for a while", func() bool {
			for n := range 50 { // some of them may have been evicted already
				idle, _ := server.Do("OBJECT", "IDLETIME", "cold:"+strconv.Itoa(keys*n/50))
				if seconds, ok := idle.(int64); ok {
					return seconds >= 3
				}
			}
			return false
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), d+3*time.Minute)
	defer cancel()
	raw, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true, DisableCache: true})
	require.NoError(t, err)
	defer raw.Close()
	var all sync.WaitGroup
	all.Go(func() {
		_ = raw.Receive(ctx, raw.B().Subscribe().Channel("__keyevent@0__:evicted").Build(), func(m rueidis.PubSubMessage) {
			e.evicted.Add(1)
			if tag := m.Message; tag == "%all" || tag == "%tags" || strings.HasPrefix(tag, "%c:") || strings.HasPrefix(tag, "%t:") {
				n, _ := e.lost.LoadOrStore(m.Message, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
			}
		})
	})
	if byHand {
		all.Go(func() {
			conn := redistest.Raw(t, server.Addr())
			names := []string{"%all", "%c:items", "%tags"}
			for i := range tags {
				names = append(names, "%t:tag"+strconv.Itoa(i))
			}
			for ctx.Err() == nil {
				for _, name := range names {
					_, _ = conn.Do("GETRANGE", name, "0", "0")
				}
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	all.Go(func() {
		defer cancel()
		for since := time.Now(); ctx.Err() == nil && (time.Since(since) < d || e.evicted.Load() == 0); {
			time.Sleep(10 * time.Millisecond)
		}
	})
	pad := strings.Repeat("x", 300)
	for i := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			zipf := rand.NewZipf(r, 1.05, 8, uint64(keys-1))
			for n := 0; ctx.Err() == nil; n++ {
				time.Sleep(pace)
				k := int(zipf.Uint64())
				if n%4 == 0 {
					k = r.IntN(keys) // so that there is something to evict
				}
				got, err := aside.Lookup(ctx, caches[i%2], asidetest.Items.Key(k), func(context.Context) (string, error) { return fmt.Sprint(k, pad), nil }, aside.WithTags("tag"+strconv.Itoa(k%tags)))
				switch {
				case err != nil:
				case got.Tier == aside.TierOrigin:
					e.loads.Add(1)
				default:
					e.hits.Add(1)
				}
			}
		})
	}
	all.Wait()
}

// Hazard 69: no generation in use is evicted, whatever the server evicts by, and so there are as many hits as if somebody saw to it.
func TestNoGenerationInUseIsEvicted(t *testing.T) {
	t.Parallel()
	keys, room, d := 20_000, "8mb", 4*time.Second
	policies := []string{"allkeys-lru"}
	if asidetest.AtLength() {
		keys, room, d = 60_000, "20mb", 25*time.Second
		policies = []string{"allkeys-lru", "allkeys-lfu", "volatile-lru", "volatile-ttl"}
	}
	for _, policy := range policies {
		share := func(e *evicting) float64 {
			return 100 * float64(e.loads.Load()) / float64(e.loads.Load()+e.hits.Load())
		}
		var own, control evicting
		own.run(t, policy, keys, room, d, false)
		if asidetest.AtLength() {
			control.run(t, policy, keys, room, d, true)
			t.Logf("%s: %d calls, %.1f%% loads, %d keys evicted, %d of them generations; touched by hand: %d calls, %.1f%% loads, %d keys evicted, %d of them generations",
				policy, own.loads.Load()+own.hits.Load(), share(&own), own.evicted.Load(), own.generations(),
				control.loads.Load()+control.hits.Load(), share(&control), control.evicted.Load(), control.generations())
		} else {
			t.Logf("%s: %d calls, %.1f%% loads, %d keys evicted, %d of them generations",
				policy, own.loads.Load()+own.hits.Load(), share(&own), own.evicted.Load(), own.generations())
		}
		own.lost.Range(func(tag, n any) bool { t.Log(tag, n.(*atomic.Int64).Load()); return true })
		require.NotZero(t, own.evicted.Load(), "the server was full")
		require.Zero(t, own.generations(), policy)
	}
}

package freshness_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
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

// freshAgain waits until a value is within its TTL again, in Redis.
func freshAgain(t *testing.T, c *aside.Cache, key aside.Key) {
	t.Helper()
	asidetest.Eventually(t, "the value is fresh again", func() bool {
		info, found := asidetest.Infos(t, c, aside.Pattern{})[key.String()]
		return found && !info.Stale
	})
}

// named loads a value with an ETag, which a slow machine may do more than once before the value is in memory.
func named[T any](value T, etag string) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) {
		aside.CurrentLoad(ctx).ETag(etag)
		return value, nil
	}
}

// A value that is not modified is not sent to Redis again, whichever process finds that out, and all processes take it as loaded anew.
func TestAValueInRedisThatIsNotModifiedCountsAsLoadedAnew(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 0, "large": 1 << 20} {
		for kind, change := range map[string]func(*aside.Policy){"stale": ageing, "on error": onError} {
			for _, from := range []string{"a process that has it in memory", "one that has not", "a Strong call"} {
				t.Run(name+"/"+kind+"/"+from, func(t *testing.T) {
					t.Parallel()
					server := redistest.Start(t)
					w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
					key := brief(change).Key("a")
					value := "v" + rand.Text() + string(asidetest.Large(size))
					var full, same atomic.Int64
					load := func(ctx context.Context) (string, error) {
						aside.CurrentLoad(ctx).TTL(time.Hour)
						if p, ok := aside.Previous[string](ctx); ok && p.ETag == "1" {
							if v, ok := p.Value(); !ok || v != value {
								t.Error("another value")
							}
							same.Add(1)
							return "", aside.ErrNotModified
						}
						full.Add(1)
						return value, nil
					}
					first := w.Cache
					if from == "one that has not" {
						first = other
					}
					inMemory(t, key, named(value, "1"), []*aside.Cache{first})
					pastTTL(t, first, key)
					w.Proxy.ResetCounts()
					var opts []aside.CallOption
					if from == "a Strong call" {
						opts = append(opts, aside.Strong())
					}
					r, err := aside.Lookup(t.Context(), w.Cache, key, load, opts...)
					require.NoError(t, err)
					require.Equal(t, value, r.Value)
					require.Equal(t, "1", r.ETag)
					if kind == "on error" || len(opts) > 0 {
						require.Equal(t, aside.StatusMiss, r.Status, r.Reason)
					} else {
						require.Equal(t, aside.StatusStale, r.Status, r.Reason)
					}
					asidetest.Eventually(t, "the value is fresh again", func() bool {
						_, err := aside.Lookup(t.Context(), w.Cache, key, load) // again where Redis was too slow for the load in the background
						require.NoError(t, err)
						info, found := asidetest.Infos(t, w.Cache, aside.Pattern{})[key.String()]
						return found && !info.Stale
					})
					for _, c := range []*aside.Cache{w.Cache, other} {
						asidetest.Eventually(t, "each process has it", func() bool {
							r, err = aside.Lookup(t.Context(), c, key, load)
							require.NoError(t, err)
							return r.Tier == aside.TierMemory && r.Status == aside.StatusHit && r.TTL > 50*time.Minute
						})
						require.Equal(t, value, r.Value)
						require.Equal(t, "1", r.ETag)
					}
					require.Equal(t, []int64{0, 1}, []int64{full.Load(), same.Load()})
					require.EqualValues(t, 1, w.Metrics().Labels["items"].NotModified)
					for _, args := range append(w.Asked("EVALSHA"), w.Asked("SET")...) {
						require.NotContains(t, strings.Join(args, " "), value[:20], "it is not sent again")
					}
					if from == "a process that has it in memory" {
						for _, args := range w.Asked("GETRANGE") {
							require.NotContains(t, args[0], "!c:", "no chunk is read")
						}
					}
					left := server.MustDo(t, "PTTL", key.String()).(int64)
					require.InDelta(t, (2 * time.Hour).Milliseconds(), left, 60_000)
				})
			}
		}
	}
}

// What it takes to find out that 20 MB are not modified: a tracked read of the head, the lease, and the new head.
func TestTwentyMegabytesThatAreNotModifiedCostNothing(t *testing.T) {
	server := redistest.Start(t)
	w := asidetest.Watch(t, server)
	key := brief(ageing).Key("a")
	value := asidetest.Large(20 << 20)
	load := func(ctx context.Context) ([]byte, error) {
		if _, ok := aside.Previous[[]byte](ctx); ok {
			aside.CurrentLoad(ctx).TTL(time.Hour)
			return nil, aside.ErrNotModified
		}
		return nil, errors.New("no previous value")
	}
	inMemory(t, key, named(value, "1"), []*aside.Cache{w.Cache}, aside.WithTTL(2*time.Second))
	pastTTL(t, w.Cache, key)
	w.Proxy.ResetCounts()
	input := netInput(t, server)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := aside.GetOrLoad(t.Context(), w.Cache, key, load)
	require.NoError(t, err)
	asidetest.Eventually(t, "it is not modified", func() bool {
		r, err := aside.Lookup(t.Context(), w.Cache, key, load)
		require.NoError(t, err)
		return r.Status == aside.StatusHit && r.TTL > time.Minute
	})
	runtime.ReadMemStats(&after)
	bytes, allocated := netInput(t, server)-input, after.TotalAlloc-before.TotalAlloc
	reads := 0
	for _, args := range w.Asked("GETRANGE") {
		if strings.Contains(args[0], "!c:") {
			reads++
		}
	}
	require.EqualValues(t, 1, w.Metrics().Labels["items"].NotModified)
	t.Logf("%d bytes to Redis, INFO included; %d chunks read; %d bytes allocated", bytes, reads, allocated)
	require.Zero(t, reads)
	if !asidetest.RaceDetector {
		require.Less(t, allocated, uint64(1<<20), "and what waiting takes")
	}
	require.Less(t, bytes, 64<<10, "and what the connection is probed with meanwhile")
}

func netInput(t *testing.T, server *redistest.Server) int {
	n, err := strconv.Atoi(asidetest.Info(t, server, "total_net_input_bytes"))
	require.NoError(t, err)
	return n
}

// Hazard 35, in Redis: the generations that the value carries are compared with those from before the load.
func TestWhatWasInvalidatedInRedisIsNotKeptAsNotModified(t *testing.T) {
	t.Parallel()
	for _, door := range []string{"key", "tag", "late tag", "category", "other tag"} {
		for _, when := range []string{"before the load", "before its lease", "in the loader", "on its way to Redis"} {
			for _, where := range []string{"here", "elsewhere"} {
				t.Run(door+"/"+when+"/"+where, func(t *testing.T) {
					t.Parallel()
					server := redistest.Start(t)
					w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
					key, tagged, from := brief(onError).Key("a"), aside.WithTags("of the call"), other
					if where == "here" {
						from = w.Cache
					}
					var full, same atomic.Int64
					held := asidetest.NewHeld()
					load := func(ctx context.Context) (string, error) {
						if _, ok := aside.Previous[string](ctx); ok {
							aside.CurrentLoad(ctx).TTL(time.Hour) // where it is kept, a busy machine is not to load it anew
							same.Add(1)
							if when == "in the loader" {
								held.Began <- struct{}{}
								<-held.Release
							}
							return "", aside.ErrNotModified
						}
						full.Add(1)
						return "v2", nil
					}
					invalidate := func() {
						var err error
						switch door {
						case "key":
							_, err = from.Invalidate(t.Context(), key)
						case "tag":
							_, err = from.InvalidateTags(t.Context(), "of the call")
						case "late tag":
							_, err = from.InvalidateTags(t.Context(), "of the loader")
						case "category":
							_, err = from.InvalidateCategory(t.Context(), "items")
						case "other tag":
							_, err = from.InvalidateTags(t.Context(), "of nothing")
						}
						if err != nil {
							t.Error(err)
						}
					}
					inMemory(t, key, func(ctx context.Context) (string, error) {
						aside.CurrentLoad(ctx).Tag("of the loader")
						return "v1", nil
					}, []*aside.Cache{w.Cache}, tagged)
					pastTTL(t, w.Cache, key)
					if when == "before the load" {
						invalidate()
						asidetest.AllTold(t, w.Cache)
					}
					var gate *redistest.Gate
					switch when {
					case "before its lease":
						gate = w.Proxy.HoldRequests(func(args []string) bool { // the generation of the tag is asked for before the lease
							return strings.EqualFold(args[0], "EVALSHA") && len(args) > 4 && (args[3] == key.String() || strings.Contains(args[3], "of the call"))
						})
					case "on its way to Redis":
						gate = w.Proxy.HoldRequests(func(args []string) bool {
							return strings.EqualFold(args[0], "EVALSHA") && len(args) > 4 && args[3] == key.String() && same.Load() > 0
						})
					}
					answer := make(chan string, 1)
					go func() {
						v, err := aside.GetOrLoad(t.Context(), w.Cache, key, load, tagged)
						if err != nil {
							t.Error(err)
						}
						answer <- v
					}()
					switch when {
					case "in the loader":
						<-held.Began
						invalidate()
						close(held.Release)
					case "before its lease", "on its way to Redis":
						gate.Wait(t)
						over := make(chan struct{})
						go func() { defer close(over); invalidate() }()
						if where == "elsewhere" {
							<-over
						} else {
							asidetest.Eventually(t, "it is out of this process's memory", func() bool {
								_, err := aside.Get[string](canceled(t), w.Cache, key)
								return err != nil
							})
						}
						gate.Release()
						<-over
					}
					v := <-answer
					if door == "other tag" {
						require.Equal(t, "v1", v)
						freshOr := func() string {
							v, err := aside.GetOrLoad(t.Context(), other, key, asidetest.Value("loaded"), tagged)
							require.NoError(t, err)
							return v
						}
						asidetest.Eventually(t, "it is kept", func() bool { return freshOr() == "v1" })
						return
					}
					// Between the read and the lease: the value that the load has looked at is gone, or the tag has another generation by the time of the
					// lease. The requests of this process's own invalidations follow that for the lease.
					early := when == "before its lease" && where == "elsewhere" && (door == "key" || door == "tag")
					if when == "before the load" || early {
						require.Equal(t, "v2", v)
						require.Zero(t, same.Load())
						return
					}
					if when == "before its lease" && v == "v2" { // the generation was asked for with the lease, or read right after it
						require.Zero(t, same.Load())
						return
					}
					require.Equal(t, "v1", v, "its caller came before the invalidation")
					require.EqualValues(t, 1, same.Load())
					asidetest.AllTold(t, w.Cache)
					asidetest.AllTold(t, other)
					for _, c := range []*aside.Cache{w.Cache, other} {
						for _, opts := range [][]aside.CallOption{{tagged}, {tagged, aside.Strong()}} {
							v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("new"), opts...)
							require.NoError(t, err)
							require.Equal(t, "new", v)
						}
					}
				})
			}
		}
	}
}

// Hazard 36: a value that has gone from Redis during the load is stored again as a whole.
func TestAValueThatIsNotModifiedAndGoneIsStoredAgain(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 10, "large": 1 << 20} {
		for _, gone := range []string{"the value", "a chunk"} {
			if name == "small" && gone == "a chunk" {
				continue
			}
			t.Run(fmt.Sprint(name, " ", gone), func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				c, other := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
				key, held := brief(onError).Key("a"), asidetest.NewHeld()
				value := string(asidetest.Large(size))
				load := func(ctx context.Context) (string, error) {
					if _, ok := aside.Previous[string](ctx); ok {
						aside.CurrentLoad(ctx).TTL(time.Hour)
						held.Began <- struct{}{}
						<-held.Release
						return "", aside.ErrNotModified
					}
					return "", errors.New("no previous value")
				}
				inMemory(t, key, named(value, "1"), []*aside.Cache{c})
				pastTTL(t, c, key)
				answer := make(chan error, 1)
				go func() {
					v, err := aside.GetOrLoad(t.Context(), c, key, load)
					if err == nil && v != value {
						err = fmt.Errorf("%d bytes", len(v))
					}
					answer <- err
				}()
				<-held.Began
				// As by eviction: no process of the cache does it.
				if gone == "the value" {
					server.MustDo(t, "DEL", key.String())
				} else {
					require.EqualValues(t, 1, server.MustDo(t, "DEL", chunkNames(t, server)[0]))
				}
				close(held.Release)
				require.NoError(t, <-answer)
				asidetest.Eventually(t, "another process has the whole value", func() bool {
					v, err := aside.Get[string](t.Context(), other, key)
					return err == nil && v == value
				})
				require.Zero(t, c.Metrics().Labels["items"].RedisErrors)
			})
		}
	}
}

func chunkNames(t *testing.T, server *redistest.Server) (names []string) {
	t.Helper()
	for _, name := range server.MustDo(t, "KEYS", "*!c:*").([]any) {
		names = append(names, name.(string))
	}
	require.NotEmpty(t, names)
	return names
}

// A value that this process cannot read is no previous one: if the source then said that it is not modified, there would be nothing to keep.
func TestAValueThatCannotBeReadIsNoPreviousOne(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	type narrow struct{ A int }
	type wide struct{ A, B int }
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	key := brief(onError).Key("a")
	inMemory(t, key, func(context.Context) (narrow, error) { return narrow{1}, nil }, []*aside.Cache{c})
	pastTTL(t, c, key)
	v, err := aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (wide, error) {
		if _, ok := aside.Previous[wide](ctx); ok {
			return wide{}, aside.ErrNotModified
		}
		return wide{1, 2}, nil
	})
	require.NoError(t, err)
	require.Equal(t, wide{1, 2}, v)
}

// While Redis is away, nobody knows what was invalidated.
func TestThereIsNoPreviousValueWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.DegradedTTL = time.Hour
	c := asidetest.Connected(t, o)
	key := brief(onError).Key("a")
	inMemory(t, key, asidetest.Value("old"), []*aside.Cache{c})
	pastTTL(t, c, key)
	server.Kill()
	asidetest.Eventually(t, "redis is away", func() bool { return c.Health().State == aside.StateDegraded })
	v, err := aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
		if _, ok := aside.Previous[string](ctx); ok {
			return "", aside.ErrNotModified
		}
		return "new", nil
	})
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

// Hazard 50: Redis notifies all processes that the head of a large value was written. They need not fetch and decode the whole value again.
func TestOtherProcessesKeepTheDecodedValueThatIsNotModified(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"not modified", "replaced", "copies"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			c, w := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
			key := brief(func(p *aside.Policy) { p.Stale, p.CloneOnRead = time.Hour, kind == "copies" }).Key("a")
			value, other := asidetest.Large(1<<20), asidetest.Large(1<<20)
			load := func(ctx context.Context) ([]byte, error) {
				if _, ok := aside.Previous[[]byte](ctx); ok {
					aside.CurrentLoad(ctx).TTL(time.Hour)
					if kind == "replaced" {
						return other, nil
					}
					return nil, aside.ErrNotModified
				}
				return nil, errors.New("no previous value")
			}
			first := inMemory(t, key, named(value, "1"), []*aside.Cache{c, w.Cache})
			pastTTL(t, c, key)
			w.Proxy.ResetCounts()
			asidetest.Eventually(t, "the other process is notified, and serves nothing before it has read the head", func() bool {
				_, err := aside.GetOrLoad(t.Context(), c, key, load) // again where Redis was too slow for the load in the background
				require.NoError(t, err)
				_, err = aside.Get[[]byte](canceled(t), w.Cache, key)
				return err != nil
			})
			var r aside.Result[[]byte]
			asidetest.Eventually(t, "it has the value of the next TTL", func() bool {
				var err error
				r, err = aside.Lookup(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return nil, context.DeadlineExceeded })
				require.NoError(t, err)
				return r.Status == aside.StatusHit && r.Tier == aside.TierMemory
			})
			chunks := 0
			for _, args := range w.Asked("GETRANGE") {
				if strings.Contains(args[0], "!c:") {
					chunks++
				}
			}
			switch kind {
			case "replaced":
				require.Equal(t, other, r.Value)
				require.Equal(t, 4, chunks)
			case "copies":
				require.Equal(t, first, r.Value)
				require.NotSame(t, &first[0], &r.Value[0])
				require.Zero(t, chunks)
			default:
				require.Same(t, &first[0], &r.Value[0], "the very value that it had")
				require.Zero(t, chunks)
			}
		})
	}
}

// A value in one piece that gets an ETag of another length is copied within Redis if it is small, and stored again if it is not.
func TestAValueThatIsNotModifiedMayGetALongerETag(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 7 << 10, "one piece": 100 << 10, "large": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
			key := brief(onError).Key("a")
			value := string(asidetest.Large(size))
			load := func(ctx context.Context) (string, error) {
				if _, ok := aside.Previous[string](ctx); ok {
					aside.CurrentLoad(ctx).TTL(time.Hour)
					aside.CurrentLoad(ctx).ETag("a longer one")
					return "", aside.ErrNotModified
				}
				return "", errors.New("no previous value")
			}
			inMemory(t, key, named(value, "short"), []*aside.Cache{w.Cache})
			pastTTL(t, w.Cache, key)
			input := netInput(t, server)
			r, err := aside.Lookup(t.Context(), w.Cache, key, load)
			require.NoError(t, err)
			require.Equal(t, value, r.Value)
			asidetest.Eventually(t, "it is in Redis", func() bool {
				v, err := aside.Get[string](t.Context(), other, key)
				return err == nil && v == value
			})
			r, err = aside.Lookup(t.Context(), other, key, never)
			require.NoError(t, err)
			require.Equal(t, "a longer one", r.ETag)
			require.Equal(t, name == "one piece", netInput(t, server)-input > size/2, "stored again")
			require.EqualValues(t, 1, w.Metrics().Labels["items"].NotModified)
			require.Zero(t, w.Metrics().Labels["items"].EncodeErrors)
		})
	}
}

// A tag that only the first loader has named has to be known for as long as the value lives that keeps it.
func TestTheKeyOfATagOutlivesAValueThatIsNotModified(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	key := brief(onError).Key("a")
	inMemory(t, key, func(ctx context.Context) (string, error) {
		aside.CurrentLoad(ctx).Tag("late")
		return "v", nil
	}, []*aside.Cache{c})
	pastTTL(t, c, key)
	const tag = "%t:late"
	require.EqualValues(t, 1, server.MustDo(t, "PEXPIRE", tag, "60000"), "most of its life is over")
	asidetest.AllTold(t, c)
	r, err := aside.Lookup(t.Context(), c, key, func(ctx context.Context) (string, error) {
		if _, ok := aside.Previous[string](ctx); !ok {
			return "", errors.New("no previous value")
		}
		return "", aside.ErrNotModified
	})
	require.NoError(t, err)
	require.Equal(t, aside.StatusMiss, r.Status)
	asidetest.Eventually(t, "it is prolonged", func() bool {
		return server.MustDo(t, "PTTL", tag).(int64) > server.MustDo(t, "PTTL", key.String()).(int64)
	})
}

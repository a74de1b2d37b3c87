package coherence_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// What a new cache is asked first, while its first connection is being made.
func TestTheFirstCallOfACacheUsesTheRedisThatIsThere(t *testing.T) {
	t.Parallel()
	single := func(t *testing.T) aside.Options { return asidetest.At(redistest.Start(t).Addr()) }
	for name, options := range map[string]func(t *testing.T) aside.Options{
		"a server": single,
		"a server that is asked whether it is a cluster": func(t *testing.T) aside.Options {
			o := single(t)
			o.Redis.ForceSingleClient = false
			return o
		},
		"a server without tracking": func(t *testing.T) aside.Options { return asidetest.At(asidetest.Mini(t)) },
		"Sentinel": func(t *testing.T) aside.Options {
			o := asidetest.Anonymously(redistest.StartSentinel(t, "watched", redistest.Start(t), 1).Addr()) // the client library asks for the ROLE, too
			o.Redis.Sentinel.MasterSet = "watched"
			return o
		},
		"a cluster": func(t *testing.T) aside.Options { return asidetest.InClusterOf(redistest.StartCluster(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, ctx := options(t), t.Context()
			o.OpTimeout = asidetest.Bound
			before := asidetest.Connected(t, o)
			never := func(context.Context) (string, error) { return "", errors.New("loaded, although Redis has it") }
			// fill has everything in Redis again, and memory know of it or not.
			fill := func(t *testing.T) {
				t.Helper()
				for i := range 10 {
					key := asidetest.Items.Key(i)
					asidetest.Eventually(t, "it is stored under the generations that the last change has brought", func() bool {
						asidetest.Stored(t, before, key, "old", aside.WithTags("tag"))
						v, err := aside.GetOrLoad(ctx, before, key, never, aside.WithTags("tag"), aside.Strong())
						return err == nil && v == "old"
					})
				}
			}
			hit := func(t *testing.T, r aside.Result[string], err error) {
				t.Helper()
				require.NoError(t, err)
				require.Equal(t, "old", r.Value)
				require.Equal(t, aside.StatusHit, r.Status)
				require.Equal(t, aside.TierRedis, r.Tier)
			}
			invalidated := func(t *testing.T, r aside.Receipt, err error) {
				t.Helper()
				require.NoError(t, err)
				require.True(t, r.Confirmed)
				_, err = r.WaitCleanup(ctx) // what it removes later would be missed by the next call
				require.NoError(t, err)
				asidetest.Eventually(t, "the others are told", func() bool {
					_, err := aside.Get[string](ctx, before, asidetest.Items.Key(1))
					return errors.Is(err, aside.ErrMiss)
				})
			}
			for door, call := range map[string]func(t *testing.T, c *aside.Cache){
				"Lookup": func(t *testing.T, c *aside.Cache) {
					r, err := aside.Lookup(ctx, c, asidetest.Items.Key(1), never)
					hit(t, r, err)
				},
				"Strong": func(t *testing.T, c *aside.Cache) {
					r, err := aside.Lookup(ctx, c, asidetest.Items.Key(1), never, aside.Strong())
					hit(t, r, err)
				},
				"Get": func(t *testing.T, c *aside.Cache) {
					v, err := aside.Get[string](ctx, c, asidetest.Items.Key(1))
					require.NoError(t, err)
					require.Equal(t, "old", v)
				},
				"GetMany": func(t *testing.T, c *aside.Cache) {
					got, err := aside.NewLoader(c, asidetest.Items, func(ctx context.Context, _ int) (string, error) { return never(ctx) }).GetMany(ctx, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
					require.NoError(t, err)
					require.Len(t, got, 10)
				},
				"a miss": func(t *testing.T, c *aside.Cache) {
					r, err := aside.Lookup(ctx, c, asidetest.Items.Key("absent"), asidetest.Value("new"))
					require.NoError(t, err)
					require.Equal(t, aside.StatusMiss, r.Status)
					require.Equal(t, "not cached", r.Reason)
					require.NoError(t, c.Close())
					v, err := aside.Get[string](ctx, before, asidetest.Items.Key("absent"))
					require.NoError(t, err)
					require.Equal(t, "new", v)
					_, err = before.Invalidate(ctx, asidetest.Items.Key("absent"))
					require.NoError(t, err)
				},
				"Refresh": func(t *testing.T, c *aside.Cache) {
					_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key(1), asidetest.Value("new"), aside.Refresh())
					require.NoError(t, err)
					require.NoError(t, c.Close())
					asidetest.Eventually(t, "the others are told", func() bool {
						v, err := aside.Get[string](ctx, before, asidetest.Items.Key(1))
						return err == nil && v == "new"
					})
				},
				"Set": func(t *testing.T, c *aside.Cache) {
					asidetest.Stored(t, c, asidetest.Items.Key(1), "new")
					require.NoError(t, c.Close())
					asidetest.Eventually(t, "the others are told", func() bool {
						v, err := aside.Get[string](ctx, before, asidetest.Items.Key(1))
						return err == nil && v == "new"
					})
				},
				"Invalidate": func(t *testing.T, c *aside.Cache) {
					r, err := c.Invalidate(ctx, asidetest.Items.Key(1))
					require.EqualValues(t, 1, r.Removed)
					invalidated(t, r, err)
				},
				"InvalidateTags": func(t *testing.T, c *aside.Cache) {
					r, err := c.InvalidateTags(ctx, "tag")
					invalidated(t, r, err)
				},
				"InvalidateCategory": func(t *testing.T, c *aside.Cache) {
					r, err := c.InvalidateCategory(ctx, "items")
					invalidated(t, r, err)
				},
				"InvalidateAll": func(t *testing.T, c *aside.Cache) {
					r, err := c.InvalidateAll(ctx)
					invalidated(t, r, err)
				},
				"InvalidatePattern": func(t *testing.T, c *aside.Cache) {
					r, err := c.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard))
					invalidated(t, r, err)
				},
				"Keys": func(t *testing.T, c *aside.Cache) {
					n := 0
					for _, err := range c.Keys(ctx, asidetest.Items.Match(aside.Wildcard)) {
						require.NoError(t, err)
						n++
					}
					require.Equal(t, 10, n)
				},
			} {
				t.Run(door, func(t *testing.T) { // one after the other
					fill(t)
					call(t, asidetest.NewCache(t, o))
				})
			}
		})
	}
}

// Hazard 96.
func TestThoseWhoAskANewCacheShareALoad(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]func(t *testing.T) string{
		"tracked":   func(t *testing.T) string { return redistest.Start(t).Addr() },
		"untracked": asidetest.Mini,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.StartProxy(t, addr(t))
			o := asidetest.At(proxy.Addr())
			o.OpTimeout = asidetest.Bound
			gate := proxy.HoldReplies(func(args []string) bool { return args[0] == "TIME" })
			c := asidetest.NewCache(t, o)
			load := asidetest.NewHeld()
			var got []<-chan string
			ask := func() {
				for range 100 {
					got = append(got, asidetest.Background(t, c, asidetest.Items.Key("a"), load.Load("v")))
				}
			}
			ask()
			gate.Wait(t)
			gate.Release()
			<-load.Began // there is a connection
			ask()
			r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("another"), asidetest.Value("v"))
			require.NoError(t, err)
			require.Equal(t, aside.StatusMiss, r.Status)
			close(load.Release)
			for _, v := range got {
				require.Equal(t, "v", <-v)
			}
			require.EqualValues(t, 1, load.Loads.Load())
		})
	}
}

// Redis is away when a cache is made. Nobody who asks it waits for longer than for one operation.
func TestTheFirstCallOfACacheAnswersWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]func(t *testing.T) aside.Options{
		"refused": func(t *testing.T) aside.Options {
			return asidetest.At(net.JoinHostPort("127.0.0.1", strconv.Itoa(redistest.FreePort(t))))
		},
		"no reply": func(t *testing.T) aside.Options {
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			proxy.Blackhole(true)
			return asidetest.At(proxy.Addr())
		},
		"hung": func(t *testing.T) aside.Options {
			server := redistest.Start(t)
			server.Pause()
			t.Cleanup(server.Resume)
			return asidetest.At(server.Addr())
		},
		"no connection": func(t *testing.T) aside.Options {
			o := asidetest.At("192.0.2.1:6379")
			o.Redis.DialCtxFn = blackHole
			return o
		},
		"a cluster, no connection": func(t *testing.T) aside.Options {
			o := asidetest.At("192.0.2.1:6379")
			o.Redis.ForceSingleClient, o.Redis.DialCtxFn = false, blackHole
			return o
		},
		"Sentinel, no connection": func(t *testing.T) aside.Options {
			o := asidetest.At("192.0.2.1:6379")
			o.Redis.Sentinel.MasterSet, o.Redis.DialCtxFn = "watched", blackHole
			return o
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.OpTimeout = 0 // 50 ms
			for door, call := range map[string]func(c *aside.Cache) error{
				"GetOrLoad": func(c *aside.Cache) error {
					r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key(1), asidetest.Value("v"))
					if err == nil && (r.Status != aside.StatusFallback || r.Value != "v") {
						err = fmt.Errorf("%+v", r)
					}
					return err
				},
				"Set":           func(c *aside.Cache) error { return aside.Set(t.Context(), c, asidetest.Items.Key(1), "v") },
				"Invalidate":    func(c *aside.Cache) error { _, err := c.Invalidate(t.Context(), asidetest.Items.Key(1)); return err },
				"InvalidateAll": func(c *aside.Cache) error { _, err := c.InvalidateAll(t.Context()); return err },
				"Get": func(c *aside.Cache) error {
					if _, err := aside.Get[string](t.Context(), c, asidetest.Items.Key(1)); !errors.Is(err, aside.ErrMiss) {
						return fmt.Errorf("%v is no miss", err)
					}
					return nil
				},
			} {
				c := asidetest.NewCache(t, o)
				atMost, began := asidetest.Allowing(t), time.Now()
				require.NoError(t, call(c), door)
				took := time.Since(began)
				t.Logf("%s: %s", door, asidetest.Ms(took))
				// The attempt to connect goes on for 3 s, or 2.5 s where a connection is there.
				require.Less(t, took, atMost(2*time.Second), door)
				require.NoError(t, c.Close())
			}
		})
	}
}

func blackHole(ctx context.Context, _ string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// However long an operation may take, nobody waits for a first connection that cannot be made, or for a cache that is closed.
func TestNobodyWaitsForAConnectionThatHasFailed(t *testing.T) {
	t.Parallel()
	for name, single := range map[string]bool{"a server": true, "perhaps a cluster": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var dials atomic.Int64
			o := asidetest.At("192.0.2.1:6379")
			o.OpTimeout, o.Redis.ForceSingleClient = time.Minute, single
			fail := make(chan struct{})
			o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
				if dials.Add(1) == 1 {
					select {
					case <-fail:
					case <-ctx.Done():
					}
					return nil, errors.New("refused")
				}
				return blackHole(ctx, addr, d, config)
			}
			c := asidetest.NewCache(t, o)
			waiter := asidetest.Background(t, c, asidetest.Items.Key("a"), asidetest.Value("v"))
			close(fail)
			select {
			case v := <-waiter:
				require.Equal(t, "v", v)
			case <-time.After(asidetest.Bound / 2): // which is shorter than OpTimeout
				t.Fatal("it waits on")
			}
			r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("b"), asidetest.Value("w"))
			require.NoError(t, err)
			require.Equal(t, aside.StatusFallback, r.Status)
			require.Equal(t, "redis is unavailable", r.Reason)

			o.Redis.DialCtxFn = blackHole
			c = asidetest.NewCache(t, o)
			begun := make(chan struct{})
			go func() { close(begun); _, _ = aside.Get[string](t.Context(), c, asidetest.Items.Key("a")) }()
			<-begun
			waiter = asidetest.Background(t, c, asidetest.Items.Key("a"), asidetest.Value("v"))
			require.NoError(t, c.Close())
			require.Contains(t, []string{"v", aside.ErrClosed.Error()}, <-waiter)
		})
	}
}

// The caller's own time counts too.
func TestACallerWaitsForTheFirstConnectionNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	o := asidetest.At("192.0.2.1:6379")
	o.OpTimeout, o.Redis.DialCtxFn = time.Minute, blackHole
	c := asidetest.NewCache(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), asidetest.Value("v"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = aside.Get[string](ctx, c, asidetest.Items.Key("a"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, aside.Set(ctx, c, asidetest.Items.Key("a"), "v"))
	r, err := c.Invalidate(ctx, asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
}

// brief runs briefProcess.
func brief(t *testing.T, server *redistest.Server, key string) string {
	t.Helper()
	p := redistest.Spawn(t, "brief", "ADDR="+server.Addr(), "KEY="+key, "OPTIMEOUT="+briefTime().String())
	line, err := p.Line()
	require.NoError(t, err)
	require.NoError(t, p.Wait())
	return line
}

// briefTime is the OpTimeout of those processes. A busy machine may take longer than the default to connect.
func briefTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("ASIDE_TEST_OPTIMEOUT")); err == nil {
		return d
	}
	return asidetest.Bound
}

func TestProgramsThatAskOnceUseRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, asidetest.Items.Key("there"), "stored")
	first, once := 8, 5 // processes take long to start under the race detector
	if asidetest.AtLength() {
		first, once = 50, 30
	}
	hits := 0
	for range first {
		if brief(t, server, "there") == "stored hit <nil>" {
			hits++
		}
	}
	stored := 0
	for i := range once {
		key := "program " + strconv.Itoa(i)
		require.Equal(t, "loaded", brief(t, server, key)[:len("loaded")])
		if v, err := aside.Get[string](t.Context(), c, asidetest.Items.Key(key)); err == nil && v == "loaded" {
			stored++
		}
	}
	t.Logf("OpTimeout %s: %d of %d first calls were hits; %d of %d values of programs that ask once are in Redis", briefTime(), hits, first, stored, once)
	require.Equal(t, first, hits)
	require.Equal(t, once, stored)
}

func TestAThousandCachesThatAreMadeAtOnceLoadOnce(t *testing.T) {
	t.Parallel()
	asidetest.Repeatedly(t, "Redis answers everybody in time", func() bool { return herdLoadsOnce(t) })
}

// herdLoadsOnce reports whether many caches load a value once. Where Redis does not answer everybody in time, they need not.
func herdLoadsOnce(t *testing.T) bool {
	server := redistest.Start(t)
	const processes = 4
	caches := asidetest.Rounds(100, 1000)
	var herd [processes]*redistest.Subprocess
	for i := range herd {
		herd[i] = redistest.Spawn(t, "herd", "ADDR="+server.Addr(), "OPTIMEOUT="+briefTime().String(), "CACHES="+strconv.Itoa(caches/processes))
		line, err := herd[i].Line()
		require.NoError(t, err)
		require.Equal(t, "ready", line)
	}
	began := time.Now()
	for _, p := range herd {
		require.NoError(t, p.Stdin.Close())
	}
	total, troubles := 0, 0
	for _, p := range herd {
		line, err := p.Line()
		require.NoError(t, err)
		var n, trouble int
		_, err = fmt.Sscan(line, &n, &trouble)
		require.NoError(t, err)
		total, troubles = total+n, troubles+trouble
		require.NoError(t, p.Wait())
	}
	t.Logf("%d caches in %d processes: %d load, %d troubles, all done after %s", caches, processes, total, troubles, asidetest.Ms(time.Since(began)))
	if troubles == 0 {
		require.Equal(t, 1, total)
	}
	return total == 1
}

// A server that is some milliseconds away, and well. A program that asks once, with the defaults, reads what is there and stores what it loads.
// The proxy delays what is said on a connection, not the making of it: a real way is longer, and TLS makes it longer still.
func TestAProgramThatAsksOnceUsesARedisThatIsSomeMillisecondsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	proxy.SetDelay(4 * time.Millisecond) // there, and back again
	seed := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, seed, asidetest.Items.Key("there"), "stored")
	ask := func(key string) aside.Result[string] {
		c := asidetest.NewCache(t, aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{proxy.Addr()}}})
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key(key), asidetest.Value("loaded"))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		return r
	}
	programs, hits, stored := 0, 0, 0
	for began := time.Now(); programs < 5 || (hits == 0 || stored == 0) && time.Since(began) < 3*asidetest.Bound; programs++ { // a busy machine may take longer at first
		if ask("there").Status == aside.StatusHit {
			hits++
		}
		key := strconv.Itoa(programs)
		ask(key)
		if v, err := aside.Get[string](t.Context(), seed, asidetest.Items.Key(key)); err == nil && v == "loaded" {
			stored++
		}
	}
	t.Logf("%d of %d first calls were hits, %d of %d values were stored", hits, programs, stored, programs)
	require.NotZero(t, hits)
	require.NotZero(t, stored)
}

// Callers wait for the first connection.
//
//  1. Some of them have waited for nearly all of their time when it is there.
//  2. They ask Redis, which answers as fast as ever, and have no time left to hear it.
//  3. That is no failure of the server: nobody is kept from it.
func TestThoseWhoHaveWaitedForTheFirstConnectionAreNoFailuresOfTheServer(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	proxy.SetDelay(20 * time.Millisecond)
	gate := proxy.HoldReplies(func(args []string) bool { return args[0] == "GET" }) // what a connection is examined by last
	var log asidetest.Logbook
	o := asidetest.At(proxy.Addr())
	o.OpTimeout, o.Logger = 2*time.Second, log.Logger()
	c := asidetest.NewCache(t, o)
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			all.Go(func() { _, _ = aside.Lookup(t.Context(), c, asidetest.Items.Key(i), asidetest.Value("v")) })
		}
	})
	gate.Wait(t)
	<-time.After(o.OpTimeout - 100*time.Millisecond) // as calls wait for the first connection for OpTimeout
	gate.Release()
	asidetest.Eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
	<-time.After(o.OpTimeout)
	close(stop)
	all.Wait()
	require.NotContains(t, log.String(), "redis unavailable")
}

// A Get returns by its own context, also where it has waited for the first connection.
//
//  1. It comes while the connection is being made, and waits.
//  2. There is a connection; Redis is asked, and does not answer yet.
//  3. The caller's context ends.
func TestAGetThatHasWaitedForTheFirstConnectionHeedsItsContext(t *testing.T) {
	t.Parallel()
	for name, early := range map[string]bool{"while it is being made": true, "afterwards": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			connecting := proxy.HoldReplies(func(args []string) bool { return args[0] == "TIME" })
			reading := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == "items:a" })
			o := asidetest.At(proxy.Addr())
			c := asidetest.NewCache(t, o)
			connecting.Wait(t)
			if !early {
				connecting.Release()
				asidetest.Eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			got := make(chan error, 1)
			go func() {
				_, err := aside.Get[string](ctx, c, asidetest.Items.Key("a"))
				got <- err
			}()
			if early {
				<-time.After(100 * time.Millisecond) // it waits for the connection
				connecting.Release()
			}
			reading.Wait(t)
			atMost, left := asidetest.Allowing(t), time.Now()
			cancel()
			require.ErrorIs(t, <-got, context.Canceled)
			require.Less(t, time.Since(left), atMost(time.Second), "it has waited on")
			reading.Release()
		})
	}
}

// A process that has just started is short of processor time, so its first operations may take longer than later ones.
func TestTheFirstOperationsOfAProcessMayTakeLonger(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	seed := asidetest.Connected(t, asidetest.At(server.Addr()))
	o := asidetest.At(proxy.Addr())
	o.OpTimeout = 100 * time.Millisecond // those that are not held are answered within that, at least one of them
	var c *aside.Cache
	asked := 0
	ask := func() aside.Result[string] { // each time for a key that is in Redis, and not in memory
		asked++
		key := strconv.Itoa(asked)
		asidetest.Stored(t, seed, asidetest.Items.Key(key), "stored")
		held := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == "items:"+key })
		done := make(chan aside.Result[string], 1)
		go func() {
			r, err := aside.Lookup(context.Background(), c, asidetest.Items.Key(key), asidetest.Value("loaded"))
			assert.NoError(t, err)
			done <- r
		}()
		held.Wait(t)
		since := time.Now()
		asidetest.Eventually(t, "the limit is over", func() bool { return time.Since(since) > 3*o.OpTimeout })
		held.Release()
		return <-done
	}
	asidetest.Repeatedly(t, "the first operation takes longer, and the machine does not stall for as long as it may", func() bool {
		c = asidetest.NewCache(t, o)
		return ask().Status == aside.StatusHit
	})
	asidetest.Eventually(t, "an operation is quick", func() bool {
		return aside.Set(t.Context(), c, asidetest.Items.Key("quick"), "v") == nil && ask().Status == aside.StatusFallback
	})
}

// Hazard 138. One of two addresses swallows all that is sent to it, and takes long to give up. The first call is answered by the other one.
func TestAnAddressThatIsMuteDoesNotCostTheFirstCallWhatAnotherOneHas(t *testing.T) {
	t.Parallel()
	single, cluster := redistest.Start(t), redistest.StartCluster(t)
	for name, well := range map[string]string{"a server": single.Addr(), "a cluster": cluster.Addrs()[0]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := asidetest.At(well)
			o.Redis.ForceSingleClient = false
			seed := asidetest.Connected(t, o)
			asidetest.Stored(t, seed, asidetest.Items.Key("a"), "stored")
			const muteAddr = "192.0.2.1:6379"
			o.Redis.InitAddress = []string{muteAddr, well}
			o.Redis.Dialer.Timeout = time.Hour
			o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
				if addr == muteAddr {
					return blackHole(ctx, addr, d, config)
				}
				return d.DialContext(ctx, "tcp", addr)
			}
			c := asidetest.NewCache(t, o)
			r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("loaded"))
			require.NoError(t, err)
			require.Equal(t, aside.StatusHit, r.Status, r.Reason)
		})
	}
}

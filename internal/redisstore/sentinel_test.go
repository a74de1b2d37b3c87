package redisstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

const watched = "watched"

func bySentinels(addrs ...string) Options {
	o := Options{Client: clients(addrs...), Format: format}
	o.Client.Sentinel.MasterSet = watched
	return o
}

// A Sentinel that knows nothing of the primary is passed over, and that its connection is closed again is nothing to the others.
func TestASentinelThatErrsIsPassedOver(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	errs := redistest.StartProxy(t, redistest.StartSentinel(t, "another", primary, 1).Addr())
	knows := redistest.StartProxy(t, redistest.StartSentinel(t, watched, primary, 1).Addr())
	for name, change := range map[string]func(*rueidis.ClientOption){
		"tracked":   func(*rueidis.ClientOption) {},
		"untracked": func(o *rueidis.ClientOption) { o.AlwaysRESP2 = true },
	} {
		t.Run(name, func(t *testing.T) {
			states := make(chan State, 1000)
			o := bySentinels(errs.Addr(), knows.Addr())
			change(&o.Client)
			o.OnState = func(s State) { states <- s }
			s := up(t, o)
			first := only(s).session.Load()
			for range 100 {
				require.NoError(t, s.Get(t.Context(), Get{Key: key})[0].Err)
			}
			require.Same(t, first, only(s).session.Load())
			require.Len(t, states, 1, "it came up once")
			require.Less(t, len(errs.Commands()), 100)
			errs.ResetCounts()
		})
	}
}

// The connection to the primary is what counts. Those to Sentinels come and go.
func TestSentinelsThatAreLostCostNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*rueidis.ClientOption){
		"tracked":   func(*rueidis.ClientOption) {},
		"untracked": func(o *rueidis.ClientOption) { o.AlwaysRESP2 = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := redistest.Start(t)
			sentinels := []*redistest.Server{redistest.StartSentinel(t, watched, primary, 2), redistest.StartSentinel(t, watched, primary, 2)}
			redistest.AwaitSentinels(t, watched, 0, sentinels...)
			var proxies []*redistest.Proxy
			var addrs []string
			for _, sentinel := range sentinels {
				p := redistest.StartProxy(t, sentinel.Addr())
				proxies, addrs = append(proxies, p), append(addrs, p.Addr())
			}
			var gaps atomic.Int64
			o := bySentinels(addrs...)
			change(&o.Client)
			o.Gap = func() { gaps.Add(1) }
			s := up(t, o)
			first, before := only(s).session.Load(), gaps.Load()
			for i, sentinel := range sentinels {
				sentinel.Kill()
				require.Eventually(t, func() bool { return proxies[i].Connections() == 0 }, bound, time.Millisecond)
				for range 100 {
					require.NoError(t, s.Get(t.Context(), Get{Key: key})[0].Err)
				}
			}
			require.Same(t, first, only(s).session.Load())
			require.True(t, s.State().Up)
			require.Equal(t, before, gaps.Load())
		})
	}
}

// A primary that is lost is replaced, and the one in its place is found.
func TestThePrimaryThatSentinelsHaveChosenIsFound(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+strings.TrimPrefix(primary.Addr(), "127.0.0.1:"))
	var addrs []string
	var sentinels []*redistest.Server
	for range 3 {
		sentinel := redistest.StartSentinel(t, watched, primary, 2)
		sentinels, addrs = append(sentinels, sentinel), append(addrs, sentinel.Addr())
	}
	redistest.AwaitSentinels(t, watched, 1, sentinels...)
	s := up(t, bySentinels(addrs...))
	primary.Kill()
	sentinels[0].Kill() // on the same host, as it may be
	require.Eventually(t, func() bool { return !s.State().Up }, bound, time.Millisecond)
	require.Eventually(t, func() bool { return s.State().Up }, 2*bound, time.Millisecond)
	acquireOne(t, s, "n1", Rejected{})
	require.EqualValues(t, 1, replica.MustDo(t, "EXISTS", lease))
}

// Sentinels name another primary, and the connection to the old one does not end:
//
//  1. rueidis would connect to the new primary, and send calls there.
//  2. The new primary does not know of the last invalidations that the old one has confirmed, and the session has not sent them again.
//  3. What was read from the old one changes. Nobody pushes that.
func TestASessionEndsWhenSentinelsNameAnotherPrimary(t *testing.T) {
	t.Parallel()
	for way, alwaysRESP2 := range map[string]bool{"tracked": false, "untracked": true} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			primary, next := redistest.Start(t), redistest.Start(t) // nobody makes the first one a replica
			sentinel := redistest.StartSentinel(t, watched, primary, 1)
			via := map[string]*redistest.Proxy{primary.Addr(): redistest.StartProxy(t, primary.Addr()), next.Addr(): redistest.StartProxy(t, next.Addr())}
			o, memory := bySentinels(sentinel.Addr()), newMemory(t)
			o.Client.Sentinel.TopologyRefreshInterval = 20 * time.Millisecond
			o.Pushed = memory.Push
			o.Client.AlwaysRESP2 = alwaysRESP2
			o.Client.DisableCache = alwaysRESP2
			o.Client.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				if p := via[addr]; p != nil {
					addr = p.Addr()
				}
				return d.DialContext(ctx, "tcp", addr)
			}
			s := up(t, o)
			session := only(s).session.Load()
			get := func(key string) Read {
				fence := memory.Fence(key, nil)
				defer fence.End()
				return s.Get(context.Background(), Get{Key: key, Fence: fence})[0]
			}
			before := get("cat:before")
			require.NoError(t, before.Err)
			require.Equal(t, !alwaysRESP2, before.Validity != nil && before.Validity.Valid())
			var renamed atomic.Bool
			last := via[primary.Addr()].HoldReplies(func(args []string) bool { return renamed.Load() && args[0] == "PING" }) // rueidis waits for it before it closes a connection
			defer last.Release()

			stop := make(chan struct{})
			var readers sync.WaitGroup
			for g := range 4 {
				readers.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						get(fmt.Sprintf("cat:%d:%d", g, i%5))
					}
				})
			}
			renamed.Store(true)
			sentinel.MustDo(t, "SENTINEL", "REMOVE", watched)
			sentinel.MustDo(t, "SENTINEL", "MONITOR", watched, "127.0.0.1", strings.TrimPrefix(next.Addr(), "127.0.0.1:"), "1")
			require.Eventually(t, func() bool { return only(s).session.Load() != session }, 2*bound, time.Millisecond)
			require.False(t, before.Validity != nil && before.Validity.Valid(), "at once: rueidis gives the connection up after a while")
			require.Eventually(t, func() bool { return only(s).session.Load() != nil }, 2*bound, time.Millisecond)
			close(stop)
			readers.Wait()
			require.NoError(t, get("cat:after").Err)
			log := via[next.Addr()].Log()
			index := func(matches func(args []string) bool) int { return slices.IndexFunc(log, matches) }
			mark := index(func(args []string) bool { return args[0] == "GET" && strings.Contains(args[1], watermarkName) })
			read := index(func(args []string) bool {
				return strings.Contains(args[len(args)-1], "cat:") || len(args) > 1 && strings.Contains(args[1], "cat:")
			})
			require.NotEqual(t, -1, mark)
			require.Greater(t, read, mark, "what the new primary knows of is read first")
		})
	}
}

// disagreeing starts two Sentinels that name different primaries. The options name the first one, and after other has been called the second one.
func disagreeing(t *testing.T) (o Options, primaries [2]string, other func(on bool)) {
	t.Helper()
	var sentinels [2]*redistest.Server
	for i := range sentinels {
		primary := redistest.Start(t)
		primaries[i] = primary.Addr()
		sentinels[i] = redistest.StartSentinel(t, watched, primary, 1)
	}
	var second atomic.Bool
	o = bySentinels("sentinels:26379")
	o.Client.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		switch {
		case addr == "sentinels:26379" && second.Load():
			addr = sentinels[1].Addr()
		case addr == "sentinels:26379":
			addr = sentinels[0].Addr()
		}
		return d.DialContext(ctx, "tcp", addr)
	}
	return o, primaries, second.Store
}

// A server that starts again may lack its last writes. The next session finds that out.
func TestASessionThatHasLostItsPrimaryDoesNotGoThereAgain(t *testing.T) {
	t.Parallel()
	s := &session{named: named{primary: "a", stays: true}}
	require.True(t, s.mayUse("a"))
	require.False(t, s.mayUse("b"))
	s.broken.Store(true)
	require.False(t, s.mayUse("a"))
}

// A Sentinel that is behind the others names a server that is a replica now.
func TestASessionDoesNotEndForASentinelThatIsBehind(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+strings.TrimPrefix(primary.Addr(), "127.0.0.1:"))
	knows := redistest.StartProxy(t, redistest.StartSentinel(t, watched, primary, 1).Addr())
	behind := redistest.StartSentinel(t, watched, replica, 1)
	o := bySentinels("sentinels:26379")
	o.Client.Sentinel.TopologyRefreshInterval = 20 * time.Millisecond
	var second atomic.Bool
	var dials atomic.Int64 // to the replica
	o.Client.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		switch {
		case addr == "sentinels:26379" && second.Load():
			addr = behind.Addr()
		case addr == "sentinels:26379":
			addr = knows.Addr()
		case addr == replica.Addr():
			dials.Add(1)
		}
		return d.DialContext(ctx, "tcp", addr)
	}
	s := up(t, o)
	session := only(s).session.Load()
	second.Store(true)
	knows.CloseConnections()
	require.Eventually(t, func() bool { return dials.Load() >= 3 }, bound, time.Millisecond)
	require.Same(t, session, only(s).session.Load())
	require.False(t, session.broken.Load())
}

// What one of two clients of a session confirms, and the other one does not know of, would be read again.
func TestTheSecondClientOfASessionHasItsPrimary(t *testing.T) {
	t.Parallel()
	o, primaries, other := disagreeing(t)
	var dials atomic.Int64 // to the other primary
	dial := o.Client.DialCtxFn
	o.Client.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
		if addr == primaries[1] {
			dials.Add(1)
		}
		return dial(ctx, addr, d, c)
	}
	s := up(t, o)
	session := only(s).session.Load()
	require.Equal(t, primaries[0], session.primary)
	other(true)
	require.Eventually(t, func() bool {
		require.Same(t, session, session.inBulk())
		return dials.Load() > 1
	}, bound, time.Millisecond)
	require.ErrorIs(t, only(s).replicated(t.Context(), 0), errReplaced, "the replicas of the other one do not count")
	other(false)
	require.Eventually(t, func() bool { return session.inBulk() != session }, bound, time.Millisecond)
	require.Equal(t, primaries[0], session.inBulk().primary)
	require.Same(t, session, only(s).session.Load())
}

// Calls in progress would be confirmed by the one primary, and those that follow would read from the other.
func TestAPlannedReconnectDoesNotGoToAnotherPrimary(t *testing.T) {
	t.Parallel()
	o, primaries, other := disagreeing(t)
	o.Client.ConnLifetime = time.Second
	s := up(t, o)
	l := only(s)
	require.Equal(t, primaries[0], l.session.Load().primary)
	other(true)
	require.Eventually(t, func() bool {
		now := l.session.Load()
		return now != nil && now.primary == primaries[1]
	}, bound, time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	require.EqualValues(t, 1, l.trips.of(primaries[0])[TripBroken], "it was lost")
}

// What was read on a connection lapses when it ends, however the read was sent: rueidis does not tell Flight of reads in a pipeline.
func TestAConnectionThatCarriesReadsInPipelinesIsOneOfTheSession(t *testing.T) {
	t.Parallel()
	for _, carries := range []bool{false, true} {
		ended := false
		l := newListener(t)
		w := l.newConn(l.client, func(error) { ended = true })
		c, validity := &carrier{trackedConn: w}, w.validity
		if carries {
			c.Update(key, command(7), rueidis.RedisMessage{})
		}
		c.Close(nil)
		require.Equal(t, carries, ended)
		require.Equal(t, !carries, validity.Valid())
	}
}

// A Sentinel that ends its connections is no reason to keep them.
func TestConnectionsToSentinelsThatHaveEndedAreForgotten(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, watched, primary, 1)
	redistest.AwaitSentinels(t, watched, 0, sentinel)
	proxy := redistest.StartProxy(t, sentinel.Addr())
	o := bySentinels(sentinel.Addr())
	o.Client.Sentinel.TopologyRefreshInterval = 50 * time.Millisecond
	o.Client.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		if addr == sentinel.Addr() {
			addr = proxy.Addr()
		}
		return d.DialContext(ctx, "tcp", addr)
	}
	s := up(t, o)
	session := only(s).session.Load()
	conns := func() int {
		session.mu.Lock()
		defer session.mu.Unlock()
		return len(session.conns)
	}
	for range 5 {
		before := conns()
		proxy.ResetCounts()
		proxy.CloseConnections()
		proxy.Await(t, "another connection is in use", func() bool { return slices.Contains(proxy.Commands(), "SUBSCRIBE") })
		require.Eventually(t, func() bool { return conns() <= before }, bound, time.Millisecond)
	}
	require.Same(t, session, only(s).session.Load())
}

// A host that is gone swallows what is sent to it. It is waited for as long as a dial may take, and tried last the next time.
func TestASentinelThatSwallowsPacketsHoldsUpNobodyForLong(t *testing.T) {
	t.Parallel()
	const gone = "192.0.2.1:26379" // TEST-NET-1
	for name, change := range map[string]func(o *rueidis.ClientOption, dial func(context.Context, string) (net.Conn, error)){
		"DialCtxFn": func(o *rueidis.ClientOption, dial func(context.Context, string) (net.Conn, error)) {
			o.DialCtxFn = func(ctx context.Context, dst string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return dial(ctx, dst)
			}
		},
		"DialFn": func(o *rueidis.ClientOption, dial func(context.Context, string) (net.Conn, error)) {
			o.DialFn = func(dst string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return dial(context.Background(), dst)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := redistest.Start(t)
			knows := redistest.StartSentinel(t, watched, primary, 1)
			var swallowed atomic.Int64
			over := make(chan struct{})
			t.Cleanup(func() { close(over) })
			o := bySentinels(gone, knows.Addr())
			o.Client.Sentinel.Dialer.Timeout = time.Second
			change(&o.Client, func(ctx context.Context, dst string) (net.Conn, error) {
				if dst == gone {
					swallowed.Add(1)
					<-over // whatever its context says
					return nil, net.ErrClosed
				}
				return (&net.Dialer{}).DialContext(ctx, "tcp", dst)
			})
			s := up(t, o)
			require.EqualValues(t, 1, swallowed.Load())
			before := only(s).session.Load()
			primary.MustDo(t, "CLIENT", "KILL", "TYPE", "normal")
			require.Eventually(t, func() bool { now := only(s).session.Load(); return now != nil && now != before }, bound, time.Millisecond)
			require.EqualValues(t, 1, swallowed.Load())
		})
	}
	o := withDefaults(rueidis.ClientOption{})
	require.Equal(t, dialTimeout, o.Sentinel.Dialer.Timeout)
	require.Equal(t, keepAlive, o.Sentinel.Dialer.KeepAlive, "or one that hangs is waited for without end")
	require.Equal(t, dialTimeout, atLeast(0))
}

// A Sentinel that hangs must not hold up Close either.
func TestCloseDoesNotWaitForASentinelThatHangs(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, watched, primary, 1)
	s := Open(Options{Client: bySentinels(sentinel.Addr()).Client, OpTimeout: bound, Lease: time.Second})
	require.Eventually(t, func() bool { return s.State().Up }, bound, time.Millisecond)
	sentinel.Pause()
	defer sentinel.Resume()
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(bound):
		t.Fatal("Close waits for the Sentinel")
	}
}

func TestWhoCouldNotBeReachedIsTriedLast(t *testing.T) {
	t.Parallel()
	var u unreached
	given := []string{"a", "b", "c"}
	u.note("a", net.ErrClosed)
	u.note("b", nil)
	require.Equal(t, []string{"b", "c", "a"}, u.last(given))
	require.Equal(t, []string{"a", "b", "c"}, given)
	u.note("a", nil)
	require.Equal(t, given, u.last(given))
	require.True(t, slices.Equal(given, u.last(given)))
}

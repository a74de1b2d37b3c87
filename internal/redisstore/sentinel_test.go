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

	"github.com/gatewayz/aside/internal/near"
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

// Sentinels name another primary, and the old one is still there:
//
//  1. rueidis connects to the new primary, and then ends its connection to the old one, which takes as long as the old one takes for its last reply.
//  2. Callers read on the new connection.
//  3. The old connection ends, and so its client does, and the new connection too.
//  4. What was read on the new connection changes. Nobody pushes that.
func TestWhatIsReadWhileSentinelsNameAnotherPrimaryLapsesWithItsConnection(t *testing.T) {
	t.Parallel()
	for way, read := range map[string]func(s *Store, gets []Get) []Read{
		"batches": func(s *Store, gets []Get) []Read { return s.Get(context.Background(), gets...) },
		"fills": func(s *Store, gets []Get) []Read {
			fill := Filling{Key: gets[0].Key, Nonce: "n", Value: []byte(entry(1, 0, 0, "v")), Until: time.Now().Add(time.Hour).UnixMicro()}
			_, reads, _ := s.FillAndRead(context.Background(), []Filling{fill}, gets[:1])
			return reads
		},
	} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			primary := redistest.Start(t)
			redistest.Start(t, "--replicaof", "127.0.0.1 "+strings.TrimPrefix(primary.Addr(), "127.0.0.1:"))
			sentinel := redistest.StartSentinel(t, watched, primary, 1)
			redistest.AwaitSentinels(t, watched, 1, sentinel)
			old := redistest.StartProxy(t, primary.Addr())
			o, memory := bySentinels(sentinel.Addr()), newMemory(t)
			o.Pushed = memory.Push
			o.Client.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				if addr == primary.Addr() {
					addr = old.Addr()
				}
				return d.DialContext(ctx, "tcp", addr)
			}
			s := up(t, o)
			session := only(s).session.Load()
			session.mu.Lock()
			known := slices.Clone(session.conns) // it has made several, while it connected
			session.mu.Unlock()
			isNew := func(v *near.Validity) bool {
				session.mu.Lock()
				defer session.mu.Unlock()
				return slices.ContainsFunc(session.conns, func(w *trackedConn) bool {
					w.mu.Lock()
					defer w.mu.Unlock()
					return !slices.Contains(known, w) && (v == w.validity || v == w.missing)
				})
			}
			last := old.HoldReplies(func(args []string) bool { return args[0] == "PING" })

			var mu sync.Mutex
			elsewhere := make(map[*near.Validity]bool) // of what was read on the new connection
			var readers sync.WaitGroup
			for g := range 4 { // rueidis gathers the commands of several callers: it reads pushes from then on
				readers.Go(func() {
					for i := 0; only(s).session.Load() == session; i++ {
						gets := make([]Get, 3)
						for j := range gets {
							gets[j].Key = fmt.Sprintf("cat:%d:%d:%d", g, i%5, j)
							gets[j].Fence = memory.Fence(gets[j].Key, nil)
						}
						reads := read(s, gets)
						mu.Lock()
						for _, r := range reads {
							if v := r.Validity; v != nil && isNew(v) {
								elsewhere[v] = true
							}
						}
						mu.Unlock()
						for j := range gets {
							gets[j].Fence.End()
						}
					}
				})
			}
			require.Eventually(t, func() bool { _, err := sentinel.Do("SENTINEL", "FAILOVER", watched); return err == nil }, 2*bound, 100*time.Millisecond)
			require.Eventually(t, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(elsewhere) > 0 || only(s).session.Load() != session
			}, 2*bound, time.Millisecond)
			last.Release()
			require.Eventually(t, func() bool { return only(s).session.Load() != session }, 2*bound, time.Millisecond)
			readers.Wait()
			require.NotEmpty(t, elsewhere, "something was read on the new connection")
			for v := range elsewhere {
				require.Eventually(t, func() bool { return !v.Valid() }, bound, time.Millisecond)
			}
		})
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

package faults_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// The rows 1 to 10 of the table of faults: what can be wrong with the server, or on the way there.

// atOnce is at with the limits that a service has.
func atOnce(addr string) aside.Options {
	o := asidetest.At(addr)
	o.OpTimeout, o.Redis.ConnWriteTimeout, o.Redis.Dialer.KeepAlive = 0, 0, 0
	return o
}

// degraded waits until Redis is given up, for a reason.
func degraded(t *testing.T, c *aside.Cache, reason string) {
	t.Helper()
	n := 0
	asidetest.Eventually(t, "redis is given up: "+reason, func() bool {
		n++
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("somebody asks", n), asidetest.Value("v"))
		require.NoError(t, err)
		h := c.Health()
		return h.State == aside.StateDegraded && strings.Contains(h.Reason, reason)
	})
}

func back(t *testing.T, c *aside.Cache) (took time.Duration) {
	t.Helper()
	began := time.Now()
	asidetest.Eventually(t, "redis is used again", func() bool { return c.Health().State == aside.StateConnected })
	return time.Since(began)
}

func TestFault01RedisIsDownAtTheStart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	atMost, began := asidetest.Allowing(t), time.Now()
	c := asidetest.NewCache(t, atOnce(server.Addr()))
	took := time.Since(began)
	require.Less(t, took, atMost(time.Second))
	asidetest.Eventually(t, "it says why", func() bool { return c.Health().Reason == asidetest.ConnectionRefused })
	require.Equal(t, aside.StateDegraded, c.Health().State)
	asidetest.RequireLoaded(t, c, asidetest.Items.Key("a"))
	server.Restart()
	connects := back(t, c)
	require.True(t, c.Health().Tracking)
	require.Equal(t, "v", asidetest.InMemory(t, c, asidetest.Items.Key("b"), asidetest.Value("v")))
	asidetest.Seen(t, 1, "down at the start", "New succeeds, degraded; connects by itself", "New took %s, calls answered; in use %s after the server's start", asidetest.Ms(took), asidetest.Ms(connects))
}

// dials is a dialer that notes when it is used.
type dials struct {
	mu sync.Mutex
	at []time.Time // guarded by mu
}

func (d *dials) dial(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
	d.mu.Lock()
	d.at = append(d.at, time.Now())
	d.mu.Unlock()
	if config != nil {
		return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", addr)
	}
	return dialer.DialContext(ctx, "tcp", addr)
}

// gaps are the pauses between one attempt and the next; an attempt may dial twice.
func (d *dials) gaps() (gaps []time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range len(d.at) - 1 {
		if gap := d.at[i+1].Sub(d.at[i]); gap > 10*time.Millisecond {
			gaps = append(gaps, gap)
		}
	}
	return gaps
}

func TestFault02RedisIsKilledInTheMiddleOfALoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, atOnce(server.Addr()))
	asidetest.InMemory(t, c, asidetest.Items.Key("memory"), asidetest.Value("before"))
	load := asidetest.NewHeld()
	var results []<-chan string
	for range 64 {
		results = append(results, asidetest.Waiting(t, c, asidetest.Items.Key("a"), load.Load("v")))
	}
	<-load.Began
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	asidetest.RequireStale(t, c, asidetest.Items.Key("memory"), "before") // and no hit any more
	close(load.Release)
	for _, got := range results {
		require.Equal(t, "v", <-got)
	}
	require.EqualValues(t, 1, load.Loads.Load())

	// A fleet that has lost its server together does not come back together.
	server.Restart()
	var fleet []*dials
	for range 8 {
		d := new(dials)
		o := atOnce(server.Addr())
		o.Redis.DialCtxFn = d.dial
		asidetest.Connected(t, o)
		fleet = append(fleet, d)
	}
	before := make([]int, len(fleet))
	for i, d := range fleet {
		before[i] = len(d.gaps())
	}
	server.Kill()
	var pauses []time.Duration // 400 ms each, if nothing varied them
	for i, d := range fleet {
		asidetest.Eventually(t, "several attempts are made", func() bool { return len(d.gaps()) > before[i]+4 })
		pauses = append(pauses, d.gaps()[before[i]+4])
	}
	spread := slices.Max(pauses) - slices.Min(pauses)
	require.Greater(t, spread, 50*time.Millisecond)
	server.Restart()
	took := back(t, c)
	asidetest.Eventually(t, "it is cached again", func() bool {
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("w"))
		require.NoError(t, err)
		return r.Status == aside.StatusHit
	})
	asidetest.Seen(t, 2, "killed in mid-flight", "one load answers all; memory loses its voucher; reconnects with jitter",
		"64 callers, 1 load; stale at once; the fifth pauses of 8 processes spread over %s; back %s after the restart", asidetest.Ms(spread), asidetest.Ms(took))
}

// Row 4: a reply that comes too late reaches nobody, least of all whoever asks next.
func TestFault04ALateReplyReachesNobodyElse(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	other := asidetest.Connected(t, asidetest.At(server.Addr()))
	id := func(i int) string { return "id" + strconv.Itoa(i) }
	c := asidetest.Connected(t, atOnce(proxy.Addr()))
	_, _ = aside.Get[string](t.Context(), c, asidetest.Items.Key("warm"))
	late, checked := 0, 0
	began := time.Now()
	for round := 0; round < 10 || late == 0 && time.Since(began) < 3*asidetest.Bound; round++ {
		for i := range 40 {
			asidetest.Stored(t, other, asidetest.Items.Key(id(round*40+i)), id(round*40+i))
		}
		back(t, c)
		proxy.BlackholeReplies(true)
		var asking sync.WaitGroup
		var foreign, fallbacks atomic.Int64
		ask := func(i int) {
			asking.Go(func() {
				r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key(id(i)), asidetest.Value(id(i)))
				if err != nil || r.Value != id(i) {
					foreign.Add(1)
				}
				if r.Status == aside.StatusFallback {
					fallbacks.Add(1)
				}
			})
		}
		for i := range 20 {
			ask(round*40 + i)
		}
		asking.Wait()
		late += int(fallbacks.Load())
		proxy.BlackholeReplies(false)
		for i := range 20 { // while the late ones come in
			ask(round*40 + 20 + i)
		}
		asking.Wait()
		require.Zero(t, foreign.Load())
		checked += 40
	}
	require.Positive(t, late, "replies were too late")
	asidetest.Seen(t, 4, "late replies", "never reach another caller", "%d callers had left before their reply came; %d values, each that of its key", late, checked)
}

func TestFault05ASlowServerIsGivenUp(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := atOnce(proxy.Addr())
	o.ChunkFrom = -1 // then the first operations of a policy have half a second more
	c := asidetest.Connected(t, o)
	proxy.SetDelay(100 * time.Millisecond) // each way
	// So these are answered: late, but without an error.
	calls, slow := 0, time.Duration(0)
	for began := time.Now(); c.Health().State == aside.StateConnected; calls++ {
		require.Less(t, time.Since(began), asidetest.Bound)
		p := aside.Policy{Name: fmt.Sprint("slow", calls), Category: "slow", TTL: time.Hour}
		asked := time.Now()
		_, err := aside.Get[string](t.Context(), c, p.Key("a"))
		require.ErrorIs(t, err, aside.ErrMiss)
		slow = max(slow, time.Since(asked))
	}
	require.Equal(t, "redis answers later than the limit of one operation", c.Health().Reason)
	began := time.Now()
	asidetest.RequireLoaded(t, c, asidetest.Items.Key("a"))
	after := time.Since(began)
	proxy.SetDelay(0)
	back(t, c)
	asidetest.Seen(t, 5, "slow, 200 ms a reply", "the breaker trips on latency, not on errors alone", "given up after %d calls, the slowest answered after %s; a call then took %s", calls, asidetest.Ms(slow), asidetest.Ms(after))
}

func TestFault06OutOfMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, other := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.InMemory(t, w.Cache, asidetest.Items.Key("warm"), asidetest.Value("v"))
	asidetest.Stored(t, other, asidetest.Items.Key("there"), "there")
	asidetest.Stored(t, other, asidetest.Items.Key("gone"), "gone")
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	r, err := aside.Lookup(t.Context(), w.Cache, asidetest.Items.Key("there"), asidetest.Value("loaded"))
	require.NoError(t, err)
	require.Equal(t, "there", r.Value, "reads work")
	require.Equal(t, aside.TierRedis, r.Tier)
	receipt, err := w.Invalidate(t.Context(), asidetest.Items.Key("gone"))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed, "deletes work")
	require.EqualValues(t, 1, receipt.Removed)

	load := asidetest.NewHeld()
	w.Proxy.ResetCounts()
	began := time.Now()
	before := w.Metrics().Labels["items"].RedisErrors
	var results []<-chan string
	for range 64 {
		results = append(results, asidetest.Waiting(t, w.Cache, asidetest.Items.Key("new"), load.Load("v")))
	}
	<-load.Began
	close(load.Release)
	for _, got := range results {
		require.Equal(t, "v", <-got)
	}
	require.EqualValues(t, 1, load.Loads.Load())
	trips, counted := w.Proxy.Requests(), w.Metrics().Labels["items"].RedisErrors-before
	require.LessOrEqual(t, trips, 6+8*int(time.Since(began)/time.Second), "no storm; the connection is probed each second")
	require.Positive(t, counted)
	require.Equal(t, aside.StateConnected, w.Health().State)
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
	asidetest.Stored(t, w.Cache, asidetest.Items.Key("w"), "w")
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "items:w"), "fills work again")
	asidetest.Seen(t, 6, "OOM, noeviction", "reads and deletes work, loads are served and counted, no storm", "64 callers, %d load, %d round trips, %d errors counted; still connected", load.Loads.Load(), trips, counted)
}

// Row 7: what a server that takes no writes, or serves nothing, does to one that has a value.
func TestFault07AServerThatRefuses(t *testing.T) {
	t.Parallel()
	type command []string
	for code, test := range map[string]struct {
		args       []string
		prepare    []command
		begin, end []command
	}{
		"READONLY": {
			begin: []command{{"REPLICAOF", "127.0.0.1", "1"}},
			end:   []command{{"REPLICAOF", "NO", "ONE"}},
		},
		"MASTERDOWN": {
			args:  []string{"--replica-serve-stale-data", "no"},
			begin: []command{{"REPLICAOF", "127.0.0.1", "1"}},
			end:   []command{{"REPLICAOF", "NO", "ONE"}},
		},
		"CLUSTERDOWN": {
			args:    []string{"--cluster-enabled", "yes"},
			prepare: []command{{"CLUSTER", "ADDSLOTSRANGE", "0", "16383"}},
			begin:   []command{{"CLUSTER", "DELSLOTSRANGE", "0", "16383"}},
			end:     []command{{"CLUSTER", "ADDSLOTSRANGE", "0", "16383"}},
		},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			if asidetest.InCluster && code != "CLUSTERDOWN" {
				t.Skip("a cluster refuses REPLICAOF; what happens to its replicas is row 8")
			}
			server := redistest.Start(t, test.args...)
			do := func(commands []command) {
				for _, c := range commands {
					server.MustDo(t, c...)
				}
			}
			do(test.prepare)
			log := new(asidetest.Logbook)
			o := asidetest.At(server.Addr()) // it is the answers that are not to be trusted, and not their times
			o.Logger = log.Logger()
			c := asidetest.Connected(t, o)
			key := asidetest.Items.Key("a")
			asidetest.InMemory(t, c, key, asidetest.Value("old"))
			said := len(log.String())
			do(test.begin)
			degraded(t, c, "redis answered ")
			asidetest.Eventually(t, "it is said", func() bool { return strings.Contains(log.String()[said:], "redis answered "+code) })
			receipt, err := c.Invalidate(t.Context(), key)
			require.NoError(t, err)
			require.False(t, receipt.Confirmed)
			asidetest.RequireLoaded(t, c, key)
			counted := c.Metrics().Labels["items"].RedisErrors
			require.Positive(t, counted)
			lines := strings.Count(log.String()[said:], `"level":"WARN"`)
			require.LessOrEqual(t, lines, 2, "and not with every call: a replica without its master refuses reads for one reason, writes for another")
			do(test.end)
			took := back(t, c)
			require.NoError(t, receipt.Wait(t.Context()))
			asidetest.Eventually(t, "it is cached again", func() bool {
				r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("new"))
				require.NoError(t, err)
				require.NotEqual(t, "old", r.Value)
				return r.Status == aside.StatusHit
			})
			asidetest.Seen(t, 7, code, "degraded; what fails is counted; an invalidation is queued, unconfirmed",
				"degraded with %s, %d errors counted, %d logged; back after %s, the invalidation confirmed then", code, counted, lines, asidetest.Ms(took))
		})
	}
}

// Row 9: the server has its values on disk, and takes its time to read them.
func TestFault09AServerThatIsLoading(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--key-load-delay", "400", "--loading-process-events-interval-bytes", "1024")
	o := atOnce(server.Addr())
	log := new(asidetest.Logbook)
	o.Logger = log.Logger()
	c := asidetest.Connected(t, o)
	key := asidetest.Items.Key("a")
	asidetest.InMemory(t, c, key, asidetest.Value("old"))
	server.MustDo(t, "DEBUG", "POPULATE", "5000")
	server.MustDo(t, "SAVE")
	server.Kill()
	var starting sync.WaitGroup
	starting.Go(server.Restart) // it returns when the server has loaded
	defer starting.Wait()
	degraded(t, c, "redis answered LOADING")
	receipt, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	calls, slow := 0, time.Duration(0)
	for began := time.Now(); c.Health().State == aside.StateDegraded; calls++ {
		require.Less(t, time.Since(began), asidetest.Bound)
		asked := time.Now()
		r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("new"))
		slow = max(slow, time.Since(asked))
		require.NoError(t, err)
		require.Equal(t, "new", r.Value)
		require.NotEqual(t, aside.StatusHit, r.Status)
	}
	loading := time.Since(c.Health().Since)
	require.NoError(t, receipt.Wait(t.Context()))
	require.Equal(t, "new", asidetest.InMemory(t, c, key, asidetest.Value("new")))
	asidetest.Seen(t, 9, "LOADING", "treated as down; comes back by itself", "down with LOADING, %d calls answered, the slowest in %s; connected %s ago, the old value never read", calls, asidetest.Ms(slow), asidetest.Ms(loading))
}

// Row 10: what takes somebody to mend it is said once and tried seldom, and no secret is told.
func TestFault10AServerThatDoesNotLetUsIn(t *testing.T) {
	t.Parallel()
	const password = "canary-of-the-password"
	type setting struct {
		server     *redistest.Server
		admin      *redistest.Conn // logged in from the start
		begin, end func(*setting)
		reason     string
	}
	must := func(t *testing.T, s *setting, args ...string) {
		_, err := s.admin.Do(args...)
		require.NoError(t, err)
	}
	for name, prepare := range map[string]func(t *testing.T, s *setting, o *aside.Options){
		"NOAUTH": func(t *testing.T, s *setting, _ *aside.Options) {
			s.reason = "redis answered NOAUTH"
			s.begin = func(s *setting) { must(t, s, "CONFIG", "SET", "requirepass", password) }
			s.end = func(s *setting) { must(t, s, "CONFIG", "SET", "requirepass", "") }
		},
		"WRONGPASS": func(t *testing.T, s *setting, o *aside.Options) {
			s.reason = "redis answered WRONGPASS"
			o.Redis.Password = password
			must(t, s, "CONFIG", "SET", "requirepass", password)
			s.begin = func(s *setting) { must(t, s, "CONFIG", "SET", "requirepass", "another") }
			s.end = func(s *setting) { must(t, s, "CONFIG", "SET", "requirepass", password) }
		},
		"NOPERM": func(t *testing.T, s *setting, o *aside.Options) {
			s.reason = "redis answered NOPERM"
			must(t, s, "ACL", "SETUSER", "somebody", "on", ">"+password, "~*", "&*", "+@all")
			o.Redis.Username, o.Redis.Password = "somebody", password
			s.begin = func(s *setting) { must(t, s, "ACL", "SETUSER", "somebody", "-evalsha", "-eval") }
			s.end = func(s *setting) { must(t, s, "ACL", "SETUSER", "somebody", "+@all") }
		},
		"TLS": func(t *testing.T, s *setting, o *aside.Options) {
			s.reason = "the certificate of redis was refused"
			o.Redis.Password = password
			must(t, s, "CONFIG", "SET", "requirepass", password)
			good, trusted := asidetest.Certificate(t, "redis.test", time.Now().Add(time.Hour))
			expired, _ := asidetest.Certificate(t, "redis.test", time.Now().Add(-time.Hour))
			var shown atomic.Pointer[tls.Certificate]
			shown.Store(&good)
			addr, _, sent := asidetest.Terminate(t, s.server.Addr(), &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil }})
			o.Redis.InitAddress = []string{addr}
			o.Redis.TLSConfig = &tls.Config{RootCAs: trusted, ServerName: "redis.test"}
			var before int
			s.begin = func(*setting) { shown.Store(&expired); before = len(sent.String()) }
			s.end = func(*setting) {
				require.NotContains(t, sent.String()[before:], password, "nothing is sent to whom it may not concern")
				shown.Store(&good)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &setting{server: redistest.Start(t)}
			s.admin = redistest.Raw(t, s.server.Addr())
			o := asidetest.Anonymously(s.server.Addr())
			o.OpTimeout, o.Redis.ConnWriteTimeout, o.Redis.Dialer.KeepAlive = 0, 0, 0
			log, dialled := new(asidetest.Logbook), new(dials)
			o.Logger, o.Redis.DialCtxFn = log.Logger(), dialled.dial
			prepare(t, s, &o)
			c := asidetest.Connected(t, o)
			key := asidetest.Items.Key("a")
			asidetest.InMemory(t, c, key, asidetest.Value("old"))
			s.begin(s)
			must(t, s, "CLIENT", "KILL", "TYPE", "normal")
			degraded(t, c, s.reason)
			before := len(dialled.gaps())
			receipt, err := c.Invalidate(t.Context(), key)
			require.NoError(t, err)
			require.False(t, receipt.Confirmed)
			asidetest.RequireLoaded(t, c, key)
			// A server that is only away is tried every 1.5 s at the latest.
			var longest time.Duration
			asidetest.Eventually(t, "it is tried less and less", func() bool {
				gaps := dialled.gaps()
				longest = slices.Max(append(gaps[min(before, len(gaps)):], 0))
				return longest > 1600*time.Millisecond
			})
			attempts, most := len(dialled.gaps())-before, 12
			if asidetest.InCluster {
				most *= 2 // another node might have been put in its place
			}
			require.Less(t, attempts, most)
			said := strings.Count(log.String(), s.reason)
			require.Equal(t, 1, said, log.String())
			s.end(s)
			back(t, c)
			require.NoError(t, receipt.Wait(t.Context()))
			asidetest.Stored(t, c, key, "new")
			require.Equal(t, "new", asidetest.InMemory(t, c, key, asidetest.Value("another")))
			requireNothingOf(t, password, log.String(), fmt.Sprintf("%v %+v %#v %+v %+v", c, c, c, c.Health(), c.Metrics()))
			asidetest.Seen(t, 10, name, "degraded, said once, tried seldom; no secret, no plain text",
				"said %d time; %d attempts with pauses up to %s; back when mended, the invalidation confirmed", said, attempts, asidetest.Ms(longest))
		})
	}
}

func requireNothingOf(t *testing.T, secret string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		require.NotEmpty(t, text)
		require.NotContains(t, text, secret)
	}
}

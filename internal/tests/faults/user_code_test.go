package faults_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// inItsOwnProcess runs a test that may end its process in another one, and fails if it does.
func inItsOwnProcess(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	const env = "ASIDE_TEST_ALONE"
	if os.Getenv(env) == "1" {
		debug.SetMaxStack(64 << 20) // so that what recurses without end ends soon
		test(t)
		return
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*asidetest.Bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.timeout", (4 * asidetest.Bound).String())
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("its process has ended: %v\n%.2500s", err, out)
	}
}

// verifying is a client option for a server behind TLS whose certificate is looked at by verify too.
func verifying(t *testing.T, verify func() error) aside.Options {
	const host = "redis.test"
	own, trusted := asidetest.Certificate(t, host, time.Now().Add(time.Hour))
	addr, _, _ := asidetest.Terminate(t, redistest.Start(t).Addr(), &tls.Config{Certificates: []tls.Certificate{own}})
	o := asidetest.At(addr)
	o.Redis.TLSConfig = &tls.Config{
		RootCAs: trusted, ServerName: host, MinVersion: tls.VersionTLS12,
		VerifyConnection: func(tls.ConnectionState) error { return verify() },
	}
	return o
}

func TestACallbackOfTLSThatPanicsIsAHandshakeThatFails(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		var tries atomic.Int64
		c := asidetest.NewCache(t, verifying(t, func() error {
			if tries.Add(1) <= 2 {
				panic("oops")
			}
			return nil
		}))
		asidetest.Eventually(t, "it connects at last", func() bool { return c.Health().State == aside.StateConnected })
	})
}

func TestACallbackOfTLSThatDoesNotReturnIsAHandshakeThatFails(t *testing.T) {
	t.Parallel()
	forever := make(chan struct{})
	for name, end := range map[string]func(){"exits": runtime.Goexit, "blocks": func() { <-forever }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int64
			c := asidetest.NewCache(t, verifying(t, func() error {
				if tries.Add(1) == 1 {
					end()
				}
				return nil
			}))
			asidetest.Eventually(t, "it connects at last", func() bool { return c.Health().State == aside.StateConnected })
		})
	}
	t.Cleanup(func() { close(forever) })
}

func TestADialerThatReturnsNothingIsOneThatFails(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		var tries atomic.Int64
		o := asidetest.At(redistest.Start(t).Addr())
		o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			if tries.Add(1) <= 2 {
				return nil, nil
			}
			return d.DialContext(ctx, "tcp", addr)
		}
		c := asidetest.NewCache(t, o)
		asidetest.Eventually(t, "it connects at last", func() bool { return c.Health().State == aside.StateConnected })
	})
}

func TestCredentialsThatNeverComeAreAskedForAgain(t *testing.T) {
	t.Parallel()
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	var tries atomic.Int64
	o := asidetest.At(redistest.Start(t).Addr())
	o.Redis.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		if tries.Add(1) == 1 {
			<-forever
		}
		return rueidis.AuthCredentials{Username: o.Redis.Username, Password: o.Redis.Password}, nil
	}
	c := asidetest.NewCache(t, o)
	asidetest.Eventually(t, "it connects at last", func() bool { return c.Health().State == aside.StateConnected })
}

// A brokenConn is a connection of the program's own.
type brokenConn struct {
	net.Conn
	read, closed func()
}

func (c *brokenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.read != nil {
		c.read()
	}
	return n, err
}

func (c *brokenConn) Close() error {
	if c.closed != nil {
		c.closed()
	}
	return c.Conn.Close()
}

func TestAConnectionThatPanicsIsOneThatBreaks(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		var panics atomic.Bool
		o := asidetest.At(redistest.Start(t).Addr())
		o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			conn, err := d.DialContext(ctx, "tcp", addr)
			return &brokenConn{Conn: conn, read: func() {
				if panics.Swap(false) {
					panic("oops")
				}
			}}, err
		}
		c := asidetest.Connected(t, o)
		panics.Store(true)
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
		require.NoError(t, err)
		asidetest.Eventually(t, "it connects again", func() bool { return !panics.Load() && c.Health().State == aside.StateConnected })
	})
}

func TestCloseEndsThoughAConnectionCannotBeClosed(t *testing.T) {
	t.Parallel()
	forever := make(chan struct{})
	o := asidetest.At(redistest.Start(t).Addr())
	o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		conn, err := d.DialContext(ctx, "tcp", addr)
		return &brokenConn{Conn: conn, closed: func() { <-forever }}, err
	}
	c := asidetest.Connected(t, o)
	closed := make(chan struct{})
	go func() { defer close(closed); c.Close() }()
	select {
	case <-closed:
	case <-time.After(asidetest.Bound):
		t.Error("Close has not returned")
	}
	close(forever)
	<-closed
}

// A pooled context is that of a request of a server which uses its contexts again: nobody may look into it once the request is over.
type pooled struct {
	context.Context
	over atomic.Bool
}

func (p *pooled) Value(key any) any {
	if p.over.Load() {
		panic("the request is over")
	}
	return p.Context.Value(key)
}

// 1. All places are taken, so the load of a waits for one.
// 2. Its first caller leaves, whose context panics from then on. Another one still waits for a.
// 3. A place is free. The load takes it, and panics.
func TestAContextThatPanicsTakesNoPlaceWithIt(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet(), MaxLoads: 1, Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		var calls sync.WaitGroup
		release := make(chan struct{})
		calls.Go(func() {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("busy"), func(context.Context) (string, error) { <-release; return "v", nil })
			require.NoError(t, err)
		})
		synctest.Wait()
		inner, leave := context.WithCancel(t.Context())
		first := &pooled{Context: inner}
		calls.Go(func() {
			_, err := aside.GetOrLoad(first, c, asidetest.Items.Key("a"), asidetest.Value("v"))
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		calls.Go(func() { _, _ = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v")) })
		synctest.Wait()
		leave()
		synctest.Wait()
		first.over.Store(true)
		close(release)
		calls.Wait()

		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := aside.GetOrLoad(hurried, c, asidetest.Items.Key("b"), asidetest.Value("v"))
		require.NoError(t, err, "nothing is being loaded, and there is no place")
	})
}

// The same, for the other caller: its context is sound.
func TestAContextThatPanicsFailsNobodyElse(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet(), MaxLoads: 1, Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		var calls sync.WaitGroup
		release := make(chan struct{})
		calls.Go(func() {
			_, _ = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("busy"), func(context.Context) (string, error) { <-release; return "v", nil })
		})
		synctest.Wait()
		inner, leave := context.WithCancel(t.Context())
		first := &pooled{Context: inner}
		calls.Go(func() { _, _ = aside.GetOrLoad(first, c, asidetest.Items.Key("a"), asidetest.Value("v")) })
		synctest.Wait()
		calls.Go(func() {
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
			require.NoError(t, err)
			require.Equal(t, "v", v)
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		first.over.Store(true)
		close(release)
		calls.Wait()
	})
}

// A merged context ends when either of two things does, and its author has forgotten to say so in Err.
type merged struct {
	context.Context
	done chan struct{}
}

func (m *merged) Done() <-chan struct{} { return m.done }

func TestAContextThatEndsWithoutAnErrorGivesNoValue(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		ctx := &merged{context.Background(), make(chan struct{})}
		time.AfterFunc(time.Second, func() { close(ctx.done) })
		slow := func(context.Context) (string, error) { time.Sleep(5 * time.Second); return "v", nil }
		v, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), slow)
		require.Error(t, err, "the value is %q", v)

		ctx = &merged{context.Background(), make(chan struct{})}
		time.AfterFunc(time.Second, func() { close(ctx.done) })
		values, err := aside.GetOrLoadMany(ctx, c, []int{1}, asidetest.ItemKey, func(context.Context, []int) (map[int]string, error) {
			time.Sleep(5 * time.Second)
			return map[int]string{1: "v"}, nil
		})
		require.Error(t, err, "the values are %v", values)
	})
}

func TestAContextThatEndsWithoutAnErrorConfirmsNothing(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	proxy.Refuse(true)
	c := asidetest.NewCache(t, asidetest.At(proxy.Addr()))
	receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	ctx := &merged{context.Background(), make(chan struct{})}
	close(ctx.done)
	require.Error(t, receipt.Wait(ctx))
}

func TestAContextThatEndsWithoutAnErrorEndsNoProcess(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{Logger: asidetest.Quiet()})
		began, release := make(chan struct{}), make(chan struct{})
		go func() {
			_, _ = aside.GetOrLoad(context.Background(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) {
				close(began)
				<-release
				return "v", nil
			})
		}()
		<-began
		ctx := &merged{context.Background(), make(chan struct{})}
		time.AfterFunc(100*time.Millisecond, func() { close(ctx.done) })
		_, _ = aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), asidetest.Value("v"))
		time.Sleep(100 * time.Millisecond)
		close(release)
	})
}

// A circular error is one of its own causes.
type circular struct{ many bool }

type (
	circularOne  struct{ cause error }
	circularMany struct{ causes []error }
)

func (e *circularOne) Error() string { return "circular" }

func (e *circularOne) Unwrap() error { return e.cause }

func (e *circularMany) Error() string { return "circular" }

func (e *circularMany) Unwrap() []error { return e.causes }

func (c circular) error() error {
	if c.many {
		e := &circularMany{}
		e.causes = []error{errors.New("first"), e}
		return e
	}
	e := &circularOne{}
	e.cause = e
	return e
}

func TestAnErrorThatIsItsOwnCauseIsAPanicOfItsLoader(t *testing.T) {
	for name, bad := range map[string]error{"one": circular{}.error(), "many": circular{many: true}.error()} {
		t.Run(name, func(t *testing.T) {
			inItsOwnProcess(t, func(t *testing.T) {
				c := asidetest.NewCache(t, aside.Options{Logger: asidetest.Quiet(), MaxLoads: 1, LoadTimeout: time.Second})
				for range 2 {
					_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) { return "", bad })
					own, ok := err.(*aside.Error)
					require.True(t, ok)
					require.Equal(t, aside.CodeLoaderPanic, own.Code)
				}
			})
		})
	}
}

func TestABatchErrorThatHoldsItselfIsAPanicOfItsLoader(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{Logger: asidetest.Quiet()})
		_, err := aside.GetOrLoadMany(t.Context(), c, []int{1}, asidetest.ItemKey, func(context.Context, []int) (map[int]string, error) {
			each := &aside.BatchError[int]{Errors: map[int]error{}}
			each.Errors[1] = each
			return nil, each
		})
		require.Error(t, err)
	})
}

// itself is a value that no text can be made of without end.
func itself() map[string]any {
	m := map[string]any{}
	m["itself"] = m
	return m
}

func TestALoaderThatPanicsWithAValueThatHoldsItselfEndsNoProcess(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{Logger: asidetest.Quiet()})
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (string, error) { panic(itself()) })
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoaderPanic})
		require.NotEmpty(t, err.Error())
	})
}

func TestOnInvalidatedThatPanicsWithAValueThatHoldsItselfEndsNoProcess(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		var log asidetest.Logbook
		c := asidetest.NewCache(t, aside.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), OnInvalidated: func(aside.Invalidation) { panic(itself()) }})
		_, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		require.NoError(t, err)
		asidetest.Eventually(t, "it is logged", func() bool { return log.String() != "" })
	})
}

// A loader has begun something in the background, which goes on with its context when the load is over.
func TestALoadThatIsOverHasNoPlaceToLend(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet(), MaxLoads: 1}, func(t *testing.T, c *aside.Cache) {
		var after context.Context
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("outer"), func(ctx context.Context) (string, error) {
			after = context.WithoutCancel(ctx)
			return "v", nil
		})
		require.NoError(t, err)
		var running, most atomic.Int64
		var calls sync.WaitGroup
		for i := range 5 {
			calls.Go(func() {
				_, err := aside.GetOrLoad(after, c, asidetest.Items.Key(i), func(context.Context) (string, error) {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					time.Sleep(time.Second)
					return "v", nil
				})
				require.NoError(t, err)
			})
		}
		calls.Wait()
		require.EqualValues(t, 1, most.Load())
	})
}

// The same for calls that share no earlier load.
func TestALoadThatIsOverSharesTheLoadsOfOthers(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		var after context.Context
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("outer"), func(ctx context.Context) (string, error) {
			after = context.WithoutCancel(ctx)
			return "v", nil
		})
		require.NoError(t, err)
		var loads atomic.Int64
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() {
				_, err := aside.GetOrLoad(after, c, asidetest.Items.Key("a"), func(context.Context) (string, error) {
					loads.Add(1)
					time.Sleep(time.Second)
					return "v", nil
				}, aside.Refresh())
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		calls.Wait()
		require.LessOrEqual(t, loads.Load(), int64(2))
	})
}

// 1. Memory has a.
// 2. Close waits for a loader that does not heed its context.
// 3. The source of a changes, and its invalidation is refused: the cache is closed.
// 4. A caller asks for a.
func TestNothingIsServedThatCannotBeInvalidatedAnyMore(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet()}, func(t *testing.T, c *aside.Cache) {
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("old"))
		require.NoError(t, err)
		release := make(chan struct{})
		defer close(release)
		go func() {
			_, _ = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("busy"), func(context.Context) (string, error) { <-release; return "v", nil })
		}()
		synctest.Wait()
		go c.Close()
		synctest.Wait()
		_, err = c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		require.ErrorIs(t, err, aside.ErrClosed)
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("new"))
		require.ErrorIs(t, err, aside.ErrClosed, "the value is %q", v)
	})
}

// A hangingCodec does something else than to encode, or to decode, where it is told to.
type hangingCodec struct{ encode, decode, name func() }

func (c *hangingCodec) Name() string {
	if c.name != nil {
		c.name()
	}
	return "hanging"
}

func (c *hangingCodec) Marshal(v any) ([]byte, error) {
	if c.encode != nil {
		c.encode()
	}
	return []byte(*v.(*string)), nil
}

func (c *hangingCodec) Unmarshal(data []byte, v any) error {
	if c.decode != nil {
		c.decode()
	}
	*v.(*string) = string(data)
	return nil
}

func hanging(codec aside.Codec) aside.Policy {
	return aside.Policy{Name: "hanging", Category: "hanging", TTL: time.Hour, Codec: codec, LoadTimeout: 2 * time.Second}
}

// 1. A has loaded K, and its codec hangs, so K is not stored. A renews the lease.
// 2. The time of the load, and more, passes.
// 3. B asks for K: the lease must be nobody's by then.
func TestACodecThatHangsKeepsNoLease(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	forever := make(chan struct{})
	defer close(forever)
	o := asidetest.At(server.Addr())
	o.LeaseTTL, o.OpTimeout, o.MaxValueBytes = 300*time.Millisecond, time.Second, 1<<20
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	stuck, sound := hanging(&hangingCodec{encode: func() { <-forever }}), hanging(&hangingCodec{})
	atMost := asidetest.Allowing(t)
	_, err := aside.GetOrLoad(t.Context(), a, stuck.Key("k"), asidetest.Value("v"))
	require.NoError(t, err)
	time.Sleep(4500 * time.Millisecond) // LoadTimeout, and the time of an operation
	began := time.Now()
	_, err = aside.GetOrLoad(t.Context(), b, sound.Key("k"), asidetest.Value("v"))
	took := time.Since(began)
	require.NoError(t, err)
	require.Less(t, took, atMost(500*time.Millisecond))
	asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", "hanging:k") == int64(1) })
}

// A check that ends with its goroutine has a place all the same.
func TestChecksGoOnHoweverACodecEndsOne(t *testing.T) {
	t.Parallel()
	var decoded atomic.Int64
	policy := hanging(&hangingCodec{decode: func() {
		if n := decoded.Add(1); n == 2 || n == 4 {
			runtime.Goexit()
		}
	}})
	o := asidetest.At(redistest.Start(t).Addr())
	o.MaxBytes, o.ConsistencyCheck = 1, aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Millisecond, MaxPerSecond: -1}
	c := asidetest.Connected(t, o)
	_, err := aside.GetOrLoad(t.Context(), c, policy.Key("k"), asidetest.Value("v"))
	require.NoError(t, err)
	asidetest.Eventually(t, "it is stored", func() bool {
		for info := range c.Keys(t.Context(), policy.Match(aside.Wildcard)) {
			return info.Key != ""
		}
		return false
	})
	for n := int64(2); n <= 4; n += 2 {
		asidetest.Eventually(t, "it is a hit", func() bool {
			r, err := aside.Lookup(t.Context(), c, policy.Key("k"), asidetest.Value("v"))
			return err == nil && r.Status == aside.StatusHit
		})
		asidetest.Eventually(t, "it is checked", func() bool { return decoded.Load() >= n })
	}
	asidetest.Eventually(t, "a check comes to its end", func() bool {
		_, _ = aside.GetOrLoad(t.Context(), c, policy.Key("k"), asidetest.Value("v"))
		return c.Metrics().Labels["hanging"].Checked > 0
	})
}

// A loader may put the ids in another order, or use their memory for something else.
func TestALoaderMayChangeTheIDsThatItWasGiven(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(ids []int){
		"sorts": slices.Sort[[]int],
		"filters in place": func(ids []int) {
			kept := ids[:0]
			for _, id := range ids {
				if id%2 == 0 {
					kept = append(kept, id)
				}
			}
		},
	} {
		asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
			c := newCache(aside.Options{})
			load := func(_ context.Context, ids []int) (map[int]int, error) {
				values := make(map[int]int)
				for _, id := range ids {
					values[id] = id
				}
				change(ids)
				return values, nil
			}
			ids := []int{3, 1, 2, 4}
			values, err := aside.GetOrLoadMany(t.Context(), c, ids, asidetest.ItemKey, load)
			require.NoError(t, err)
			require.Equal(t, map[int]int{1: 1, 2: 2, 3: 3, 4: 4}, values, name)
			for _, id := range ids {
				v, err := aside.NewBatchLoader(c, asidetest.Items, load).Get(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, id, v, name)
			}
		})
	}
}

// A loader panics with the error of something else that it has asked for.
func TestAPanicWithNotFoundIsAPanic(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(ctx context.Context) (string, error) {
			v, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("other"), func(context.Context) (string, error) { return "", aside.ErrNotFound })
			if err != nil {
				panic(err)
			}
			return v, nil
		})
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoaderPanic})
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
		require.NoError(t, err, "what a load that has panicked has left is no value")
		require.Equal(t, "v", v)
	})
}

// A sorted text is equal to one with the same letters. To find out it sorts both, where they lie.
type sorted []byte

func (s sorted) Equal(other sorted) bool {
	slices.Sort(s)
	slices.Sort(other)
	return slices.Equal(s, other)
}

func TestACheckChangesNoValue(t *testing.T) {
	t.Parallel()
	for _, private := range []bool{false, true} {
		asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet(), ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Second}}, func(t *testing.T, c *aside.Cache) {
			policy := aside.Policy{Name: "sorted", Category: "sorted", TTL: time.Hour, Codec: aside.Raw, CloneOnRead: private}
			texts := []string{"cba", "bca", "bca", "bca"}
			var n atomic.Int64
			for range 2 {
				v, err := aside.GetOrLoad(t.Context(), c, policy.Key("k"), func(context.Context) (sorted, error) {
					return sorted(texts[n.Add(1)-1]), nil
				})
				require.NoError(t, err)
				require.Equal(t, "cba", string(v))
				time.Sleep(time.Minute)
			}
			v, err := aside.Get[sorted](t.Context(), c, policy.Key("k"))
			require.NoError(t, err)
			require.Equal(t, "cba", string(v), "private: %t", private)
		})
	}
}

// What holds: whoever closes the cache, and from wherever, it ends, and nothing is served afterwards.
func TestACacheIsClosedFromAnywhere(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		for name, use := range map[string]func(c *aside.Cache){
			"key function": func(c *aside.Cache) {
				_, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, func(id int) aside.Key { c.Close(); return asidetest.ItemKey(id) },
					func(context.Context, []int) (map[int]string, error) { return nil, nil })
				require.ErrorIs(t, err, aside.ErrClosed)
			},
			"listing": func(c *aside.Cache) {
				for i := range 3 {
					require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key(i), "v"))
				}
				for _, err := range c.Keys(t.Context(), asidetest.Items.Match(aside.Wildcard)) {
					c.Close()
					_ = err
				}
			},
			"a second time": func(c *aside.Cache) {
				var all sync.WaitGroup
				for range 4 {
					all.Go(func() { c.Close() })
				}
				all.Wait()
			},
		} {
			c := newCache(aside.Options{})
			use(c)
			atMost, began := asidetest.Allowing(t), time.Now()
			c.Close()
			require.Less(t, time.Since(began), atMost(5*time.Second), name)
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key(1), asidetest.Value("v"))
			require.ErrorIs(t, err, aside.ErrClosed)
			_, err = aside.Lookup(t.Context(), c, asidetest.Items.Key(1), asidetest.Value("v"))
			require.ErrorIs(t, err, aside.ErrClosed)
			_, err = aside.Get[string](t.Context(), c, asidetest.Items.Key(1))
			require.ErrorIs(t, err, aside.ErrClosed)
			for info, err := range c.Keys(t.Context(), aside.Pattern{}) {
				require.ErrorIs(t, err, aside.ErrClosed)
				require.Empty(t, info)
			}
			_, err = aside.NewLoader(c, asidetest.Items, func(context.Context, int) (string, error) { return "v", nil }).GetMany(t.Context(), []int{1})
			require.ErrorIs(t, err, aside.ErrClosed)
		}
	})
}

// 1. Memory has a, read by a connection of the program's own, which cannot be closed.
// 2. The connection breaks. The client library closes it before it tells anybody, and so tells nobody.
// 3. Another process invalidates a.
// 4. After the 3 s that it may take to notice a connection that is broken, a caller asks for a.
func TestABrokenConnectionIsNoticedThoughItCannotBeClosed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	forever := make(chan struct{})
	o := asidetest.At(proxy.Addr())
	o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return &brokenConn{Conn: conn, closed: func() { <-forever }}, nil
	}
	c, other := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
	t.Cleanup(func() { close(forever) }) // before c is closed
	asidetest.Eventually(t, "memory has it", func() bool {
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("old"))
		return err == nil && r.Status == aside.StatusHit && r.Tier == aside.TierMemory
	})
	atMost := asidetest.Allowing(t)
	proxy.CloseConnections()
	receipt, err := other.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	began := time.Now()
	asidetest.Eventually(t, "the old value is no fresh hit any more", func() bool {
		r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("new"))
		require.NoError(t, err)
		return r.Status != aside.StatusHit || r.Value != "old"
	})
	require.Less(t, time.Since(began), atMost(3500*time.Millisecond))
	asidetest.Eventually(t, "it connects again", func() bool { return c.Health().State == aside.StateConnected })
}

// The same for what reads Redis in the time of its caller.
func TestAContextThatEndsWithoutAnErrorEndsNoProcessWhereRedisIsRead(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
		c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
		held := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == "items:a" })
		ctx := &merged{context.Background(), make(chan struct{})}
		time.AfterFunc(100*time.Millisecond, func() { close(ctx.done) })
		_, err := aside.Get[string](ctx, c, asidetest.Items.Key("a"))
		require.Error(t, err)
		held.Release()
	})
}

// A check runs in the background, where a panic is nobody's.
func TestACheckWhoseCodecPanicsEndsNoProcess(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		var panicked atomic.Bool
		policy := hanging(&hangingCodec{name: func() {
			if stack := string(debug.Stack()); strings.Contains(stack, ".recheck(") && strings.Contains(stack, "wire.ID(") {
				panicked.Store(true)
				panic("oops")
			}
		}})
		o := asidetest.At(redistest.Start(t).Addr())
		o.MaxBytes, o.ConsistencyCheck = 1, aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Millisecond, MaxPerSecond: -1}
		c := asidetest.Connected(t, o)
		asidetest.Eventually(t, "a check has panicked", func() bool {
			_, err := aside.GetOrLoad(t.Context(), c, policy.Key("k"), asidetest.Value("v"))
			return err != nil || panicked.Load()
		})
		time.Sleep(100 * time.Millisecond)
	})
}

// A codec's error is looked at too.
func TestAnErrorOfACodecThatIsItsOwnCauseEndsNoProcess(t *testing.T) {
	inItsOwnProcess(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{Logger: asidetest.Quiet()})
		policy := hanging(&refusingCodec{circular{many: true}.error()})
		policy.CloneOnRead = true
		require.Error(t, aside.Set(t.Context(), c, policy.Key("k"), "v"))
		_, err := aside.GetOrLoad(t.Context(), c, policy.Key("k"), asidetest.Value("v"))
		require.Error(t, err)
	})
}

type refusingCodec struct{ err error }

func (c *refusingCodec) Name() string { return "refusing" }

func (c *refusingCodec) Marshal(any) ([]byte, error) { return nil, c.err }

func (c *refusingCodec) Unmarshal([]byte, any) error { return c.err }

// A dialer of the program's own that never returns is not called again and again: each call keeps a goroutine for ever.
func TestADialerThatHangsIsNotCalledWithoutEnd(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(o *aside.Options, hang func()){
		"DialCtxFn": func(o *aside.Options, hang func()) {
			o.Redis.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
				hang()
				return nil, errors.New("at last")
			}
		},
		"DialFn": func(o *aside.Options, hang func()) {
			o.Redis.DialFn = func(string, *net.Dialer, *tls.Config) (net.Conn, error) {
				hang()
				return nil, errors.New("at last")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := asidetest.At("192.0.2.1:6379")
			o.Redis.Dialer.Timeout = 10 * time.Millisecond
			over := make(chan struct{})
			defer close(over)
			var hanging atomic.Int64
			set(&o, func() { hanging.Add(1); <-over })
			asidetest.NewCache(t, o)
			asidetest.Eventually(t, "several calls hang", func() bool { return hanging.Load() == 3 })
			require.Never(t, func() bool { return hanging.Load() > 3 }, 2*time.Second, 10*time.Millisecond)
		})
	}
}

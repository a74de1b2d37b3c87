package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = time.Minute // the time limit of flights, where a test is not about it

type (
	group = Group[string, int]
	call  = Call[string, int]
)

// A result is what one caller got, and when.
type result struct {
	val int
	err error
	at  time.Time
}

// wait waits for c in a goroutine.
func wait(ctx context.Context, c *call) <-chan result {
	got := make(chan result, 1)
	go func() {
		val, err := c.Wait(ctx)
		got <- result{val, err, time.Now()}
	}()
	return got
}

// lead joins keys that nobody loads yet.
func lead(t testing.TB, g *group, keys ...string) []*call {
	t.Helper()
	calls := make([]*call, len(keys))
	for i, key := range keys {
		c, leads := g.Join(key)
		require.True(t, leads, "a load of %q is under way", key)
		calls[i] = c
	}
	return calls
}

// follow joins a load that is under way.
func follow(t testing.TB, g *group, key string) *call {
	t.Helper()
	c, leads := g.Join(key)
	require.False(t, leads, "no load of %q is under way", key)
	return c
}

// leadNew begins a load, whatever is under way.
func leadNew(t testing.TB, g *group, key string) *call {
	t.Helper()
	c, leads := g.JoinNew(key)
	require.True(t, leads)
	return c
}

type condition func() bool

func (c condition) Joinable() bool { return c() }

// lower lets nobody join the call any more, as a change of its key does.
func lower[K comparable, V any](c *Call[K, V]) { c.JoinWhile(condition(func() bool { return false })) }

// get is how a caller uses the group for one key.
func get(ctx context.Context, g *group, key string, load func(context.Context) (int, error)) (int, error) {
	c, leads := g.Join(key)
	if leads {
		g.Run(ctx, limit, func(ctx context.Context) { c.Resolve(load(ctx)) }, c)
	}
	return c.Wait(ctx)
}

// works states that key can be loaded, and that this is a load of its own.
func works(t testing.TB, g *group, key string) {
	t.Helper()
	val, err := get(t.Context(), g, key, func(context.Context) (int, error) { return 4711, nil })
	require.NoError(t, err)
	require.Equal(t, 4711, val)
}

// empty states that the group remembers nothing.
func empty(t testing.TB, g *group) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	require.Empty(t, g.calls)
	require.Empty(t, g.flights)
}

func TestAThousandCallersShareOneLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		var runs atomic.Int64
		release := make(chan struct{})
		got := make(chan result, 1000)
		for range cap(got) {
			go func() {
				val, err := get(t.Context(), &g, "k", func(context.Context) (int, error) {
					runs.Add(1)
					<-release
					return 42, nil
				})
				got <- result{val: val, err: err}
			}()
		}
		synctest.Wait()
		require.EqualValues(t, 1, runs.Load())
		require.Empty(t, got)
		close(release)
		for range cap(got) {
			require.Equal(t, result{val: 42}, <-got)
		}
		synctest.Wait()
		require.EqualValues(t, 1, runs.Load())
		empty(t, &g)
		works(t, &g, "k")
	})
}

func TestKeysAreLoadedApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		release := make(chan struct{})
		a := lead(t, &g, "a")
		g.Run(t.Context(), limit, func(context.Context) { <-release; a[0].Resolve(1, nil) }, a...)
		works(t, &g, "b")
		close(release)
		val, err := a[0].Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, val)
	})
}

type ctxKey struct{}

func TestTheFirstCallersCancellationDoesNotEndTheLoadOfTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		first, cancel := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, "first"), time.Second)
		c := lead(t, &g, "k")[0]
		var seen context.Context
		release := make(chan struct{})
		start := time.Now()
		g.Run(first, limit, func(ctx context.Context) {
			seen = ctx
			<-release
			c.Resolve(42, ctx.Err())
		}, c)
		leader := wait(first, c)
		follower := wait(t.Context(), follow(t, &g, "k"))
		cancel()
		require.ErrorIs(t, (<-leader).err, context.Canceled)

		synctest.Wait()
		require.NoError(t, seen.Err(), "the follower still waits")
		require.Equal(t, "first", seen.Value(ctxKey{}))
		deadline, ok := seen.Deadline()
		require.True(t, ok)
		require.Equal(t, limit, deadline.Sub(start), "the flight's limit, not the first caller's")
		latecomer := wait(t.Context(), follow(t, &g, "k"))
		close(release)
		for _, got := range []<-chan result{follower, latecomer} {
			r := <-got
			require.NoError(t, r.err)
			require.Equal(t, 42, r.val)
		}
	})
}

func TestTheLoadIsCancelledWhenTheLastCallerLeaves(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				c := lead(t, &g, "k")[0]
				var seen context.Context
				release := make(chan struct{})
				late := make(chan bool, 1)
				g.Run(t.Context(), limit, func(ctx context.Context) {
					seen = ctx
					<-release // deaf to the cancellation
					late <- c.Resolve(1, nil)
				}, c)

				var cancels [3]context.CancelFunc
				var got [3]<-chan result
				for i, joined := range []*call{c, follow(t, &g, "k"), follow(t, &g, "k")} {
					ctx, cancel := context.WithCancel(t.Context())
					cancels[i], got[i] = cancel, wait(ctx, joined)
				}
				for _, i := range order {
					synctest.Wait()
					require.NoError(t, seen.Err(), "somebody still waits")
					cancels[i]()
					require.ErrorIs(t, (<-got[i]).err, context.Canceled)
				}
				require.ErrorIs(t, seen.Err(), context.Canceled)
				require.NotErrorIs(t, context.Cause(seen), ErrTimeout)

				// Whoever comes now does not join the load that is doomed, nor does its end touch theirs.
				next := lead(t, &g, "k")[0]
				nextRelease := make(chan struct{})
				g.Run(t.Context(), limit, func(ctx context.Context) { <-nextRelease; next.Resolve(2, ctx.Err()) }, next)
				close(release)
				require.True(t, <-late)
				synctest.Wait()
				joined := wait(t.Context(), follow(t, &g, "k"))
				close(nextRelease)
				val, err := next.Wait(t.Context())
				require.NoError(t, err)
				require.Equal(t, 2, val)
				require.Equal(t, 2, (<-joined).val)
				synctest.Wait()
				empty(t, &g)
			})
		})
	}
}

func TestACallerWaitsNoLongerThanItsOwnContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		c := lead(t, &g, "k")[0]
		start := time.Now()
		g.Run(t.Context(), limit, func(context.Context) { time.Sleep(time.Second); c.Resolve(42, nil) }, c)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		leader := wait(t.Context(), c)
		hurried := <-wait(ctx, follow(t, &g, "k"))
		require.ErrorIs(t, hurried.err, context.DeadlineExceeded)
		require.Zero(t, hurried.val)
		require.Equal(t, 10*time.Millisecond, hurried.at.Sub(start))
		patient := <-leader
		require.NoError(t, patient.err)
		require.Equal(t, 42, patient.val)
		require.Equal(t, time.Second, patient.at.Sub(start))
	})
}

func TestAResultThatIsThereIsReturnedUnderAnEndedContextToo(t *testing.T) {
	t.Parallel()
	var g group
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	release := make(chan struct{})
	c := lead(t, &g, "k")[0]
	g.Run(t.Context(), limit, func(context.Context) { c.Resolve(42, nil); <-release }, c)
	val, err := c.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 42, val)
	for range 100 { // a select between the two would choose at random
		val, err := follow(t, &g, "k").Wait(ended)
		require.NoError(t, err)
		require.Equal(t, 42, val)
	}
	close(release)
	require.NoError(t, g.Close(t.Context(), errors.New("closed")))
}

func explode(with any) { panic(with) }

func TestALoadThatEndsWithoutAResultEndsEverybodysWait(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fn    func(context.Context)
		check func(t *testing.T, err error)
	}{
		"panic": {func(context.Context) { explode("boom") }, func(t *testing.T, err error) {
			var p *PanicError
			require.ErrorAs(t, err, &p)
			require.Equal(t, "boom", p.Value)
			require.Contains(t, string(p.Stack), "flight.explode(", "the stack is that of the panic")
			require.Contains(t, err.Error(), "boom")
			require.NotContains(t, err.Error(), "flight.explode")
			require.NoError(t, errors.Unwrap(err))
		}},
		"panic with an error": {func(context.Context) { explode(fmt.Errorf("read: %w", io.ErrUnexpectedEOF)) }, func(t *testing.T, err error) {
			var p *PanicError
			require.ErrorAs(t, err, &p)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}},
		"panic(nil)": {func(context.Context) { explode(nil) }, func(t *testing.T, err error) {
			var p *PanicError
			require.ErrorAs(t, err, &p)
			var nilPanic *runtime.PanicNilError
			require.ErrorAs(t, err, &nilPanic)
		}},
		"runtime error": {func(context.Context) { clear(*(*[]int)(nil)) }, func(t *testing.T, err error) {
			var re runtime.Error
			require.ErrorAs(t, err, &re)
		}},
		"Goexit": {func(context.Context) { runtime.Goexit() }, func(t *testing.T, err error) {
			require.Equal(t, ErrGoexit, err)
		}},
		"Goexit during a panic": {func(context.Context) {
			defer runtime.Goexit()
			explode("boom")
		}, func(t *testing.T, err error) {
			require.Error(t, err)
		}},
		"forgotten": {func(context.Context) {}, func(t *testing.T, err error) {
			require.Equal(t, ErrUnresolved, err)
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				release := make(chan struct{})
				calls := lead(t, &g, "k", "other", "resolved")
				g.Run(t.Context(), limit, func(ctx context.Context) {
					calls[2].Resolve(42, nil)
					<-release
					test.fn(ctx)
				}, calls...)
				got := []<-chan result{wait(t.Context(), calls[0]), wait(t.Context(), calls[1]), wait(t.Context(), follow(t, &g, "k"))}
				close(release)
				for _, g := range got {
					r := <-g
					require.Zero(t, r.val)
					test.check(t, r.err)
				}
				val, err := calls[2].Wait(t.Context())
				require.NoError(t, err, "what was resolved before stays so")
				require.Equal(t, 42, val)
				synctest.Wait()
				empty(t, &g)
				for _, key := range []string{"k", "other", "resolved"} {
					works(t, &g, key)
				}
			})
		})
	}
}

func TestALoadThatOutlivesItsLimitIsGivenUpForEverybody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		calls := lead(t, &g, "k", "other", "resolved")
		start := time.Now()
		release := make(chan struct{})
		late := make(chan bool, 1)
		var seen context.Context
		g.Run(t.Context(), 3*time.Second, func(ctx context.Context) {
			seen = ctx
			calls[2].Resolve(42, nil)
			<-release // deaf to its context
			late <- calls[0].Resolve(1, nil)
		}, calls...)
		got := []<-chan result{wait(t.Context(), calls[0]), wait(t.Context(), calls[1])}
		time.Sleep(2 * time.Second)
		got = append(got, wait(t.Context(), follow(t, &g, "k"))) // who joins late gets no longer than the others
		for _, g := range got {
			r := <-g
			require.Equal(t, ErrTimeout, r.err)
			require.Zero(t, r.val)
			require.Equal(t, 3*time.Second, r.at.Sub(start))
		}
		require.ErrorIs(t, seen.Err(), context.DeadlineExceeded)
		require.Equal(t, ErrTimeout, context.Cause(seen))
		val, err := calls[2].Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 42, val)

		empty(t, &g)
		next := lead(t, &g, "k")[0]
		g.Run(t.Context(), limit, func(context.Context) { time.Sleep(time.Second); next.Resolve(2, nil) }, next)
		close(release)
		require.False(t, <-late, "the late result is refused")
		synctest.Wait()
		joined := follow(t, &g, "k") // the end of the late load did not touch the next one
		val, err = joined.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, val)
		_, err = calls[0].Wait(t.Context())
		require.Equal(t, ErrTimeout, err)
	})
}

func TestAFlightWithoutAnyTimeEndsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		for _, timeout := range []time.Duration{0, -time.Second} {
			c := lead(t, &g, "k")[0]
			start := time.Now()
			g.Run(t.Context(), timeout, func(ctx context.Context) { time.Sleep(time.Second); c.Resolve(1, nil) }, c)
			r := <-wait(t.Context(), c)
			require.Equal(t, ErrTimeout, r.err)
			require.Equal(t, start, r.at)
			time.Sleep(time.Second)
			synctest.Wait()
			empty(t, &g)
		}
	})
}

func TestTheContextOfALoadEndsWithIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		var seen context.Context
		val, err := get(t.Context(), &g, "k", func(ctx context.Context) (int, error) {
			seen = ctx
			return 1, nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, val)
		synctest.Wait()
		require.ErrorIs(t, seen.Err(), context.Canceled)
		require.NotErrorIs(t, context.Cause(seen), ErrTimeout)
	})
}

func TestAnErrorIsNotJoinedAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		c := lead(t, &g, "k")[0]
		release := make(chan struct{})
		g.Run(t.Context(), limit, func(context.Context) {
			c.Resolve(0, io.EOF)
			<-release
		}, c)
		_, err := c.Wait(t.Context())
		require.Equal(t, io.EOF, err)
		_, ok := g.Peek("k")
		require.False(t, ok)
		works(t, &g, "k")
		close(release)
	})
}

var errClosed = errors.New("closed")

func TestALoadMayUseTheGroupItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		outer := lead(t, &g, "outer")[0]
		g.Run(t.Context(), limit, func(ctx context.Context) {
			lower(outer)
			inner, err := get(ctx, &g, "outer", func(ctx context.Context) (int, error) {
				return get(ctx, &g, "inner", func(context.Context) (int, error) { return 1, nil })
			})
			outer.Resolve(inner+1, err)
		}, outer)
		val, err := outer.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, val)
	})
}

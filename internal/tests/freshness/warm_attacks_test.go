package freshness_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// endless are the ids from 0 without an end.
func endless(yield func(int) bool) {
	for id := 0; yield(id); id++ {
	}
}

// follow reads what a warmer prints, until it has seen so many ids or has ended. It returns how many ids it has begun to load.
func follow(t *testing.T, p *redistest.Subprocess, upTo int) (loads int, last string) {
	t.Helper()
	for {
		line, err := p.Line()
		if err == io.EOF {
			return loads, last
		}
		require.NoError(t, err)
		what, number, _ := strings.Cut(line, " ")
		n, _ := strconv.Atoi(number)
		switch last = line; {
		case what == "load":
			loads += n
		case what == "seen" && n >= upTo:
			return loads, last
		}
	}
}

func TestAWarmOfAKilledProcessIsResumedByAnother(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const ids, inFlight = 10_000, 100 * 4
	cutOff := 1 // how often
	first := redistest.Spawn(t, "warmer", "ADDR="+server.Addr(), "IDS="+strconv.Itoa(ids), "NAME=items")
	loads, _ := follow(t, first, ids/2)
	first.Kill()
	rest, last := follow(t, first, ids+1) // what it has printed before it was killed
	require.NotContains(t, last, "done")
	loads += rest
	for killed := time.Now(); ; {
		p := redistest.Spawn(t, "warmer", "ADDR="+server.Addr(), "IDS="+strconv.Itoa(ids), "NAME=items")
		more, last := follow(t, p, ids+1)
		require.NoError(t, p.Wait())
		loads += more
		if last == fmt.Sprintf("done %d 0 false", ids) {
			break
		}
		if last == "lost" { // on a busy machine it was too late to renew its lease
			cutOff++
			continue
		}
		require.Equal(t, "done 0 0 true", last, "the dead process holds the name")
		require.Less(t, time.Since(killed), asidetest.Bound, "LeaseTTL is over")
	}
	require.LessOrEqual(t, loads, ids+cutOff*inFlight, "and those that were in flight")
	require.GreaterOrEqual(t, loads, ids)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	src := new(table)
	warmed, err := aside.Warm(t.Context(), c, upTo(ids), itemKey, src.load, aside.Warming{})
	require.NoError(t, err)
	require.Equal(t, ids, warmed.Fresh)
	require.Zero(t, src.loads.Load())
}

func TestNothingFromBeforeAnInvalidationIsWarmed(t *testing.T) {
	t.Parallel()
	keys := func() (all []aside.Key) {
		for id := range upTo(20) {
			all = append(all, itemKey(id))
		}
		return all
	}()
	for how, invalidate := range map[string]func(context.Context, *aside.Cache) (aside.Receipt, error){
		"key": func(ctx context.Context, c *aside.Cache) (aside.Receipt, error) { return c.Invalidate(ctx, keys...) },
		"category": func(ctx context.Context, c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidateCategory(ctx, "items")
		},
		"pattern": func(ctx context.Context, c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard))
		},
		"tag": func(ctx context.Context, c *aside.Cache) (aside.Receipt, error) {
			return c.InvalidateTags(ctx, "warmed")
		},
		"all": func(ctx context.Context, c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(ctx) },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
				c, other := newCache(aside.Options{}), newCache(aside.Options{})
				if c.Health().State == aside.StateMemory {
					other = c
				}
				var version atomic.Int64
				reading, release := make(chan struct{}, 100), make(chan struct{})
				load := func(ctx context.Context, ids []int) (map[int]int64, error) {
					aside.CurrentLoad(ctx).Tag("warmed")
					values, v := make(map[int]int64), version.Load()
					for _, id := range ids {
						values[id] = v
					}
					reading <- struct{}{}
					<-release
					return values, nil
				}
				done := warm(t.Context(), c, 20, load, aside.Warming{Batch: 10})
				<-reading
				<-reading
				version.Store(1)
				receipt, err := invalidate(t.Context(), other)
				require.NoError(t, err)
				require.NoError(t, receipt.Wait(t.Context()))
				close(release)
				got := <-done
				require.NoError(t, got.err)
				require.Equal(t, 20, got.Loaded+got.Failed)
				for id := range upTo(20) {
					for _, at := range []*aside.Cache{c, other} {
						v, err := aside.Get[int64](t.Context(), at, itemKey(id))
						if got.Failed == 0 {
							require.NoError(t, err, "loaded means stored")
						}
						if !errors.Is(err, aside.ErrMiss) {
							require.NoError(t, err)
							require.EqualValues(t, 1, v, "from before the invalidation")
						}
					}
				}
			})
		})
	}
}

// Loads that were under way when Redis went away are not stored, so they are done again.
func TestAWarmDuringWhichRedisGoesAwayIsComplete(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	src := new(table)
	var once sync.Once
	load := func(ctx context.Context, ids []int) (map[int]string, error) {
		if slices.Contains(ids, 55) {
			once.Do(func() {
				proxy.Refuse(true)
				proxy.CloseConnections()
				asidetest.Eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })
			})
		}
		return src.load(ctx, ids)
	}
	done := warm(t.Context(), c, 195, load, aside.Warming{Batch: 10, AtOnce: 3})
	asidetest.Eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })
	proxy.Refuse(false)
	got := <-done
	require.NoError(t, got.err)
	require.Equal(t, 195, got.Seen)
	require.Zero(t, got.Failed)
	require.LessOrEqual(t, src.loads.Load(), int64(195+2*3*10))
	other := asidetest.Connected(t, asidetest.At(server.Addr()))
	again, err := aside.Warm(t.Context(), other, upTo(195), itemKey, src.load, aside.Warming{})
	require.NoError(t, err)
	require.Equal(t, 195, again.Fresh, "what counts as loaded is in Redis")
}

// isQuestion reports whether a command reads what Redis has of an id, and is no trial of a new connection.
func isQuestion(args []string) bool {
	return args[0] == "GETRANGE" && strings.HasPrefix(args[1], "items:") && args[2] == "0"
}

// What Redis has is asked until Redis answers: connections break before a cache sees that Redis is unavailable, and again and again.
func TestAWarmLoadsNothingBeforeRedisAnswers(t *testing.T) {
	t.Parallel()
	for _, loaded := range []bool{false, true} { // whether it asks before the loads, or behind them, what is stored
		t.Run(fmt.Sprint("loaded ", loaded), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
			src, began := new(table), make(chan *redistest.Gate, 1)
			load := func(ctx context.Context, ids []int) (map[int]string, error) {
				if loaded && src.loads.Load() == 0 {
					began <- proxy.HoldRequests(isQuestion)
				}
				return src.load(ctx, ids)
			}
			if !loaded {
				began <- proxy.HoldRequests(isQuestion)
			}
			done := warm(t.Context(), c, 10, load, aside.Warming{})
			questions := <-began
			for range 10 { // more than it asks a server that does not answer in time
				questions.Wait(t)
				proxy.CloseConnections()
				proxy.Await(t, "nothing is held", func() bool { return questions.Held() == 0 })
			}
			if !loaded {
				require.Zero(t, src.loads.Load())
			}
			questions.Release()
			got := <-done
			require.NoError(t, got.err)
			require.Equal(t, 10, got.Loaded+got.NotFound)
			require.EqualValues(t, 10, src.loads.Load())
		})
	}
}

// A server that counts as available, and answers no such question in time, may still take values.
func TestAWarmLoadsWhatRedisDoesNotReadInTime(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.OpTimeout = 50 * time.Millisecond
	c := asidetest.Connected(t, o)
	var asked atomic.Int64
	questions := proxy.HoldRequests(func(args []string) bool {
		if isQuestion(args) {
			asked.Add(1)
		}
		return isQuestion(args)
	})
	src := new(table)
	load := func(ctx context.Context, ids []int) (map[int]string, error) {
		questions.Release()
		return src.load(ctx, ids)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second) // it waits twice for some seconds
	defer cancel()
	got := <-warm(ctx, c, 1, load, aside.Warming{})
	require.NoError(t, got.err)
	require.Equal(t, 1, got.Loaded+got.NotFound)
	require.GreaterOrEqual(t, asked.Load(), int64(2))
}

// Whose context ends, or whose cache is closed, while Redis does not answer wants no loads any more.
func TestAWarmThatEndsWhileItAsksLoadsNothing(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, server *redistest.Server, c *aside.Cache, cancel context.CancelFunc){
		"context": func(_ *testing.T, _ *redistest.Server, _ *aside.Cache, cancel context.CancelFunc) { cancel() },
		"closed":  func(_ *testing.T, _ *redistest.Server, c *aside.Cache, _ context.CancelFunc) { c.Close() },
		"lease": func(t *testing.T, server *redistest.Server, _ *aside.Cache, _ context.CancelFunc) {
			leases, _ := server.MustDo(t, "KEYS", "*%w:name*").([]any)
			require.Len(t, leases, 1)
			server.MustDo(t, "DEL", leases[0].(string))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			o := asidetest.At(proxy.Addr())
			o.LeaseTTL = 2 * time.Second
			c := asidetest.Connected(t, o)
			src := new(table)
			_, err := aside.Warm(t.Context(), c, upTo(1), itemKey, src.load, aside.Warming{}) // connects to where large replies come from
			require.NoError(t, err)
			before := src.loads.Load()
			questions := proxy.HoldRequests(isQuestion)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := warm(ctx, c, 1000, src.load, aside.Warming{Name: "name"})
			questions.Wait(t)
			end(t, server, c, cancel)
			require.Error(t, (<-done).err)
			questions.Release()
			c.Close() // waits for loads
			require.Equal(t, before, src.loads.Load())
		})
	}
}

func TestAWarmingThatLosesItsNameEnds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.LeaseTTL = 2 * time.Second
	c := asidetest.Connected(t, o)
	src := new(table)
	began := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := aside.Warm(t.Context(), c, endless, itemKey, src.load, aside.Warming{Name: "items", Progress: func(w aside.Warmed) {
			if w.Seen == 100 {
				close(began)
			}
		}})
		done <- err
	}()
	<-began
	leases := server.MustDo(t, "KEYS", "{%w:items}!*").([]any)
	require.Len(t, leases, 1)
	server.MustDo(t, "SET", leases[0].(string), "another process", "PX", "60000")
	err := <-done
	asidetest.RequireCode(t, err, aside.CodeUnavailable, "another process", "items")
	require.Equal(t, "another process", server.MustDo(t, "GET", leases[0].(string)))
}

// warmedByALostReply is a warming of ten ids whose request for its name is answered, and the reply is lost.
func warmedByALostReply(t *testing.T, server *redistest.Server, w aside.Warming) (warmed aside.Warmed) {
	t.Helper()
	proxy := redistest.StartProxy(t, server.Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	gate := proxy.HoldReplies(func(args []string) bool {
		return slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, "%w:items") })
	})
	done := make(chan error, 1)
	go func() {
		var err error
		warmed, err = aside.Warm(t.Context(), c, upTo(10), itemKey, new(table).load, w)
		done <- err
	}()
	gate.Wait(t)
	proxy.CloseConnections()
	gate.Release()
	require.NoError(t, <-done)
	return warmed
}

func TestALostReplyToTheRequestForANameIsNotAnotherProcess(t *testing.T) {
	t.Parallel()
	got := warmedByALostReply(t, redistest.Start(t), aside.Warming{Name: "items"})
	require.False(t, got.Elsewhere)
	require.Equal(t, 10, got.Seen)
}

func TestALostReplyToTheRequestForANameDoesNotWarmAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := aside.Warming{Name: "items", Every: time.Hour}
	_, err := aside.Warm(t.Context(), asidetest.Connected(t, asidetest.At(server.Addr())), upTo(10), itemKey, new(table).load, w)
	require.NoError(t, err)
	got := warmedByALostReply(t, server, w)
	require.True(t, got.Elsewhere, "another has warmed within the hour")
	require.Zero(t, got.Seen)
	require.Empty(t, server.MustDo(t, "KEYS", "*!l"))
}

func TestAnIDThatIsThereTwiceIsLoadedOnce(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		src := new(table)
		twice := func(yield func(int) bool) {
			for i := range 30 {
				if !yield(i / 3) {
					return
				}
			}
		}
		warmed, err := aside.Warm(t.Context(), c, twice, itemKey, src.load, aside.Warming{Batch: 10})
		require.NoError(t, err)
		require.Equal(t, 30, warmed.Seen)
		require.Equal(t, 30, warmed.Fresh+warmed.Loaded+warmed.NotFound)
		for id := range upTo(10) {
			require.Equal(t, 1, src.asked[id], id)
		}
	})
}

func TestTheEndOfTheContextEndsAnEndlessWarm(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		ids := func(yield func(int) bool) {
			for ; yield(asked); asked++ {
				if asked == 5 {
					cancel()
				}
			}
		}
		_, err := aside.Warm(ctx, c, ids, itemKey, new(table).load, aside.Warming{Batch: 1 << 20, Name: "items"})
		require.ErrorIs(t, err, context.Canceled)
		require.Less(t, asked, 10)
		asked = 10
		_, err = aside.Warm(ctx, c, ids, itemKey, new(table).load, aside.Warming{Batch: 1 << 20})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 10, asked, "it does not begin")
	})
}

func TestAPanicLeavesTheNameOfAWarmingToOthers(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{LeaseTTL: 10 * asidetest.Bound})
		src := new(table)
		free := func(name string) {
			asidetest.Eventually(t, "the name is free", func() bool {
				again, err := aside.Warm(t.Context(), c, upTo(0), itemKey, src.load, aside.Warming{Name: name})
				require.NoError(t, err)
				return !again.Elsewhere
			})
		}
		bug := aside.Warming{Name: "progress", Every: time.Hour, Progress: func(aside.Warmed) { panic("a bug") }}
		require.PanicsWithValue(t, "a bug", func() { _, _ = aside.Warm(t.Context(), c, upTo(10), itemKey, src.load, bug) })
		free("progress")
		require.PanicsWithValue(t, "a bug", func() {
			_, _ = aside.Warm(t.Context(), c, upTo(10), func(int) aside.Key { panic("a bug") }, src.load, aside.Warming{Name: "key"})
		})
		free("key")
		began := make(chan struct{})
		var running atomic.Int64
		key := func(id int) aside.Key {
			if id == 101 {
				running.Add(1)
				defer running.Add(-1)
				close(began)
				time.Sleep(10 * time.Millisecond) // on another goroutine than ids
			}
			return itemKey(id)
		}
		require.PanicsWithValue(t, "a bug", func() {
			_, _ = aside.Warm(t.Context(), c, func(yield func(int) bool) {
				yield(101)
				<-began
				panic("a bug")
			}, key, src.load, aside.Warming{Name: "ids", Batch: 1})
		})
		require.Zero(t, running.Load(), "Warm returns when its batches have")
		free("ids")
	})
}

func TestALoaderThatPanicsFailsItsIDs(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		warmed, err := aside.Warm(t.Context(), c, upTo(30), itemKey, func(_ context.Context, ids []int) (map[int]string, error) {
			if ids[0] == 10 {
				panic("a bug")
			}
			return map[int]string{}, nil
		}, aside.Warming{Batch: 10})
		require.NoError(t, err)
		warmed.Took = 0
		require.Equal(t, aside.Warmed{Seen: 30, NotFound: 20, Failed: 10}, warmed)
	})
}

func TestAWarmingWithFailuresIsDoneAgainBeforeEvery(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		w := aside.Warming{Name: "items", Every: time.Hour}
		warmed, err := aside.Warm(t.Context(), c, upTo(10), itemKey, func(context.Context, []int) (map[int]string, error) {
			return nil, errors.New("the source is down")
		}, w)
		require.NoError(t, err)
		require.Equal(t, 10, warmed.Failed)
		asidetest.Eventually(t, "the next one begins", func() bool {
			warmed, err = aside.Warm(t.Context(), c, upTo(10), itemKey, new(table).load, w)
			require.NoError(t, err)
			return !warmed.Elsewhere
		})
		require.Zero(t, warmed.Failed)
		warmed, err = aside.Warm(t.Context(), c, upTo(10), itemKey, new(table).load, w)
		require.NoError(t, err)
		require.True(t, warmed.Elsewhere)
	})
}

func TestCloseEndsAWarm(t *testing.T) {
	t.Parallel()
	for what, w := range map[string]aside.Warming{"without a name": {}, "with a name": {Name: "items"}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
				var log asidetest.Logbook
				c := newCache(aside.Options{Logger: log.Logger()})
				began, closed := make(chan struct{}), make(chan struct{})
				done := make(chan error, 1)
				go func() {
					_, err := aside.Warm(t.Context(), c, func(yield func(int) bool) {
						yield(1)
						close(began)
						<-closed // the program's source of ids hangs
					}, itemKey, new(table).load, w)
					done <- err
				}()
				<-began
				require.NoError(t, c.Close())
				close(closed)
				require.ErrorIs(t, <-done, aside.ErrClosed)
				require.NotContains(t, log.String(), "gave up")
			})
		})
	}
	t.Run("from Progress", func(t *testing.T) {
		t.Parallel()
		asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
			var log asidetest.Logbook
			c := newCache(aside.Options{Logger: log.Logger()})
			_, err := aside.Warm(t.Context(), c, endless, itemKey, new(table).load, aside.Warming{Name: "items", Progress: func(aside.Warmed) { _ = c.Close() }})
			require.ErrorIs(t, err, aside.ErrClosed)
			require.NotContains(t, log.String(), "gave up")
		})
	})
	t.Run("in the last batch", func(t *testing.T) {
		t.Parallel()
		c := asidetest.NewCache(t, aside.Options{})
		began := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := aside.Warm(t.Context(), c, upTo(1), itemKey, func(ctx context.Context, _ []int) (map[int]string, error) {
				close(began)
				<-ctx.Done()
				return nil, ctx.Err()
			}, aside.Warming{})
			done <- err
		}()
		<-began
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-done, aside.ErrClosed)
	})
}

func TestAWarmInsideOfALoadOfItsIDIsReentrant(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		_, err := aside.GetOrLoad(t.Context(), c, itemKey(3), func(ctx context.Context) (string, error) {
			_, err := aside.Warm(ctx, c, upTo(10), itemKey, new(table).load, aside.Warming{})
			return "", err
		})
		asidetest.RequireCode(t, err, aside.CodeReentrant)
	})
}

func TestNamesOfWarmingsAreApartInNamespaces(t *testing.T) {
	t.Parallel()
	if asidetest.AsUser {
		t.Skip("the user of the rules has no namespace")
	}
	server := redistest.Start(t)
	w := aside.Warming{Name: "items", Every: time.Hour}
	for _, namespace := range []string{"", "shop", "blog"} {
		o := asidetest.At(server.Addr())
		o.Namespace = namespace
		c := asidetest.Connected(t, o)
		for _, elsewhere := range []bool{false, true} {
			warmed, err := aside.Warm(t.Context(), c, upTo(10), itemKey, new(table).load, w)
			require.NoError(t, err)
			require.Equal(t, elsewhere, warmed.Elsewhere, namespace)
		}
	}
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "shop%:%w:items"))
}

// docs/warming.md has these figures.
func TestTheCommandsOfAWarming(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	load := func(_ context.Context, ids []int) (map[int]string, error) {
		values := make(map[int]string)
		for _, id := range ids {
			values[id] = "value"
		}
		return values, nil
	}
	commands := func(first, last int) (n int) {
		t.Helper()
		before := len(proxy.Log())
		_, err := aside.Warm(t.Context(), c, func(yield func(int) bool) {
			for id := first; id < last && yield(id); id++ {
			}
		}, itemKey, load, aside.Warming{AtOnce: 1})
		require.NoError(t, err)
		counts := map[string]int{}
		for _, args := range proxy.Log()[before:] {
			if args[0] != "PING" {
				n++
				counts[args[0]]++
			}
		}
		t.Log(first, last, counts)
		return n
	}
	commands(0, 100) // the first one loads the scripts
	next := 0
	asidetest.Repeatedly(t, "the machine does not stall: each second the connection is probed", func() bool {
		next += 100
		began := time.Now()
		loads, hits := commands(next, next+100), commands(0, 100)
		if time.Since(began) > 2*time.Second {
			return false
		}
		require.InDelta(t, 820, loads, 40, "a batch that is not cached")
		require.InDelta(t, 100, hits, 40, "a batch that is cached")
		return true
	})
}

// Every is about time alone: an operator who empties the cache and warms it gives no Every.
func TestEveryDoesNotHeedInvalidations(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		w := aside.Warming{Name: "items", Every: time.Hour}
		_, err := aside.Warm(t.Context(), c, upTo(10), itemKey, new(table).load, w)
		require.NoError(t, err)
		receipt, err := c.InvalidateAll(t.Context())
		require.NoError(t, err)
		_, err = receipt.WaitCleanup(t.Context())
		require.NoError(t, err)
		warmed, err := aside.Warm(t.Context(), c, upTo(10), itemKey, new(table).load, w)
		require.NoError(t, err)
		require.True(t, warmed.Elsewhere)
		for info, err := range c.Keys(t.Context(), aside.Pattern{}) {
			require.NoError(t, err)
			require.NotContains(t, info.Key, "%w")
		}
	})
}

package asideotel_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	otrace "go.opentelemetry.io/otel/trace"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideotel"
)

// Three callers share one load: it is a child of the first one's call, the others have links to it, and the loader's own span is below it.
func TestTheSpansOfASharedLoad(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{})
	release := make(chan struct{})
	load := func(ctx context.Context) (string, error) {
		_, span := c.tracer.Start(ctx, "db")
		defer span.End()
		<-release
		return "v", nil
	}
	var callers sync.WaitGroup
	for i, name := range []string{"first", "second", "third"} {
		callers.Go(func() {
			c.within(name, func(ctx context.Context) {
				_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), load)
				require.NoError(t, err)
			})
		})
		eventually(t, "the calls have begun", func() bool { return len(c.spans.Started()) >= 4+2*i })
	}
	close(release)
	callers.Wait()
	calls := c.named(t, "aside.call models-label", 3)
	loaded, db := c.one(t, "aside.load models-label"), c.one(t, "db")
	requireChild(t, db, loaded)
	require.Len(t, c.spans.Ended(), 8, "one span a call, one a load, and nothing else")
	leaders := 0
	for _, call := range calls {
		if call.SpanContext().SpanID() == loaded.Parent().SpanID() {
			requireChild(t, call, c.one(t, "first"))
			requireLinks(t, call)
			leaders++
			continue
		}
		requireLinks(t, call, loaded)
	}
	require.Equal(t, 1, leaders)
	require.Equal(t, "3", attributes(loaded)["aside.waiters"])
	require.Equal(t, otrace.SpanKindInternal, calls[0].SpanKind())
}

func TestAttributesOfACallAndItsLoad(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{})
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), value("v"))
		require.NoError(t, err)
	})
	call := attributes(c.one(t, "aside.call models-label"))
	require.Regexp(t, `^3(600000|5[0-9]{5})$`, call["aside.ttl_ms"], "an hour, less what the call took")
	delete(call, "aside.ttl_ms")
	delete(call, "aside.age_ms")
	require.Equal(t, map[string]string{
		"aside.policy": "models-name", "aside.label": "models-label", "aside.status": "miss", "aside.tier": "origin", "aside.cause": "absent", "cache.hit": "false",
	}, call)
	require.Equal(t, map[string]string{
		"aside.policy": "models-name", "aside.label": "models-label", "aside.outcome": "ok", "aside.waiters": "1",
	}, attributes(c.one(t, "aside.load models-label")))
}

func TestAHitInMemoryHasNoSpan(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{RootSpans: true})
	for range 10 {
		_, err := aside.GetOrLoad(context.Background(), c.Cache, models.Key("a"), value("v"))
		require.NoError(t, err)
	}
	require.Len(t, c.spans.Ended(), 2, "the first call, and its load")
}

func TestAShareOfTheHitsInMemoryHasSpans(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{MemoryHits: 1})
	c.within("program", func(ctx context.Context) {
		for range 3 {
			_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), value("v"))
			require.NoError(t, err)
		}
	})
	hits := c.named(t, "aside.call models-label", 3)[1:]
	for _, hit := range hits {
		requireChild(t, hit, c.one(t, "program"))
		require.Equal(t, "true", attributes(hit)["cache.hit"])
		require.Equal(t, "memory", attributes(hit)["aside.tier"])
	}
	_, err := aside.New(aside.Options{Observer: asideotel.Observer(asideotel.Options{MemoryHits: 2})})
	require.ErrorContains(t, err, "MemoryHits")
}

// Only loads that have failed have the status Error, and no span has the text of an error or a key.
func TestHowFailuresShow(t *testing.T) {
	t.Parallel()
	p := models
	p.LoadTimeout, p.LoadGrace = 50*time.Millisecond, -1
	for name, test := range map[string]struct {
		load             func(context.Context) (string, error)
		outcome, errType string // of the load
		callType         string
		failed           bool
	}{
		"error":     {func(context.Context) (string, error) { return "", errors.New("secret") }, "error", "*errors.errorString", "*errors.errorString", true},
		"panic":     {func(context.Context) (string, error) { panic("secret") }, "panic", "loader_panic", "loader_panic", true},
		"goexit":    {func(context.Context) (string, error) { runtime.Goexit(); return "", nil }, "panic", "loader_exit", "loader_exit", true},
		"timeout":   {func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }, "timeout", "load_timeout", "load_timeout", true},
		"not found": {func(context.Context) (string, error) { return "", aside.ErrNotFound }, "not_found", "", "", false},
		"canceled":  {func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }, "canceled", "canceled", "canceled", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, aside.Options{}, asideotel.Options{})
			p := p
			if name == "canceled" {
				p.LoadTimeout = time.Minute
			}
			c.within("program", func(ctx context.Context) {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				if name == "canceled" {
					time.AfterFunc(10*time.Millisecond, cancel)
				}
				_, err := aside.GetOrLoad(ctx, c.Cache, p.Key("secret"), test.load)
				require.Error(t, err)
			})
			load, call := c.one(t, "aside.load models-label"), c.one(t, "aside.call models-label")
			require.Equal(t, test.outcome, attributes(load)["aside.outcome"])
			require.Equal(t, test.errType, attributes(load)["error.type"])
			require.Equal(t, test.callType, attributes(call)["error.type"])
			require.Equal(t, test.failed, load.Status().Code == codes.Error)
			require.Equal(t, codes.Unset, call.Status().Code, "a call is no failure of its own")
			for _, span := range []trace.ReadOnlySpan{load, call} {
				require.NotContains(t, span.Status().Description, "secret")
				require.Empty(t, span.Events())
				for key, text := range attributes(span) {
					require.NotContains(t, text, "secret", key)
				}
			}
		})
	}
}

// A call that is refused without a load shows why.
func TestACallThatIsRefusedShowsWhy(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{MaxLoads: 1, MaxQueuedLoads: -1}, asideotel.Options{})
	release, running := make(chan struct{}), make(chan struct{})
	var first sync.WaitGroup
	first.Go(func() {
		_, err := aside.GetOrLoad(context.Background(), c.Cache, models.Key("a"), func(context.Context) (string, error) {
			close(running)
			<-release
			return "v", nil
		})
		require.NoError(t, err)
	})
	<-running
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("b"), value("v"))
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeOverloaded})
	})
	close(release)
	first.Wait()
	require.Equal(t, map[string]string{"aside.policy": "models-name", "aside.label": "models-label", "aside.cause": "absent", "error.type": "overloaded"},
		attributes(c.one(t, "aside.call models-label")))
}

func TestSpansOfABatch(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{})
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoadMany(ctx, c.Cache, []int{1, 2, 3}, func(id int) aside.Key { return models.Key(id) }, func(ctx context.Context, ids []int) (map[int]string, error) {
			_, span := c.tracer.Start(ctx, "db")
			defer span.End()
			return map[int]string{1: "a", 2: "b", 3: "c"}, nil
		})
		require.NoError(t, err)
	})
	batch, load := c.one(t, "aside.batch models-label"), c.one(t, "aside.load models-label")
	requireChild(t, batch, c.one(t, "program"))
	requireChild(t, load, batch)
	requireChild(t, c.one(t, "db"), load)
	require.Equal(t, "3", attributes(batch)["aside.keys"])
	require.Equal(t, "3", attributes(load)["aside.waiters"])
	require.Equal(t, "miss", attributes(batch)["aside.status"])
}

// A refresh begins a trace of its own: the call has returned by then.
func TestSpansOfARefresh(t *testing.T) {
	t.Parallel()
	p := models
	p.TTL, p.Stale = time.Millisecond, time.Hour
	c := open(t, aside.Options{}, asideotel.Options{})
	_, err := aside.GetOrLoad(context.Background(), c.Cache, p.Key("a"), value("v"))
	require.NoError(t, err)
	require.Empty(t, c.spans.Started(), "a call that is part of no trace")
	pastTTL(t)
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, p.Key("a"), func(ctx context.Context) (string, error) {
			_, span := c.tracer.Start(ctx, "db")
			defer span.End()
			return "v", nil
		})
		require.NoError(t, err)
	})
	refresh, load, program := c.one(t, "aside.refresh models-label"), c.one(t, "aside.load models-label"), c.one(t, "program")
	require.False(t, refresh.Parent().IsValid())
	require.NotEqual(t, program.SpanContext().TraceID(), refresh.SpanContext().TraceID())
	requireLinks(t, refresh, program)
	requireChild(t, load, refresh)
	requireChild(t, c.one(t, "db"), load)
}

// A refresh of a call without a trace has one all the same, without a link.
func TestARefreshOfACallWithoutATrace(t *testing.T) {
	t.Parallel()
	p := models
	p.TTL, p.Stale = time.Millisecond, time.Hour
	c := open(t, aside.Options{}, asideotel.Options{})
	require.NoError(t, aside.Set(context.Background(), c.Cache, p.Key("a"), "v"))
	pastTTL(t)
	_, err := aside.GetOrLoad(context.Background(), c.Cache, p.Key("a"), value("v"))
	require.NoError(t, err)
	requireLinks(t, c.one(t, "aside.refresh models-label"))
	require.Len(t, c.spans.Started(), 2, "and the load below it")
}

func TestSpansOfSetsAndInvalidations(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{})
	c.within("program", func(ctx context.Context) {
		require.NoError(t, aside.Set(ctx, c.Cache, models.Key("a"), "v"))
		for _, call := range []func() (aside.Receipt, error){
			func() (aside.Receipt, error) { return c.Invalidate(ctx, models.Key("a")) },
			func() (aside.Receipt, error) { return c.InvalidateTags(ctx, "x", "y") },
			func() (aside.Receipt, error) { return c.InvalidateCategory(ctx, "models") },
			func() (aside.Receipt, error) { return c.InvalidatePattern(ctx, models.Match(aside.Wildcard)) },
			func() (aside.Receipt, error) { return c.InvalidateAll(ctx) },
		} {
			_, err := call()
			require.NoError(t, err)
		}
	})
	for _, name := range []string{"aside.set models-label", "aside.invalidate keys", "aside.invalidate tags", "aside.invalidate category", "aside.invalidate pattern", "aside.invalidate all"} {
		requireChild(t, c.one(t, name), c.one(t, "program"))
	}
	require.Equal(t, "2", attributes(c.one(t, "aside.invalidate tags"))["aside.keys"])
}

func TestSpansOfAConsistencyCheck(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1}}, asideotel.Options{})
	require.NoError(t, aside.Set(context.Background(), c.Cache, models.Key("a"), "v"))
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), func(ctx context.Context) (string, error) {
			_, span := c.tracer.Start(ctx, "db")
			defer span.End()
			return "v", nil
		})
		require.NoError(t, err)
	})
	check := c.one(t, "aside.check models-label")
	requireLinks(t, check, c.one(t, "program"))
	requireChild(t, c.one(t, "db"), check)
}

// Without Keys nothing is told of a key.
func TestWhatIsToldOfKeys(t *testing.T) {
	t.Parallel()
	for _, o := range []asideotel.Options{{}, {Keys: func(string) string { return "" }}, {Keys: func(key string) string { return strings.ToUpper(key) }}} {
		c := open(t, aside.Options{}, o)
		c.within("program", func(ctx context.Context) {
			_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), value("v"))
			require.NoError(t, err)
		})
		for _, span := range c.spans.Ended()[:2] {
			told, some := attributes(span)["aside.key"]
			require.Equal(t, o.Keys != nil && o.Keys("x") != "", some)
			if some {
				require.Equal(t, "MODELS:A", told)
			}
		}
	}
}

// A call without a trace begins none by default, and the caller's own span is never ended, whatever is declined.
func TestCallsWithoutATrace(t *testing.T) {
	t.Parallel()
	for _, roots := range []bool{false, true} {
		c := open(t, aside.Options{}, asideotel.Options{RootSpans: roots})
		_, err := aside.GetOrLoad(context.Background(), c.Cache, models.Key("a"), value("v"))
		require.NoError(t, err)
		require.NoError(t, aside.Set(context.Background(), c.Cache, models.Key("b"), "v"))
		_, err = c.InvalidateTags(context.Background(), "x")
		require.NoError(t, err)
		if !roots {
			require.Empty(t, c.spans.Started())
			continue
		}
		call := c.one(t, "aside.call models-label")
		require.False(t, call.Parent().IsValid())
		requireChild(t, c.one(t, "aside.load models-label"), call)
		require.Len(t, c.spans.Started(), 4)
	}
}

// In a loader whose context has lost its trace, calls of the cache have no spans, and the span of the load around them is not ended by them.
func TestACallThatIsDeclinedInALoadEndsNoSpan(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{})
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), func(ctx context.Context) (string, error) {
			lost := otrace.ContextWithSpanContext(ctx, otrace.SpanContext{})
			_, err := aside.GetOrLoad(lost, c.Cache, models.Key("b"), value("v"))
			require.Empty(t, c.spans.Ended(), "neither the program's, nor those around this call")
			require.Len(t, c.spans.Started(), 3)
			return "v", err
		})
		require.NoError(t, err)
	})
	c.one(t, "aside.load models-label")
}

// A parent is asked for that is valid, not one that is recorded: the sampler says what is recorded.
func TestAParentThatIsNotSampledIsOne(t *testing.T) {
	t.Parallel()
	seen := new(samplers)
	c := open(t, aside.Options{}, asideotel.Options{}, trace.WithSampler(seen))
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), value("v"))
		require.NoError(t, err)
	})
	require.Equal(t, []string{"program", "aside.call models-label", "aside.load models-label"}, seen.names)
	require.Empty(t, c.spans.Started())
}

type samplers struct{ names []string }

func (s *samplers) ShouldSample(p trace.SamplingParameters) trace.SamplingResult {
	s.names = append(s.names, p.Name)
	return trace.SamplingResult{Decision: trace.Drop}
}

func (*samplers) Description() string { return "drops all, and notes it" }

// Spans end when the cache is closed, whatever is under way.
func TestSpansEndWhenTheCacheIsClosed(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{})
	var caller sync.WaitGroup
	caller.Go(func() {
		c.within("program", func(ctx context.Context) {
			_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("a"), func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
			require.ErrorIs(t, err, aside.ErrClosed)
		})
	})
	eventually(t, "the load runs", func() bool { return len(c.spans.Started()) == 3 })
	require.NoError(t, c.Close())
	caller.Wait()
	require.Equal(t, "canceled", attributes(c.one(t, "aside.load models-label"))["aside.outcome"])
	require.NotEmpty(t, attributes(c.one(t, "aside.call models-label"))["error.type"])
}

// pastTTL waits until values with a TTL of a millisecond are past it.
func pastTTL(t *testing.T) {
	t.Helper()
	began := time.Now()
	eventually(t, "the TTL is over", func() bool { return time.Since(began) > 5*time.Millisecond })
}

// The span that a context has where Begin has made none is the caller's.
func TestACallersOwnSpanIsNotEnded(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{})
	caller := &callersSpan{Span: otrace.SpanFromContext(context.Background())}
	_, err := aside.GetOrLoad(otrace.ContextWithSpan(context.Background(), caller), c.Cache, models.Key("a"), value("v"))
	require.NoError(t, err)
	require.Empty(t, c.spans.Started())
	require.Zero(t, caller.ended)
}

// A callersSpan has no valid span context, as those of a provider that is off.
type callersSpan struct {
	otrace.Span
	ended int
}

func (s *callersSpan) End(...otrace.SpanEndOption) { s.ended++ }

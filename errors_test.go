package aside_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

func TestSentinelsAndCodesAreTellableApart(t *testing.T) {
	t.Parallel()
	sentinels := []error{aside.ErrMiss, aside.ErrNotFound, aside.ErrClosed}
	for i, a := range sentinels {
		require.ErrorContains(t, a, "aside: ")
		require.ErrorIs(t, fmt.Errorf("wrapped: %w", a), a)
		for j, b := range sentinels {
			require.Equal(t, i == j, errors.Is(a, b))
		}
		for _, code := range asidetest.Codes {
			require.NotErrorIs(t, a, &aside.Error{Code: code})
		}
	}
	for _, code := range asidetest.Codes {
		err := error(&aside.Error{Code: code, Key: "k:a", Message: "what to do", Stack: []byte("goroutine 1"), Err: io.ErrUnexpectedEOF})
		asidetest.RequireCode(t, fmt.Errorf("wrapped: %w", err), code)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "the cause")
		require.ErrorIs(t, err, err)
		require.Equal(t, `aside: what to do (key "k:a"): unexpected EOF`, err.Error())
	}
}

func TestAnErrorMatchesAnotherByItsCodeAlone(t *testing.T) {
	t.Parallel()
	err := error(&aside.Error{Code: aside.CodeLoadTimeout, Key: "k:a", Message: "m"})
	for _, target := range []*aside.Error{
		{Code: aside.CodeLoadTimeout, Key: "k:b"},
		{Code: aside.CodeLoadTimeout, Message: "another"},
		{Code: aside.CodeLoadTimeout, Err: io.EOF},
		{},
	} {
		require.NotErrorIs(t, err, target, "one that says more than its code is another error")
	}
	require.Equal(t, "aside: m", (&aside.Error{Message: "m"}).Error(), "without a key and a cause")
}

// loaderCalls is every way to a loader's end, as errors of one call.
func loaderCalls(t *testing.T, c *aside.Cache, p aside.Policy, load func(context.Context) (string, error)) map[string]func() error {
	byID := func(ctx context.Context, _ int) (string, error) { return load(ctx) }
	byIDs := func(ctx context.Context, ids []int) (map[int]string, error) {
		v, err := load(ctx)
		return map[int]string{ids[0]: v}, err
	}
	ctx := t.Context()
	return map[string]func() error{
		"GetOrLoad": func() error { _, err := aside.GetOrLoad(ctx, c, p.Key(7), load); return err },
		"Lookup":    func() error { _, err := aside.Lookup(ctx, c, p.Key(7), load); return err },
		"Refresh":   func() error { _, err := aside.GetOrLoad(ctx, c, p.Key(7), load, aside.Refresh()); return err },
		"Loader":    func() error { _, err := aside.NewLoader(c, p, byID).Get(ctx, 7); return err },
		"GetMany":   func() error { _, err := aside.NewLoader(c, p, byID).GetMany(ctx, []int{7}); return err },
		"batch loader": func() error {
			_, err := aside.NewBatchLoader(c, p, func(ctx context.Context, ids []int) (map[int]string, error) {
				if v, err := load(ctx); err == nil {
					return map[int]string{ids[0]: v}, nil
				} else {
					return nil, err
				}
			}).Get(ctx, 7)
			return err
		},
		"GetOrLoadMany": func() error {
			_, err := aside.GetOrLoadMany(ctx, c, []int{7}, func(id int) aside.Key { return p.Key(id) }, func(ctx context.Context, ids []int) (map[int]string, error) {
				m, err := byIDs(ctx, ids)
				if err != nil {
					return nil, err
				}
				return m, nil
			})
			return err
		},
	}
}

func TestTheLoadersOwnErrorIsReturnedAsItIs(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	own := fmt.Errorf("while loading: %w", asidetest.ErrLoader)
	for call, do := range loaderCalls(t, c, asidetest.Keyed, func(context.Context) (string, error) { return "", own }) {
		err := do()
		require.ErrorIs(t, err, asidetest.ErrLoader, call)
		var batch *aside.BatchError[int]
		if errors.As(err, &batch) {
			err = batch.Errors[7]
		}
		require.True(t, err == own, "%s: %v", call, err)
	}
}

func TestAPanicBecomesAnErrorWithItsStack(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for call, do := range loaderCalls(t, c, asidetest.Keyed, func(context.Context) (string, error) { asidetest.Explode(); return "", nil }) {
		err := do()
		e := asidetest.RequireCode(t, err, aside.CodeLoaderPanic, call)
		require.Equal(t, "k:7", e.Key, call)
		require.Contains(t, string(e.Stack), "asidetest.Explode", call)
		require.Equal(t, `aside: the loader panicked (key "k:7"): loader panicked: the loader's bug`, e.Error(), call)
		require.NotContains(t, fmt.Sprintf("%+v", err), "goroutine", call)
	}
	for call, do := range loaderCalls(t, c, asidetest.Keyed, func(context.Context) (string, error) { panic(asidetest.ErrLoader) }) {
		err := do()
		asidetest.RequireCode(t, err, aside.CodeLoaderPanic, call)
		require.ErrorIs(t, err, asidetest.ErrLoader, "%s: an error that was panicked with is the cause", call)
	}
}

func TestGoexitBecomesAnError(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for call, do := range loaderCalls(t, c, asidetest.Keyed, func(context.Context) (string, error) { runtime.Goexit(); return "", nil }) {
		e := asidetest.RequireCode(t, do(), aside.CodeLoaderExit, call)
		require.Equal(t, "k:7", e.Key, call)
		require.Contains(t, e.Error(), "return an error instead", call)
	}
}

func TestALoadThatOutlivesItsTimeBecomesAnError(t *testing.T) {
	t.Parallel()
	for loader, load := range map[string]func(context.Context) (string, error){
		"heeds its context": func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() },
		"hides its context's error": func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", fmt.Errorf("query: %w", context.DeadlineExceeded)
		},
		"ignores its context": func(context.Context) (string, error) { time.Sleep(time.Minute); return "late", nil },
	} {
		t.Run(loader, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				slow := aside.Policy{Name: "slow", Category: "slow", TTL: time.Hour, LoadTimeout: 3 * time.Second}
				c := asidetest.NewCache(t, aside.Options{})
				for call, do := range loaderCalls(t, c, slow, load) {
					began := time.Now()
					e := asidetest.RequireCode(t, do(), aside.CodeLoadTimeout, call)
					require.Equal(t, 3*time.Second, time.Since(began), call)
					require.Equal(t, "slow:7", e.Key, call)
					require.Contains(t, e.Error(), "LoadTimeout", call)
					time.Sleep(time.Minute)                          // the late one returns: of a key no more than two are left running
					_, err := c.Invalidate(t.Context(), slow.Key(7)) // what it may have stored
					require.NoError(t, err)
				}
			})
		})
	}
}

func TestTheNearestLoadTimeoutCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }
		took := func(o aside.Options, p aside.Policy) time.Duration {
			began := time.Now()
			_, err := aside.GetOrLoad(t.Context(), asidetest.NewCache(t, o), p.Key("x"), hang)
			asidetest.RequireCode(t, err, aside.CodeLoadTimeout)
			return time.Since(began)
		}
		own := asidetest.Keyed
		own.LoadTimeout = time.Second
		require.Equal(t, time.Minute, took(aside.Options{}, asidetest.Keyed))
		require.Equal(t, 2*time.Second, took(aside.Options{LoadTimeout: 2 * time.Second}, asidetest.Keyed))
		require.Equal(t, time.Second, took(aside.Options{LoadTimeout: 2 * time.Second}, own))
	})
}

func TestTheErrorOfALoadInsideALoaderPassesUnchanged(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for code, end := range map[aside.Code]func(context.Context) (string, error){
		aside.CodeLoaderPanic: func(context.Context) (string, error) { panic("the inner one") },
		aside.CodeLoaderExit:  func(context.Context) (string, error) { runtime.Goexit(); return "", nil },
		aside.CodeInvalidKey: func(ctx context.Context) (string, error) {
			return aside.GetOrLoad(ctx, c, asidetest.Keyed.Key(1.5), asidetest.Unreachable)
		},
	} {
		var inner error
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("outer"), func(ctx context.Context) (string, error) {
			_, inner = aside.GetOrLoad(ctx, c, asidetest.Keyed.Key("inner"), end)
			return "", inner
		})
		e := asidetest.RequireCode(t, err, code)
		require.True(t, err == inner, "the loader's own error is returned as it is, and this one is")
		require.NotEqual(t, "k:outer", e.Key)
	}
}

func TestALoaderThatAsksForItsOwnKeyGetsAnError(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	_, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("own"), func(ctx context.Context) (string, error) {
		return aside.GetOrLoad(ctx, c, asidetest.Keyed.Key("own"), asidetest.Unreachable)
	})
	e := asidetest.RequireCode(t, err, aside.CodeReentrant)
	require.Equal(t, "k:own", e.Key)
}

// cacheCalls is every call that needs a cache, those without a key or an id among them.
func cacheCalls(t *testing.T, c *aside.Cache) map[string]func() error {
	ctx := t.Context()
	calls := asidetest.KeyCalls(ctx, c, asidetest.Keyed.Key("cached"))
	single := aside.NewLoader(c, asidetest.Keyed, func(context.Context, string) (string, error) { return "v", nil })
	many := aside.NewBatchLoader(c, asidetest.Keyed, func(_ context.Context, ids []string) (map[string]string, error) {
		return map[string]string{ids[0]: "v"}, nil
	})
	for name, l := range map[string]*aside.Loader[string, string]{"Loader": single, "batch Loader": many} {
		calls[name+".Get"] = func() error { _, err := l.Get(ctx, "cached"); return err }
		calls[name+".Get, refresh"] = func() error { _, err := l.Get(ctx, "cached", aside.Refresh()); return err }
		calls[name+".Lookup"] = func() error { _, err := l.Lookup(ctx, "cached"); return err }
		calls[name+".GetMany"] = func() error { _, err := l.GetMany(ctx, []string{"cached", "b"}); return err }
		calls[name+".GetMany, none"] = func() error { _, err := l.GetMany(ctx, nil); return err }
		calls[name+".Invalidate"] = func() error { _, err := l.Invalidate(ctx, "cached"); return err }
		calls[name+".Invalidate, none"] = func() error { _, err := l.Invalidate(ctx); return err }
	}
	calls["Invalidate, none"] = func() error { _, err := c.Invalidate(ctx); return err }
	calls["GetOrLoadMany, none"] = func() error {
		_, err := aside.GetOrLoadMany(ctx, c, nil, func(id int) aside.Key { return asidetest.Keyed.Key(id) }, asidetest.LoadManyNames)
		return err
	}
	return calls
}

func TestANilOrZeroCacheIsATypedError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*aside.Cache{"nil": nil, "zero": {}} {
		for call, do := range cacheCalls(t, c) {
			err := do()
			asidetest.RequireCode(t, err, aside.CodeInvalidArgument, "%s: %s", name, call)
			require.ErrorContains(t, err, "make one with New", call)
		}
		require.NoError(t, c.Close(), name)
		require.Empty(t, c.Metrics().Labels, name)
		require.NotEmpty(t, c.String(), name)
		require.Len(t, (*aside.Cache)(nil).HashID("id"), 16)
	}
}

func TestAClosedCacheIsErrClosedForEveryCall(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for call, do := range cacheCalls(t, c) {
		if err := do(); err != aside.ErrMiss { // of a Get that comes after an Invalidate
			require.NoError(t, err, call)
		}
	}
	require.NoError(t, aside.Set(t.Context(), c, asidetest.Keyed.Key("cached"), "v"))
	require.NoError(t, c.Close())
	for call, do := range cacheCalls(t, c) {
		require.ErrorIs(t, do(), aside.ErrClosed, call)
	}
	require.NoError(t, c.Close(), "again")
	require.NotPanics(t, func() { c.HashID("id"); c.Metrics(); _ = c.String() })
}

func TestWhatALateLoaderBringsIsNotFoundInAClosedCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		entered, failed := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("a"), func(context.Context) (string, error) {
				close(entered)
				time.Sleep(15 * time.Second) // longer than Close waits
				return "late", nil
			})
			failed <- err
		}()
		<-entered
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-failed, aside.ErrClosed)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("a"), asidetest.Unreachable)
		require.ErrorIs(t, err, aside.ErrClosed, "and not %q", v)
	})
}

func TestANilLoaderIsATypedError(t *testing.T) {
	t.Parallel()
	c, ctx := asidetest.NewCache(t, aside.Options{}), t.Context()
	require.NoError(t, aside.Set(ctx, c, asidetest.Keyed.Key("cached"), "v"))
	require.NoError(t, aside.Set(ctx, c, asidetest.Keyed.Key(1), "v"))
	key := func(id int) aside.Key { return asidetest.Keyed.Key(id) }
	calls := map[string]func() error{
		"GetOrLoad": func() error {
			_, err := aside.GetOrLoad[string](ctx, c, asidetest.Keyed.Key("cached"), nil)
			return err
		},
		"Lookup":        func() error { _, err := aside.Lookup[string](ctx, c, asidetest.Keyed.Key("cached"), nil); return err },
		"GetOrLoadMany": func() error { _, err := aside.GetOrLoadMany[int, string](ctx, c, []int{1}, key, nil); return err },
		"GetOrLoadMany, no key": func() error {
			_, err := aside.GetOrLoadMany(ctx, c, []int{1}, nil, asidetest.LoadManyNames)
			return err
		},
		"GetOrLoadMany, nil, empty": func() error { _, err := aside.GetOrLoadMany[int, string](ctx, c, nil, key, nil); return err },
	}
	for name, l := range map[string]*aside.Loader[int, string]{
		"NewLoader(nil)":      aside.NewLoader[int, string](c, asidetest.Keyed, nil),
		"NewBatchLoader(nil)": aside.NewBatchLoader[int, string](c, asidetest.Keyed, nil),
		"nil Loader":          nil,
		"zero Loader":         {},
	} {
		calls[name+".Get"] = func() error { _, err := l.Get(ctx, 1); return err }
		calls[name+".Get, refresh"] = func() error { _, err := l.Get(ctx, 1, aside.Refresh()); return err }
		calls[name+".Lookup"] = func() error { _, err := l.Lookup(ctx, 1); return err }
		calls[name+".GetMany"] = func() error { _, err := l.GetMany(ctx, []int{1}); return err }
	}
	for _, l := range []*aside.Loader[int, string]{nil, {}} {
		calls["Invalidate"] = func() error { _, err := l.Invalidate(ctx, 1); return err }
		calls["Invalidate, none"] = func() error { _, err := l.Invalidate(ctx); return err }
		asidetest.RequireCode(t, l.Key(1).Err(), aside.CodeInvalidKey)
	}
	for call, do := range calls {
		err := do()
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument, call)
		require.Regexp(t, "give|make it with NewLoader", err.Error(), call)
	}
	counted := c.Metrics().Labels["k"]
	require.Zero(t, counted.Requests()+counted.Loads)
}

func TestAnOptionThatDoesNotFitItsCallIsATypedError(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for _, d := range []time.Duration{0, -time.Second, time.Millisecond - 1} {
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("x"), asidetest.Unreachable, aside.WithTTL(d))
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument, d)
		require.ErrorContains(t, err, "WithTTL("+d.String()+"): set a duration of at least 1ms")
		asidetest.RequireCode(t, aside.Set(t.Context(), c, asidetest.Keyed.Key("x"), "v", aside.WithTTL(d)), aside.CodeInvalidArgument, d)
	}
	err := aside.Set(t.Context(), c, asidetest.Keyed.Key("x"), "v", aside.Refresh())
	asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
	require.ErrorContains(t, err, "Refresh")
}

func TestABatchErrorLooksLikeEachOfItsErrors(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	l := aside.NewLoader(c, asidetest.Keyed, func(_ context.Context, id int) (string, error) {
		switch id {
		case 1:
			return "", asidetest.ErrLoader
		case 2:
			panic("boom")
		case 3:
			return "", aside.ErrNotFound
		}
		return "v", nil
	})
	values, err := l.GetMany(t.Context(), []int{1, 2, 3, 4})
	require.Equal(t, map[int]string{4: "v"}, values)
	var batch *aside.BatchError[int]
	require.ErrorAs(t, err, &batch)
	require.Len(t, batch.Errors, 2)
	require.Equal(t, asidetest.ErrLoader, batch.Errors[1])
	require.Equal(t, "k:2", asidetest.RequireCode(t, batch.Errors[2], aside.CodeLoaderPanic).Key)
	require.ErrorIs(t, err, asidetest.ErrLoader)
	require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoaderPanic})
	require.NotErrorIs(t, err, aside.ErrNotFound)
	require.ErrorContains(t, err, "2 ids of a batch failed")
	require.NotContains(t, err.Error(), "goroutine")
}

func TestErrorsToMatchForCodes(t *testing.T) {
	t.Parallel()
	for code, sentinel := range map[aside.Code]error{
		aside.CodeLoadTimeout: aside.ErrLoadTimeout, aside.CodeBackoff: aside.ErrBackoff, aside.CodeOverloaded: aside.ErrOverloaded, aside.CodeUnavailable: aside.ErrUnavailable,
	} {
		err := fmt.Errorf("profile: %w", &aside.Error{Code: code, Key: "k", Message: "m", Err: io.EOF})
		for _, other := range []error{aside.ErrLoadTimeout, aside.ErrBackoff, aside.ErrOverloaded, aside.ErrUnavailable, aside.ErrMiss} {
			require.Equal(t, other == sentinel, errors.Is(err, other), "%v is %v", err, other)
		}
		require.EqualError(t, sentinel, "aside: "+string(code))
	}
}

package observe

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type ownKey struct{}

func pass(ctx context.Context, _ Op) context.Context { return ctx }

// What an operation is told with costs no memory: Op and End go by value.
func TestAnOperationTakesNoMemory(t *testing.T) {
	o := New(pass, func(context.Context, Op, End) {}, slog.New(slog.DiscardHandler))
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, x := o.Begin(ctx, Op{Kind: Call, Key: "items:a", Keys: 1})
		x.End(End{Status: "hit"})
	}))
}

func TestNobodyIsTold(t *testing.T) {
	t.Parallel()
	o := New(nil, nil, nil)
	require.Nil(t, o)
	ctx, x := o.Begin(t.Context(), Op{Kind: Call})
	require.Equal(t, t.Context(), ctx)
	x.End(End{})
	x = Operation{}
	x.End(End{})
	var g Origin
	g.Note(t.Context(), nil)
	require.Nil(t, g.Take(), "nothing is kept for nobody")
}

// The end of an operation's context is that of the context which Begin was given, and its values are those of the one that Begin has returned.
func TestOnlyTheValuesOfAContextCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type given struct{}
		foreign, end := context.WithCancelCause(context.WithValue(context.Background(), ownKey{}, "own"))
		end(errors.New("the end of another context"))
		o := New(func(context.Context, Op) context.Context { return foreign }, nil, nil)
		parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), given{}, "given"))
		ctx, x := o.Begin(parent, Op{})
		require.Equal(t, foreign, x.Context())
		require.Equal(t, "own", ctx.Value(ownKey{}))
		require.Nil(t, ctx.Value(given{}), "these are what the program has left out")
		require.NoError(t, ctx.Err())
		require.NoError(t, context.Cause(ctx))
		child, stop := context.WithTimeout(ctx, time.Hour)
		defer stop()
		require.NoError(t, child.Err())
		cause := errors.New("the end of the operation")
		cancel(cause)
		<-ctx.Done()
		synctest.Wait()
		require.ErrorIs(t, child.Err(), context.Canceled)
		require.Equal(t, cause, context.Cause(ctx))
		require.Equal(t, cause, context.Cause(child))
	})
}

func TestAContextThatIsReturnedAsItIsIsKept(t *testing.T) {
	t.Parallel()
	o := New(pass, nil, nil)
	ctx, x := o.Begin(t.Context(), Op{})
	require.Equal(t, t.Context(), ctx)
	require.Equal(t, t.Context(), x.Context())
	require.Equal(t, t.Context(), ValuesOf(t.Context(), nil))
	values := context.WithValue(context.Background(), ownKey{}, "own")
	require.Equal(t, "own", ValuesOf(t.Context(), values).Value(ownKey{}))
	require.Equal(t, t.Context().Done(), ValuesOf(t.Context(), values).Done())
}

// A panic is logged at most once in ten seconds, with how many there were.
func TestPanicsAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		o := New(func(context.Context, Op) context.Context { panic("boom") }, func(context.Context, Op, End) { panic(badText{}) }, slog.New(slog.NewJSONHandler(&log, nil)))
		for range 3 {
			ctx, x := o.Begin(t.Context(), Op{Kind: Load})
			require.Equal(t, t.Context(), ctx)
			x.End(End{})
		}
		require.Equal(t, 1, strings.Count(log.String(), "\n"))
		require.Contains(t, log.String(), `"level":"ERROR","msg":"aside: Options.Observer panicked","function":"Begin","operation":"load","panic":"boom","panics":1`)
		time.Sleep(10 * time.Second)
		_, x := o.Begin(t.Context(), Op{Kind: Load})
		x.End(End{})
		require.Contains(t, log.String(), `"panics":6`)
	})
}

type badText struct{}

func (badText) Error() string { panic("no text") }

// An Origin keeps one context, until it is taken. One that is returned does not replace a newer one.
func TestAnOriginKeepsTheLastContext(t *testing.T) {
	t.Parallel()
	o := New(pass, nil, nil)
	of := func(name string) context.Context { return context.WithValue(context.Background(), ownKey{}, name) }
	var g Origin
	require.Nil(t, g.Take())
	g.Note(of("first"), o)
	g.Note(of("second"), o)
	taken := g.Take()
	require.Equal(t, "second", taken.Value(ownKey{}))
	require.Nil(t, g.Take())
	g.Return(taken)
	require.Equal(t, "second", g.Take().Value(ownKey{}))
	g.Note(of("third"), o)
	g.Return(taken)
	require.Equal(t, "third", g.Take().Value(ownKey{}))
}

// A context of the program's may be of a type that cannot be compared.
func TestAContextThatCannotBeCompared(t *testing.T) {
	t.Parallel()
	type uncomparable struct {
		context.Context
		_ []int
	}
	o := New(pass, nil, slog.New(slog.DiscardHandler))
	given := uncomparable{Context: context.WithValue(t.Context(), ownKey{}, "own")}
	ctx, _ := o.Begin(given, Op{})
	require.Equal(t, "own", ctx.Value(ownKey{}))
	require.Equal(t, given.Done(), ctx.Done())
}

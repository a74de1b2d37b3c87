package outside

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestACallIsMadeOnBehalfOfItsCaller(t *testing.T) {
	t.Parallel()
	require.Empty(t, Caller(t.Context()), "the program itself")
	ctx := With(t.Context(), "one")
	require.Equal(t, "one", Caller(ctx))
	child, cancel := context.WithCancel(ctx)
	cancel()
	require.Equal(t, "one", Caller(child))
	require.Equal(t, "another", Caller(With(ctx, "another")))
	require.Equal(t, "one", Caller(ctx))
}

type hostile struct{ context.Context }

func (hostile) Value(any) any { panic("oops") }

func TestAContextThatPanicsHasNoCaller(t *testing.T) {
	t.Parallel()
	require.Empty(t, Caller(hostile{t.Context()}))
}

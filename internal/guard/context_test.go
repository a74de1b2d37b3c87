package guard

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A hostile context panics, or says that it has ended and not why.
type hostile struct {
	context.Context
	done func() <-chan struct{}
	err  func() error
}

func (h hostile) Done() <-chan struct{} { return h.done() }
func (h hostile) Err() error            { return h.err() }

func TestAContextWhoseMethodsPanicHasEnded(t *testing.T) {
	t.Parallel()
	ctx := Context(hostile{context.Background(), func() <-chan struct{} { panic("oops") }, func() error { panic("oops") }})
	<-ctx.Done()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	<-child.Done()
	require.ErrorIs(t, child.Err(), context.Canceled)
}

func TestAContextThatEndsWithoutAnErrorIsCancelled(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	ctx := Context(hostile{context.Background(), func() <-chan struct{} { return done }, func() error { return nil }})
	require.NoError(t, ctx.Err())
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	close(done)
	<-child.Done()
	require.ErrorIs(t, child.Err(), context.Canceled)
	require.ErrorIs(t, ctx.Err(), context.Canceled)
}

func TestASoundContextIsWhatItWas(t *testing.T) {
	t.Parallel()
	type key struct{}
	parent, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Hour)
	ctx := Context(parent)
	require.Equal(t, "value", ctx.Value(key{}))
	deadline, ok := ctx.Deadline()
	require.True(t, ok)
	require.Positive(t, time.Until(deadline))
	require.NoError(t, ctx.Err())
	cancel()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
}

package causes

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

type own struct{ cause error }

func (*own) Error() string { panic("no text") }

func (o *own) Unwrap() error { return o.cause }

func TestCausesThatDoNotEnd(t *testing.T) {
	t.Parallel()
	round := new(own)
	round.cause = errors.Join(errors.New("first"), round)
	require.False(t, End(round))
	require.False(t, End(fmt.Errorf("%w", round.cause)))
	require.True(t, End(nil))
	require.True(t, End(errors.Join(errors.New("first"), &own{cause: errors.New("second")})))
}

func TestTheTextOfAnErrorWhoseMethodsPanic(t *testing.T) {
	t.Parallel()
	require.Equal(t, "an error whose methods panic", Text(new(own)))
	require.Equal(t, "down", Text(errors.New("down")))
}

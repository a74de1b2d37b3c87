package causes

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// A circular error is one of its own causes.
type circular struct{}

func (e circular) Error() string { return "circular" }
func (e circular) Unwrap() error { return e }

// A doubled error has itself as a cause twice: the number of paths doubles with each step.
type doubled struct{}

func (e doubled) Error() string   { return "doubled" }
func (e doubled) Unwrap() []error { return []error{e, e} }

func chain(length int) error {
	err := io.EOF
	for range length {
		err = fmt.Errorf("wrapped: %w", err)
	}
	return err
}

// lattice is an error with 2^depth paths through its causes.
func lattice(depth int) error {
	err := io.EOF
	for range depth {
		err = errors.Join(err, err)
	}
	return err
}

func TestCausesThatEnd(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"none":             nil,
		"without a cause":  io.EOF,
		"a chain":          chain(deepest - 1),
		"several":          errors.Join(io.EOF, chain(3), errors.Join(io.ErrNoProgress)),
		"many paths":       lattice(15),
		"no causes at all": fmt.Errorf("%w", error(nil)),
	} {
		require.True(t, End(err), name)
	}
}

func TestCausesThatDoNotEnd(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"itself":               circular{},
		"itself, further down": fmt.Errorf("wrapped: %w", errors.Join(io.EOF, circular{})),
		"itself twice":         doubled{},
		"too long a chain":     chain(deepest),
		"too many paths":       lattice(30),
	} {
		require.False(t, End(err), name)
	}
}

type silent struct{}

func (*silent) Error() string { panic("no text") }

func TestTheTextOfAnErrorWhoseMethodsPanic(t *testing.T) {
	t.Parallel()
	require.Equal(t, "an error whose methods panic", Text(new(silent)))
	require.Equal(t, "down", Text(errors.New("down")))
}

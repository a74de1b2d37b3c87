package guard

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/flight"
)

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// A circular error is one of its own causes.
type circular struct{}

func (e circular) Error() string { return "circular" }
func (e circular) Unwrap() error { return e }

func useNothing(error) {}

func TestAnErrorThatCanBeUsedIsReturnedAsItIs(t *testing.T) {
	t.Parallel()
	require.NoError(t, Error(nil, func(error) { t.Error("there is nothing to inspect") }))
	for _, err := range []error{io.EOF, fmt.Errorf("wrapped: %w", io.EOF), errors.Join(io.EOF, io.ErrNoProgress), &flight.PanicError{Value: "oops"}} {
		inspected := false
		require.Equal(t, err, Error(err, func(got error) { inspected = got == err }))
		require.True(t, inspected)
	}
}

func TestAnErrorThatCannotBeUsedIsReplaced(t *testing.T) {
	t.Parallel()
	for text, err := range map[string]error{
		"*guard.nilError, whose methods panic": (*nilError)(nil),
		"*fmt.wrapError, whose causes do not":  fmt.Errorf("wrapped: %w", circular{}),
		"guard.circular, whose causes do not":  circular{},
	} {
		var p *flight.PanicError
		require.ErrorAs(t, Error(err, useNothing), &p)
		require.Contains(t, p.Error(), text)
		require.NotEmpty(t, p.Stack)
	}
}

func TestTheStackOfAPanicSurvivesItsValue(t *testing.T) {
	t.Parallel()
	got := Error(&flight.PanicError{Value: (*nilError)(nil), Stack: []byte("where")}, func(err error) { _ = errors.Unwrap(err).Error() })
	var p *flight.PanicError
	require.ErrorAs(t, got, &p)
	require.Equal(t, "a *guard.nilError whose methods panic", p.Value)
	require.Equal(t, "where", string(p.Stack))
}

func TestAnErrorThatPanicsWhenItIsInspectedIsReplaced(t *testing.T) {
	t.Parallel()
	got := Error(io.EOF, func(error) { panic("oops") })
	require.NotErrorIs(t, got, io.EOF)
	require.ErrorContains(t, got, "whose methods panic")
}

package asidetest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// RequireCode checks that err is an *Error of that code, for errors.As and errors.Is, and no other.
func RequireCode(t testing.TB, err error, code aside.Code, about ...any) *aside.Error {
	t.Helper()
	var e *aside.Error
	require.ErrorAs(t, err, &e, about...)
	require.Equal(t, code, e.Code, about...)
	require.ErrorIs(t, err, &aside.Error{Code: code}, about...)
	for _, other := range Codes {
		if other != code {
			require.NotErrorIs(t, err, &aside.Error{Code: other}, about...)
		}
	}
	return e
}

var Codes = []aside.Code{
	aside.CodeInvalidOption, aside.CodeInvalidArgument, aside.CodeInvalidKey, aside.CodeLoadTimeout,
	aside.CodeLoaderPanic, aside.CodeLoaderExit, aside.CodeReentrant,
}

var ErrLoader = errors.New("the database is on fire")

func Explode() { panic("the loader's bug") }

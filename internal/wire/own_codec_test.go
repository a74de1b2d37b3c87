package wire

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// described is an error whose text quotes no value.
type described struct{ error }

func (described) NoValue() {}

// failing is a codec of a program.
type failing struct {
	Codec
	err       error
	exclusive bool
}

func (f failing) Name() string { return "failing" }

func (f failing) Marshal(any) ([]byte, error) { return nil, f.err }

func (f failing) Exclusive() bool { return f.exclusive }

func TestTheTextOfACodecsErrorIsShownIfItQuotesNoValue(t *testing.T) {
	t.Parallel()
	_, err := Marshal(failing{err: errors.New("the secret value")}, new(int))
	require.EqualError(t, err, `codec "failing" cannot encode *int: error of type *errors.errorString`)
	_, err = Marshal(failing{err: fmt.Errorf("the secret value: %w", described{errors.New("key 7 is missing")})}, new(int))
	require.EqualError(t, err, `codec "failing" cannot encode *int: key 7 is missing`, "the text of that error, and not of one around it")
}

func TestACodecIsExclusiveIfItSaysSo(t *testing.T) {
	t.Parallel()
	require.True(t, IsExclusive(failing{exclusive: true}))
	require.False(t, IsExclusive(failing{}))
	for _, c := range []Codec{nil, Raw, JSON, CBOR} {
		require.False(t, IsExclusive(c))
	}
}

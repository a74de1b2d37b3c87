package wire

import (
	"testing"

	"github.com/stretchr/testify/require"
)

type Both interface {
	MarshalJSON() ([]byte, error)
	UnmarshalJSON([]byte) error
}

type BothText interface {
	MarshalText() ([]byte, error)
	UnmarshalText([]byte) error
}

type wrapsInterface struct{ Both }
type wrapsText struct{ BothText }

type num int

func (n *num) MarshalJSON() ([]byte, error)    { return []byte("1"), nil }
func (n *num) UnmarshalJSON(text []byte) error { *n = 1; return nil }
func (n *num) MarshalText() ([]byte, error)    { return []byte("1"), nil }
func (n *num) UnmarshalText(text []byte) error { *n = 1; return nil }

// A struct has its methods from an embedded interface alone, which is nil where it is decoded.
func TestAStructThatEmbedsAnInterfaceIsGivenBackOrRefused(t *testing.T) {
	t.Parallel()
	n := num(1)
	for _, codec := range []Codec{JSON, CBOR} {
		for _, v := range []any{&wrapsInterface{&n}, &wrapsText{&n}} {
			payload, err := Marshal(codec, v)
			if err != nil {
				t.Logf("%s %T refused: %v", codec.Name(), v, err)
				continue
			}
			switch v.(type) {
			case *wrapsInterface:
				err = Unmarshal(codec, payload, new(wrapsInterface))
			default:
				err = Unmarshal(codec, payload, new(wrapsText))
			}
			require.NoError(t, err, "%s %T: encoded, and cannot be decoded", codec.Name(), v)
		}
	}
}

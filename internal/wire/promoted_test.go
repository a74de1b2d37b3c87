package wire

import (
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A struct has the methods of what it embeds. By these it is encoded as that is: what they leave out of that is lost here too.

type Dated struct {
	time.Time
	Seats int
}

type (
	booking  struct{ Dated }
	bookingP struct{ *Dated }
	stamp    struct{ time.Time }
	stampP   struct{ *time.Time }
	amount   struct{ big.Float }
	amountP  struct{ *big.Int }
	page     struct{ url.URL }
	deep     struct{ amount2 }
	amount2  struct{ amount }
	host     struct {
		digits
		Port int
	}
)

type digits int

func (d digits) MarshalText() ([]byte, error)     { return []byte{byte('0' + d)}, nil }
func (d *digits) UnmarshalText(text []byte) error { *d = digits(text[0] - '0'); return nil }

// writesItself has a MarshalJSON of its own, and decodes by that of the time.
type writesItself struct {
	time.Time
	Seats int
}

func (w writesItself) MarshalJSON() ([]byte, error) { return w.Time.MarshalJSON() }

func refuses[T any](t *testing.T, c Codec, value T) {
	t.Helper()
	_, err := Marshal(c, &value)
	var loss *LossError
	require.ErrorAs(t, err, &loss, "%T", value)
}

func comes[T any](t *testing.T, c Codec, value T) {
	t.Helper()
	data, err := Marshal(c, &value)
	require.NoError(t, err)
	var got T
	require.NoError(t, Unmarshal(c, data, &got))
	require.Equal(t, value, got)
}

func TestFieldsBesideAnEmbeddedOneFurtherDownAreNotLost(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		refuses(t, c, booking{Dated{time.Unix(1, 0).UTC(), 7}})
		refuses(t, c, map[string][]booking{"a": {{Dated{time.Unix(1, 0).UTC(), 7}}}})
	})
}

// Where it is decoded, the pointer is nil, and the method panics.
func TestMethodsOfAnEmbeddedPointerDecodeNothing(t *testing.T) {
	now := time.Unix(1, 0).UTC()
	eachCodec(t, func(t *testing.T, c Codec) {
		refuses(t, c, stampP{&now})
		refuses(t, c, amountP{big.NewInt(5)})
		refuses(t, c, bookingP{&Dated{now, 7}})
	})
}

func TestAnEmbeddedValueIsLookedAtAsOneOfItsOwn(t *testing.T) {
	old := time.Date(1850, 1, 1, 12, 0, 0, 0, time.FixedZone("", 1172)) // an offset with seconds, which JSON leaves out
	refuses(t, JSON, stamp{old})
	refuses(t, JSON, map[string]*stamp{"a": {old}})
	refuses(t, CBOR, page{url.URL{Scheme: "http", Host: "a", Path: "b"}})
	eachCodec(t, func(t *testing.T, c Codec) {
		refuses(t, c, amount{*big.NewFloat(0.1)})
		refuses(t, c, deep{})
		comes(t, c, stamp{time.Unix(1, 5).UTC()})
		comes(t, c, page{url.URL{Scheme: "http", Host: "a", Path: "/b"}})
		comes(t, c, struct{ big.Int }{*big.NewInt(5)})
	})
}

func TestAMethodThatDecodesIsNotThatOfOneFieldOfSeveral(t *testing.T) {
	refuses(t, JSON, writesItself{time.Unix(1, 0).UTC(), 7})
}

// Keys that differ in what their text leaves out would become one.
func TestKeysWithTheTextOfAnEmbeddedField(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		refuses(t, c, map[host]int{{1, 1}: 1, {1, 2}: 2})
		refuses(t, c, map[stamp]int{{time.Unix(1, 0)}: 1})
		refuses(t, c, map[stampP]int{})
		comes(t, c, map[struct{ digits }]int{{1}: 1, {2}: 2})
	})
	refuses(t, CBOR, map[struct{ S stamp }]int{})
	comes(t, CBOR, map[struct{ D digits }]int{{1}: 1})
}

func TestTheOptionStringOfATypeWithItsOwnText(t *testing.T) {
	type quoted struct {
		D digits `json:",string"`
	}
	type quotedP struct {
		D *digits `json:",string"`
	}
	refuses(t, JSON, quoted{1})
	refuses(t, JSON, quotedP{new(digits)})
	comes(t, CBOR, quoted{1})
	comes(t, JSON, struct {
		N int     `json:",string"`
		P *string `json:",string"`
	}{1, new(string)})
}

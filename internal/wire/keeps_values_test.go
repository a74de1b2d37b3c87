package wire

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// keptOrRefused fails where a value comes back as something else.
func keptOrRefused[T any](t *testing.T, c Codec, value T) {
	t.Helper()
	data, err := Marshal(c, &value)
	if err != nil {
		return
	}
	var got T
	if err := Unmarshal(c, data, &got); err != nil {
		return
	}
	require.Equal(t, value, got, "%s: %q", c.Name(), data)
}

type Audited struct {
	By string `json:"by,omitempty"`
}

type Marked struct{}

// An embedded pointer of which no field is encoded comes back nil: whoever reads a field through it panics.
func TestAnEmbeddedPointerWithoutEncodedFieldsIsKeptOrRefused(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		keptOrRefused(t, c, struct {
			*Audited
			N int
		}{&Audited{}, 1})
	})
}

func TestAnEmbeddedPointerToAnEmptyStructIsKeptOrRefused(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		keptOrRefused(t, c, struct {
			*Marked
			N int
		}{&Marked{}, 1})
	})
}

// cents is what an upstream sends as a number of cents, and the program has in units: it has no method for the way back.
type cents float64

func (c *cents) UnmarshalJSON(b []byte) error {
	var n float64
	err := json.Unmarshal(b, &n)
	*c = cents(n / 100)
	return err
}

func TestATypeThatOnlyDecodesItselfIsKeptOrRefusedByJSON(t *testing.T) {
	keptOrRefused(t, JSON, struct{ Price cents }{12.5})
}

type trimmed string

func (s *trimmed) UnmarshalText(b []byte) error { *s = trimmed(strings.ToLower(string(b))); return nil }

func TestATypeThatOnlyDecodesItsTextIsKeptOrRefused(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		keptOrRefused(t, c, struct{ Name trimmed }{"Mixed Case"})
	})
}

type half struct{ N int }

func (h *half) UnmarshalBinary(b []byte) error { h.N = len(b); return nil }

type halfBytes []byte

func (h *halfBytes) UnmarshalBinary(b []byte) error {
	*h = append(halfBytes("read:"), b...)
	return nil
}

func TestATypeThatOnlyDecodesItsBytesIsKeptOrRefusedByCBOR(t *testing.T) {
	keptOrRefused(t, CBOR, struct{ V half }{half{5}})
	keptOrRefused(t, CBOR, struct{ V halfBytes }{halfBytes("abc")})
}

func TestAMapKeyThatOnlyDecodesItsTextIsKeptOrRefusedByCBOR(t *testing.T) {
	keptOrRefused(t, CBOR, map[trimmed]int{"A": 1})
}

// optional is what many programs have for values that may be missing: null where there is none.
type optional struct {
	Valid bool
	Value int
}

func (o optional) MarshalJSON() ([]byte, error) {
	if !o.Valid {
		return []byte("null"), nil
	}
	return json.Marshal(o.Value)
}

func (o *optional) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*o = optional{}
		return nil
	}
	o.Valid = true
	return json.Unmarshal(b, &o.Value)
}

func TestAPointerToWhatEncodesItselfAsNullIsKeptOrRefused(t *testing.T) {
	keptOrRefused(t, JSON, struct{ V *optional }{&optional{}})
}

func TestAPointerToARawNullIsKeptOrRefused(t *testing.T) {
	null := json.RawMessage("null")
	keptOrRefused(t, JSON, struct{ V *json.RawMessage }{&null})
}

type hiddenBase struct {
	V any
	P **int
}

// An unexported struct that is embedded and has a name by a tag is encoded by encoding/json as a field.
func TestAnEmbeddedStructWithANameOfItsOwnIsKeptOrRefused(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		keptOrRefused(t, c, struct {
			hiddenBase `json:"base"`
			N          int
		}{hiddenBase{V: 5}, 1})
	})
}

// A sync.Map is no lock.
func TestASyncMapIsKeptOrRefused(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		v := &struct {
			N int
			M *sync.Map
		}{1, new(sync.Map)}
		v.M.Store("a", 1)
		data, err := Marshal(c, v)
		if err != nil {
			return
		}
		got := &struct {
			N int
			M *sync.Map
		}{}
		require.NoError(t, Unmarshal(c, data, got))
		_, ok := got.M.Load("a")
		require.True(t, ok, "what was in the map is lost: %q", data)
	})
}

func TestAURLThatWasNotParsedIsKeptOrRefused(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		keptOrRefused(t, c, struct{ V url.URL }{url.URL{Scheme: "https", Host: "example.com", Path: "v1/models"}})
	})
}

func TestAPOSIXExpressionIsKeptOrRefused(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		v := regexp.MustCompilePOSIX("a|ab")
		data, err := Marshal(c, &v)
		if err != nil {
			return
		}
		var got *regexp.Regexp
		require.NoError(t, Unmarshal(c, data, &got))
		require.Equal(t, v.FindString("ab"), got.FindString("ab"))
	})
}

// Two tags of which encoding/json takes one for none.
func TestAFieldWhoseTagIsNoNameIsKeptOrRefused(t *testing.T) {
	keptOrRefused(t, JSON, struct {
		//lint:ignore SA5008 what such a tag does is what is tested
		A int `json:"it's \"a\""`
		B int `json:"A"`
	}{1, 2})
}

// encoding/json encodes a struct with omitempty though it be zero: and an empty Number in it becomes 0.
func TestAnEmptyNumberInAStructWithOmitemptyIsKeptOrRefused(t *testing.T) {
	keptOrRefused(t, JSON, struct {
		In struct{ N json.Number } `json:",omitempty"`
	}{})
}

// A pointer is asked by encoding/json whether what it points to is zero.
func TestAPointerToAZeroTimeWithOmitzeroIsKeptOrRefused(t *testing.T) {
	eachCodec(t, func(t *testing.T, c Codec) {
		keptOrRefused(t, c, struct {
			At *time.Time `json:",omitzero"`
		}{new(time.Time)})
	})
}

type LeftOut struct {
	V int `json:"-"`
	_ sync.Mutex
}

// What an embedded struct has that is not exported is left out where it is not exported itself, and else refused as in a field.
func TestAnEmbeddedStructWithoutExportedFieldsIsRefused(t *testing.T) {
	t.Parallel()
	eachCodec(t, func(t *testing.T, c Codec) {
		v := &struct {
			sync.Map
			N int
		}{}
		v.Store("a", 1)
		require.Equal(t, "Map", strings.Split(refusal(t, c, v).Field, ".")[0])
		w := &struct {
			sync.Mutex
			LeftOut
			N int
		}{N: 1, LeftOut: LeftOut{V: 1}}
		_, err := Marshal(c, w)
		require.NoError(t, err)
	})
}

// outText is written by one method and read by another of another format.
type outText struct{ S string }

func (o outText) MarshalText() ([]byte, error)     { return []byte(o.S), nil }
func (o *outText) UnmarshalText(b []byte) error    { o.S = string(b); return nil }
func (o *outText) UnmarshalCBOR(data []byte) error { o.S = "read"; return nil }

// nullable is written as null.
type nullable struct{ Valid bool }

func (n nullable) MarshalCBOR() ([]byte, error) { return []byte{0xf6}, nil }
func (n *nullable) UnmarshalCBOR([]byte) error  { return nil }

func TestMethodsOfCBORThatDoNotGiveBackWhatTheyAreGivenAreRefused(t *testing.T) {
	t.Parallel()
	refusal(t, CBOR, &struct{ V outText }{outText{"x"}})
	refusal(t, CBOR, &struct{ V *nullable }{&nullable{}})
	refusal(t, CBOR, &struct {
		V int `cbor:"one,keyasint"`
	}{})
	refusal(t, CBOR, &struct {
		_ struct{} `cbor:",toarray"`
		*Audited
	}{})
}

// A node is counted as often as it is written, in any too.
func TestWhatIsReachedByManyWaysIsGivenUpAtTheBound(t *testing.T) {
	t.Parallel()
	shared, top := any([]any{1.5}), &endless{}
	for range 40 {
		shared = []any{shared, shared}
		top = &endless{List: []*endless{top, top}}
	}
	eachCodec(t, func(t *testing.T, c Codec) {
		for _, v := range []any{&shared, top, &endless{Iface: shared}} {
			_, err := Limits{MaxValue: 1 << 20}.Marshal(c, v)
			require.ErrorIs(t, err, ErrTooLarge)
		}
		small := &endless{Map: map[string]*endless{"": nil, "a": {}}, Iface: []any{map[string]any{}, nil}}
		data, err := Marshal(c, small)
		require.NoError(t, err)
		_, err = Limits{MaxValue: len(data)}.Marshal(c, small)
		require.NoError(t, err, "what fits is never refused")
	})
}

package wire

import (
	"encoding/json"
	"math/big"
	"net/url"
	"reflect"
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

// readBy gives what another build reads, nil where it refuses.
func readBy[Old, New any](t *testing.T, c Codec, value Old) *New {
	t.Helper()
	data, err := Marshal(c, &value)
	require.NoError(t, err)
	got := new(New)
	if err := Unmarshal(c, data, got); err != nil {
		t.Logf("%s: %v", c.Name(), err)
		return nil
	}
	return got
}

func eachCodec(t *testing.T, test func(t *testing.T, c Codec)) {
	for _, c := range []Codec{JSON, CBOR} {
		t.Run(c.Name(), func(t *testing.T) { test(t, c) })
	}
}

// A field gets another name, and has omitempty: its new name is not in what was decoded, encoded again, since it is empty.
func TestAFieldWithOmitemptyThatHasAnotherNameIsRefused(t *testing.T) {
	type older struct {
		ID    int `json:"id"`
		Price int `json:"price,omitempty"`
	}
	type newer struct {
		ID   int `json:"id"`
		Cost int `json:"cost,omitempty"`
	}
	eachCodec(t, func(t *testing.T, c Codec) {
		got := readBy[older, newer](t, c, older{ID: 1, Price: 12})
		require.Nil(t, got, "the price is lost")
	})
}

// The same where a struct goes one level down.
func TestFieldsWithOmitemptyThatMoveIntoAnotherFieldAreRefused(t *testing.T) {
	type older struct {
		ID    int `json:"id"`
		Price int `json:"price,omitempty"`
	}
	type price struct {
		Value int `json:"value,omitempty"`
	}
	type newer struct {
		ID    int    `json:"id"`
		Price *price `json:"cost,omitempty"`
	}
	eachCodec(t, func(t *testing.T, c Codec) {
		require.Nil(t, readBy[older, newer](t, c, older{ID: 1, Price: 12}), "the price is lost")
	})
}

// A nil pointer is no value of what it could point to.
func TestANilPointerIsNoValueOfItsElement(t *testing.T) {
	type user struct{ Name string }
	eachCodec(t, func(t *testing.T, c Codec) {
		require.Nil(t, readBy[*user, user](t, c, nil), "nobody has become a user without a name")
	})
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

// What is in it does not count as a part of the type either: another build's is not told apart.
func TestAnEmbeddedStructWithANameOfItsOwnCountsForOtherBuilds(t *testing.T) {
	type older struct {
		olderBase `json:"base"`
		N         int
	}
	type newer struct {
		newerBase `json:"base"`
		N         int
	}
	eachCodec(t, func(t *testing.T, c Codec) {
		require.Nil(t, readBy[older, newer](t, c, older{olderBase{Price: 12}, 1}), "the price is lost")
	})
}

type (
	olderBase struct{ Price int }
	newerBase struct{ Cost int }
)

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
		A int `json:"it's \"a\""`
		B int `json:"A"`
	}{1, 2})
}

func TestBytesThatBecomeAStringAreRefused(t *testing.T) {
	type older struct{ V []byte }
	type newer struct {
		V     string
		Added int
	}
	eachCodec(t, func(t *testing.T, c Codec) {
		got := readBy[older, newer](t, c, older{[]byte("hello")})
		if got != nil {
			require.Equal(t, "hello", got.V)
		}
	})
}

func TestFieldsOfAListThatChangePlacesAreRefused(t *testing.T) {
	type olderPoint struct {
		_    struct{} `cbor:",toarray"`
		X, Y int
	}
	type newerPoint struct {
		_    struct{} `cbor:",toarray"`
		Y, X int
	}
	type older struct{ P olderPoint }
	type newer struct {
		P     newerPoint
		Added int
	}
	got := readBy[older, newer](t, CBOR, older{olderPoint{X: 1, Y: 2}})
	if got != nil {
		require.Equal(t, 1, got.P.X)
	}
}

type wide struct{ Numbers [512]int64 } // 4 KiB

// weighed reports how much memory a payload takes that Fits lets through.
func weighed(t *testing.T, c Codec, v any, data []byte) {
	t.Helper()
	lim := Limits{MaxValue: 1 << 17}
	require.LessOrEqual(t, len(data), lim.MaxValue)
	if !lim.Fits(c, reflect.TypeOf(v).Elem(), data) {
		return
	}
	start := allocated()
	err := Unmarshal(c, data, v)
	grown := allocated() - start
	require.Less(t, grown, uint64(8*decodedFactor*lim.MaxValue), "bytes from %d, which is %d times as much; %v", len(data), grown/uint64(len(data)), err)
}

// JSON names may have escapes, and encoding/json folds more than upper and lower case.
func TestNamesInAnotherSpellingAreWeighed(t *testing.T) {
	const many = 10_000
	list := "[" + strings.Repeat("{},", many-1) + "{}]"
	for name, data := range map[string]string{
		"plain":   `{"items":` + list + `}`,
		"upper":   `{"ITEMS":` + list + `}`,
		"escaped": `{"\u0069tems":` + list + `}`,
		"long s":  `{"itemſ":` + list + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			weighed(t, JSON, &struct {
				Items []wide `json:"items"`
			}{}, []byte(data))
		})
	}
}

func TestFieldsThatAreNumbersInCBORAreWeighed(t *testing.T) {
	const many = 10_000
	list := "\x9a\x00\x00\x27\x10" + strings.Repeat("\xa0", many)
	t.Run("keyasint", func(t *testing.T) {
		weighed(t, CBOR, &struct {
			Items []wide `cbor:"1,keyasint"`
		}{}, []byte("\x82\x1a\x00\x00\x00\x00\xa1\x01"+list))
	})
	t.Run("toarray", func(t *testing.T) {
		weighed(t, CBOR, &struct {
			_     struct{} `cbor:",toarray"`
			Items []wide
		}{}, []byte("\x82\x1a\x00\x00\x00\x00\x81"+list))
	})
}

func TestNumbersWithLargeExponentsAreWeighed(t *testing.T) {
	data := "[" + strings.Repeat(`"1e1000000",`, 150) + `"1"]`
	weighed(t, JSON, new([]*big.Rat), []byte(data))
}

// Objects with names of anybody's and objects with the names of fields look alike.
func TestAMapThatBecomesAStructIsRefused(t *testing.T) {
	type older struct{ V map[string]int }
	type options struct {
		Limit int `json:"limit,omitempty"`
	}
	type newer struct{ V options }
	eachCodec(t, func(t *testing.T, c Codec) {
		require.Nil(t, readBy[older, newer](t, c, older{map[string]int{"a": 1}}), "a is lost")
	})
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

package wire

import (
	"math/big"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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

// It takes the square of a number's digits in time to read it.
func TestNumbersOfVeryManyDigitsDoNotFit(t *testing.T) {
	t.Parallel()
	digits := strings.Repeat("7", 1<<20)
	lim := Limits{MaxValue: 8 << 20}
	for _, data := range []string{digits, `"` + digits + `"`} {
		require.False(t, lim.Fits(JSON, reflect.TypeFor[big.Int](), []byte(data)))
		require.False(t, lim.Fits(JSON, reflect.TypeFor[struct{ V []*big.Int }](), []byte(`{"V":[`+data+`]}`)))
		require.False(t, lim.Fits(JSON, reflect.TypeFor[map[string]*big.Rat](), []byte(`{"a":`+data+`}`)))
		require.True(t, lim.Fits(JSON, reflect.TypeFor[struct {
			V string
			N *big.Int
		}](), []byte(`{"V":`+data+`}`)), "a text is none")
	}
	require.True(t, lim.Fits(JSON, reflect.TypeFor[[]*big.Int](), []byte("["+digits[:100_000]+"]")))
}

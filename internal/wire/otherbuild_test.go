package wire

import (
	"bytes"
	"reflect"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

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

// A field gets another name, and has omitempty: nothing in the value itself tells that the new one is not just empty.
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

// Its fields are fields of the type.
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

func TestAFieldThatComesOrGoesIsRead(t *testing.T) {
	t.Parallel()
	type in1 struct{ A string }
	type in2 struct {
		A string
		B []int
	}
	type older struct {
		List []in1
		Map  map[string]*in1
	}
	type newer struct {
		List []in2
		Map  map[string]*in2
		More *in2
	}
	type one struct {
		List []in1
	}
	eachCodec(t, func(t *testing.T, c Codec) {
		require.Equal(t, &newer{List: []in2{{A: "a"}}, Map: map[string]*in2{"m": {A: "b"}}},
			readBy[older, newer](t, c, older{List: []in1{{"a"}}, Map: map[string]*in1{"m": {"b"}}}))
		require.Equal(t, &older{List: []in1{{"a"}}}, readBy[newer, older](t, c, newer{List: []in2{{"a", []int{1}}}, More: &in2{}}))
		require.Equal(t, &newer{List: []in2{{A: "a"}}}, readBy[one, newer](t, c, one{List: []in1{{"a"}}}), "of a single field too")
		require.Equal(t, &one{List: []in1{{"a"}}}, readBy[newer, one](t, c, newer{List: []in2{{A: "a"}}}))
		require.Nil(t, readBy[newer, struct {
			List []in2
			Less bool
		}](t, c, newer{}))
	})
}

// encoding/json takes PRICE for price where it knows no PRICE.
func TestANameThatAnotherOneWouldBeTakenForIsRefused(t *testing.T) {
	t.Parallel()
	type older struct {
		Price int `json:"price"`
		Other int `json:"PRICE"`
	}
	type newer struct {
		Price int `json:"price"`
	}
	require.Nil(t, readBy[older, newer](t, JSON, older{1, 2}))
	require.Equal(t, &newer{1}, readBy[older, newer](t, CBOR, older{1, 2}))
	require.Equal(t, &older{1, 2}, readBy[older, older](t, JSON, older{1, 2}))
}

// What tells the fields is bounded.
func TestATypeOfVeryManyFieldsIsReadByItsOwnBuildOnly(t *testing.T) {
	t.Parallel()
	of := func(n int) reflect.Type {
		fields := make([]reflect.StructField, n)
		for i := range fields {
			fields[i] = reflect.StructField{Name: "F" + strconv.Itoa(i), Type: reflect.TypeFor[int]()}
		}
		return reflect.StructOf(fields)
	}
	eachCodec(t, func(t *testing.T, c Codec) {
		read := func(from, to int) error {
			data, err := Marshal(c, reflect.New(of(from)).Interface())
			require.NoError(t, err)
			return Unmarshal(c, data, reflect.New(of(to)).Interface())
		}
		require.NoError(t, read(mostKept, mostKept-1))
		require.NoError(t, read(mostKept-1, mostKept))
		require.NoError(t, read(mostKept+1, mostKept+1))
		require.ErrorIs(t, read(mostKept, mostKept+1), errOtherFields)
		require.ErrorIs(t, read(mostKept+1, mostKept), errOtherFields)
	})
}

func TestWhatTellsTheFieldsMayBeAnything(t *testing.T) {
	t.Parallel()
	type value struct{ A, B int }
	k := keeperOf(reflect.TypeFor[value](), "json")
	for _, fields := range [][]byte{nil, {}, {1}, {1, 2, 3}, k.fields.stored[:fieldHash], append(bytes.Clone(k.fields.stored), 1), make([]byte, 3000)} {
		require.ErrorIs(t, Unmarshal(JSON, appendPrint([]byte(`{"A":1}`), fields, 1), new(value)), errOtherFields)
		require.ErrorIs(t, Unmarshal(CBOR, append(appendCBORHead(nil, fields, 1), 0xa0), new(value)), errOtherFields)
	}
}

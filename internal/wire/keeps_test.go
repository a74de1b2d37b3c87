package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What each codec makes of the types of a service is in docs/codec-tables.md, which a test of bench/codecmatrix holds against the code. Here is
// what a table does not show.

func refusal(t *testing.T, c Codec, v any) *LossError {
	t.Helper()
	data, err := Marshal(c, v)
	require.Nil(t, data)
	var loss *LossError
	require.ErrorAs(t, err, &loss)
	require.ErrorContains(t, err, loss.Error())
	return loss
}

type inside struct {
	Prices map[string][]any
	Count  any
}

type outside struct {
	Name   string
	Inside []*inside
}

func TestARefusalNamesTheTypeAndTheFieldAndNoPartOfTheValue(t *testing.T) {
	t.Parallel()
	v := &outside{Name: canary, Inside: []*inside{nil, {Prices: map[string][]any{canary: {canary, int32(4711)}}}}}
	for _, c := range []Codec{JSON, CBOR} {
		loss := refusal(t, c, v)
		require.Equal(t, "Inside[].Prices[][]", loss.Field)
		require.Equal(t, reflect.TypeFor[outside](), loss.Type)
		require.Contains(t, loss.Error(), "int32")
		require.NotContains(t, loss.Error(), "4711")
		require.NotContains(t, loss.Error(), canary)
	}
	require.Equal(t, "Inside[].Count", refusal(t, JSON, &outside{Inside: []*inside{{Count: int64(1)}}}).Field)
	require.Equal(t, "Name", refusal(t, JSON, &outside{Name: "\xff"}).Field)
	require.Equal(t, "[]", refusal(t, JSON, &map[string]int{"\xff": 1}).Field)
}

// A type is refused at its first Marshal, whatever the value is, and what was found is kept.
func TestWhatTheTypeTellsIsRefusedWhateverTheValueIs(t *testing.T) {
	t.Parallel()
	type hides struct {
		provider
		Name int `json:"name"`
	}
	for _, v := range []any{new(hides), new([]hides), new(map[string]*hides), new(struct{ F func() }), new(*big.Float), new(struct{ C complex64 }), new(map[*int]bool)} {
		for _, c := range []Codec{JSON, CBOR} {
			first := refusal(t, c, v)
			require.Equal(t, first, refusal(t, c, v))
			require.Error(t, Unmarshal(c, []byte("null"), v))
		}
	}
}

func TestCBORRefusesWhatIsNotExportedUnlessATagOrALockSaysOtherwise(t *testing.T) {
	t.Parallel()
	type secretive struct {
		Kept  string
		cache map[string]int
	}
	type marked struct {
		mu    sync.Mutex
		once  *sync.Once
		_     [4]byte
		Kept  string
		cache map[string]int `cbor:"-"`
		Gone  string         `json:"-"`
	}
	_, _ = secretive{}.cache, marked{}.cache
	require.Equal(t, "cache", refusal(t, CBOR, new(secretive)).Field)
	data, err := Marshal(CBOR, &marked{Kept: "k", Gone: "g", once: new(sync.Once)})
	require.NoError(t, err)
	var got marked
	require.NoError(t, Unmarshal(CBOR, data, &got))
	require.Equal(t, "k", got.Kept)
	require.Empty(t, got.Gone)
	require.True(t, got.mu.TryLock())
	_, err = Marshal(JSON, &secretive{Kept: "k"})
	require.NoError(t, err, "JSON leaves them out: caches are common")
}

type endless struct {
	Next  *endless
	List  []*endless
	Map   map[string]*endless
	Iface any
}

func TestAValueWithoutAnEndIsAnErrorAndNotTheEndOfTheProcess(t *testing.T) {
	t.Parallel()
	pointer := &endless{}
	pointer.Next = pointer
	list := &endless{}
	list.List = []*endless{{}, list}
	dict := &endless{Map: map[string]*endless{}}
	dict.Map["a"] = dict
	loop := []any{nil}
	loop[0] = loop
	dictLoop := map[string]any{}
	dictLoop["a"] = dictLoop
	type itself *itself
	var self itself
	self = &self
	type selves []selves
	many := selves{nil, nil}
	many[1] = many
	for _, c := range []Codec{JSON, CBOR} {
		for _, v := range []any{pointer, list, dict, &endless{Iface: loop}, &loop, &dictLoop, &self, &many} {
			refusal(t, c, v)
		}
	}
}

func TestNestingIsRefusedWhereItWouldNotBeDecoded(t *testing.T) {
	t.Parallel()
	chain := func(n int) *endless {
		var top *endless
		for range n {
			top = &endless{Next: top}
		}
		return top
	}
	for c, most := range map[Codec]int{JSON: jsonNesting, CBOR: maxNesting} {
		data, err := Marshal(c, chain(most))
		require.NoError(t, err)
		require.NoError(t, Unmarshal(c, data, new(endless)))
		refusal(t, c, chain(most+1))
	}
}

// Builds before this one wrote JSON without what tells its type.
func TestJSONOfOlderBuildsIsRead(t *testing.T) {
	t.Parallel()
	type body []byte
	type name string
	for old, want := range map[string]any{
		`{"name":"n","price":1.5,"meta":null,"more":1}`: &provider{Name: "n", Price: 1.5},
		`"Ym9keQ=="`: ptr(body("body")),
		`"a name"`:   ptr(name("a name")),
		`[1,2]`:      &[]int{1, 2},
		`{"a":1}`:    ptr(any(map[string]any{"a": 1.0})),
	} {
		got := reflect.New(reflect.TypeOf(want).Elem()).Interface()
		require.NoError(t, Unmarshal(JSON, []byte(old), got))
		require.Equal(t, want, got)
	}
	data, err := Marshal(JSON, &provider{Name: "n"})
	require.NoError(t, err)
	require.True(t, json.Valid(data), "and every reader of JSON reads what this one writes")
	require.Equal(t, `{"name":"n","price":0,"meta":null}`, strings.TrimSpace(string(data)))
}

func ptr[T any](v T) *T { return &v }

func TestABuildWithOtherFieldsReadsWhatBothKnow(t *testing.T) {
	t.Parallel()
	type v1 struct {
		ID   int
		List []provider
	}
	type item2 struct {
		Name  string             `json:"name"`
		Price float64            `json:"price"`
		Meta  map[string]string  `json:"meta"`
		Added map[string]float64 `json:"added"`
	}
	type v2 struct {
		ID   int
		List []item2
	}
	type item3 struct {
		Title string            `json:"title"`
		Price float64           `json:"price"`
		Meta  map[string]string `json:"meta"`
	}
	type v3 struct {
		ID   int
		List []item3
	}
	type other struct {
		Key  int8 `json:"ID"`
		List []provider
	}
	one := v1{ID: 7, List: []provider{{Name: "n", Price: 1.5}}}
	two := v2{ID: 7, List: []item2{{Name: "n", Price: 1.5}}}
	for _, c := range []Codec{JSON, CBOR} {
		old, err := Marshal(c, &one)
		require.NoError(t, err)
		var got2 v2
		require.NoError(t, Unmarshal(c, old, &got2), c.Name())
		require.Equal(t, two, got2)
		now, err := Marshal(c, &two)
		require.NoError(t, err)
		var got1 v1
		require.NoError(t, Unmarshal(c, now, &got1), c.Name())
		require.Equal(t, one, got1)

		err = Unmarshal(c, old, new(v3))
		require.ErrorIs(t, err, errOtherFields)
		require.ErrorContains(t, err, "field List[].Title is missing")
		require.NotContains(t, err.Error(), ".name", "the writer's names may be anything")

		var same other
		require.NoError(t, Unmarshal(c, old, &same), "the Go names do not count, and 7 is an int8")
		require.EqualValues(t, 7, same.Key)
	}
}

// A type's hash is stored: it changes only with the format of what is written.
func TestTheHashOfATypeStaysAsItIs(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]uint32{"json": 0x3e816306, "cbor": 0x3e816306} {
		require.Equal(t, want, keeperOf(reflect.TypeFor[product](), format).print, format)
	}
	for _, print := range []uint32{0, 1, math.MaxUint32, 0x12345678} {
		for _, fields := range [][]byte{nil, []byte("\x00\xff\xe4")} {
			text := appendPrint([]byte("{}"), fields, print)
			got, ok := printOf(text)
			require.True(t, ok)
			require.Equal(t, print, got)
			require.Equal(t, fields, fieldsOf(text))
			gotFields, got, item, ok := cutCBOR(append(appendCBORHead(nil, fields, print), 0xf6))
			require.True(t, ok)
			require.Equal(t, print, got)
			require.Equal(t, fields, gotFields)
			require.Equal(t, "\xf6", string(item))
		}
	}
}

func TestStringsAndBytesComeBackAsTheyAre(t *testing.T) {
	t.Parallel()
	type holder struct {
		Text  string
		Named text
		Bytes blob
		Keys  map[text]blob
		Raw   json.RawMessage
	}
	full := holder{"caf\xe9", "\xff", blob("\x00\xff"), map[text]blob{"\xfe": nil, "\xfd": {}}, nil}
	require.Equal(t, full, roundTrip(t, CBOR, full))
	require.Equal(t, "Text", refusal(t, JSON, &full).Field)
	valid := holder{"\ufffd \\ufffd", "", blob("\x00\xff"), map[text]blob{"é": nil, "": {}}, json.RawMessage(`"\ufffd"`)}
	require.Equal(t, valid, roundTrip(t, JSON, valid), "U+FFFD itself is a character")
	require.True(t, IsRaw(reflect.TypeFor[json.RawMessage]()) && IsRaw(reflect.TypeFor[text]()) && IsRaw(reflect.TypeFor[blob]()))
	require.False(t, IsRaw(reflect.TypeFor[[]text]()) || IsRaw(reflect.TypeFor[*string]()) || IsRaw(reflect.TypeFor[[4]byte]()))
}

// A short slice in a long payload would keep all of it in memory, and be counted as short.
func TestWhatIsDecodedSharesNoMemoryWithThePayload(t *testing.T) {
	t.Parallel()
	type holder struct {
		Bytes blob
		Any   any
		Raw   json.RawMessage
		Text  string
		Addr  netip.Addr
		Big   *big.Int
		List  [][]byte
	}
	in := holder{blob("bytes"), "text", json.RawMessage(`{"a":1}`), "text", netip.MustParseAddr("::1%eth0"), big.NewInt(0).Lsh(big.NewInt(3), 200), [][]byte{[]byte("in a list")}}
	for _, c := range []Codec{JSON, CBOR} {
		data, err := Marshal(c, &in)
		require.NoError(t, err)
		var got holder
		require.NoError(t, Unmarshal(c, data, &got))
		copy(data, bytes.Repeat([]byte{0xee}, len(data)))
		require.Equal(t, in, got, c.Name())
	}
}

func TestATimeIsItsInstantAndItsOffsetOrRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []Codec{JSON, CBOR} {
		for _, at := range []time.Time{{}, time.Unix(0, 1), time.Now(), time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", -23*3600-59*60))} {
			got := roundTrip(t, c, at)
			require.True(t, got.Equal(at))
			require.Equal(t, at.Format(time.RFC3339Nano), got.Format(time.RFC3339Nano))
		}
		for _, at := range []time.Time{time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1890, 1, 1, 0, 0, 0, 0, time.FixedZone("LMT", 3208)), time.Now().In(time.FixedZone("", 24*3600))} {
			refusal(t, c, &at)
		}
	}
}

type (
	overValue struct {
		time.Time
		Place string
	}
	overPointer struct {
		time.Time
		Place string
	}
	overGeneric[T any] struct {
		time.Time
		Place T
	}
	alone    struct{ time.Time }
	promotes struct {
		time.Time
		Place string
	}
	promotesPointer struct {
		*big.Int
		Place string
	}
)

func (o overValue) MarshalText() ([]byte, error)        { return []byte(o.Place), nil }
func (o *overValue) UnmarshalText(b []byte) error       { o.Place = string(b); return nil }
func (o overValue) MarshalJSON() ([]byte, error)        { return json.Marshal(o.Place) }
func (o *overValue) UnmarshalJSON(b []byte) error       { return json.Unmarshal(b, &o.Place) }
func (o overValue) MarshalBinary() ([]byte, error)      { return []byte(o.Place), nil }
func (o *overValue) UnmarshalBinary(b []byte) error     { o.Place = string(b); return nil }
func (o *overPointer) MarshalJSON() ([]byte, error)     { return json.Marshal(o.Place) }
func (o *overPointer) UnmarshalJSON(b []byte) error     { return json.Unmarshal(b, &o.Place) }
func (o *overPointer) MarshalBinary() ([]byte, error)   { return []byte(o.Place), nil }
func (o *overPointer) UnmarshalBinary(b []byte) error   { o.Place = string(b); return nil }
func (o overGeneric[T]) MarshalJSON() ([]byte, error)   { return json.Marshal(o.Place) }
func (o *overGeneric[T]) UnmarshalJSON(b []byte) error  { return json.Unmarshal(b, &o.Place) }
func (o overGeneric[T]) MarshalBinary() ([]byte, error) { return json.Marshal(o.Place) }
func (o *overGeneric[T]) UnmarshalBinary(b []byte) error {
	return json.Unmarshal(b, &o.Place)
}

// A struct has the methods of what it embeds, which know nothing of its other fields.
func TestMethodsOfAnEmbeddedFieldDoNotEncodeTheStruct(t *testing.T) {
	t.Parallel()
	for _, c := range []Codec{JSON, CBOR} {
		require.Equal(t, "here", roundTrip(t, c, overValue{Place: "here"}).Place)
		require.Equal(t, "here", roundTrip(t, c, overPointer{Place: "here"}).Place)
		require.Equal(t, "here", roundTrip(t, c, overGeneric[string]{Place: "here"}).Place)
		require.True(t, roundTrip(t, c, alone{time.Unix(1, 0)}).Equal(time.Unix(1, 0)))
		require.Contains(t, refusal(t, c, &promotes{}).Why, "its other fields would be lost")
		refusal(t, c, &promotesPointer{})
	}
}

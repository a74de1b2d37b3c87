package wire

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type broad struct {
	Fill [64]int64
}

type embedding struct {
	broad
	*Inner
	Own string `json:"own"`
}

type Inner struct{ Promoted []broad }

type recursive struct {
	Left, Right *recursive
	Fill        [16]int64
}

// selfDecoding decodes itself as types with an alias of their own do.
type selfDecoding struct{ Rooms []broad }

func (s *selfDecoding) UnmarshalJSON(b []byte) error {
	type plain selfDecoding
	return json.Unmarshal(b, (*plain)(s))
}

func (s selfDecoding) MarshalJSON() ([]byte, error) {
	type plain selfDecoding
	return json.Marshal(plain(s))
}

// weight is what a payload is taken to become.
func weight(c Codec, typ reflect.Type, data []byte) int64 {
	s := shapeOf(typ, c.Name())
	w := weigher{left: math.MaxInt64 - s.size, root: s}
	if c == JSON {
		w.json(data)
	} else {
		_, _, item, _ := cutCBOR(data)
		w.cbor(item)
	}
	return math.MaxInt64 - w.left
}

func listOf(n int, elem string) string { return "[" + strings.Repeat(elem+",", n-1) + elem + "]" }

// Not parallel: it measures what the process allocates.
func TestWhatAPayloadTakesInMemoryIsEstimated(t *testing.T) {
	entries := func(n int, value string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"key%d":%s`, i, value)
		}
		return "{" + b.String()[1:] + "}"
	}
	const n = 5_000
	for _, c := range []struct {
		value any
		json  string
	}{
		{[]broad{}, listOf(n, `{}`)},
		{[]broad{}, listOf(n, `null`)},
		{[]*broad{}, listOf(n, `{}`)},
		{[]**broad{}, listOf(n, `{ }`)},
		{[][]broad{}, listOf(n/10, listOf(10, `{}`))},
		{map[string]broad{}, entries(n, `{}`)},
		{map[string]int{}, entries(n, `1`)},
		{map[string][]int64{}, entries(n, `[1,2,3,4]`)},
		{[]map[string]int{}, listOf(n, `{"a":1}`)},
		{new(any), listOf(n, `{}`)},
		{new(any), listOf(n, `1`)},
		{new(any), listOf(n, `[]`)},
		{new(any), listOf(n, `"a text of some length, \"quoted\" and [bracketed, {twice"`)},
		{new(any), listOf(n, `{"id":1,"name":"abc","tags":["x","y"]}`)},
		{new(any), entries(n, `{"a":true}`)},
		{[]string{}, listOf(n, `"some text or other"`)},
		{[]int64{}, listOf(n, `1`)},
		{[]float64{}, listOf(n, ` 1.5 `)},
		{embedding{}, `{"own":"x","Promoted":` + listOf(n, `{}`) + `}`},
		{embedding{}, `{"OWN":"x","promoted":` + listOf(n, `{}`) + `}`},
		{selfDecoding{}, `{"Rooms":` + listOf(n, `{}`) + `}`},
		{recursive{}, strings.Repeat(`{"Left":`, 900) + `null` + strings.Repeat(`,"Right":{}}`, 900)},
		{[]time.Time{}, listOf(n, `"2026-01-02T03:04:05Z"`)},
		{[]json.RawMessage{}, listOf(n, `{"a":1}`)},
	} {
		typ := reflect.TypeOf(c.value)
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		t.Run(fmt.Sprintf("%v %.20s", typ, c.json), func(t *testing.T) {
			for _, codec := range []Codec{JSON, CBOR} {
				data, v := []byte(c.json), reflect.New(typ).Interface()
				if codec == CBOR {
					require.NoError(t, JSON.Unmarshal(data, v))
					switch c.value.(type) {
					case selfDecoding, []time.Time, []json.RawMessage, embedding, []**broad:
						continue // not of this format's concern
					}
					var err error
					data, err = codec.Marshal(v)
					require.NoError(t, err)
					v = reflect.New(typ).Interface()
				}
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				require.NoError(t, codec.Unmarshal(data, v))
				runtime.ReadMemStats(&after)
				runtime.GC()
				var kept runtime.MemStats
				runtime.ReadMemStats(&kept)
				took := int64(after.TotalAlloc - before.TotalAlloc)
				held := int64(kept.HeapAlloc) - int64(before.HeapAlloc)
				got := weight(codec, typ, data)
				t.Logf("%s: %d bytes became %d, allocated %d, estimated %d", codec.Name(), len(data), held, took, got)
				require.GreaterOrEqual(t, got, held*8/10, codec.Name())
				require.GreaterOrEqual(t, got, took/4, codec.Name())
				require.LessOrEqual(t, got, 4*took+1000, codec.Name())
				runtime.KeepAlive(v)
			}
		})
	}
}

func TestWhatIsPassedOverTakesNothing(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		`{"unknown":` + listOf(1000, `{"Fill":[1,2,3]}`) + `}`, `{"Fill":` + listOf(1000, `{}`) + `}`, `{"Fill":` + listOf(10_000, `1`) + `}`, `null`, ``, `{`, `[`, `]`, `"`, `"\"`,
		`{"a`, `{"a":}`, `}}}`, `[[[`, `{{`, `,`, `{"a":"b","c"}`, `{"Fill`,
	} {
		require.LessOrEqual(t, weight(JSON, reflect.TypeFor[broad](), []byte(data)), int64(1000), data)
		packed, err := CBOR.Marshal(data)
		require.NoError(t, err)
		require.LessOrEqual(t, weight(CBOR, reflect.TypeFor[broad](), packed), int64(1000))
	}
	require.LessOrEqual(t, weight(JSON, reflect.TypeFor[[4]broad](), []byte(listOf(1000, `{}`))), int64(5*512))
	require.LessOrEqual(t, weight(JSON, reflect.TypeFor[fmt.Stringer](), []byte(listOf(1000, `{}`))), int64(1000))
}

// Hazard 64.
func TestAPayloadThatWouldTakeTooMuchMemoryDoesNotFit(t *testing.T) {
	t.Parallel()
	lim := Limits{MaxValue: 1 << 17}
	wide := "[" + strings.TrimSuffix(strings.Repeat("{},", 40_000), ",") + "]"
	type row struct {
		ID    int64
		Name  string
		Price *big.Int
		Tags  []string
	}
	rows := make([]row, 1000)
	for i := range rows {
		rows[i] = row{ID: int64(i), Name: strings.Repeat("name, ", 10), Tags: []string{"a", "b"}}
	}
	for _, c := range []Codec{JSON, CBOR} {
		encode := func(v any) []byte {
			b, err := c.Marshal(v)
			require.NoError(t, err)
			return b
		}
		var elements any
		require.NoError(t, json.Unmarshal([]byte(wide), &elements))
		require.False(t, lim.Fits(c, reflect.TypeFor[[]broad](), encode(elements)), c.Name())
		require.False(t, lim.Fits(c, reflect.TypeFor[[]*broad](), encode(elements)), c.Name())
		require.False(t, lim.Fits(c, reflect.TypeFor[struct{ A []broad }](), encode(map[string]any{"A": elements})), c.Name())
		require.True(t, lim.Fits(c, reflect.TypeFor[[]struct{ A int }](), encode(elements)), c.Name())
		require.True(t, lim.Fits(c, reflect.TypeFor[struct{ B []broad }](), encode(map[string]any{"A": elements})), c.Name())
		require.True(t, lim.Fits(c, reflect.TypeFor[[]row](), encode(rows)), c.Name())
		require.True(t, lim.Fits(c, reflect.TypeFor[any](), encode(rows)), c.Name())
		require.True(t, Limits{MaxValue: math.MaxInt64}.Fits(c, reflect.TypeFor[[]broad](), encode(elements)), c.Name())
	}
	require.True(t, lim.Fits(Raw, reflect.TypeFor[[]byte](), make([]byte, 1<<20)))
}

func FuzzAnyPayloadIsWeighed(f *testing.F) {
	for _, seed := range []string{`[{},{"Fill":[1]}]`, `{"Left":{"Right":null}}`, "\x92\x80\x81\xa1a\x01", `"\\\""`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range []reflect.Type{reflect.TypeFor[[]broad](), reflect.TypeFor[recursive](), reflect.TypeFor[any](), reflect.TypeFor[map[string]*embedding](), reflect.TypeFor[selfDecoding]()} {
			for _, c := range []Codec{JSON, CBOR} {
				Limits{MaxValue: 1}.Fits(c, typ, data)
				require.GreaterOrEqual(t, weight(c, typ, data), int64(0))
			}
		}
	})
}

// Fields come in another order than that of the type, or are left out: they weigh the same as by name.
func TestTheOrderOfFieldsChangesNoWeight(t *testing.T) {
	type row struct {
		A []wide `json:"a"`
		B string `json:"b"`
		C any    `json:"c"`
		D []wide `json:"d"`
		E []any  `json:"e"`
		F []wide `json:"f"`
	}
	members := []string{`"a":[{},{}]`, `"b":"text"`, `"c":[1]`, `"d":[{}]`, `"e":[1,2,3]`, `"f":[{},{},{}]`}
	weigh := func(members ...string) int64 {
		return weight(JSON, reflect.TypeFor[row](), []byte("{"+strings.Join(members, ",")+"}"))
	}
	empty := weigh()
	sum := int64(0)
	for _, m := range members {
		sum += weigh(m) - empty // the only one: the others are left out
	}
	require.Equal(t, sum, weigh(members...)-empty)
	backwards := slices.Clone(members)
	slices.Reverse(backwards)
	require.Equal(t, sum, weigh(backwards...)-empty)
	require.Equal(t, sum, weigh(members[0], members[5], members[1], members[4], members[3], members[2])-empty)
	require.Equal(t, sum+weigh(members[3])-empty, weigh(append(members, members[3])...)-empty, "a name that comes twice")
}

// What an ordinary value costs more for being looked at.
func BenchmarkFits(b *testing.B) {
	type row struct {
		ID   int64
		Name string
		Tags []string
		More map[string]string
	}
	for _, n := range []int{10, 100_000} {
		rows := make([]row, n)
		for i := range rows {
			rows[i] = row{ID: int64(i), Name: strings.Repeat("name ", 10), Tags: []string{"a", "b"}}
		}
		data, err := JSON.Marshal(rows)
		require.NoError(b, err)
		typ := reflect.TypeFor[[]row]()
		for name, max := range map[string]int{"not looked at": 64 << 20, "counted": 3 << 20, "gone through": 1 << 10} {
			b.Run(fmt.Sprintf("%d bytes, %s", len(data), name), func(b *testing.B) {
				for b.Loop() {
					Limits{MaxValue: max}.Fits(JSON, typ, data)
				}
			})
		}
		b.Run(fmt.Sprintf("%d bytes, decoded", len(data)), func(b *testing.B) {
			for b.Loop() {
				var v []row
				require.NoError(b, JSON.Unmarshal(data, &v))
			}
		})
	}
}

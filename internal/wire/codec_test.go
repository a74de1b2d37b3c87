package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type provider struct {
	Name  string            `json:"name"`
	Price float64           `json:"price"`
	Meta  map[string]string `json:"meta"`
}

type product struct {
	ID        int64               `json:"id"`
	Title     string              `json:"title"`
	Created   time.Time           `json:"created"`
	Updated   *time.Time          `json:"updated"`
	Best      *provider           `json:"best"`
	Providers []provider          `json:"providers"`
	ByGateway map[string]provider `json:"by_gateway"`
	Tags      []string            `json:"tags"`
	Blob      []byte              `json:"blob"`
	Ratio     float32             `json:"ratio"`
	Flags     [3]bool             `json:"flags"`
	Public    bool                `json:"public"`
}

func sampleProduct() product {
	updated := time.Date(2025, 11, 21, 4, 40, 0, 123_456_789, time.UTC)
	p := provider{Name: "ørsted 模型 🚀", Price: 0.1, Meta: map[string]string{"": "empty", "ключ": "значение"}}
	return product{
		ID: math.MinInt64, Title: "\x00 \" \\ <&> \u2028", Created: time.Date(1900, 1, 1, 0, 0, 0, 1, time.UTC), Updated: &updated,
		Best: &p, Providers: []provider{p, {}}, ByGateway: map[string]provider{"openrouter": p}, Tags: []string{"", "a"},
		Blob: []byte{0, 255}, Ratio: 1.5, Flags: [3]bool{true, false, true}, Public: true,
	}
}

func roundTrip[T any](t *testing.T, c Codec, in T) T {
	t.Helper()
	data, err := Marshal(c, in)
	require.NoError(t, err)
	var out T
	require.NoError(t, Unmarshal(c, data, &out))
	return out
}

func TestJSONAndCBORKeepTypedValues(t *testing.T) {
	t.Parallel()
	for _, c := range []Codec{JSON, CBOR} {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			full := sampleProduct()
			require.Equal(t, full, roundTrip(t, c, full))
			require.Equal(t, full, *roundTrip(t, c, &full))
			require.Equal(t, product{}, roundTrip(t, c, product{}))
			require.Nil(t, roundTrip(t, c, (*product)(nil)))
			require.Equal(t, []product{full, full}[1], roundTrip(t, c, []product{full, full})[1])
			require.Equal(t, map[string][]int{"a": {1}, "b": nil}, roundTrip(t, c, map[string][]int{"a": {1}, "b": nil}))
			require.Nil(t, roundTrip(t, c, []string(nil)))
			require.Equal(t, []string{}, roundTrip(t, c, []string{}))
			require.Nil(t, roundTrip[any](t, c, nil))
			require.Empty(t, roundTrip(t, c, ""))
			require.Equal(t, "模型", roundTrip(t, c, "模型"))
			require.Equal(t, uint64(math.MaxUint64), roundTrip(t, c, uint64(math.MaxUint64)))
			require.True(t, roundTrip(t, c, true))
			require.Equal(t, strings.Repeat("x", 70_000), roundTrip(t, c, strings.Repeat("x", 70_000)))
			instant := time.Date(2025, 11, 21, 4, 40, 0, 123_456_789, time.FixedZone("", 3600))
			require.True(t, instant.Equal(roundTrip(t, c, instant)))
		})
	}
}

type (
	blob []byte
	text string
)

func TestRawKeepsBytesAndText(t *testing.T) {
	t.Parallel()
	b, s := []byte("bytes \x00\xff"), "text 模型"
	require.Equal(t, b, roundTrip(t, Raw, b))
	require.Equal(t, s, roundTrip(t, Raw, s))
	require.Equal(t, blob(b), roundTrip(t, Raw, blob(b)))
	require.Equal(t, text(s), roundTrip(t, Raw, text(s)))
	require.Equal(t, json.RawMessage(`{}`), roundTrip(t, Raw, json.RawMessage(`{}`)))
	for _, p := range []any{&b, (*blob)(&b), (*json.RawMessage)(&b)} {
		data, err := Marshal(Raw, p)
		require.NoError(t, err)
		require.Equal(t, b, data)
	}
	data, err := Marshal(Raw, &s)
	require.NoError(t, err)
	require.Equal(t, s, string(data))

	require.Equal(t, []byte{}, roundTrip(t, Raw, []byte{}))
	require.Equal(t, []byte(nil), roundTrip(t, Raw, []byte(nil)))
	require.Equal(t, json.RawMessage(nil), roundTrip(t, Raw, json.RawMessage(nil)))
	require.Empty(t, roundTrip(t, Raw, ""))
	for zeros := range 3 { // what nil is stored as is kept where it is a value
		twin := rawNil + strings.Repeat("\x00", zeros)
		require.Equal(t, []byte(twin), roundTrip(t, Raw, []byte(twin)))
		require.Equal(t, twin, roundTrip(t, Raw, twin))
	}
	var old []byte
	require.NoError(t, Unmarshal(Raw, nil, &old))
	require.Equal(t, []byte{}, old, "what an older build stored for a nil slice and an empty one")
}

// A short slice that lay inside its entry would keep that in memory, with a header and tags, and be counted as short.
func TestShortBytesAreACopyAndLongOnesLieInsideThePayload(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 7, rawCopied - 1, rawCopied, rawCopied + 1} {
		data := make([]byte, n, n+16)
		var plain []byte
		var named blob
		require.NoError(t, Unmarshal(Raw, data, &plain))
		require.NoError(t, Unmarshal(Raw, data, &named))
		require.Equal(t, n, cap(plain))
		require.Equal(t, n, cap(named))
		if n > 0 {
			require.Equal(t, n >= rawCopied, &data[0] == &plain[0])
			require.Equal(t, n >= rawCopied, &data[0] == &named[0])
		}
	}
}

func TestRawRefusesEverythingElse(t *testing.T) {
	t.Parallel()
	n, any0 := 1, any(nil)
	type letter byte
	for _, v := range []any{nil, 1, &n, product{}, []string{"a"}, []letter("a"), (*[]byte)(nil), (*string)(nil), [1]byte{}, &any0} {
		_, err := Marshal(Raw, v)
		require.ErrorIs(t, err, errNotRaw, "%T", v)
		require.ErrorContains(t, err, "use JSON or CBOR")
		if v != nil {
			require.ErrorContains(t, err, reflect.TypeOf(v).String())
		}
		require.ErrorIs(t, Unmarshal(Raw, []byte("x"), v), errNotRaw, "%T", v)
	}
	require.ErrorIs(t, Unmarshal(Raw, []byte("x"), []byte("not a pointer")), errNotRaw)
	require.ErrorIs(t, Unmarshal(Raw, []byte("x"), "not a pointer"), errNotRaw)
}

func TestCodecsAreFoundByTheirID(t *testing.T) {
	t.Parallel()
	for c, want := range map[Codec]uint32{JSON: 0x36a1a243, CBOR: 0x68a91acd, Raw: 0x43ff12f1} {
		require.Equal(t, want, ID(c), "%s: the ID is stored in entries and never changes", c.Name())
		got, ok := Builtin(ID(c))
		require.True(t, ok)
		require.Equal(t, c, got)
	}
	_, ok := Builtin(0)
	require.False(t, ok)
}

// scripted is a user's codec that does what a test says.
type scripted func() error

func (scripted) Name() string                  { return "scripted" }
func (s scripted) Marshal(any) ([]byte, error) { return []byte("half"), s() }
func (s scripted) Unmarshal([]byte, any) error { return s() }

const canary = "canary-4711"

func TestFailingCodecIsAnErrorThatQuotesNothing(t *testing.T) {
	t.Parallel()
	cause := errors.New(canary)
	for name, tt := range map[string]struct {
		do    func() error
		cause error
		panic bool
	}{
		"error":               {do: func() error { return cause }, cause: cause},
		"panic with a string": {do: func() error { panic(canary) }, panic: true},
		"panic with an error": {do: func() error { panic(cause) }, cause: cause, panic: true},
		"panic with nil":      {do: func() error { panic(nil) }, panic: true},
		"runtime panic":       {do: func() error { return []error{}[len(canary)] }, panic: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := Marshal(scripted(tt.do), product{Title: canary})
			require.Nil(t, data)
			for _, err := range []error{err, Unmarshal(scripted(tt.do), []byte(canary), &product{})} {
				var codecError *CodecError
				require.ErrorAs(t, err, &codecError)
				require.NotContains(t, err.Error(), canary)
				require.ErrorContains(t, err, `"scripted"`)
				require.ErrorContains(t, err, "wire.product")
				require.Equal(t, tt.panic, codecError.Stack != nil)
				if tt.cause != nil {
					require.ErrorIs(t, err, tt.cause)
				}
			}
		})
	}
	_, err := Marshal(nil, 1)
	require.ErrorContains(t, err, "nil pointer", "a missing codec is no crash either")
}

type secretive struct{}

func (secretive) MarshalJSON() ([]byte, error) { return nil, errors.New(canary) }
func (*secretive) UnmarshalJSON([]byte) error  { panic(canary) }

func TestBuiltinCodecsSayWhatIsWrongWithoutQuotingTheValue(t *testing.T) {
	t.Parallel()
	var small struct{ N int8 }
	var when time.Time
	_, custom := Marshal(JSON, secretive{})
	_, channel := Marshal(JSON, make(chan int))
	_, unknown := Marshal(CBOR, make(chan int))
	_, endless := Marshal(JSON, []any{math.NaN()})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{Unmarshal(JSON, []byte(`{"N":4711}`), &small), `field "N"`},
		{Unmarshal(JSON, []byte(`{"N":canary-4711}`), &small), "malformed JSON at byte 6"},
		{Unmarshal(JSON, []byte(`"canary-4711"`), &when), "time.ParseError"},
		{Unmarshal(JSON, []byte(`"canary-4711"`), &secretive{}), "panic of type string"},
		{custom, "json.MarshalerError"},
		{channel, "chan int is a chan, which JSON has no form for"},
		{unknown, "chan int is a chan, which CBOR has no form for"},
		{endless, "field [] is NaN, which JSON has no form for"},
		{Unmarshal(CBOR, headed(&small, "\x6bcanary-4711"), &small), "CBOR UTF-8 text string does not fit struct"},
		{Unmarshal(CBOR, headed(&small, "\xa1\x61N\x19\x12\x67"), &small), "CBOR positive integer does not fit int8, field struct { N int8 }.N"},
		{Unmarshal(CBOR, headed(new(string), "\x6bcanary"), new(string)), "cut short"},
		{Unmarshal(CBOR, headed(new(map[string]int), "\xa2\x66canary\x01\x66canary\x02"), &map[string]int{}), "a key that is there twice"},
		{Unmarshal(CBOR, []byte("canary-4711"), new(string)), "no CBOR of this package"},
	} {
		require.Error(t, tt.err)
		require.NotContains(t, tt.err.Error(), "4711")
		require.NotContains(t, tt.err.Error(), "canary")
		require.Contains(t, tt.err.Error(), tt.want)
	}
}

func TestGoexitInACodecIsNotTakenForAPanic(t *testing.T) {
	t.Parallel()
	returned, ended := false, make(chan struct{})
	go func() {
		defer close(ended)
		_ = Unmarshal(scripted(func() error { runtime.Goexit(); return nil }), nil, nil)
		returned = true
	}()
	<-ended
	require.False(t, returned)
}

func nested(open string, levels int, core string) []byte {
	return append(bytes.Repeat([]byte(open), levels), core...)
}

// headed puts an item where CBOR looks for it, as a value of the type that v points to.
func headed(v any, item string) []byte {
	return append(appendCBORHead(nil, nil, keeperOf(reflect.TypeOf(v).Elem(), "cbor").print), item...)
}

func TestCBORNestingBombIsRefused(t *testing.T) {
	t.Parallel()
	type node struct {
		Next []node `json:"a"`
	}
	for name, bomb := range map[string][]byte{
		"lists":         nested("\x81", 4<<20, "\xf6"),
		"maps":          nested("\xa1\x61a", 4<<20, "\xf6"),
		"map keys":      append(nested("\xa1", 4<<20, "\xf6"), bytes.Repeat([]byte{0xf6}, 4<<20)...),
		"tags":          nested("\xc6", 4<<20, "\xf6"),
		"long lists":    nested("\x9b\x00\x00\x00\x00\x00\x00\x00\x01", 1<<20, "\xf6"),
		"endless lists": nested("\x9f", 4<<20, "\xf6"),
		"one too many":  nested("\x81", maxNesting+1, "\xf6"),
		"unknown field": append([]byte("\xa1\x61x"), nested("\x81", 4<<20, "\xf6")...),
	} {
		require.Error(t, Unmarshal(CBOR, headed(new(any), string(bomb)), new(any)), name)
		require.Error(t, Unmarshal(CBOR, headed(new(node), string(bomb)), new(node)), name)
	}
	require.NoError(t, cborDecoder.Unmarshal(nested("\x81", maxNesting, "\xf6"), new(any)), "the deepest that is allowed")
	wide := append([]byte("\x99\xff\xff"), bytes.Repeat([]byte("\x81\xf6"), 0xffff)...)
	require.NoError(t, cborDecoder.Unmarshal(wide, new(any)), "depth counts, not the number of containers")
}

func TestJSONNestingBombIsRefused(t *testing.T) {
	t.Parallel()
	for _, open := range []string{"[", `{"a":`} {
		require.Error(t, Unmarshal(JSON, nested(open, 4<<20, ""), new(any)))
	}
}

func TestMalformedCBORIsRefused(t *testing.T) {
	t.Parallel()
	whole, err := Marshal(CBOR, sampleProduct())
	require.NoError(t, err)
	for n := range whole {
		require.Error(t, Unmarshal(CBOR, whole[:n], new(product)), "cut to %d", n)
	}
	require.NoError(t, Unmarshal(CBOR, whole, new(product)))
	for name, data := range map[string]string{
		"empty":                    "",
		"bytes after the item":     "\xf6\xf6",
		"list with one too few":    "\x82\xf6",
		"map with a key only":      "\xa1\xf6",
		"huge list, no elements":   "\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
		"huger list, no elements":  "\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
		"huge map, no elements":    "\xba\xff\xff\xff\xff",
		"huge string, no contents": "\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
		"half a length":            "\x9b\xff\xff",
		"half a number":            "\x1b\x00",
		"a key twice":              "\xa2\x61a\x01\x61a\x02",
		"a break":                  "\xff",
		"a list without a length":  "\x9f\x01\xff",
		"a text without a length":  "\x7f\x61a\xff",
		"a reserved length":        "\x1c",
	} {
		require.Error(t, Unmarshal(CBOR, headed(new(any), data), new(any)), name)
		require.Error(t, Unmarshal(CBOR, headed(new(product), data), new(product)), name)
	}
}

// Lists inside each other that all claim the rest of the data would make a decoder allocate their sum.
func TestCBORAllocatesInProportionToItsData(t *testing.T) {
	const size = 1 << 20
	data := headed(new(any), "")
	for len(data) < 500*5 {
		left := size - len(data) - 5
		data = append(data, 0x9a, byte(left>>24), byte(left>>16), byte(left>>8), byte(left))
	}
	data = append(data, make([]byte, size-len(data))...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := Unmarshal(CBOR, data, new(any))
	runtime.ReadMemStats(&after)
	require.Error(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

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

	"github.com/shamaton/msgpack/v3"
	"github.com/stretchr/testify/require"
)

type provider struct {
	Name  string            `json:"name" msgpack:"name"`
	Price float64           `json:"price" msgpack:"price"`
	Meta  map[string]string `json:"meta" msgpack:"meta"`
}

type product struct {
	ID        int64               `json:"id" msgpack:"id"`
	Title     string              `json:"title" msgpack:"title"`
	Created   time.Time           `json:"created" msgpack:"created"`
	Updated   *time.Time          `json:"updated" msgpack:"updated"`
	Best      *provider           `json:"best" msgpack:"best"`
	Providers []provider          `json:"providers" msgpack:"providers"`
	ByGateway map[string]provider `json:"by_gateway" msgpack:"by_gateway"`
	Tags      []string            `json:"tags" msgpack:"tags"`
	Blob      []byte              `json:"blob" msgpack:"blob"`
	Ratio     float32             `json:"ratio" msgpack:"ratio"`
	Flags     [3]bool             `json:"flags" msgpack:"flags"`
	Public    bool                `json:"public" msgpack:"public"`
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

// inUTC takes a value as it came back from MessagePack, which keeps instants and no zones.
func (p product) inUTC() product {
	p.Created = p.Created.UTC()
	if p.Updated != nil {
		u := p.Updated.UTC()
		p.Updated = &u
	}
	return p
}

func roundTrip[T any](t *testing.T, c Codec, in T) T {
	t.Helper()
	data, err := Marshal(c, in)
	require.NoError(t, err)
	var out T
	require.NoError(t, Unmarshal(c, data, &out))
	return out
}

func TestJSONAndMessagePackKeepTypedValues(t *testing.T) {
	t.Parallel()
	for _, c := range []Codec{JSON, MessagePack} {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			full := sampleProduct()
			require.Equal(t, full, roundTrip(t, c, full).inUTC())
			require.Equal(t, full, roundTrip(t, c, &full).inUTC())
			require.Equal(t, product{}, roundTrip(t, c, product{}).inUTC())
			require.Nil(t, roundTrip(t, c, (*product)(nil)))
			require.Equal(t, []product{full, full}[1], roundTrip(t, c, []product{full, full})[1].inUTC())
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

func TestMessagePackFormatDoesNotHangOnAGlobal(t *testing.T) {
	in := provider{Name: "a", Price: 1}
	before, err := Marshal(MessagePack, in)
	require.NoError(t, err)
	msgpack.StructAsArray = true
	defer func() { msgpack.StructAsArray = false }()
	after, err := Marshal(MessagePack, in)
	require.NoError(t, err)
	require.Equal(t, before, after)
	var got provider
	require.NoError(t, Unmarshal(MessagePack, before, &got))
	require.Equal(t, in, got)
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
	data, err = Marshal(Raw, []byte(nil))
	require.NoError(t, err)
	require.Empty(t, data)
}

func TestRawBytesLieInsideThePayloadWithTheirCapacityClipped(t *testing.T) {
	t.Parallel()
	data := append(make([]byte, 0, 16), "payload"...)
	var plain []byte
	var named blob
	require.NoError(t, Unmarshal(Raw, data, &plain))
	require.NoError(t, Unmarshal(Raw, data, &named))
	require.Same(t, &data[0], &plain[0])
	require.Same(t, &data[0], &named[0])
	require.Equal(t, len(data), cap(plain))
	require.Equal(t, len(data), cap(named))
}

func TestRawRefusesEverythingElse(t *testing.T) {
	t.Parallel()
	n, any0 := 1, any(nil)
	type letter byte
	for _, v := range []any{nil, 1, &n, product{}, []string{"a"}, []letter("a"), (*[]byte)(nil), (*string)(nil), [1]byte{}, &any0} {
		_, err := Marshal(Raw, v)
		require.ErrorIs(t, err, errNotRaw, "%T", v)
		require.ErrorContains(t, err, "use JSON or MessagePack")
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
	for c, want := range map[Codec]uint32{JSON: 0x36a1a243, MessagePack: 0xbd50172b, Raw: 0x43ff12f1} {
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
	_, unknown := Marshal(MessagePack, make(chan int))
	for _, tt := range []struct {
		err  error
		want string
	}{
		{Unmarshal(JSON, []byte(`{"N":4711}`), &small), `field "N"`},
		{Unmarshal(JSON, []byte(`{"N":canary-4711}`), &small), "malformed JSON at byte 6"},
		{Unmarshal(JSON, []byte(`"canary-4711"`), &when), "time.ParseError"},
		{Unmarshal(JSON, []byte(`"canary-4711"`), &secretive{}), "panic of type string"},
		{custom, "json.MarshalerError"},
		{channel, "no form for chan int"},
		{unknown, "unsupported type"},
		{Unmarshal(MessagePack, []byte("\xabcanary-4711"), &small), "invalid code"},
		{Unmarshal(MessagePack, []byte("\xabcanary"), new(string)), "cut short"},
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

// Without the scan the first of these ends the whole test process.
func TestMessagePackNestingBombIsRefused(t *testing.T) {
	t.Parallel()
	type node struct {
		Next []node `msgpack:"a"`
	}
	for name, bomb := range map[string][]byte{
		"arrays":        nested("\x91", 4<<20, "\xc0"),
		"maps":          nested("\x81\xa1a", 4<<20, "\xc0"),
		"map keys":      append(nested("\x81", 4<<20, "\xc0"), bytes.Repeat([]byte{0xc0}, 4<<20)...),
		"array 16":      nested("\xdc\x00\x01", 4<<20, "\xc0"),
		"array 32":      nested("\xdd\x00\x00\x00\x01", 4<<20, "\xc0"),
		"map 16":        nested("\xde\x00\x01\xa1a", 4<<20, "\xc0"),
		"map 32":        nested("\xdf\x00\x00\x00\x01\xa1a", 4<<20, "\xc0"),
		"one too many":  nested("\x91", maxNesting+1, "\xc0"),
		"unknown field": append([]byte("\x81\xa1x"), nested("\x91", 4<<20, "\xc0")...),
	} {
		require.ErrorIs(t, Unmarshal(MessagePack, bomb, new(any)), ErrCorrupt, name)
		require.ErrorIs(t, Unmarshal(MessagePack, bomb, new(node)), ErrCorrupt, name)
	}
	require.NoError(t, Unmarshal(MessagePack, nested("\x91", maxNesting, "\xc0"), new(any)), "the deepest that is allowed")
	wide := append([]byte("\xdc\xff\xff"), bytes.Repeat([]byte("\x91\xc0"), 0xffff)...)
	require.NoError(t, Unmarshal(MessagePack, wide, new(any)), "depth counts, not the number of containers")
}

func TestJSONNestingBombIsRefused(t *testing.T) {
	t.Parallel()
	for _, open := range []string{"[", `{"a":`} {
		require.Error(t, Unmarshal(JSON, nested(open, 4<<20, ""), new(any)))
	}
}

func TestMalformedMessagePackIsRefused(t *testing.T) {
	t.Parallel()
	whole, err := Marshal(MessagePack, sampleProduct())
	require.NoError(t, err)
	for n := range whole {
		require.ErrorIs(t, checkMessagePack(whole[:n]), ErrCorrupt, "cut to %d", n)
	}
	require.NoError(t, checkMessagePack(whole))
	for name, data := range map[string]string{
		"empty":                    "",
		"never used":               "\xc1",
		"bytes after the object":   "\xc0\xc0",
		"bytes after a container":  "\x91\xc0\xc0",
		"array with one too few":   "\x92\xc0",
		"map with a key only":      "\x81\xc0",
		"huge array, no elements":  "\xdd\xff\xff\xff\xff",
		"huge map, no elements":    "\xdf\xff\xff\xff\xff",
		"huge string, no contents": "\xdb\xff\xff\xff\xff",
		"half a length":            "\xdd\xff\xff",
		"half a number":            "\xcf\x00",
	} {
		require.ErrorIs(t, Unmarshal(MessagePack, []byte(data), new(any)), ErrCorrupt, name)
	}
}

// Each first byte of the specification with the shortest object that it can start, and the same without its last byte.
func TestScanKnowsEveryFormatOfMessagePack(t *testing.T) {
	t.Parallel()
	follow := map[byte]string{
		0xc4: "\x01b", 0xc5: "\x00\x01b", 0xc6: "\x00\x00\x00\x01b",
		0xc7: "\x01tb", 0xc8: "\x00\x01tb", 0xc9: "\x00\x00\x00\x01tb",
		0xca: "4444", 0xcb: "88888888", 0xcc: "1", 0xcd: "22", 0xce: "4444", 0xcf: "88888888",
		0xd0: "1", 0xd1: "22", 0xd2: "4444", 0xd3: "88888888",
		0xd4: "tb", 0xd5: "tbb", 0xd6: "tbbbb", 0xd7: "tbbbbbbbb", 0xd8: "tbbbbbbbbbbbbbbbb",
		0xd9: "\x01s", 0xda: "\x00\x01s", 0xdb: "\x00\x00\x00\x01s",
		0xdc: "\x00\x01e", 0xdd: "\x00\x00\x00\x01e", 0xde: "\x00\x01kv", 0xdf: "\x00\x00\x00\x01kv",
	}
	for first := range 256 {
		c := byte(first)
		rest := follow[c]
		switch {
		case c >= 0x80 && c <= 0x8f:
			rest = strings.Repeat("kv", int(c&0x0f))
		case c >= 0x90 && c <= 0x9f:
			rest = strings.Repeat("e", int(c&0x0f))
		case c >= 0xa0 && c <= 0xbf:
			rest = strings.Repeat("s", int(c&0x1f))
		case c == 0xc1:
			continue
		}
		data := append([]byte{c}, rest...)
		require.NoError(t, checkMessagePack(data), "%#02x", c)
		require.ErrorIs(t, checkMessagePack(data[:len(data)-1]), ErrCorrupt, "%#02x", c)
		require.ErrorIs(t, checkMessagePack(append(data, 0)), ErrCorrupt, "%#02x", c)
	}
}

// Arrays inside each other that all claim the rest of the data would make the decoder allocate their sum.
func TestMessagePackAllocatesInProportionToItsData(t *testing.T) {
	const size = 1 << 20
	var data []byte
	for len(data) < 500*5 {
		left := size - len(data) - 5
		data = append(data, 0xdd, byte(left>>24), byte(left>>16), byte(left>>8), byte(left))
	}
	data = append(data, make([]byte, size-len(data))...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := Unmarshal(MessagePack, data, new(any))
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, ErrCorrupt)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

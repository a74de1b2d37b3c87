package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	bound      = 20 * time.Second
	generation = uint64(1_763_950_000_000_000)
	key        = "items:a"
)

var roomy = wire.Limits{MaxValue: 1 << 20, CompressFrom: -1}

// A fake is a store without a server.
type fake struct {
	value  []byte
	chunks map[string][][]byte // by nonce
	tags   map[string]string
	now    int64
}

func (f *fake) Get(context.Context, ...redisstore.Get) []redisstore.Read {
	return []redisstore.Read{{Value: f.value}}
}

func (f *fake) Chunks(_ context.Context, _, nonce string, _ []int) ([][]byte, bool, error) {
	chunks, ok := f.chunks[nonce]
	return chunks, ok, nil
}

func (f *fake) Values(_ context.Context, names ...string) ([]string, error) {
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = f.tags[name]
	}
	return values, nil
}

func (f *fake) Now(string) (int64, int64, bool) { return f.now, 1, true }

// current is a value of key that was loaded ten seconds ago, fresh for a minute and kept for two.
func current(now int64) wire.Header {
	at := func(d time.Duration) int64 { return now + d.Microseconds() }
	return wire.Header{
		Codec: wire.ID(wire.JSON), LoadStart: at(-10 * time.Second), FreshUntil: at(time.Minute), DeadUntil: at(2 * time.Minute), LoadDuration: time.Second, Nonce: wire.Nonce{1, 2, 3},
		Tags: []wire.Tag{{Name: keyspace.All, Generation: generation}, {Name: keyspace.CategoryTag("items"), Generation: generation}, {Name: "%t:supplier 3", Generation: generation}},
	}
}

func newFake() *fake {
	g := strconv.FormatUint(generation, 10)
	return &fake{now: 1_763_960_000_000_000, tags: map[string]string{keyspace.All: g, keyspace.CategoryTag("items"): g, "%t:supplier 3": g}, chunks: map[string][][]byte{}}
}

func encoded(t testing.TB, h wire.Header, payload []byte) []byte {
	t.Helper()
	value, err := wire.Encode(key, h, payload, roomy)
	require.NoError(t, err)
	return value
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	minute := time.Minute.Microseconds()
	for _, c := range []struct {
		name    string
		verdict Verdict
		problem error
		change  func(f *fake, h *wire.Header) (value []byte) // nil: the header alone is changed
	}{
		{"as stored", Served, nil, func(*fake, *wire.Header) []byte { return nil }},
		{"past its TTL", Stale, nil, func(f *fake, h *wire.Header) []byte { f.now += minute; return nil }},
		{"past its life", Expired, nil, func(f *fake, h *wire.Header) []byte { f.now += 2 * minute; return nil }},
		{"tag invalidated", Invalidated, nil, func(f *fake, h *wire.Header) []byte { f.tags["%t:supplier 3"] = "1763950000000001"; return nil }},
		{"tag without a generation", Invalidated, nil, func(f *fake, h *wire.Header) []byte { delete(f.tags, keyspace.All); return nil }},
		{"tag of another form", Invalidated, nil, func(f *fake, h *wire.Header) []byte { f.tags[keyspace.All] = "junk"; return nil }},
		{"without the tag of its category", Unusable, errNoTag, func(f *fake, h *wire.Header) []byte { h.Tags = h.Tags[:1]; return nil }},
		{"names a key as a tag", Unusable, errForeignTag, func(f *fake, h *wire.Header) []byte { h.Tags[2].Name = "secrets:a"; return nil }},
		{"missing", NotCached, nil, func(f *fake, h *wire.Header) []byte { return []byte{} }},
		{"another program's", Unusable, wire.ErrForeign, func(f *fake, h *wire.Header) []byte { return []byte("hello") }},
		{"cut short", Unusable, wire.ErrCorrupt, func(f *fake, h *wire.Header) []byte { v := encoded(t, *h, []byte(`{}`)); return v[:len(v)-1] }},
		{"of another key", Unusable, wire.ErrWrongKey, func(f *fake, h *wire.Header) []byte {
			v, err := wire.Encode("items:b", *h, nil, roomy)
			require.NoError(t, err)
			return v
		}},
		{"newer", NewerBuild, wire.ErrNewer, func(f *fake, h *wire.Header) []byte { v := encoded(t, *h, nil); v[2] = wire.Version + 1; return v }},
		{"chunked, without its chunks", Incomplete, errNoChunk, func(f *fake, h *wire.Header) []byte {
			v, _ := wire.Split(encoded(t, *h, make([]byte, 1000)), 256)
			return v
		}},
		{"chunked, without its chunks, and invalidated", Invalidated, nil, func(f *fake, h *wire.Header) []byte {
			f.tags[keyspace.All] = "1763950000000001"
			v, _ := wire.Split(encoded(t, *h, make([]byte, 1000)), 256)
			return v
		}},
	} {
		f := newFake()
		h := current(f.now)
		if f.value = c.change(f, &h); f.value == nil {
			f.value = encoded(t, h, []byte(`{}`))
		}
		if len(f.value) == 0 {
			f.value = nil
		}
		e, err := Read(t.Context(), f, key, key, roomy)
		require.NoError(t, err, c.name)
		require.Equal(t, c.verdict, e.Verdict, c.name)
		if c.problem != nil {
			require.ErrorIs(t, e.Problem, c.problem, c.name)
		} else {
			require.NoError(t, e.Problem, c.name)
		}
	}
}

// A value names any key of the server as its tag. What is in that key must not be shown.
func TestAForgedTagIsNotRead(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tags["secrets:a"] = "1763950000000000"
	h := current(f.now)
	h.Tags[2].Name = "secrets:a"
	f.value = encoded(t, h, nil)
	e, err := Read(t.Context(), f, key, key, roomy)
	require.NoError(t, err)
	require.Zero(t, e.Tags[2].Now)
}

func TestAValueInChunksIsJoined(t *testing.T) {
	t.Parallel()
	for _, etag := range []string{"", "v1"} { // with one, the value is an extended one
		f := newFake()
		h := current(f.now)
		h.ETag = etag
		payload := []byte(strings.Repeat("0123456789", 100))
		value, chunks := wire.Split(encoded(t, h, payload), 256)
		f.value, f.chunks[h.Nonce.String()] = value, chunks
		e, err := Read(t.Context(), f, key, key, roomy)
		require.NoError(t, err)
		require.Equal(t, Served, e.Verdict)
		require.Equal(t, payload, e.Payload)
		require.Equal(t, 4, e.Chunks)
		require.EqualValues(t, 1000, e.Stored)
		require.EqualValues(t, len(value)+1000, e.Size)
	}
}

func TestSizesOfACompressedValue(t *testing.T) {
	t.Parallel()
	f := newFake()
	payload := bytes.Repeat([]byte("a"), 10_000)
	value, err := wire.Encode(key, current(f.now), payload, wire.Limits{MaxValue: 1 << 20, CompressFrom: 1})
	require.NoError(t, err)
	f.value = value
	e, err := Read(t.Context(), f, key, key, roomy)
	require.NoError(t, err)
	require.Equal(t, 10_000, e.Decoded)
	require.Less(t, e.Stored, int64(1000))
	require.EqualValues(t, len(value), e.Size)
}

func TestTexts(t *testing.T) {
	t.Parallel()
	type item struct {
		Name string
		N    int
	}
	payload := func(codec wire.Codec, v any) []byte {
		data, err := wire.Marshal(codec, v)
		require.NoError(t, err)
		return data
	}
	for _, c := range []struct {
		codec   wire.Codec
		payload []byte
		want    string
	}{
		{wire.JSON, payload(wire.JSON, item{"a", 1}), "{\n  \"Name\": \"a\",\n  \"N\": 1\n}"},
		{wire.JSON, []byte("no JSON"), "no JSON"},
		{wire.JSON, []byte("[\"\u009b2J\"]"), "[\n  \"\\u009b2J\"\n]"},
		{wire.CBOR, payload(wire.CBOR, item{"a", 1}), "{\n  \"N\": 1,\n  \"Name\": \"a\"\n}"},
		{wire.Raw, []byte("text\nof two lines"), "text\nof two lines"},
		{wire.Raw, []byte("\x1b[2J"), "00000000  1b 5b 32 4a                                       |.[2J|"},
		{wire.Raw, []byte("\xff"), "00000000  ff                                                |.|"},
		{wire.Raw, nil, ""},
	} {
		e := Entry{Header: wire.Header{Codec: wire.ID(c.codec)}, Payload: c.payload}
		text, whole := e.Text(0)
		require.Equal(t, c.want, text, "%q", c.payload)
		require.True(t, whole)
	}
	require.Equal(t, `a\x1b\u202e\ufffd`+"\n", Printable("a\x1b\u202e\xff\n"))
}

// Anyone can write a value that is long, or whose indentation is.
func TestTheTextOfAValueIsNotMuchLongerThanTheValue(t *testing.T) {
	t.Parallel()
	deep := func(depth, n int) string {
		return strings.Repeat("[", depth) + strings.Repeat("0,", n) + "0" + strings.Repeat("]", depth)
	}
	levels, err := wire.Marshal(wire.CBOR, nested(900))
	require.NoError(t, err)
	for _, c := range []struct {
		codec   wire.Codec
		payload string
		most    int
		want    string // or what it has, at least
		whole   bool
	}{
		{wire.JSON, deep(9_000, 1000), 0, deep(9_000, 1000), true},
		{wire.JSON, deep(deepest, 1), 0, "\n" + strings.Repeat("  ", deepest) + "0", true},
		{wire.JSON, `["` + strings.Repeat(`\"[[`, 100) + `"]`, 0, "[\n  \"" + strings.Repeat(`\"[[`, 100) + "\"\n]", true},
		{wire.CBOR, string(levels), 0, "00000000  ", true},
		{wire.JSON, `["` + strings.Repeat("é", mostFormatted/2) + `"]`, 5, `["é`, false},
		{wire.JSON, `["` + strings.Repeat("é", mostFormatted/2) + `"]`, 0, "", false},
		{wire.JSON, `["` + strings.Repeat("é", mostFormatted/2) + `"]`, mostFormatted + 10, "[\n  \"éé", true},
		{wire.Raw, strings.Repeat("\xff", mostFormatted+1), 5, "00000000  ff ff", false},
	} {
		e := Entry{Header: wire.Header{Codec: wire.ID(c.codec)}, Payload: []byte(c.payload)}
		text, whole := e.Text(c.most)
		require.Equal(t, c.whole, whole)
		require.True(t, strings.Contains(text, c.want), "%.50q", c.payload)
		require.LessOrEqual(t, len(text), 5*len(c.payload)+4*deepest*deepest, "%.50q", c.payload)
	}
}

func nested(depth int) any {
	if depth == 0 {
		return int64(0)
	}
	return []any{nested(depth - 1)}
}

func TestJSONForATerminal(t *testing.T) {
	t.Parallel()
	const hidden = "a\u009b\u007f\u202e\U000e0041é\n\x1b"
	text, err := json.Marshal(hidden)
	require.NoError(t, err)
	shown := PrintableJSON(text)
	require.Equal(t, `"a\u009b\u007f\u202e\udb40\udc41é\n\u001b"`, string(shown))
	var back string
	require.NoError(t, json.Unmarshal(shown, &back))
	require.Equal(t, hidden, back)
}

// Any bytes end in a verdict, and their text can be shown by a terminal.
func FuzzRead(f *testing.F) {
	store := newFake()
	h := current(store.now)
	whole := encoded(f, h, []byte(`{"a":[1,2]}`))
	head, chunks := wire.Split(encoded(f, h, make([]byte, 600)), 256)
	f.Add(whole, []byte{}, uint32(0), false)
	f.Add(head, bytes.Join(chunks, nil), uint32(0), false)
	f.Add(head, []byte("short"), uint32(0), false)
	f.Add([]byte{}, []byte{}, uint32(0), false)
	f.Add(whole[:90], []byte{}, uint32(0), false)
	for _, codec := range []wire.Codec{wire.JSON, wire.CBOR, wire.Raw} {
		f.Add([]byte("payload\x1b"), []byte{}, wire.ID(codec), true)
	}
	f.Fuzz(func(t *testing.T, value, chunk []byte, codec uint32, wrap bool) {
		store := newFake()
		if store.value = value; wrap {
			h := current(store.now)
			h.Codec = codec
			store.value = encoded(t, h, value)
		}
		if nonce, ok := wire.HeadNonce(store.value); ok {
			store.chunks[nonce.String()] = [][]byte{chunk}
		}
		e, err := Read(t.Context(), store, key, key, roomy)
		require.NoError(t, err)
		require.NotEmpty(t, e.Verdict)
		text, _ := e.Text(len(value) / 2)
		require.True(t, utf8.ValidString(text))
		require.NotContains(t, text, "\x1b")
		if wrap {
			require.Equal(t, Served, e.Verdict)
		}
	})
}

func TestReadOnAServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	store := redisstore.Open(redisstore.Options{
		Client: rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true}, Namespace: "shop%:", OpTimeout: bound, Lease: bound,
	})
	t.Cleanup(store.Close)
	require.Eventually(t, store.Up, bound, time.Millisecond)
	const name = "shop%:" + key
	value, err := wire.Encode(name, current(time.Now().UnixMicro()), []byte(`"text"`), roomy)
	require.NoError(t, err)
	server.MustDo(t, "SET", name, string(value))
	for tag, g := range newFake().tags {
		server.MustDo(t, "SET", "shop%:"+tag, g)
	}
	e, err := Read(t.Context(), store, key, name, roomy)
	require.NoError(t, err)
	require.Equal(t, Served, e.Verdict)
	text, _ := e.Text(0)
	require.Equal(t, `"text"`, text)
	require.InDelta(t, time.Now().UnixMicro(), e.Now, float64(bound.Microseconds()))

	server.MustDo(t, "DEL", name)
	server.MustDo(t, "HSET", name, "field", "1")
	e, err = Read(t.Context(), store, key, name, roomy)
	require.NoError(t, err)
	require.Equal(t, Unusable, e.Verdict)
	require.ErrorContains(t, e.Problem, "no string")

}

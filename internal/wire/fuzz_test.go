package wire

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzDecode takes any bytes under any key. With reseal the lengths' own checks are reached: key hash and checksum are
// made right, which random changes hardly ever do.
func FuzzDecode(f *testing.F) {
	f.Add("k", []byte{}, false)
	f.Add("k", encode(f, "k", fixedHeader(), []byte(`{"id":1}`), roomy), false)
	f.Add("k", encode(f, "k", fixedHeader(), bytes.Repeat([]byte("model "), 300), roomy), true)
	f.Add("k", encode(f, "k", Header{Negative: true}, nil, roomy), true)
	f.Add("k", forge("k", flagCompressed, 1<<20, noTags, bomb(1<<20)), true)
	lim := Limits{MaxValue: 1 << 16, CompressFrom: 100}
	f.Fuzz(func(t *testing.T, key string, value []byte, reseal bool) {
		if reseal && len(value) >= HeaderLen {
			value = bytes.Clone(value)
			value[0], value[1], value[versionOffset] = magic0, magic1, version
			hash := hashKey(key)
			copy(value[keyHashOffset:], hash[:])
			seal(value)
		}
		seen, size, _, peekErr := Peek(key, value)
		h, payload, err := Decode(key, value, lim)
		if err == nil {
			require.NoError(t, peekErr)
			require.Equal(t, h, seen)
			require.EqualValues(t, len(value), size)
		}
		if err != nil {
			require.Nil(t, payload)
			require.Equal(t, Header{}, h)
			return
		}
		require.LessOrEqual(t, len(payload), lim.MaxValue)
		nonce, ok := HeadNonce(value[:HeadLen])
		require.True(t, ok)
		require.Equal(t, h.Nonce, nonce)

		again, err := Encode(key, h, payload, lim)
		require.NoError(t, err)
		h2, payload2, err := Decode(key, again, lim)
		require.NoError(t, err)
		require.Equal(t, h, h2)
		require.True(t, bytes.Equal(payload, payload2))
	})
}

func FuzzEnvelopeRoundTrip(f *testing.F) {
	f.Add("k", "other", uint32(1), false, int64(1), int64(2), int64(3), int64(4), []byte("nonce"), "tag", uint64(5), []byte("payload"), 10)
	f.Add("", "", uint32(0), true, int64(-1), int64(0), int64(0), int64(-4), []byte{}, "", uint64(0), []byte{}, -1)
	f.Add("k", "k2", uint32(0), false, int64(0), int64(0), int64(0), int64(0), []byte{}, "t", uint64(0), bytes.Repeat([]byte("ab"), 999), 0)
	f.Fuzz(func(t *testing.T, key, other string, codec uint32, negative bool, start, fresh, dead, took int64,
		nonce []byte, tag string, generation uint64, payload []byte, from int,
	) {
		h := Header{Codec: codec, Negative: negative, LoadStart: start, FreshUntil: fresh, DeadUntil: dead, LoadDuration: time.Duration(took), Policy: uint64(dead), OwnTTL: took&1 != 0}
		copy(h.Nonce[:], nonce)
		h.Payload = h.Nonce
		if tag != "" {
			h.Tags = []Tag{{Name: tag, Generation: generation}, {Name: "second", Generation: 1}}
		}
		lim := Limits{MaxValue: 1 << 16, CompressFrom: from}
		value, err := Encode(key, h, payload, lim)
		switch {
		case len(payload) > lim.MaxValue:
			require.ErrorIs(t, err, ErrTooLarge)
			return
		case len(tag) > MaxTagName:
			require.ErrorIs(t, err, ErrTags)
			return
		}
		require.NoError(t, err)
		got, gotPayload, err := Decode(key, value, lim)
		require.NoError(t, err)
		require.True(t, bytes.Equal(payload, gotPayload))
		if negative {
			h.Codec = 0
		}
		h.LoadDuration = time.Duration(saturate(h.LoadDuration)) * time.Millisecond
		require.Equal(t, h, got)
		if other != key {
			_, _, err = Decode(other, value, lim)
			require.ErrorIs(t, err, ErrWrongKey)
		}
	})
}

// hostile decodes any bytes, as payloads of each codec, into an interface, a struct, typed containers, and a type that holds itself. A
// stack overflow or a runaway allocation would end the process.
func hostile(t *testing.T, c Codec, data []byte) {
	before := bytes.Clone(data)
	lim := Limits{MaxValue: 1 << 20}
	for _, v := range []any{new(any), new(product), new([]product), new(map[string]product), new(string), new([]byte), new(time.Time), new(recursive), new(map[int8][2]float32), new(*big.Int)} {
		if !lim.Fits(c, reflect.TypeOf(v).Elem(), data) {
			continue
		}
		start := allocated()
		err := Unmarshal(c, data, v)
		require.Less(t, allocated()-start, uint64(8*decodedFactor<<20+1000*len(data)), "%T", v)
		if err != nil {
			continue
		}
		// What was decoded is kept or refused: it may have been written by hand.
		again, err := Marshal(c, v)
		if err != nil {
			continue
		}
		w := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		require.NoError(t, Unmarshal(c, again, w), "%T", v)
		third, err := Marshal(c, w)
		require.NoError(t, err)
		require.Len(t, third, len(again), "%T", v) // maps may be in another order
	}
	require.Equal(t, before, data, "decoding does not write to its input")
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func FuzzCBOR(f *testing.F) {
	whole, err := Marshal(CBOR, sampleProduct())
	require.NoError(f, err)
	_, _, item, ok := cutCBOR(whole)
	require.True(f, ok)
	f.Add(item, byte(1))
	f.Add(whole, byte(0))
	for _, seed := range []string{
		string(nested("\x81", 2000, "\xf6")), string(nested("\xa1\x61a", 2000, "\xf6")), "\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", "\xa2\x62id\x01\x65title\x61x",
		"\xc0\x742026-01-02T03:04:05Z", "\xc1\x1a\x00\x00\x00\x01", "\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00", "\xd9\xd9\xf7\xf6", "\xf9\x7e\x00", "\x9f\xff", "\xa1\x80\x00",
		"\xa2\x61a\x01\x61a\x02", "\xf8\x20", "\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
	} {
		f.Add([]byte(seed), byte(0))
	}
	types := []reflect.Type{reflect.TypeFor[any](), reflect.TypeFor[product](), reflect.TypeFor[recursive]()}
	f.Fuzz(func(t *testing.T, item []byte, typ byte) {
		// As a payload of one of the types, and as one of another build's.
		k := keeperOf(types[int(typ)%len(types)], "cbor")
		hostile(t, CBOR, append(appendCBORHead(nil, nil, k.print), item...))
		hostile(t, CBOR, append(appendCBORHead(nil, k.fields.stored, k.print-1), item...))
		hostile(t, CBOR, item)
	})
}

func FuzzJSON(f *testing.F) {
	whole, err := Marshal(JSON, sampleProduct())
	require.NoError(f, err)
	f.Add(whole)
	for _, seed := range []string{`{"id":1}`, `[[[[1]]]]`, `{"id":9007199254740993,"ratio":1e39}`, `"\ud800"`, "\"\xff\"", `{"a":1,"a":2}`, `null`, "1 \t\n\r \t\n\r \t\n\r \t\n\r", `{"Left":{"Right":null}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { hostile(t, JSON, data) })
}

func FuzzRaw(f *testing.F) {
	f.Add([]byte("raw \xff"))
	f.Add([]byte(rawNil))
	f.Add([]byte(rawNil + "\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		require.Equal(t, string(data), roundTrip(t, Raw, string(data)))
		require.True(t, bytes.Equal(data, roundTrip(t, Raw, data)))
		require.NotNil(t, roundTrip(t, Raw, append([]byte{}, data...)))
		require.Nil(t, roundTrip(t, Raw, []byte(nil)))
		require.NoError(t, Unmarshal(Raw, data, new([]byte)))
		require.NoError(t, Unmarshal(Raw, data, new(string)))
	})
}

// FuzzCodecs makes values, which each codec gives back or refuses.
func FuzzCodecs(f *testing.F) {
	f.Add("title", int64(1), []byte("blob"), 0.5, int64(0), int64(0))
	f.Add("\xff", int64(-1), []byte(nil), math.Inf(1), int64(1<<60), int64(3599))
	f.Add(`\ufffd`, int64(math.MinInt64), []byte{}, math.NaN(), int64(-1<<62), int64(-86400))
	f.Fuzz(func(t *testing.T, text string, id int64, blob []byte, number float64, seconds, offset int64) {
		at := time.Unix(seconds%1e12, id&0xfffff).In(time.FixedZone("", int(offset%200_000)))
		sample := product{
			ID: id, Title: text, Blob: blob, Ratio: float32(number), Created: at, Updated: &at, Tags: []string{text}, Flags: [3]bool{id > 0},
			ByGateway: map[string]provider{text: {Name: text, Price: number, Meta: map[string]string{text: ""}}},
		}
		holds := struct{ Any any }{map[string]any{text: []any{number, text, nil, id > 0}}}
		number64 := struct{ Any any }{id}
		for _, c := range []Codec{JSON, CBOR} {
			if data, err := Marshal(c, &sample); err == nil {
				var got product
				require.NoError(t, Unmarshal(c, data, &got), c.Name())
				require.True(t, got.Created.Equal(at) && got.Updated.Equal(at), c.Name())
				require.Equal(t, at.Format(time.RFC3339Nano), got.Created.Format(time.RFC3339Nano))
				got.Created, got.Updated = at, &at
				require.Equal(t, fmt.Sprintf("%#v", sample.ByGateway), fmt.Sprintf("%#v", got.ByGateway), c.Name()) // NaN is NaN
				got.ByGateway, got.Ratio = sample.ByGateway, sample.Ratio
				require.Equal(t, sample.Blob == nil, got.Blob == nil)
				require.Equal(t, fmt.Sprintf("%#v", sample), fmt.Sprintf("%#v", got), c.Name())
			} else {
				var loss *LossError
				require.ErrorAs(t, err, &loss)
			}
			if data, err := Marshal(c, &holds); err == nil {
				var got struct{ Any any }
				require.NoError(t, Unmarshal(c, data, &got), c.Name())
				require.Equal(t, fmt.Sprintf("%#v", holds), fmt.Sprintf("%#v", got), c.Name())
			}
			if data, err := Marshal(c, &number64); err == nil {
				var got struct{ Any any }
				require.NoError(t, Unmarshal(c, data, &got), c.Name())
				require.Equal(t, number64, got, c.Name())
			}
		}
	})
}

// FuzzRestamp takes any extended value, sealed, and any new header. Peek, Decode and Restamp agree on what is such a value, and the restamped
// value has the new header and the old payload.
func FuzzRestamp(f *testing.F) {
	manifest := append(append(bytes.Clone(fixedNonce[:]), 64, 0, 0, 0, 40, 0, 0, 0), crcOf(bytes.Repeat([]byte("x"), 64))...)
	f.Add("k", byte(0), []byte{0, 0}, []byte("abc"), uint32(3), true, "etag", int64(7), "tag", byte(1))
	f.Add("k", byte(flagPolicy|flagOwnTTL), []byte{1, 0, 1, 0, 't', 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, recordETag, 1, 0, 'e'}, []byte("abc"), uint32(3), true, "f", int64(0), "t", byte(1))
	f.Add("k", byte(flagChunked), []byte{0, 0}, manifest, uint32(64), true, "", int64(-1), "", byte(2))
	f.Add("k", byte(flagNegative|flagText), []byte{0, 0, 77, 2, 0, 1, 2}, []byte("no such user"), uint32(12), true, "", int64(0), "", byte(255))
	f.Add("k", byte(flagCompressed), []byte{0, 0, recordStaleUntil, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{12, 3 << 2, 'a', 'b', 'c', 'd', 4<<2 | 1, 4}, uint32(12), true, "", int64(9), "", byte(0))
	lim := Limits{MaxValue: 1 << 16, CompressFrom: 100}
	f.Fuzz(func(t *testing.T, key string, flags byte, section, stored []byte, raw uint32, sum bool, etag string, stale int64, tag string, cut byte) {
		sumOf := crcOf(stored)
		if flags&flagChunked != 0 && len(stored) >= 4 {
			sumOf = stored[len(stored)-4:]
		}
		if section = bytes.Clone(section); sum {
			section = append(append(section, recordPayloadCRC, 4, 0), sumOf...)
		}
		value := forge(key, flags|flagExtended, raw, section, stored)
		seen, size, need, peekErr := Peek(key, value)
		next := Header{ETag: etag, StaleUntil: stale, LoadStart: 1, FreshUntil: 2, DeadUntil: 3, Nonce: Nonce{1}}
		if tag != "" {
			next.Tags = []Tag{{Name: tag, Generation: 4}}
		}
		head, err := Restamp(key, value[:min(len(value), max(need, int(cut)))], next)
		h, payload, decodeErr := Decode(key, value, lim)
		m, manifestErr := ReadManifest(key, value, lim)
		if decodeErr == nil || manifestErr == nil {
			require.NoError(t, peekErr)
			require.EqualValues(t, len(value)+m.Size, size)
			if decodeErr != nil {
				h = m.Header
			}
			require.Equal(t, h, seen)
			if len(etag) > MaxETag {
				require.ErrorIs(t, err, ErrETag)
			} else if len(tag) <= MaxTagName {
				require.NoError(t, err)
			}
		}
		if err != nil {
			require.Nil(t, head)
			return
		}
		require.NoError(t, peekErr)
		if len(seen.Tags) == len(next.Tags) && (len(next.Tags) == 0 || len(seen.Tags[0].Name) == len(tag)) && len(seen.ETag) == len(etag) &&
			(seen.StaleUntil == 0) == (stale == 0) {
			require.LessOrEqual(t, len(head), need, "the records of a later build are left out")
		}
		whole := append(bytes.Clone(head), value[need:]...)
		next.Extended, next.Codec, next.Negative, next.Policy, next.Payload = true, seen.Codec, seen.Negative, seen.Policy, next.Nonce
		if IsChunked(value) {
			next.Payload = seen.Payload
		}
		again, _, _, err := Peek(key, head)
		require.NoError(t, err)
		require.Equal(t, next, again)
		if decodeErr == nil {
			h, samePayload, err := Decode(key, whole, lim)
			require.NoError(t, err)
			require.Equal(t, next, h)
			require.True(t, bytes.Equal(payload, samePayload))
		} else if manifestErr == nil {
			n, err := ReadManifest(key, whole, lim)
			require.NoError(t, err)
			require.Equal(t, next, n.Header)
			require.Equal(t, m.Lengths(), n.Lengths())
			require.Equal(t, m.crc, n.crc)
		}
	})
}

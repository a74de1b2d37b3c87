package wire

import (
	"bytes"
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
		h := Header{Codec: codec, Negative: negative, LoadStart: start, FreshUntil: fresh, DeadUntil: dead, LoadDuration: time.Duration(took), Policy: uint64(dead)}
		copy(h.Nonce[:], nonce)
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

// FuzzMessagePack decodes any bytes into an interface, a struct and typed containers. A stack overflow or a runaway
// allocation would end the process.
func FuzzMessagePack(f *testing.F) {
	whole, err := Marshal(MessagePack, sampleProduct())
	require.NoError(f, err)
	f.Add(whole)
	f.Add(nested("\x91", 2000, "\xc0"))
	f.Add(nested("\x81\xa1a", 2000, "\xc0"))
	f.Add([]byte("\xdd\xff\xff\xff\xff"))
	f.Add([]byte("\x82\xa2id\x01\xa5title\xa1x"))
	f.Add([]byte("\xc7\x0c\xff12345678abcd"))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		for _, v := range []any{new(any), new(product), new([]product), new(map[string]product), new(string), new([]byte), new(time.Time)} {
			if err := Unmarshal(MessagePack, data, v); err == nil {
				require.NoError(t, checkMessagePack(data))
			}
		}
		require.Equal(t, before, data, "decoding does not write to its input")
	})
}

// FuzzCodecs encodes what it can decode, and decodes that to the same again.
func FuzzCodecs(f *testing.F) {
	for _, c := range []Codec{JSON, MessagePack} {
		data, err := Marshal(c, sampleProduct())
		require.NoError(f, err)
		f.Add(data, "title", int64(1), []byte("blob"))
	}
	f.Add([]byte(`{"id":1}`), "", int64(0), []byte{})
	f.Add([]byte("raw \xff"), "\xff", int64(-1), []byte(nil))
	f.Fuzz(func(t *testing.T, data []byte, title string, id int64, blob []byte) {
		for _, c := range []Codec{JSON, MessagePack} {
			var p product
			if Unmarshal(c, data, &p) == nil {
				first, err := Marshal(c, p)
				if err != nil {
					continue // a year that JSON has no form for
				}
				var again product
				require.NoError(t, Unmarshal(c, first, &again), "%s", c.Name())
			}
			var anything any
			_ = Unmarshal(c, data, &anything)
		}

		sample := product{ID: id, Title: title, Blob: blob}
		require.Equal(t, sample, roundTrip(t, MessagePack, sample).inUTC())

		require.Equal(t, string(data), roundTrip(t, Raw, string(data)))
		require.True(t, bytes.Equal(data, roundTrip(t, Raw, data)))
	})
}

package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func extendedHeader() Header {
	h := fixedHeader()
	h.Extended, h.ETag, h.StaleUntil = true, `"v-17"`, 1_763_700_900_000_000
	return h
}

// restampedHeader is what a load would write that finds out that the value of extendedHeader is still right.
func restampedHeader() Header {
	h := extendedHeader()
	h.LoadStart, h.FreshUntil, h.DeadUntil, h.StaleUntil = h.LoadStart+1e9, h.FreshUntil+1e9, h.DeadUntil+1e9, h.StaleUntil+1e9
	h.LoadDuration = 3 * time.Second
	h.Nonce = Nonce{9, 9, 9}
	h.Tags = []Tag{{Name: "models", Generation: 8}, {Name: "gateway:é", Generation: 1}}
	return h
}

func TestAnExtendedEntrySaysWhatItIs(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Header){
		"with all":       func(*Header) {},
		"by itself":      func(h *Header) { h.ETag, h.StaleUntil = "", 0 },
		"by its ETag":    func(h *Header) { h.Extended, h.StaleUntil = false, 0 },
		"by its windows": func(h *Header) { h.Extended, h.ETag = false, "" },
		"with a policy":  func(h *Header) { h.Policy, h.OwnTTL = 77, true },
		"without tags":   func(h *Header) { h.Tags = nil },
		"longest ETag":   func(h *Header) { h.ETag = strings.Repeat("e", MaxETag) },
		"negative":       func(h *Header) { h.Negative, h.Codec = true, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := extendedHeader()
			change(&h)
			value := encode(t, "k", h, []byte("payload"), roomy)
			h.Extended = true
			got, payload, err := Decode("k", value, roomy)
			require.NoError(t, err)
			require.Equal(t, h, got)
			require.Equal(t, "payload", string(payload))

			seen, size, need, err := Peek("k", value)
			require.NoError(t, err)
			require.Equal(t, h, seen)
			require.EqualValues(t, len(value), size)
			require.Equal(t, len(value)-len("payload"), need)
			again, _, _, err := Peek("k", value[:need])
			require.NoError(t, err)
			require.Equal(t, h, again)
			short, _, _, err := Peek("k", value[:need-1])
			require.NoError(t, err)
			require.True(t, short.Extended, "the flag says so")
		})
	}
	h := extendedHeader()
	h.ETag = strings.Repeat("e", MaxETag+1)
	_, err := Encode("k", h, nil, roomy)
	require.ErrorIs(t, err, ErrETag)
	_, err = Restamp("k", encode(t, "k", extendedHeader(), nil, roomy), h)
	require.ErrorIs(t, err, ErrETag)
}

func TestARestampedValueHasTheNewHeaderAndTheSamePayload(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string][]byte{
		"as it is":   incompressible(1000),
		"compressed": append(incompressible(900), make([]byte, 100_000)...),
		"empty":      {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := extendedHeader()
			h.Policy = 12
			value := encode(t, "k", h, payload, roomy)
			_, _, need, err := Peek("k", value)
			require.NoError(t, err)

			next := restampedHeader()
			next.Codec, next.Negative, next.Policy = 1, true, 99 // belong to the payload
			for range 3 {
				head, err := Restamp("k", value[:need], next)
				require.NoError(t, err)
				require.Len(t, head, need, "names, ETag and windows have their lengths")
				before := value
				value = append(bytes.Clone(head), value[need:]...)
				got, gotPayload, err := Decode("k", value, roomy)
				require.NoError(t, err)
				want := next
				want.Codec, want.Negative, want.Policy, want.Payload = h.Codec, false, 12, next.Nonce
				require.Equal(t, want, got)
				require.True(t, bytes.Equal(payload, gotPayload))
				require.Equal(t, before[flagsOffset], value[flagsOffset])
				next.Nonce[0]++
				next.Tags[0].Generation++
			}

			next.Tags, next.ETag, next.StaleUntil, next.Extended, next.OwnTTL = nil, "a longer name of this version", 0, false, true
			head, err := Restamp("k", value, next)
			require.NoError(t, err)
			require.NotEqual(t, need, len(head))
			got, gotPayload, err := Decode("k", append(head, value[need:]...), roomy)
			require.NoError(t, err)
			want := next
			want.Codec, want.Negative, want.Policy, want.Payload, want.Extended = h.Codec, false, 12, next.Nonce, true
			require.Equal(t, want, got)
			require.True(t, bytes.Equal(payload, gotPayload))
		})
	}
}

func TestARestampedChunkedValueKeepsItsChunks(t *testing.T) {
	t.Parallel()
	payload := append(incompressible(900), make([]byte, 100_000)...)
	value, chunks := Split(encode(t, "k", extendedHeader(), payload, roomy), 100)
	next := restampedHeader()
	for range 3 {
		var err error
		next.Nonce[0]++
		next.ETag += "+"
		value, err = Restamp("k", value, next)
		require.NoError(t, err)
		require.True(t, IsChunked(value))
		want := next
		want.Payload = fixedNonce
		m, err := ReadManifest("k", value, roomy)
		require.NoError(t, err)
		require.Equal(t, want, m.Header, "the chunks are those of the fill")
		require.Equal(t, len(chunks), m.Chunks)
		seen, size, need, err := Peek("k", value)
		require.NoError(t, err)
		require.Equal(t, want, seen)
		require.Equal(t, len(value), need)
		require.EqualValues(t, len(value)+m.Size, size)
		short, _, _, err := Peek("k", value[:need-1])
		require.NoError(t, err)
		require.Zero(t, short.Payload, "is not known yet")
		h, got, err := m.Join("k", value, chunks, roomy)
		require.NoError(t, err)
		require.Equal(t, want, h)
		require.True(t, bytes.Equal(payload, got))
		nonce, ok := HeadNonce(value[:HeadLen])
		require.True(t, ok)
		require.Equal(t, next.Nonce, nonce)
	}
	other, err := ReadManifest("k", value, roomy)
	require.NoError(t, err)
	damaged := append([][]byte(nil), chunks...)
	damaged[1] = bytes.Clone(damaged[1])
	damaged[1][7] ^= 1
	_, _, err = other.Join("k", value, damaged, roomy)
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestRestampTrustsNothingThatItDoesNotCheck(t *testing.T) {
	t.Parallel()
	payload := incompressible(300)
	whole := encode(t, "k", extendedHeader(), payload, roomy)
	manifest, _ := Split(whole, 100)
	for name, value := range map[string][]byte{"in one piece": whole, "chunked": manifest} {
		_, _, need, err := Peek("k", value)
		require.NoError(t, err)
		head := value[:need]
		for bit := range 8 * len(head) {
			head[bit/8] ^= 1 << (bit % 8)
			_, err := Restamp("k", head, restampedHeader())
			require.Error(t, err, "%s, byte %d, bit %d", name, bit/8, bit%8)
			head[bit/8] ^= 1 << (bit % 8)
		}
		for n := range head {
			_, err := Restamp("k", head[:n:n], restampedHeader())
			require.Error(t, err, "%s cut to %d", name, n)
		}
		_, err = Restamp("another", head, restampedHeader())
		require.ErrorIs(t, err, ErrWrongKey)
		newer := bytes.Clone(head)
		newer[versionOffset]++
		_, err = Restamp("k", newer, restampedHeader())
		require.ErrorIs(t, err, ErrNewer)
		_, err = Restamp("k", []byte("something else"), restampedHeader())
		require.ErrorIs(t, err, ErrForeign)
		_, err = Restamp("k", head, restampedHeader())
		require.NoError(t, err, "it is as it was")
	}
	_, err := Restamp("k", encode(t, "k", fixedHeader(), payload, roomy), restampedHeader())
	require.ErrorIs(t, err, ErrNotExtended)
	h := restampedHeader()
	h.Tags = make([]Tag, MaxTags+1)
	_, err = Restamp("k", whole, h)
	require.ErrorIs(t, err, ErrTags)
}

func TestEveryFlippedBitOfAnExtendedEntryIsRefused(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string][]byte{
		"plain":      []byte(`{"id":1}`),
		"compressed": bytes.Repeat([]byte("model "), 500),
	} {
		value := encode(t, "k", extendedHeader(), payload, roomy)
		for bit := range 8 * len(value) {
			value[bit/8] ^= 1 << (bit % 8)
			_, _, err := Decode("k", value, roomy)
			require.Error(t, err, "%s, byte %d, bit %d", name, bit/8, bit%8)
			value[bit/8] ^= 1 << (bit % 8)
		}
		for n := range value {
			_, _, err := Decode("k", value[:n:n], roomy)
			require.Error(t, err, "%s cut to %d", name, n)
		}
		_, _, err := Decode("k", value, roomy)
		require.NoError(t, err)
		manifest, _ := Split(value, 4)
		for bit := range 8 * len(manifest) {
			manifest[bit/8] ^= 1 << (bit % 8)
			if m, err := ReadManifest("k", manifest, roomy); err == nil {
				require.Fail(t, "accepted", "%s, byte %d, bit %d: %v", name, bit/8, bit%8, m)
			}
			manifest[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func TestInconsistentRecordsAreRefused(t *testing.T) {
	t.Parallel()
	sum := func(b []byte) []byte { return append([]byte{recordPayloadCRC, 4, 0}, crcOf(b)...) }
	entry := func(records ...[]byte) []byte {
		return forge("k", flagExtended, 3, append(bytes.Clone(noTags), bytes.Join(records, nil)...), []byte("abc"))
	}
	good := sum([]byte("abc"))
	for name, value := range map[string][]byte{
		"one of a later build":   entry([]byte{200, 2, 0, 'x', 'y'}, good),
		"one of type 0":          entry(good, []byte{0, 0, 0}),
		"many of a later build":  entry(bytes.Repeat([]byte{9, 1, 0, 'x'}, 200), good),
		"no others than the sum": entry(good),
	} {
		h, payload, err := Decode("k", value, roomy)
		require.NoError(t, err, name)
		require.Equal(t, Header{Extended: true}, h, name)
		require.Equal(t, "abc", string(payload), name)
		_, _, need, err := Peek("k", value)
		require.NoError(t, err, name)
		head, err := Restamp("k", value[:need], Header{ETag: "e"})
		require.NoError(t, err, name)
		h, _, err = Decode("k", append(head, value[need:]...), roomy)
		require.NoError(t, err, name)
		require.Equal(t, Header{Extended: true, ETag: "e"}, h, name)
	}
	for name, value := range map[string][]byte{
		"none":                       entry(),
		"sum of another payload":     entry(sum([]byte("abd"))),
		"a short sum":                entry([]byte{recordPayloadCRC, 3, 0, 1, 2, 3}),
		"no room for a length":       entry(good, []byte{9, 0}),
		"a length beyond the end":    entry(good, []byte{9, 3, 0, 'x', 'y'}),
		"a length far beyond":        entry(good, []byte{9, 255, 255, 'x'}),
		"an ETag of nothing":         entry([]byte{recordETag, 0, 0}, good),
		"too long an ETag":           entry(append([]byte{recordETag, 1, 4}, make([]byte, MaxETag+1)...), good),
		"a window of 7 bytes":        entry([]byte{recordStaleUntil, 7, 0, 1, 2, 3, 4, 5, 6, 7}, good),
		"a window that is not there": entry(append([]byte{recordStaleUntil, 8, 0}, make([]byte, 8)...), good),
		"two sums":                   entry(good, good),
		"two ETags":                  entry([]byte{recordETag, 1, 0, 'x'}, []byte{recordETag, 1, 0, 'x'}, good),
		"more than there is room":    entry(bytes.Repeat([]byte{9, 1, 0, 'x'}, maxTagsLen/4), good),
		"records without the flag":   forge("k", 0, 3, append(bytes.Clone(noTags), good...), []byte("abc")),
	} {
		_, _, err := Decode("k", value, roomy)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
}

// A change of the format that this test notices needs another flag.
func TestFormatOfAnExtendedEntry(t *testing.T) {
	t.Parallel()
	h := extendedHeader()
	h.Policy = 5
	value := encode(t, "models:all:all", h, []byte(`{"id":1}`), roomy)
	require.Equal(t, goldenExtended, hex.EncodeToString(value))
	manifest, _ := Split(value, 3)
	require.Equal(t, goldenExtendedManifest, hex.EncodeToString(manifest))
}

func crcOf(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli))
}

const goldenExtended = "" +
	"c1a5014843a2a136" + // magic, version, flags, codec
	"0088fd671344060000cec08b13440600001484af13440600" + // load start, fresh until, dead until
	"dc050000080000000800000049000000" + // load duration, raw, stored and tags length
	"0102030405060708090a0b0c" + // nonce
	"c80202bb30e88f28a814f2e4776a7835" + // key
	"4045ec43" + // checksum
	"020006006d6f64656c7307000000000000000a00676174657761793ac3a9ffffffffffffffff" + // tags
	"0500000000000000" + // policy
	"01060022762d313722" + // ETag
	"0208000071a29d13440600" + // stale until
	"030400545cc0b0" + // checksum of the payload
	"7b226964223a317d" // payload

const goldenExtendedManifest = "" +
	"c1a5014c43a2a136" + // magic, version, flags, codec
	"0088fd671344060000cec08b13440600001484af13440600" + // load start, fresh until, dead until
	"dc050000080000001800000049000000" + // load duration, raw, stored and tags length
	"0102030405060708090a0b0c" + // nonce
	"c80202bb30e88f28a814f2e4776a7835" + // key
	"3d68eca9" + // checksum
	"020006006d6f64656c7307000000000000000a00676174657761793ac3a9ffffffffffffffff" + // tags
	"0500000000000000" + // policy
	"01060022762d313722" + // ETag
	"0208000071a29d13440600" + // stale until
	"030400545cc0b0" + // checksum of the payload
	"0102030405060708090a0b0c" + // nonce of the chunks
	"0800000003000000545cc0b0" // size, length of a chunk, checksum of the payload

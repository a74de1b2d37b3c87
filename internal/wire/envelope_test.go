package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"
)

var roomy = Limits{MaxValue: 64 << 20, CompressFrom: 1 << 10}

var fixedNonce = Nonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}

func fixedHeader() Header {
	return Header{
		Codec:        ID(JSON),
		LoadStart:    1_763_700_000_000_000,
		FreshUntil:   1_763_700_600_000_000,
		DeadUntil:    1_763_701_200_000_000,
		LoadDuration: 1500 * time.Millisecond,
		Nonce:        fixedNonce,
		Payload:      fixedNonce,
		Tags:         []Tag{{Name: "models", Generation: 7}, {Name: "gateway:é", Generation: math.MaxUint64}},
	}
}

func encode(t testing.TB, key string, h Header, payload []byte, lim Limits) []byte {
	t.Helper()
	value, err := Encode(key, h, payload, lim)
	require.NoError(t, err)
	return value
}

// seal makes the checksum of a tampered value right again, so that a test reaches the check behind it.
func seal(value []byte) []byte {
	binary.LittleEndian.PutUint32(value[crcOffset:], checksum(value))
	return value
}

// forge lays out an entry with lengths, flags, tags section and payload of the test's choice under a right checksum.
func forge(key string, flags byte, raw uint32, section, stored []byte) []byte {
	value := make([]byte, HeaderLen, HeaderLen+len(section)+len(stored))
	value[0], value[1], value[versionOffset], value[flagsOffset] = magic0, magic1, version, flags
	le := binary.LittleEndian
	le.PutUint32(value[rawLenOffset:], raw)
	le.PutUint32(value[storedLenOffset:], uint32(len(stored)))
	le.PutUint32(value[TagsLenOffset:], uint32(len(section)))
	hash := hashKey(key)
	copy(value[keyHashOffset:], hash[:])
	return seal(append(append(value, section...), stored...))
}

var noTags = []byte{0, 0}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	t.Parallel()
	random := make([]byte, 5000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	manyTags := make([]Tag, MaxTags)
	for i := range manyTags {
		manyTags[i] = Tag{Name: strings.Repeat("t", MaxTagName), Generation: uint64(i)}
	}
	tests := map[string]struct {
		key     string
		change  func(*Header)
		payload []byte
		lim     Limits
	}{
		"small":            {payload: []byte(`{"id":1}`), lim: roomy},
		"empty payload":    {payload: []byte{}, lim: roomy},
		"empty compressed": {payload: []byte{}, lim: Limits{MaxValue: 1, CompressFrom: 0}},
		"compressible":     {payload: bytes.Repeat([]byte("model "), 5000), lim: roomy},
		"incompressible":   {payload: random, lim: roomy},
		"never compressed": {payload: bytes.Repeat([]byte("model "), 5000), lim: Limits{MaxValue: 1 << 20, CompressFrom: -1}},
		"exactly the cap":  {payload: random, lim: Limits{MaxValue: len(random), CompressFrom: -1}},
		"negative":         {change: func(h *Header) { h.Negative, h.Codec = true, 0 }, payload: []byte{}, lim: roomy},
		"no tags":          {change: func(h *Header) { h.Tags = nil }, payload: []byte("x"), lim: roomy},
		"empty tag name":   {change: func(h *Header) { h.Tags = []Tag{{}} }, payload: []byte("x"), lim: roomy},
		"most tags":        {change: func(h *Header) { h.Tags = manyTags }, payload: []byte("x"), lim: roomy},
		"empty key":        {payload: []byte("x"), lim: roomy},
		"long key":         {key: strings.Repeat("k", 5000), payload: []byte("x"), lim: roomy},
		"extreme times": {
			change:  func(h *Header) { h.LoadStart, h.FreshUntil, h.DeadUntil = math.MinInt64, -1, math.MaxInt64 },
			payload: []byte("x"), lim: roomy,
		},
		"zero header": {change: func(h *Header) { *h = Header{} }, payload: []byte("x"), lim: roomy},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := fixedHeader()
			if tt.change != nil {
				tt.change(&h)
			}
			before := bytes.Clone(tt.payload)
			value := encode(t, tt.key, h, tt.payload, tt.lim)
			require.Equal(t, before, tt.payload, "the payload belongs to the caller")

			// The writer's threshold for compression is no business of the reader's.
			gotHeader, gotPayload, err := Decode(tt.key, value, Limits{MaxValue: tt.lim.MaxValue, CompressFrom: -1})
			require.NoError(t, err)
			require.Equal(t, h, gotHeader)
			require.Equal(t, tt.payload, gotPayload)
		})
	}
}

func TestLoadDurationIsKeptInMillisecondsAndSaturates(t *testing.T) {
	t.Parallel()
	for given, want := range map[time.Duration]time.Duration{
		-time.Second:            0,
		999 * time.Microsecond:  0,
		1999 * time.Microsecond: time.Millisecond,
		math.MaxInt64:           math.MaxUint32 * time.Millisecond,
	} {
		h := fixedHeader()
		h.LoadDuration = given
		got, _, err := Decode("k", encode(t, "k", h, nil, roomy), roomy)
		require.NoError(t, err)
		require.Equal(t, want, got.LoadDuration)
	}
}

func TestEncodeRefusesWhatTheFormatCannotHold(t *testing.T) {
	t.Parallel()
	_, err := Encode("k", fixedHeader(), make([]byte, 11), Limits{MaxValue: 10})
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = Encode("k", fixedHeader(), nil, Limits{MaxValue: -1})
	require.ErrorIs(t, err, ErrTooLarge)
	if math.MaxInt > math.MaxUint32 {
		require.False(t, Limits{MaxValue: math.MaxInt}.admits(1<<32), "lengths have 32 bits")
	}

	h := fixedHeader()
	h.Tags = make([]Tag, MaxTags+1)
	_, err = Encode("k", h, nil, roomy)
	require.ErrorIs(t, err, ErrTags)

	h.Tags = []Tag{{Name: strings.Repeat("x", MaxTagName+1)}}
	_, err = Encode("k", h, nil, roomy)
	require.ErrorIs(t, err, ErrTags)
}

func TestAnEntrySaysItsPolicyAndANegativeOneWhy(t *testing.T) {
	t.Parallel()
	for _, policy := range []uint64{0, 1, 1<<64 - 1} {
		for _, text := range []string{"", "no such user"} {
			h := fixedHeader()
			h.Negative, h.Codec, h.Policy, h.OwnTTL = true, 0, policy, policy == 0
			value := encode(t, "k", h, []byte(text), roomy)
			got, payload, err := Decode("k", value, roomy)
			require.NoError(t, err)
			require.Equal(t, h, got)
			require.Equal(t, text, string(payload))
			head, size, need, err := Peek("k", value)
			require.NoError(t, err)
			require.LessOrEqual(t, need, len(value))
			require.EqualValues(t, len(value), size)
			require.Equal(t, policy, head.Policy)
			require.Equal(t, h.Tags, head.Tags)
		}
	}
}

func TestNegativeEntryHasNoCodec(t *testing.T) {
	t.Parallel()
	h := fixedHeader()
	h.Negative = true
	got, payload, err := Decode("k", encode(t, "k", h, nil, roomy), roomy)
	require.NoError(t, err)
	require.True(t, got.Negative)
	require.Zero(t, got.Codec)
	require.Empty(t, payload)
}

func TestCompressedOnlyWhenThatIsSmaller(t *testing.T) {
	t.Parallel()
	repetitive := bytes.Repeat([]byte("a"), 4000)
	random := make([]byte, 4000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	h := fixedHeader()
	h.Tags = nil
	plain := HeaderLen + len(noTags) + 4000

	require.Less(t, len(encode(t, "k", h, repetitive, roomy)), 500)
	require.Len(t, encode(t, "k", h, random, roomy), plain)
	require.Len(t, encode(t, "k", h, repetitive, Limits{MaxValue: 1 << 20, CompressFrom: 4001}), plain)
	require.Less(t, len(encode(t, "k", h, repetitive, Limits{MaxValue: 1 << 20, CompressFrom: 4000})), 500)
	require.Len(t, encode(t, "k", h, repetitive, Limits{MaxValue: 1 << 20, CompressFrom: -1}), plain)
}

func TestUncompressedPayloadLiesInsideTheValueWithItsCapacityClipped(t *testing.T) {
	t.Parallel()
	value := encode(t, "k", fixedHeader(), []byte("payload"), roomy)
	_, payload, err := Decode("k", append(value, "the next reply"...)[:len(value)], roomy)
	require.NoError(t, err)
	require.Equal(t, len(payload), cap(payload))
}

// A change of the format that this test notices needs a new version number.
func TestFormatOfVersion1(t *testing.T) {
	t.Parallel()
	const golden = "" +
		"c1a5" + "01" + "00" + "43a2a136" + // magic, version, flags, codec
		"0088fd6713440600" + "00cec08b13440600" + "001484af13440600" + // load start, fresh until, dead until
		"dc050000" + "08000000" + "08000000" + "26000000" + // load duration, raw, stored and tags length
		"0102030405060708090a0b0c" + // nonce
		"c80202bb30e88f28a814f2e4776a7835" + // key
		"d5295f1d" + // checksum
		"0200" + // tags
		"0600" + "6d6f64656c73" + "0700000000000000" +
		"0a00" + "676174657761793ac3a9" + "ffffffffffffffff" +
		"7b226964223a317d" // payload
	value := encode(t, "models:all:all", fixedHeader(), []byte(`{"id":1}`), roomy)
	require.Equal(t, golden, hex.EncodeToString(value))
}

func TestCompressedValueOfAnEarlierBuildIsRead(t *testing.T) {
	t.Parallel()
	// An s2 block by hand: 12 bytes long, the literal "abcd", a copy of 8 bytes from 4 back.
	block := []byte{12, 3 << 2, 'a', 'b', 'c', 'd', 4<<2 | 1, 4}
	h, payload, err := Decode("k", forge("k", flagCompressed, 12, noTags, block), roomy)
	require.NoError(t, err)
	require.Equal(t, "abcdabcdabcd", string(payload))
	require.Equal(t, Header{}, h)
}

func TestNonceLiesInTheHead(t *testing.T) {
	t.Parallel()
	value := encode(t, "k", fixedHeader(), []byte("payload"), roomy)
	require.LessOrEqual(t, NonceOffset+len(Nonce{}), HeadLen)

	got, ok := HeadNonce(value[:HeadLen])
	require.True(t, ok)
	require.Equal(t, fixedNonce, got)

	_, ok = HeadNonce(value[:NonceOffset+len(Nonce{})-1])
	require.False(t, ok, "cut short")
	_, ok = HeadNonce([]byte(strings.Repeat("x", HeadLen)))
	require.False(t, ok, "foreign")
	newer := bytes.Clone(value)
	newer[versionOffset]++
	_, ok = HeadNonce(newer)
	require.False(t, ok, "a newer build may keep it elsewhere")
}

func TestNoncesDiffer(t *testing.T) {
	t.Parallel()
	seen := make(map[Nonce]bool)
	for range 10_000 {
		n := NewNonce()
		require.False(t, seen[n])
		seen[n] = true
	}
	require.Equal(t, "0102030405060708090a0b0c", fixedNonce.String())
}

func TestForeignValueIsRefused(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", "\xc1", `{"id":1}`, "hello", "\x1f\x8b\x08", "\xa5\xc1\x01\x00", "\xc1\xc1", "\x00\xa5"} {
		_, _, err := Decode("k", []byte(value), roomy)
		require.ErrorIs(t, err, ErrForeign, "%q", value)
	}
}

func TestNewerBuildIsToldFromDamage(t *testing.T) {
	t.Parallel()
	valid := encode(t, "k", fixedHeader(), []byte("payload"), roomy)
	for v := 2; v <= 255; v++ {
		value := bytes.Clone(valid)
		value[versionOffset] = byte(v)
		_, _, err := Decode("k", value, roomy)
		require.ErrorIs(t, err, ErrNewer, "version %d, whatever the checksum says", v)
	}
	_, _, err := Decode("k", []byte{magic0, magic1, 2}, roomy)
	require.ErrorIs(t, err, ErrNewer, "a newer version may be shorter")

	for bit := 0; bit < 8; bit++ {
		flag := byte(1) << bit
		if flag&knownFlags != 0 {
			continue
		}
		value := bytes.Clone(valid)
		value[flagsOffset] |= flag
		_, _, err := Decode("k", value, roomy)
		require.ErrorIs(t, err, ErrNewer, "flag %#x", flag)
	}

	old := bytes.Clone(valid)
	old[versionOffset] = 0
	_, _, err = Decode("k", seal(old), roomy)
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestEntryIsAcceptedOnlyUnderItsOwnKey(t *testing.T) {
	t.Parallel()
	a := encode(t, "user:A:profile", fixedHeader(), []byte("of A"), roomy)
	b := encode(t, "user:B:profile", fixedHeader(), []byte("of B"), roomy)
	_, _, err := Decode("user:A:profile", b, roomy)
	require.ErrorIs(t, err, ErrWrongKey)
	_, _, err = Decode("user:B:profile", a, roomy)
	require.ErrorIs(t, err, ErrWrongKey)

	damaged := bytes.Clone(a)
	damaged[keyHashOffset] ^= 1
	_, _, err = Decode("user:A:profile", damaged, roomy)
	require.ErrorIs(t, err, ErrCorrupt, "damage to the hash is no evidence of another key")
}

func TestEveryTruncationIsRefused(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string][]byte{
		"plain":      []byte(`{"id":1}`),
		"compressed": bytes.Repeat([]byte("model "), 500),
	} {
		value := encode(t, "k", fixedHeader(), payload, roomy)
		for n := range value {
			_, _, err := Decode("k", value[:n:n], roomy)
			require.Error(t, err, "%s cut to %d of %d", name, n, len(value))
			if n >= 2 {
				require.ErrorIs(t, err, ErrCorrupt)
			}
		}
		_, _, err := Decode("k", append(bytes.Clone(value), 0), roomy)
		require.ErrorIs(t, err, ErrCorrupt, "trailing byte")
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string][]byte{
		"plain":      []byte(`{"id":1}`),
		"compressed": bytes.Repeat([]byte("model "), 500),
	} {
		value := encode(t, "k", fixedHeader(), payload, roomy)
		for bit := range 8 * len(value) {
			value[bit/8] ^= 1 << (bit % 8)
			_, _, err := Decode("k", value, roomy)
			require.Error(t, err, "%s, byte %d, bit %d", name, bit/8, bit%8)
			value[bit/8] ^= 1 << (bit % 8)
		}
		_, _, err := Decode("k", value, roomy)
		require.NoError(t, err)
	}
}

// The checksum is right in all of these, so that it is the named check that refuses.
func TestInconsistentEntryIsRefused(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	tag := func(name string) []byte {
		b := append(le.AppendUint16(nil, uint16(len(name))), name...)
		return le.AppendUint64(b, 1)
	}
	section := func(count uint16, tags ...[]byte) []byte {
		return append(le.AppendUint16(nil, count), bytes.Join(tags, nil)...)
	}
	lengthen := func(offset int, by uint32) []byte {
		value := forge("k", 0, 3, noTags, []byte("abc"))
		le.PutUint32(value[offset:], le.Uint32(value[offset:])+by)
		return seal(value)
	}
	withCodec := forge("k", flagNegative, 0, noTags, nil)
	withCodec[codecOffset] = 1

	control := forge("k", 0, 3, section(1, tag("t")), []byte("abc"))
	_, payload, err := Decode("k", control, roomy)
	require.NoError(t, err)
	require.Equal(t, "abc", string(payload))

	for name, value := range map[string][]byte{
		"stored length beyond the value":    lengthen(storedLenOffset, 1),
		"stored length short of the value":  lengthen(storedLenOffset, math.MaxUint32),
		"tags length beyond the value":      lengthen(TagsLenOffset, 1),
		"tags length huge":                  lengthen(TagsLenOffset, math.MaxUint32-2),
		"bytes after the payload":           seal(append(forge("k", 0, 3, noTags, []byte("abc")), 'x')),
		"sum of lengths wraps at 32 bits":   seal(wrapLengths(forge("k", 0, 3, noTags, []byte("abc")))),
		"raw length above the stored":       forge("k", 0, 4, noTags, []byte("abc")),
		"raw length below the stored":       forge("k", 0, 2, noTags, []byte("abc")),
		"no tags section":                   forge("k", 0, 3, nil, []byte("abc")),
		"half a tag count":                  forge("k", 0, 3, []byte{0}, []byte("abc")),
		"too many tags":                     forge("k", 0, 0, section(MaxTags+1, bytes.Repeat(tag("t"), MaxTags+1)), nil),
		"fewer tags than counted":           forge("k", 0, 0, section(2, tag("t")), nil),
		"more tags than counted":            forge("k", 0, 0, section(1, tag("t"), tag("u")), nil),
		"one byte of a name length":         forge("k", 0, 0, section(1, []byte{1}), nil),
		"name longer than its section":      forge("k", 0, 0, section(1, []byte{9, 0, 't'}), nil),
		"tag without a whole generation":    forge("k", 0, 0, section(1, tag("t")[:10]), nil),
		"tag name too long":                 forge("k", 0, 0, section(1, tag(strings.Repeat("x", MaxTagName+1))), nil),
		"negative with a payload":           forge("k", flagNegative, 3, noTags, []byte("abc")),
		"negative that lacks its text":      forge("k", flagNegative|flagText, 0, noTags, nil),
		"text that is not negative":         forge("k", flagText, 3, noTags, []byte("abc")),
		"no room for its policy":            forge("k", flagPolicy, 0, noTags, nil),
		"a policy of zero":                  forge("k", flagPolicy, 0, append(bytes.Clone(noTags), make([]byte, 8)...), nil),
		"negative with a compressed one":    forge("k", flagNegative|flagCompressed, 0, noTags, []byte{0}),
		"negative with a codec":             seal(withCodec),
		"compressed without a block":        forge("k", flagCompressed, 0, noTags, nil),
		"block that is no s2":               forge("k", flagCompressed, 3, noTags, []byte{3, 0xff, 0xff}),
		"block with an endless length":      forge("k", flagCompressed, 3, noTags, bytes.Repeat([]byte{0xff}, 10)),
		"block that promises less than raw": forge("k", flagCompressed, 4, noTags, s2.Encode(nil, []byte("abc"))),
		"block that promises more than raw": forge("k", flagCompressed, 2, noTags, s2.Encode(nil, []byte("abc"))),
		"block cut short":                   forge("k", flagCompressed, 3, noTags, s2.Encode(nil, []byte("abc"))[:3]),
		"block with bytes after it":         forge("k", flagCompressed, 3, noTags, append(s2.Encode(nil, []byte("abc")), 0, 'x')),
	} {
		_, _, err := Decode("k", value, roomy)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
}

// wrapLengths keeps the sum of tags and stored length right modulo 2^32.
func wrapLengths(value []byte) []byte {
	le := binary.LittleEndian
	le.PutUint32(value[TagsLenOffset:], 1<<31+uint32(len(noTags)))
	le.PutUint32(value[storedLenOffset:], 1<<31+3)
	return value
}

func TestValueAboveTheReadersCapIsRefused(t *testing.T) {
	t.Parallel()
	value := encode(t, "k", fixedHeader(), make([]byte, 2000), roomy)
	_, _, err := Decode("k", value, Limits{MaxValue: 2000})
	require.NoError(t, err)
	_, _, err = Decode("k", value, Limits{MaxValue: 1999})
	require.ErrorIs(t, err, ErrTooLarge)
	_, _, err = Decode("k", value, Limits{MaxValue: -1})
	require.ErrorIs(t, err, ErrTooLarge)
}

// bomb returns an s2 block that repeats one byte size times, in five bytes for each 16 MB.
// https://github.com/klauspost/compress/tree/master/s2#format-extensions
func bomb(size int) []byte {
	const shortest = 1<<16 + 4
	const longest = shortest + 1<<24 - 1
	b := binary.AppendUvarint(nil, uint64(size))
	b = append(b, 0, 'a')       // a literal of one byte
	b = append(b, 0<<2|2, 1, 0) // a copy of one byte from 1 back, which the repeats refer to
	for left := size - 2; left > 0; {
		// What follows must not be left shorter than a repeat can be.
		n := min(left, longest)
		if rest := left - n; rest > 0 && rest < shortest {
			n -= shortest
		}
		left -= n
		n -= shortest
		b = append(b, 7<<2|1, 0, byte(n), byte(n>>8), byte(n>>16))
	}
	return b
}

// No t.Parallel here: what others allocate would count.
func TestDecompressionBombIsRefusedInAFixedAmountOfMemory(t *testing.T) {
	small := bomb(4 << 20)
	_, payload, err := Decode("k", forge("k", flagCompressed, 4<<20, noTags, small), roomy)
	require.NoError(t, err, "it does expand")
	require.Len(t, payload, 4<<20)
	_, _, err = Decode("k", forge("k", flagCompressed, 32<<20, noTags, bomb(32<<20)), roomy)
	require.ErrorIs(t, err, ErrCorrupt, "so few bytes are never that many")

	block := bomb(1 << 30)
	require.Less(t, len(block), 8<<10)
	for name, tt := range map[string]struct {
		raw  uint32
		want error
	}{
		"honest":                       {1 << 30, ErrTooLarge},
		"claims to be small":           {1000, ErrCorrupt},
		"claims to be just admissible": {uint32(roomy.MaxValue), ErrCorrupt},
	} {
		value := forge("k", flagCompressed, tt.raw, noTags, block)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := Decode("k", value, roomy)
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, tt.want, name)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<10), name)
	}
}

// What shrinks to next to nothing is stored as it is, for no reader would believe it.
func TestALargePayloadThatShrinksToNextToNothingIsStoredAsItIs(t *testing.T) {
	for _, n := range []int{freeLen, freeLen + 1, 16 << 20} {
		payload := make([]byte, n)
		value := encode(t, "k", fixedHeader(), payload, roomy)
		require.Equal(t, n <= freeLen, len(value) < n/2)
		_, got, err := Decode("k", value, roomy)
		require.NoError(t, err)
		require.Equal(t, payload, got)
	}
	mixed := make([]byte, 16<<20)
	for i := range 64 << 10 {
		mixed[i*256] = byte(i * 31)
	}
	value := encode(t, "k", fixedHeader(), mixed, roomy)
	require.Less(t, len(value), len(mixed)/10, "what shrinks less is compressed")
}

func TestEntryWithoutTagsCostsOneAllocationToEncodeAndNoneToDecode(t *testing.T) {
	h := fixedHeader()
	h.Tags = nil
	payload := []byte(`{"id":1}`)
	value := encode(t, "models:all:all", h, payload, roomy)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = Encode("models:all:all", h, payload, roomy) }), 1.0)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _, _ = Decode("models:all:all", value, roomy) }))
}

// Small payloads are compressed in room that is used again, larger ones in place: both are right at the limit, share nothing, and hold on to little.
func TestCompressedValuesShareNothingAndHoldOnToLittle(t *testing.T) {
	t.Parallel()
	limit := 0
	for s2.MaxEncodedLen(limit+1) <= len(block{}) {
		limit++
	}
	random := make([]byte, 3*limit)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	var values, payloads [][]byte
	for _, n := range []int{0, 1, 100, 1600, limit - 1, limit, limit + 1, 2 * limit} {
		for _, payload := range [][]byte{bytes.Repeat([]byte("payload "), n/8), random[:n], append(bytes.Repeat([]byte("half "), n/10), random[n:n+n/2]...)} {
			value := encode(t, "k", fixedHeader(), payload, Limits{MaxValue: roomy.MaxValue})
			require.LessOrEqual(t, len(value), len(payload)+300, "never longer than as it is")
			if len(payload) <= limit {
				require.LessOrEqual(t, cap(value), len(value)+len(value)/4+32, "no more than the allocator's own rounding")
			}
			values, payloads = append(values, value), append(payloads, payload)
		}
	}
	for i, value := range values { // all are still what they were
		_, got, err := Decode("k", value, roomy)
		require.NoError(t, err)
		require.True(t, bytes.Equal(payloads[i], got), len(payloads[i]))
	}
}

package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// incompressible returns n random bytes.
func incompressible(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestAValueInChunksIsTheSameValue(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string][]byte{
		"as it is":                incompressible(1000),
		"compressed":              append(incompressible(900), make([]byte, 100_000)...),
		"a multiple of the chunk": incompressible(300),
		"in one chunk":            incompressible(5),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value := encode(t, "k", fixedHeader(), payload, roomy)
			before := bytes.Clone(value)
			stored, chunks := Split(value, 100)
			require.Equal(t, before, value, "the value is left as it was")
			require.True(t, IsChunked(stored))
			require.False(t, IsChunked(value))
			require.Less(t, len(stored), 300)

			m, err := ReadManifest("k", stored, roomy)
			require.NoError(t, err)
			require.Equal(t, fixedHeader().Nonce, m.Header.Nonce)
			require.Equal(t, len(chunks), m.Chunks)
			h, got, err := m.Join("k", stored, chunks, roomy)
			require.NoError(t, err)
			require.Equal(t, fixedHeader(), h)
			require.True(t, bytes.Equal(payload, got))
			nonce, ok := HeadNonce(stored[:HeadLen])
			require.True(t, ok)
			require.Equal(t, h.Nonce, nonce)
		})
	}
}

func TestAManifestIsNoValueByItself(t *testing.T) {
	t.Parallel()
	stored, _ := Split(encode(t, "k", fixedHeader(), incompressible(1000), roomy), 100)
	_, _, err := Decode("k", stored, roomy)
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestDamagedChunksAndManifestsAreRefused(t *testing.T) {
	t.Parallel()
	stored, chunks := Split(encode(t, "k", fixedHeader(), incompressible(1000), roomy), 100)
	m, err := ReadManifest("k", stored, roomy)
	require.NoError(t, err)
	for name, change := range map[string]func(chunks [][]byte) [][]byte{
		"one byte":            func(c [][]byte) [][]byte { c[3] = bytes.Clone(c[3]); c[3][50] ^= 1; return c },
		"two exchanged":       func(c [][]byte) [][]byte { c[1], c[2] = c[2], c[1]; return c },
		"one too few":         func(c [][]byte) [][]byte { return c[:9] },
		"one too many":        func(c [][]byte) [][]byte { return append(c, c[0]) },
		"one too short":       func(c [][]byte) [][]byte { c[3] = c[3][:99]; return c },
		"one missing":         func(c [][]byte) [][]byte { c[3] = nil; return c },
		"bytes moved between": func(c [][]byte) [][]byte { c[3], c[4] = append(bytes.Clone(c[3]), c[4][0]), c[4][1:]; return c },
	} {
		_, _, err := m.Join("k", stored, change(append([][]byte(nil), chunks...)), roomy)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}

	end := len(stored) - ManifestLen
	for name, change := range map[string]func(v []byte) []byte{
		"no chunk length": func(v []byte) []byte { binary.LittleEndian.PutUint32(v[end+4:], 0); return seal(v) },
		"nothing stored":  func(v []byte) []byte { binary.LittleEndian.PutUint32(v[end:], 0); return seal(v) },
		"too many chunks": func(v []byte) []byte {
			binary.LittleEndian.PutUint32(v[rawLenOffset:], 1<<20)
			binary.LittleEndian.PutUint32(v[end:], 1<<20)
			binary.LittleEndian.PutUint32(v[end+4:], 1)
			return seal(v)
		},
		"more than it was": func(v []byte) []byte {
			binary.LittleEndian.PutUint32(v[end:], 1<<30)
			binary.LittleEndian.PutUint32(v[end+4:], 1<<20)
			return seal(v)
		},
		"a longer one": func(v []byte) []byte {
			v = append(v, 0)
			binary.LittleEndian.PutUint32(v[storedLenOffset:], ManifestLen+1)
			return seal(v)
		},
		"damaged, not forged": func(v []byte) []byte { v[end] ^= 1; return v },
	} {
		_, err := ReadManifest("k", change(bytes.Clone(stored)), roomy)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	_, err = ReadManifest("another", stored, roomy)
	require.ErrorIs(t, err, ErrWrongKey)
	_, err = ReadManifest("k", stored, Limits{MaxValue: 999})
	require.ErrorIs(t, err, ErrTooLarge, "before a chunk is read")
}

// FuzzManifest takes any manifest, sealed, with any chunks.
func FuzzManifest(f *testing.F) {
	stored, chunks := Split(encode(f, "k", fixedHeader(), incompressible(64), roomy), 40)
	f.Add(stored, chunks[0], chunks[1])
	f.Add(stored[:HeaderLen+2], []byte{}, []byte{})
	lim := Limits{MaxValue: 1 << 16, CompressFrom: 100}
	f.Fuzz(func(t *testing.T, value, one, two []byte) {
		if len(value) >= HeaderLen {
			value = bytes.Clone(value)
			value[0], value[1], value[versionOffset], value[flagsOffset] = magic0, magic1, version, value[flagsOffset]|flagChunked
			hash := hashKey("k")
			copy(value[keyHashOffset:], hash[:])
			seal(value)
		}
		m, err := ReadManifest("k", value, lim)
		if err != nil {
			return
		}
		require.Positive(t, m.Chunks)
		require.LessOrEqual(t, m.Chunks, maxChunks)
		require.LessOrEqual(t, m.Size, math.MaxUint16*2+64)
		_, payload, err := m.Join("k", value, [][]byte{one, two}, lim)
		if err == nil {
			require.LessOrEqual(t, len(payload), lim.MaxValue)
		}
	})
}

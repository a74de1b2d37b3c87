package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPeekReadsTheHeaderFromTheFirstBytes(t *testing.T) {
	t.Parallel()
	h := fixedHeader()
	value := encode(t, "k", h, []byte(strings.Repeat("payload ", 1000)), Limits{MaxValue: roomy.MaxValue, CompressFrom: -1})
	require.Greater(t, len(value), PeekLen)
	got, size, need, err := Peek("k", value[:PeekLen])
	require.NoError(t, err)
	require.Equal(t, h, got)
	require.EqualValues(t, len(value), size)
	require.LessOrEqual(t, need, PeekLen)

	got, size, again, err := Peek("k", value[:need-1])
	require.NoError(t, err)
	require.Equal(t, need, again, "so many bytes are needed")
	require.EqualValues(t, len(value), size)
	h.Tags = nil
	require.Equal(t, h, got)

	_, _, _, err = Peek("another", value[:PeekLen])
	require.ErrorIs(t, err, ErrWrongKey)
	_, _, _, err = Peek("k", value[:HeaderLen-1])
	require.ErrorIs(t, err, ErrCorrupt)
	_, _, _, err = Peek("k", []byte("something else"))
	require.ErrorIs(t, err, ErrForeign)
	value[TagsLenOffset+3] = 0xff
	_, _, _, err = Peek("k", value)
	require.ErrorIs(t, err, ErrCorrupt, "more tags than there can be are not read")
}

func TestPeekTellsANegativeEntry(t *testing.T) {
	t.Parallel()
	value := encode(t, "k", Header{Negative: true}, nil, roomy)
	h, size, _, err := Peek("k", value)
	require.NoError(t, err)
	require.True(t, h.Negative)
	require.EqualValues(t, len(value), size)
}

func TestPeekCountsTheChunks(t *testing.T) {
	t.Parallel()
	whole := encode(t, "k", fixedHeader(), incompressible(1000), roomy)
	value, _ := Split(whole, 100)
	h, size, need, err := Peek("k", value)
	require.NoError(t, err)
	require.Equal(t, fixedHeader(), h)
	require.Equal(t, len(value), need, "the manifest is looked at, too")
	require.EqualValues(t, len(whole)+ManifestLen, size)
}

package wire

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var writeGolden = flag.Bool("golden", false, "write testdata/version1.txt anew, which a change of the format must not do")

// A goldenEntry is an entry that no strategy has made different from those of the first builds of version 1.
type goldenEntry struct {
	name    string
	header  Header
	payload []byte
	limits  Limits
	chunk   int // length of its chunks; 0 for a value in one piece
}

func goldenEntries() []goldenEntry {
	with := func(change func(*Header)) Header {
		h := fixedHeader()
		change(&h)
		return h
	}
	small, plain := []byte(`{"id":1}`), Limits{MaxValue: 1 << 20, CompressFrom: -1}
	long := make([]byte, 1000)
	for i := range long {
		long[i] = byte(i * i >> 3)
	}
	return []goldenEntry{
		{"small", fixedHeader(), small, plain, 0},
		{"no tags", with(func(h *Header) { h.Tags = nil }), small, plain, 0},
		{"zero header", Header{}, nil, plain, 0},
		{"policy", with(func(h *Header) { h.Policy = 1<<63 + 5 }), small, plain, 0},
		{"policy without tags", with(func(h *Header) { h.Policy, h.Tags = 7, nil }), small, plain, 0},
		{"own TTL", with(func(h *Header) { h.OwnTTL = true }), small, plain, 0},
		{"negative", with(func(h *Header) { h.Negative, h.Codec = true, 0 }), nil, plain, 0},
		{"negative with a text and a policy", with(func(h *Header) { h.Negative, h.Codec, h.Policy = true, 0, 3 }), []byte("no such user"), plain, 0},
		{"compressed", fixedHeader(), bytes.Repeat([]byte("model "), 300), Limits{MaxValue: 1 << 20}, 0},
		{"manifest", fixedHeader(), long, plain, 300},
		{"manifest of a policy", with(func(h *Header) { h.Policy, h.OwnTTL, h.LoadDuration = 9, true, time.Hour }), long, plain, 1000},
	}
}

// Entries that no strategy needs are, byte by byte, what builds before it have written and can read: see testdata/version1.txt.
func TestAnEntryThatIsNotExtendedIsTheOneOfEarlierBuilds(t *testing.T) {
	t.Parallel()
	name := filepath.Join("testdata", "version1.txt")
	if *writeGolden {
		var text strings.Builder
		for _, g := range goldenEntries() {
			value := encode(t, "models:all:all", g.header, g.payload, g.limits)
			if g.chunk > 0 {
				value, _ = Split(value, g.chunk)
			}
			fmt.Fprintf(&text, "%s\t%x\n", g.name, value)
		}
		require.NoError(t, os.WriteFile(name, []byte(text.String()), 0o600))
	}
	stored := make(map[string]string)
	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		of, value, _ := strings.Cut(lines.Text(), "\t")
		stored[of] = value
	}
	require.Len(t, stored, len(goldenEntries()))
	for _, g := range goldenEntries() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			before, err := hex.DecodeString(stored[g.name])
			require.NoError(t, err)
			value := encode(t, "models:all:all", g.header, g.payload, g.limits)
			var chunks [][]byte
			if g.chunk > 0 {
				value, chunks = Split(value, g.chunk)
			}
			if value[flagsOffset]&flagCompressed == 0 { // other versions of s2 may find other copies
				require.Equal(t, stored[g.name], hex.EncodeToString(value))
			}
			var h Header
			var payload []byte
			if g.chunk > 0 {
				m, err := ReadManifest("models:all:all", before, g.limits)
				require.NoError(t, err)
				h, payload, err = m.Join("models:all:all", before, chunks, g.limits)
				require.NoError(t, err)
			} else {
				h, payload, err = Decode("models:all:all", before, g.limits)
				require.NoError(t, err)
			}
			require.True(t, bytes.Equal(g.payload, payload))
			require.Equal(t, g.header, h)
		})
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/inspect"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// A stored is a store with one value. Its tags have the generation 1.
type stored []byte

func (s stored) Get(context.Context, ...redisstore.Get) []redisstore.Read {
	return []redisstore.Read{{Value: s}}
}

func (s stored) Chunks(context.Context, string, string, []int) ([][]byte, bool, error) {
	return nil, false, nil
}

func (s stored) Values(_ context.Context, names ...string) ([]string, error) {
	return strings.Split(strings.Repeat("1 ", len(names)), " ")[:len(names)], nil
}

func (s stored) Now(string) (int64, int64, bool) { return 10, 1, true }

// Any value is shown, without a panic and without a command for the terminal.
func FuzzInspect(f *testing.F) {
	const key = "products:7"
	lim := wire.Limits{MaxValue: 1 << 20, CompressFrom: -1}
	h := wire.Header{
		Codec: wire.ID(wire.JSON), LoadStart: 1, FreshUntil: 20, DeadUntil: 30, ETag: "v1",
		Tags: []wire.Tag{{Name: keyspace.All, Generation: 1}, {Name: keyspace.CategoryTag("products"), Generation: 1}},
	}
	whole, err := wire.Encode(key, h, []byte(`{"a":1}`), lim)
	require.NoError(f, err)
	f.Add(whole, "", uint32(0), false, 100)
	f.Add(whole[:100], "", uint32(0), false, 100)
	f.Add([]byte("no entry"), "", uint32(0), false, 0)
	f.Add([]byte("a\x1b[2J"), "%t:\x1b[2J", wire.ID(wire.Raw), true, 3)
	f.Add([]byte(`["é"]`), "%t:a\nb", wire.ID(wire.JSON), true, 4)
	f.Fuzz(func(t *testing.T, value []byte, tag string, codec uint32, wrap bool, most int) {
		if wrap {
			h := h
			h.Codec, h.ETag, h.Tags = codec, tag[:min(len(tag), wire.MaxETag)], append(h.Tags[:2:2], wire.Tag{Name: tag[:min(len(tag), wire.MaxTagName)], Generation: 2})
			if value, err = wire.Encode(key, h, value, lim); err != nil {
				return
			}
		}
		e, err := inspect.Read(t.Context(), stored(value), key, key, lim)
		require.NoError(t, err)
		var out bytes.Buffer
		c := &call{out: &out}
		require.NoError(t, printInspected(c, &e, most&0xff))
		require.True(t, utf8.Valid(out.Bytes()))
		require.NotContains(t, out.String(), "\x1b")
		out.Reset()
		require.NoError(t, inspectedJSON(c, &e, most&0xff))
		require.True(t, json.Valid(out.Bytes()))
		require.NotContains(t, out.String(), "\x1b")
	})
}

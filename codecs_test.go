package aside_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

type (
	httpBody []byte
	label    string
)

// plain are values that no codec is named for, and what is stored is what is returned.
func plain() []any {
	return []any{"caf\xe9", label("\xff\x00"), []byte{}, []byte(nil), httpBody("\x00\xff"), httpBody(nil), json.RawMessage(nil), json.RawMessage(` {"a" : 1}`), ""}
}

// plainProcess prints what it reads in Redis.
func plainProcess() {
	c := processCache()
	defer c.Close()
	for i, v := range plain() {
		got, err := getPlain(context.Background(), c, items.Key("plain", i), v)
		fmt.Printf("%#v %v\n", got, err)
	}
}

func getPlain(ctx context.Context, c *aside.Cache, key aside.Key, like any) (any, error) {
	switch like.(type) {
	case string:
		return aside.Get[string](ctx, c, key)
	case label:
		return aside.Get[label](ctx, c, key)
	case httpBody:
		return aside.Get[httpBody](ctx, c, key)
	case json.RawMessage:
		return aside.Get[json.RawMessage](ctx, c, key)
	}
	return aside.Get[[]byte](ctx, c, key)
}

func set1(ctx context.Context, c *aside.Cache, key aside.Key, v any) error {
	switch v := v.(type) {
	case string:
		return aside.Set(ctx, c, key, v)
	case label:
		return aside.Set(ctx, c, key, v)
	case httpBody:
		return aside.Set(ctx, c, key, v)
	case json.RawMessage:
		return aside.Set(ctx, c, key, v)
	case []byte:
		return aside.Set(ctx, c, key, v)
	}
	panic(fmt.Sprintf("%T", v))
}

func TestStringsAndBytesOfAnyNameComeBackAsTheyAre(t *testing.T) {
	t.Parallel()
	everyMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		for i, v := range plain() {
			require.NoError(t, set1(t.Context(), c, items.Key("plain", i), v))
			got, err := getPlain(t.Context(), c, items.Key("plain", i), v)
			require.NoError(t, err)
			require.Equal(t, v, got)
		}
	})
}

func TestStringsAndBytesOfAnyNameAreTheSameInAnotherProcess(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connected(t, at(server.Addr()))
	for i, v := range plain() {
		require.NoError(t, set1(t.Context(), c, items.Key("plain", i), v))
	}
	p := redistest.Spawn(t, "plain", "ADDR="+server.Addr())
	for _, v := range plain() {
		line, err := p.Line()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%#v <nil>", v), line)
	}
	require.NoError(t, p.Wait())
}

// Builds before stored types that are based on []byte or string as JSON.
func TestWhatOlderBuildsStoredAsJSONIsRead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	old := connected(t, at(server.Addr()))
	asJSON := items
	asJSON.Codec = aside.JSON
	require.NoError(t, aside.Set(t.Context(), old, asJSON.Key("body"), httpBody("\x00\xff")))
	require.NoError(t, aside.Set(t.Context(), old, asJSON.Key("label"), label("é")))
	c := connected(t, at(server.Addr()))
	body, err := aside.Get[httpBody](t.Context(), c, items.Key("body"))
	require.NoError(t, err)
	require.Equal(t, httpBody("\x00\xff"), body)
	text, err := aside.Get[label](t.Context(), c, items.Key("label"))
	require.NoError(t, err)
	require.Equal(t, label("é"), text)
}

package contract_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func storePlain(t *testing.T, c *aside.Cache, key aside.Key, v any) {
	t.Helper()
	switch v := v.(type) {
	case string:
		asidetest.Stored(t, c, key, v)
	case asidetest.Label:
		asidetest.Stored(t, c, key, v)
	case asidetest.HTTPBody:
		asidetest.Stored(t, c, key, v)
	case json.RawMessage:
		asidetest.Stored(t, c, key, v)
	case []byte:
		asidetest.Stored(t, c, key, v)
	default:
		t.Fatalf("%T", v)
	}
}

func TestStringsAndBytesOfAnyNameComeBackAsTheyAre(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		for i, v := range asidetest.Plain() {
			storePlain(t, c, asidetest.Items.Key("plain", i), v)
			got, err := asidetest.GetPlain(t.Context(), c, asidetest.Items.Key("plain", i), v)
			require.NoError(t, err)
			require.Equal(t, v, got)
		}
	})
}

func TestStringsAndBytesOfAnyNameAreTheSameInAnotherProcess(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	for i, v := range asidetest.Plain() {
		storePlain(t, c, asidetest.Items.Key("plain", i), v)
	}
	p := redistest.Spawn(t, "plain", "ADDR="+server.Addr())
	for _, v := range asidetest.Plain() {
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
	old := asidetest.Connected(t, asidetest.At(server.Addr()))
	asJSON := asidetest.Items
	asJSON.Codec = aside.JSON
	asidetest.Stored(t, old, asJSON.Key("body"), asidetest.HTTPBody("\x00\xff"))
	asidetest.Stored(t, old, asJSON.Key("label"), asidetest.Label("é"))
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	body, err := aside.Get[asidetest.HTTPBody](t.Context(), c, asidetest.Items.Key("body"))
	require.NoError(t, err)
	require.Equal(t, asidetest.HTTPBody("\x00\xff"), body)
	text, err := aside.Get[asidetest.Label](t.Context(), c, asidetest.Items.Key("label"))
	require.NoError(t, err)
	require.Equal(t, asidetest.Label("é"), text)
}

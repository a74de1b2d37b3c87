package contract_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

type counted struct {
	encoded, decoded atomic.Int64
}

func (c *counted) functions() aside.JSONFunctions {
	return aside.JSONFunctions{
		Marshal: func(v any) ([]byte, error) {
			c.encoded.Add(1)
			return json.Marshal(v)
		},
		Unmarshal: func(data []byte, v any) error {
			c.decoded.Add(1)
			return json.Unmarshal(data, v)
		},
	}
}

type pair struct{ A, B string }

// Options.JSON has values encoded and decoded by other functions, and the format stays the same.
func TestOtherFunctionsEncodeAndDecodeJSON(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var by counted
	own := asidetest.At(server.Addr())
	own.JSON = by.functions()
	c, usual := asidetest.Connected(t, own), asidetest.Connected(t, asidetest.At(server.Addr()))
	explicit := asidetest.Items
	explicit.Name, explicit.Codec = "by name", aside.JSON
	for name, p := range map[string]*aside.Policy{"by default": &asidetest.Items, "by name": &explicit} {
		for i, way := range []struct{ from, to *aside.Cache }{{c, usual}, {usual, c}} {
			want := pair{name, "é"}
			encoded, decoded := by.encoded.Load(), by.decoded.Load()
			asidetest.Eventually(t, "the value is stored", func() bool {
				require.NoError(t, aside.Set(t.Context(), way.from, p.Key(name, i), want))
				got, err := aside.Get[pair](t.Context(), way.to, p.Key(name, i))
				return err == nil && got == want
			})
			if way.from == c {
				require.Greater(t, by.encoded.Load(), encoded, name)
				require.Equal(t, decoded, by.decoded.Load(), name)
			} else {
				require.Greater(t, by.decoded.Load(), decoded, name)
				require.Equal(t, encoded, by.encoded.Load(), name)
			}
		}
	}
	cbor := asidetest.Items
	cbor.Name, cbor.Codec = "another codec", aside.CBOR
	encoded := by.encoded.Load()
	require.NoError(t, aside.Set(t.Context(), c, cbor.Key("cbor"), pair{"a", "b"}))
	require.NoError(t, aside.Set(t.Context(), c, asidetest.Items.Key("raw"), "text"))
	require.Equal(t, encoded, by.encoded.Load())
}

func TestCopiesForCallersAreMadeByTheFunctionsToo(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		var by counted
		c := newCache(aside.Options{JSON: by.functions()})
		encoded, decoded := by.encoded.Load(), by.decoded.Load() // New has tried them
		require.Positive(t, encoded)
		copies := asidetest.Items
		copies.Name, copies.CloneOnRead = "copies", true
		load := func(context.Context) (pair, error) { return pair{"a", "b"}, nil }
		got, err := aside.GetOrLoad(t.Context(), c, copies.Key("copied"), load)
		require.NoError(t, err)
		require.Equal(t, pair{"a", "b"}, got)
		require.Greater(t, by.encoded.Load(), encoded)
		require.Greater(t, by.decoded.Load(), decoded)
		// A hit as another type goes through the format.
		decoded = by.decoded.Load()
		other, err := aside.Get[struct{ A string }](t.Context(), c, copies.Key("copied"))
		require.NoError(t, err)
		require.Equal(t, "a", other.A)
		require.Greater(t, by.decoded.Load(), decoded)
	})
}

// What the package checks itself stays checked, whatever the functions do.
func TestAValueThatJSONWouldChangeIsRefusedWithOtherFunctionsToo(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		var by counted
		c := newCache(aside.Options{JSON: by.functions()})
		copies := asidetest.Items
		copies.Name, copies.CloneOnRead = "copies", true
		encoded := by.encoded.Load()
		_, err := aside.GetOrLoad(t.Context(), c, copies.Key("lost"), func(context.Context) (any, error) { return 7, nil })
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
		require.ErrorContains(t, err, "int")
		require.Equal(t, encoded, by.encoded.Load(), "it is refused before it is encoded")
	})
}

func TestAPanicOfTheFunctionsIsAFailureOfTheCall(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		var broken atomic.Bool
		c := newCache(aside.Options{JSON: aside.JSONFunctions{
			Marshal: func(v any) ([]byte, error) {
				if broken.Load() {
					panic("a bug of the functions")
				}
				return json.Marshal(v)
			},
			Unmarshal: json.Unmarshal,
		}})
		broken.Store(true)
		copies := asidetest.Items
		copies.Name, copies.CloneOnRead = "copies", true
		_, err := aside.GetOrLoad(t.Context(), c, copies.Key("panics"), func(context.Context) (pair, error) { return pair{}, nil })
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
		require.NotContains(t, err.Error(), "a bug of the functions")
	})
}

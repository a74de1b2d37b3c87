package contract_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

// A wide value takes far more memory than its JSON.
type wide struct {
	Fill [64]int64 `json:"fill,omitzero"`
}

// Hazard 64: a few bytes in Redis must not become a lot of memory here.
func TestAStoredValueThatWouldTakeTooMuchMemoryIsAMiss(t *testing.T) {
	t.Parallel()
	plain := asidetest.Items
	private := aside.Policy{Name: "items", Category: "items", TTL: time.Hour, CloneOnRead: true}
	for name, policy := range map[string]aside.Policy{"shared": plain, "private": private} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			o := asidetest.At(server.Addr())
			o.MaxValueBytes = 2 << 20
			c := asidetest.Connected(t, o)
			asidetest.Stored(t, c, policy.Key("first"), "v") // makes the generations

			var tags []wire.Tag
			for _, tag := range []string{"%all", "%c:items"} {
				g, err := redisstore.ParseGeneration([]byte(server.MustDo(t, "GET", tag).(string)))
				require.NoError(t, err)
				tags = append(tags, wire.Tag{Name: tag, Generation: g})
			}
			now := time.Now().UnixMicro()
			payload := "[" + strings.Repeat("{},", 690_000) + "{}]"
			b, err := wire.Encode("items:a", wire.Header{
				Codec: wire.ID(wire.JSON), LoadStart: now, FreshUntil: now + time.Hour.Microseconds(), DeadUntil: now + time.Hour.Microseconds(),
				Nonce: wire.NewNonce(), Tags: tags,
			}, []byte(payload), wire.Limits{MaxValue: 2 << 20})
			require.NoError(t, err)
			require.Less(t, len(b), 200)
			server.MustDo(t, "SET", "items:a", string(b))

			got, err := aside.GetOrLoad(t.Context(), c, policy.Key("a"), func(context.Context) ([]wide, error) { return make([]wide, 3), nil })
			require.NoError(t, err)
			require.Equal(t, 3, len(got))
			require.EqualValues(t, 1, c.Metrics().Labels["items"].DecodeErrors)
			asidetest.Eventually(t, "it is replaced", func() bool { return server.MustDo(t, "GET", "items:a").(string) != string(b) })
			again, err := aside.GetOrLoad(t.Context(), asidetest.Connected(t, o), policy.Key("a"), func(context.Context) ([]wide, error) { panic("it is there") })
			require.NoError(t, err)
			require.Equal(t, 3, len(again))

			// What no reader would take is not stored either.
			_, err = aside.GetOrLoad(t.Context(), c, policy.Key("b"), func(context.Context) ([]wide, error) { return make([]wide, 500_000), nil })
			require.NoError(t, err)
			asidetest.Eventually(t, "it is counted", func() bool { return c.Metrics().Labels["items"].EncodeErrors == 1 })
			require.EqualValues(t, 0, server.MustDo(t, "EXISTS", "items:b"))
			require.Error(t, aside.Set(t.Context(), c, policy.Key("b"), make([]wide, 500_000)))
		})
	}
}

// Hazard 64: a chunk is not read beyond what its manifest says.
func TestAChunkThatIsTooLongIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	key, want := asidetest.Items.Key("large"), asidetest.Large(10*asidetest.Chunk)
	asidetest.Stored(t, asidetest.Connected(t, asidetest.At(server.Addr())), key, want)
	for name := range chunksOf(t, server) {
		server.MustDo(t, "SETRANGE", name, "33554432", "x")
	}
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	before := netOutput(t, server)
	v, err := aside.GetOrLoad(t.Context(), c, key, func(context.Context) ([]byte, error) { return []byte("loaded"), nil })
	require.NoError(t, err)
	require.Equal(t, "loaded", string(v))
	require.Less(t, netOutput(t, server)-before, int64(2<<20))
	require.EqualValues(t, 1, c.Metrics().Labels["items"].DecodeErrors)
}

// Hazard 64: nor is a key in a generation's place.
func TestAKeyInThePlaceOfAGenerationIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	writer := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, writer, asidetest.Items.Key("a"), "v")
	server.MustDo(t, "SETRANGE", "%c:items", "33554432", "x")
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	before := netOutput(t, server)
	for range c.Keys(t.Context(), aside.Pattern{}) {
		t.Fatal("nothing is known to be up to date")
	}
	require.Equal(t, "loaded", asidetest.InMemory(t, c, asidetest.Items.Key("a"), asidetest.Value("loaded")))
	require.Less(t, netOutput(t, server)-before, int64(1<<20))
}

func netOutput(t *testing.T, server *redistest.Server) (n int64) {
	t.Helper()
	for _, digit := range asidetest.Info(t, server, "total_net_output_bytes") {
		n = 10*n + int64(digit-'0')
	}
	return n
}

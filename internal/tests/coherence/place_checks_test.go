package coherence_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A consistency check reads a value once more. It leaves the value where it may be.
func TestAConsistencyCheckKeepsThePlaceOfAValue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := placed(server)
	o.ConsistencyCheck = aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Millisecond, MaxPerSecond: -1}
	c := asidetest.Connected(t, o)
	other := aside.Policy{Category: "percall", TTL: time.Hour}
	for _, of := range []struct {
		key  aside.Key
		opts []aside.CallOption
	}{{inRedisAlone.Key(1), nil}, {other.Key(1), []aside.CallOption{aside.KeepIn(aside.PlaceRedis)}}} {
		label, _, _ := strings.Cut(of.key.String(), ":")
		asidetest.Eventually(t, label+" was checked", func() bool {
			r, err := aside.Lookup(t.Context(), c, of.key, asidetest.Value("v"), of.opts...)
			require.NoError(t, err)
			require.NotEqual(t, aside.TierMemory, r.Tier)
			return c.Metrics().Labels[label].Checked > 10
		})
	}
	require.Zero(t, c.Metrics().InMemory.Entries)
}

// A value of Redis alone takes the place of another build's, which no process could keep beside it.
func TestAValueOfPlaceRedisReplacesThatOfAnotherBuild(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, placed(server))
	key := inRedisAlone.Key(1)
	asidetest.Stored(t, b, key, "a text, which is no number")
	asidetest.Eventually(t, "the number is in redis", func() bool {
		r, err := aside.Lookup(t.Context(), a, key, func(context.Context) (int, error) { return 7, nil })
		require.NoError(t, err)
		require.Equal(t, 7, r.Value)
		return r.Tier == aside.TierRedis
	})
}

// A value that memory does not take is kept nowhere. That is said.
func TestAValueOfPlaceMemoryThatIsTooLargeIsSaidTo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := placed(server)
	var log asidetest.Logbook
	o.MaxValueBytes, o.Logger = 1<<10, log.Logger()
	c := asidetest.Connected(t, o)
	_, err := aside.GetOrLoad(t.Context(), c, inMemoryAlone.Key(1), asidetest.Value(strings.Repeat("x", 10<<10)))
	require.NoError(t, err)
	asidetest.Eventually(t, "it is counted", func() bool { return c.Metrics().Labels["memoryalone"].EncodeErrors == 1 })
	asidetest.Eventually(t, "it is logged", func() bool { return log.With("aside: value not cached", "memoryalone:1") == 1 })
}

// What another process invalidates during a load is not fresh for the caller of the load, once Redis' push has come.
func TestWhatAnotherProcessInvalidatesDuringALoadIsNotFresh(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	tries := 0
	asidetest.Repeatedly(t, "the push of the key has come before the load ends", func() bool {
		tries++
		key := asidetest.ItemKey(tries)
		r, err := aside.Lookup(t.Context(), a, key, func(ctx context.Context) (string, error) {
			before := a.Metrics().InvalidationMessages
			if _, err := b.Invalidate(ctx, key); err != nil {
				return "", err
			}
			asidetest.Eventually(t, "a push has come", func() bool { return a.Metrics().InvalidationMessages > before })
			return "loaded", nil
		})
		require.NoError(t, err)
		return r.TTL == 0
	})
	r, err := aside.Lookup(t.Context(), a, asidetest.ItemKey(0), asidetest.Value("loaded"))
	require.NoError(t, err)
	require.Positive(t, r.TTL, "nobody has invalidated it")
}

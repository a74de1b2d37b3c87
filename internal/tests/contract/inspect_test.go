package contract_test

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

// A described is a value that is large enough to be compressed.
type described struct{ Text string }

var longText = described{strings.Repeat("text ", 1000)}

func inspected(t *testing.T, c *aside.Cache, key aside.Key, most int) aside.Entry {
	t.Helper()
	e, err := c.Inspect(t.Context(), key, most)
	require.NoError(t, err)
	require.Equal(t, key.String(), e.Key)
	return e
}

func TestInspectShowsWhatIsCached(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		inRedis := c.Health().State == aside.StateConnected
		packed := aside.Policy{Name: "packed in mixed", Category: "mixed", TTL: time.Hour, Codec: aside.CBOR}
		key, none := packed.Key("a"), packed.Key("none")
		require.Equal(t, aside.Entry{KeyInfo: aside.KeyInfo{Key: "mixed:a"}, Verdict: aside.ReasonNotCached}, inspected(t, c, key, 100))

		load := func(ctx context.Context) (described, error) {
			aside.CurrentLoad(ctx).ETag("v1")
			time.Sleep(2 * time.Millisecond) // is to be seen as LoadTook, which has whole milliseconds
			return longText, nil
		}
		asidetest.InMemory(t, c, key, load, aside.WithTags("supplier 3"))
		asidetest.Eventually(t, "it is stored", func() bool { return inspected(t, c, key, 0).Verdict == aside.VerdictServed })
		before := c.Metrics().Labels
		e := inspected(t, c, key, 100)
		require.Equal(t, aside.VerdictServed, e.Verdict)
		require.Empty(t, e.Problem)
		require.Equal(t, packed.Name, e.Policy)
		require.Equal(t, "v1", e.ETag)
		require.Equal(t, []string{"supplier 3"}, e.Tags)
		require.GreaterOrEqual(t, e.LoadTook, time.Millisecond)
		require.InDelta(t, time.Hour.Seconds(), e.TTL.Seconds(), 60)
		require.InDelta(t, time.Hour.Seconds(), e.KeptFor.Seconds(), 60)
		require.Less(t, e.Age, time.Minute)
		require.False(t, e.Stale || e.Negative)
		require.Len(t, e.Payload, 100)
		require.Contains(t, string(e.Payload), "text text")
		require.Greater(t, e.Decoded, int64(5000))
		if inRedis {
			require.Equal(t, "cbor", e.Codec)
			require.True(t, e.Compressed)
			require.Less(t, e.Stored, e.Decoded)
			require.Greater(t, e.Size, e.Stored)
			require.Zero(t, e.Chunks)
			require.Regexp(t, "^[0-9a-f]{24}$", e.Nonce)
			var kinds []string
			for _, g := range e.Generations {
				require.True(t, g.Current(), "%+v", g)
				kinds = append(kinds, strings.TrimSpace(g.Kind+" "+g.Name))
			}
			require.ElementsMatch(t, []string{"all", "category mixed", "tag supplier 3"}, kinds)
		} else {
			require.Empty(t, e.Generations)
			require.Zero(t, e.Stored)
		}
		if !inRedis || c.Health().Tracking { // else memory keeps it for a second
			require.Equal(t, aside.TierMemory, e.Tier)
			m := e.InMemory
			require.NotNil(t, m)
			require.Equal(t, aside.InMemory{
				Verdict: aside.VerdictServed, Policy: packed.Name, Type: "contract_test.described", TTL: m.TTL, KeptFor: m.KeptFor, Age: m.Age, LoadTook: m.LoadTook,
				Size: m.Size, Tags: []string{"supplier 3"},
			}, *m)
			require.InDelta(t, time.Hour.Seconds(), m.TTL.Seconds(), 60)
			require.GreaterOrEqual(t, m.LoadTook, time.Millisecond)
			require.Greater(t, m.Size, int64(5000))
		}
		require.Empty(t, inspected(t, c, key, 0).Payload)
		require.EqualValues(t, e.Decoded, len(inspected(t, c, key, 1<<20).Payload))
		require.Equal(t, before, c.Metrics().Labels, "an operator's look is no call")

		_, err := aside.GetOrLoad(t.Context(), c, none, func(context.Context) (described, error) { return described{}, aside.ErrNotFound })
		require.ErrorIs(t, err, aside.ErrNotFound)
		asidetest.Eventually(t, "it is stored", func() bool { return inspected(t, c, none, 0).Negative })
		e = inspected(t, c, none, 100)
		require.Equal(t, aside.VerdictServed, e.Verdict)
		require.Empty(t, e.Codec)
		require.Empty(t, e.Payload)

		// A key that a text was parsed to will do.
		other := aside.Policy{Name: "any", Category: "mixed", TTL: time.Minute}
		parsed, err := other.ParseKey("mixed:a")
		require.NoError(t, err)
		require.Equal(t, packed.Name, inspected(t, c, parsed, 0).Policy)

		_, err = c.InvalidateTags(t.Context(), "supplier 3")
		require.NoError(t, err)
		e = inspected(t, c, key, 0)
		if !inRedis {
			require.Contains(t, []string{aside.VerdictReplaced, aside.ReasonNotCached}, e.Verdict, "whether or not its memory is given back")
			return
		}
		if e.Verdict == aside.ReasonInvalidated { // else it is removed already
			for _, g := range e.Generations {
				require.Equal(t, g.Kind != "tag", g.Current(), "%+v", g)
			}
		} else {
			require.Equal(t, aside.ReasonNotCached, e.Verdict)
		}
		if e.InMemory != nil {
			require.Equal(t, aside.VerdictReplaced, e.InMemory.Verdict)
		}
	})
}

func TestInspectOfAPrivateValueShowsItsEncoding(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	private := aside.Policy{Name: "private", Category: "private", TTL: time.Hour, CloneOnRead: true}
	asidetest.Stored(t, c, private.Key(1), described{"text"})
	e := inspected(t, c, private.Key(1), 100)
	require.JSONEq(t, `{"Text":"text"}`, string(e.Payload))
	require.Equal(t, "contract_test.described", e.InMemory.Type)
	asidetest.Stored(t, c, asidetest.Items.Key("c"), make(chan int))
	e = inspected(t, c, asidetest.Items.Key("c"), 100)
	require.Equal(t, aside.VerdictServed, e.Verdict)
	require.Contains(t, e.Problem, "codec")
	require.Empty(t, e.Payload)
}

func TestInspectOfAValueInChunks(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("large")
	want := asidetest.Large(3 * asidetest.Chunk)
	asidetest.Stored(t, c, key, want)
	e := inspected(t, c, key, len(want))
	require.Equal(t, aside.VerdictServed, e.Verdict)
	require.Equal(t, 3, e.Chunks)
	require.Equal(t, want, e.Payload)
	for chunk := range chunksOf(t, server) {
		server.MustDo(t, "DEL", chunk)
	}
	e = inspected(t, c, key, len(want))
	require.Equal(t, aside.ReasonIncomplete, e.Verdict)
	require.NotEmpty(t, e.Problem)
	require.Empty(t, e.Payload)
}

func TestInspectOfAValueOfAnotherProgram(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("a")
	server.MustDo(t, "SET", key.String(), "hello")
	e := inspected(t, c, key, 100)
	require.Equal(t, aside.ReasonUnusable, e.Verdict)
	require.NotEmpty(t, e.Problem)
	require.EqualValues(t, 5, e.Size)
	require.Equal(t, aside.TierRedis, e.Tier)
	require.Empty(t, e.Payload)
}

func TestInspectOfAnOldValue(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		old := aside.Policy{Name: "old", Category: "short", TTL: 10 * time.Millisecond, StaleIfError: time.Hour}
		asidetest.Stored(t, c, old.Key(1), "v")
		asidetest.Eventually(t, "its TTL is over", func() bool { return inspected(t, c, old.Key(1), 0).Verdict == aside.VerdictStale })
		e := inspected(t, c, old.Key(1), 0)
		require.True(t, e.Stale)
		require.Zero(t, e.TTL)
		require.Greater(t, e.KeptFor, time.Minute)
	})
}

func TestInspectWithoutRedisHasWhatMemoryHas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("a")
	asidetest.InMemory(t, c, key, asidetest.Value("v"))
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	e, err := c.Inspect(t.Context(), key, 100)
	asidetest.RequireCode(t, err, aside.CodeUnavailable)
	require.Equal(t, "items:a", e.Key)
	require.Empty(t, e.Verdict)
	require.Equal(t, aside.VerdictUnconfirmed, e.InMemory.Verdict)
}

// While an invalidation waits for Redis, the process does not take the value from there, whatever it looks like.
func TestInspectOfAValueWhoseInvalidationWaits(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MayDeny()
	server.MustDo(t, "ACL", "SETUSER", "reader", "on", ">a-long-password", "&*", "+@all", "%R~*", "~%*", "~{*")
	asidetest.Stored(t, asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("a"), "v")
	o := asidetest.At(server.Addr())
	o.Redis.Username, o.Redis.Password = "reader", "a-long-password"
	c := asidetest.Connected(t, o)
	require.Equal(t, aside.VerdictServed, inspected(t, c, asidetest.Items.Key("a"), 0).Verdict)
	r, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
	require.Equal(t, aside.ReasonUnconfirmed, inspected(t, c, asidetest.Items.Key("a"), 0).Verdict)
}

func TestInspectRefusesBadArguments(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, key := newCache(aside.Options{}), asidetest.Items.Key("a")
		_, err := c.Inspect(t.Context(), aside.Key{}, 0)
		asidetest.RequireCode(t, err, aside.CodeInvalidKey)
		_, err = c.Inspect(t.Context(), asidetest.Items.Key(1.5), 0)
		asidetest.RequireCode(t, err, aside.CodeInvalidKey)
		_, err = c.Inspect(t.Context(), key, -1)
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
		_, err = c.Inspect(context.Context(nil), key, 0)
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
		_, err = (*aside.Cache)(nil).Inspect(t.Context(), key, 0)
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
		if c.Health().State == aside.StateConnected {
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			_, err = c.Inspect(ended, key, 0)
			require.ErrorIs(t, err, context.Canceled)
		}
		require.NoError(t, c.Close())
		_, err = c.Inspect(t.Context(), key, 0)
		require.ErrorIs(t, err, aside.ErrClosed)
	})
}

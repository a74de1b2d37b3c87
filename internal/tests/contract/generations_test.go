package contract_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
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

// Hazard 57: what somebody else has written in a generation's place must not make an invalidation do nothing. From 2^53 on, adding
// 1 to a number of Lua's does not change it.
func TestAnInvalidationCountsWhateverIsInThePlaceOfAGeneration(t *testing.T) {
	t.Parallel()
	doors := map[string]func(c *aside.Cache) (aside.Receipt, error){
		"%all":     func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
		"%c:items": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"%t:x":     func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
	}
	for tag, invalidate := range doors {
		for _, content := range []string{"9007199254740991", "9007199254740992", "9999999999999999", "5000000000000000", "-1", "1e15", "somebody else's", "a hash"} {
			t.Run(tag+" "+content, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				a, b := asidetest.Pair(t, server.Addr())
				server.MustDo(t, "DEL", tag)
				if content == "a hash" {
					server.MustDo(t, "HSET", tag, "f", "1")
				} else {
					server.MustDo(t, "SET", tag, content)
				}
				for i := range 3 {
					was, is := strconv.Itoa(i), strconv.Itoa(i+1)
					require.Equal(t, was, asidetest.InMemory(t, a, asidetest.Items.Key("a"), asidetest.Value(was), aside.WithTags("x")))
					require.Equal(t, was, asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value(was), aside.WithTags("x")))
					receipt, err := invalidate(a)
					require.NoError(t, err)
					require.True(t, receipt.Confirmed)
					v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value(is), aside.WithTags("x"), aside.Strong())
					require.NoError(t, err)
					require.Equal(t, is, v)
				}
			})
		}
	}
}

// Hazard 79: an entry that has too many tags leaves nothing behind.
func TestTooManyLateTagsAreRefusedBeforeAnyOfThemIsWritten(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	load := func(tags int) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			for i := range tags {
				aside.CurrentLoad(ctx).Tag("tag" + strconv.Itoa(i))
			}
			return "v", nil
		}
	}
	_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), load(10_000))
	require.ErrorContains(t, err, "at most 62")
	require.EqualValues(t, 1, c.Metrics().Labels["items"].LoadErrors)
	require.Empty(t, server.MustDo(t, "KEYS", "%t:*"))
	_, err = aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("b"), load(62))
	require.NoError(t, err)
	asidetest.Eventually(t, "what has as many as it may is stored", func() bool { return server.MustDo(t, "EXISTS", "items:b") == int64(1) })
	require.Len(t, server.MustDo(t, "KEYS", "%t:*"), 62)
}

// Hazard 79: the key of a tag lives a little longer than what carries the tag, whoever names it and when.
func TestTheKeyOfATagLivesALittleLongerThanWhatCarriesIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	left := func(tag string) time.Duration {
		return time.Duration(server.MustDo(t, "PTTL", "%t:"+tag).(int64)) * time.Millisecond
	}
	load := func(ttl time.Duration, tags ...string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			if l := aside.CurrentLoad(ctx); l != nil {
				l.Tag(tags...)
				if ttl > 0 {
					l.TTL(ttl)
				}
			}
			return "v", nil
		}
	}
	get := func(load func(context.Context) (string, error), opts ...aside.CallOption) {
		key := asidetest.Items.Key(fmt.Sprint(time.Now().UnixNano()))
		_, err := aside.GetOrLoad(t.Context(), c, key, load, opts...)
		require.NoError(t, err)
		asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", key.String()) == int64(1) })
	}
	const short, long = 5 * time.Minute, 10 * time.Hour
	get(load(0), aside.WithTags("a"), aside.WithTTL(short))
	require.Less(t, left("a"), time.Hour)
	require.Greater(t, left("a"), short)
	get(load(0), aside.WithTags("a"), aside.WithTTL(long))
	require.Greater(t, left("a"), long, "though this process knew the tag")
	get(load(long), aside.WithTags("b"), aside.WithTTL(short))
	require.Greater(t, left("b"), long, "the loader has given the value a longer TTL")
	get(load(0, "c"), aside.WithTTL(short))
	require.Less(t, left("c"), time.Hour)
	require.Greater(t, left("c"), short, "the loader has named the tag")
	get(load(long, "d"), aside.WithTTL(short))
	require.Greater(t, left("d"), long)
	asidetest.Stored(t, c, asidetest.Items.Key("set"), "v", aside.WithTags("e"), aside.WithTTL(long))
	require.Greater(t, left("e"), long)
	asidetest.Stored(t, c, asidetest.Items.Key("for ever"), "v", aside.WithTags("f"), aside.WithTTL(time.Duration(1<<63-1)))
	require.Greater(t, left("f"), 10*365*24*time.Hour)

	receipt, err := c.InvalidateTags(t.Context(), "unknown", "a")
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", "%t:unknown"), "nothing carries it")
	require.Greater(t, left("a"), long, "an invalidation takes nothing of its life")
	for _, tag := range []string{"%all", "%c:items", "%tags"} {
		require.EqualValues(t, -1, server.MustDo(t, "PTTL", tag), tag)
	}
}

// forged stores an entry that names tags of the forger's choice.
func forged(t *testing.T, server *redistest.Server, key string, tags ...wire.Tag) {
	t.Helper()
	now := time.Now().UnixMicro()
	for _, tag := range []string{"%all", "%c:items"} {
		g, err := redisstore.ParseGeneration([]byte(server.MustDo(t, "GET", tag).(string)))
		require.NoError(t, err)
		tags = append(tags, wire.Tag{Name: tag, Generation: g})
	}
	b, err := wire.Encode(key, wire.Header{
		Codec: wire.ID(wire.JSON), LoadStart: now, FreshUntil: now + time.Hour.Microseconds(), DeadUntil: now + time.Hour.Microseconds(),
		Nonce: wire.NewNonce(), Tags: tags,
	}, []byte(`"forged"`), wire.Limits{MaxValue: 100})
	require.NoError(t, err)
	server.MustDo(t, "SET", key, string(b))
}

// Hazard 65: a stored entry can name any key as its tag.
func TestWhatAnEntryNamesAsATagIsNeverWrittenAndReadOnlyIfItIsOne(t *testing.T) {
	t.Parallel()
	const foreign = "billing:accounts"
	ways := map[string]func(c *aside.Cache) (string, error){
		"get": func(c *aside.Cache) (string, error) {
			return aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("loaded"))
		},
		"strong": func(c *aside.Cache) (string, error) {
			return aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("loaded"), aside.Strong())
		},
		"refresh": func(c *aside.Cache) (string, error) {
			return aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("loaded"), aside.Refresh())
		},
		"batch": func(c *aside.Cache) (string, error) {
			got, err := aside.GetOrLoadMany(t.Context(), c, []string{"a"}, func(id string) aside.Key { return asidetest.Items.Key(id) },
				func(context.Context, []string) (map[string]string, error) {
					return map[string]string{"a": "loaded"}, nil
				})
			return got["a"], err
		},
		"list": func(c *aside.Cache) (string, error) {
			for info, err := range c.Keys(t.Context(), aside.Pattern{}) {
				if err != nil || info.Key == "items:a" {
					return info.Key, err
				}
			}
			return "loaded", nil
		},
		"sweep": func(c *aside.Cache) (string, error) {
			receipt, err := c.InvalidateTags(t.Context(), "x")
			if err == nil {
				_, err = receipt.WaitCleanup(t.Context())
			}
			return "loaded", err
		},
	}
	for name, way := range ways {
		for _, tag := range []string{foreign, "%mark:x", "others:b", "%t:late", "%c:other"} {
			t.Run(name+" "+tag, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				server.MustDo(t, "HSET", foreign, "alice", "100")
				w := asidetest.Watch(t, server)
				asidetest.Stored(t, w.Cache, asidetest.Items.Key("first"), "v") // makes the generations
				forged(t, server, "items:a", wire.Tag{Name: tag, Generation: 1})
				server.MustDo(t, "SET", "others:b", "somebody else's")
				v, err := way(w.Cache)
				require.NoError(t, err)
				require.Equal(t, "loaded", v)
				require.NoError(t, w.Close())
				require.Equal(t, []any{"alice", "100"}, server.MustDo(t, "HGETALL", foreign))
				require.Equal(t, "somebody else's", server.MustDo(t, "GET", "others:b"))
				for _, name := range []string{"%t:late", "%c:other", "%mark:x"} {
					require.EqualValues(t, 0, server.MustDo(t, "EXISTS", name))
				}
				asked := slices.ContainsFunc(w.Proxy.Log(), func(command []string) bool { return slices.Contains(command, tag) })
				require.False(t, asked && !strings.HasPrefix(tag, "%t:") && !strings.HasPrefix(tag, "%c:"), "it is not even read")
			})
		}
	}
}

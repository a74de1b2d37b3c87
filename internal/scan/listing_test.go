package scan

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/wire"
)

func every(string) bool { return true }

// listed returns the infos of all keys that a listing shows.
func (f *fixture) listed(t *testing.T, keys Selection) map[string]Info {
	t.Helper()
	infos := make(map[string]Info)
	require.NoError(t, f.List(t.Context(), keys, func(i Info) bool {
		infos[i.Key] = i
		return true
	}))
	return infos
}

func TestAListingShowsWhatMayBeServed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "items:unconfirmed", keyspace.NamedPrefix+"unconfirmed")
	tag := keyspace.NamedPrefix + "x"
	f.bump(t, keyspace.All, "%c:items", "%c:users", "%c:others", tag, keyspace.NamedPrefix+"unconfirmed")
	f.server.MustDo(t, "SET", "items:number", strconv.FormatUint(now, 10))

	f.put(t, "items:a", nil, wire.Tag{Name: tag, Generation: now})
	f.put(t, "users:b", func(h *wire.Header) { h.Negative = true })
	f.put(t, "others:c", nil)
	f.put(t, "items:old", nil, wire.Tag{Name: tag, Generation: now - 1})
	f.put(t, "items:lost", nil, wire.Tag{Name: keyspace.NamedPrefix + "lost", Generation: now})
	f.put(t, "items:expired", func(h *wire.Header) { h.FreshUntil, h.DeadUntil = h.LoadStart, h.LoadStart })
	f.put(t, "items:unconfirmed", nil)
	f.put(t, "items:by-tag", nil, wire.Tag{Name: keyspace.NamedPrefix + "unconfirmed", Generation: now})
	f.put(t, "items:forged", nil, wire.Tag{Name: "items:number", Generation: now})
	f.server.MustDo(t, "SET", "items:foreign", "something else")
	f.server.MustDo(t, "RPUSH", "items:list", "x")
	value := f.server.MustDo(t, "GET", "items:a")
	f.server.MustDo(t, "SET", "items:another", value.(string)) // is no value under this name

	infos := f.listed(t, Selection{Matches: every})
	require.Len(t, infos, 2)
	a := infos["items:a"]
	require.Equal(t, []string{"x"}, a.Tags)
	require.InDelta(t, 59*time.Minute, a.TTL, float64(bound))
	require.InDelta(t, time.Minute, a.Age, float64(bound))
	require.EqualValues(t, len(value.(string)), a.Size)
	require.False(t, a.Negative)
	require.True(t, infos["users:b"].Negative)

	require.Len(t, f.listed(t, Selection{Category: "others", Match: "others:*", Matches: every}), 1)
	require.Empty(t, f.listed(t, Selection{Category: "items", Match: "items:*", Matches: func(key string) bool { return key == "items:b" }}))
}

// The header of a value with many tags is longer than what is read of every value.
func TestAListingReadsLongHeaders(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.bump(t, keyspace.All, "%c:items")
	var tags []wire.Tag
	var want []string
	for i := range keyspace.MaxTags {
		name := strings.Repeat("x", 100) + strconv.Itoa(i)
		f.bump(t, keyspace.NamedPrefix+name)
		tags, want = append(tags, wire.Tag{Name: keyspace.NamedPrefix + name, Generation: now}), append(want, name)
	}
	f.put(t, "items:a", nil, tags...)
	require.Equal(t, want, f.listed(t, Selection{Matches: every})["items:a"].Tags)
}

func TestAListingEndsWithItsConsumerAndWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.bump(t, keyspace.All, "%c:items")
	for i := range 10 {
		f.put(t, "items:"+strconv.Itoa(i), nil)
	}
	n := 0
	require.NoError(t, f.List(t.Context(), Selection{Matches: every}, func(Info) bool {
		n++
		return n < 3
	}))
	require.Equal(t, 3, n)
	ctx, cancel := context.WithCancel(t.Context())
	n = 0
	require.Equal(t, context.Canceled, f.List(ctx, Selection{Matches: every}, func(Info) bool {
		n++
		cancel()
		return true
	}))
	require.Equal(t, 1, n)
}

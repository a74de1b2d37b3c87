package contract_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// hostile are ids that mean something to patterns, to keys, or to whoever reads them.
var hostile = []string{
	"*", "?", "[a-z]", "[^a]", "a", "b", "}{", "{a}", "%2A", "%", "a\nb", "\\", "\\*", "]", "", ":", "a:b", "a:*", "ünï→🙂", "\xff\xfe", "\x00", "42",
}

func listed(t *testing.T, c *aside.Cache, p aside.Pattern) (keys []string) {
	t.Helper()
	for info, err := range c.Keys(t.Context(), p) {
		require.NoError(t, err)
		keys = append(keys, info.Key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func TestInvalidatingAPatternOfOneUserRemovesExactlyThatUsersKeys(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		ctx := context.Background()
		sessions := aside.Policy{Name: "sessions", Category: "sessions", TTL: time.Hour}
		kinds := [][]any{{"list", 50, 0}, {"full"}, {""}}
		all := map[string]string{}
		for _, id := range hostile {
			for _, kind := range kinds {
				key := sessions.Key(append([]any{id}, kind...)...)
				asidetest.Stored(t, c, key, "v")
				all[key.String()] = id
			}
		}
		require.Equal(t, slices.Sorted(maps.Keys(all)), listed(t, c, aside.Pattern{}))
		for i, id := range hostile {
			p := sessions.Match(id, aside.Wildcard)
			require.NoError(t, p.Err())
			if i%2 == 1 {
				var err error
				p, err = aside.ParsePattern(sessions.Key(id).String() + ":*")
				require.NoError(t, err, id)
			}
			require.Len(t, listed(t, c, p), len(kinds), p)
			r, err := c.InvalidatePattern(ctx, p)
			require.NoError(t, err)
			require.True(t, r.Confirmed)
			require.EqualValues(t, len(kinds), r.Removed, p)
			maps.DeleteFunc(all, func(_, of string) bool { return of == id })
			require.Equal(t, slices.Sorted(maps.Keys(all)), listed(t, c, aside.Pattern{}), p)
		}
	})
}

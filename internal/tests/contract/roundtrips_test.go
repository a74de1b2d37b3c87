package contract_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestTheRoundTripsThatACallerWaitsFor(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	other := asidetest.Connected(t, asidetest.At(server.Addr()))
	for _, id := range []int{1, 2, 3} {
		asidetest.Stored(t, other, asidetest.ItemKey(id), id)
	}
	ctx, tags := t.Context(), aside.WithTags("x", "y")
	asidetest.InMemory(t, other, asidetest.ItemKey(100), (&squares{}).one, tags) // Redis knows the tags
	next := 1000
	for _, state := range []string{"a process that has just begun", "one that knows its tags"} {
		asidetest.Repeatedly(t, "the client sends what belongs together at once", func() bool {
			c := asidetest.Watch(t, server)
			defer c.Close()
			if state != "a process that has just begun" {
				asidetest.InMemory(t, c.Cache, asidetest.ItemKey(100), (&squares{}).one, tags)
			}
			counted := make(map[string]int)
			get := func(what string, id int, opts ...aside.CallOption) {
				c.Proxy.ResetCounts()
				loads := false
				_, err := aside.GetOrLoad(ctx, c.Cache, asidetest.ItemKey(id), func(context.Context) (int, error) {
					loads, counted[what] = true, c.Proxy.Requests()
					return 0, nil
				}, opts...)
				require.NoError(t, err)
				if !loads {
					counted[what] = c.Proxy.Requests()
				}
			}
			get("a hit in Redis", 1)
			get("a hit in memory", 1)
			get("a Strong hit", 2, aside.Strong())
			next++
			get("before a load", next, tags)
			asidetest.InMemory(t, c.Cache, asidetest.ItemKey(next), (&squares{}).one, tags) // all of it is done
			next++
			get("before the first load under a tag that nobody has used", next, aside.WithTags(fmt.Sprint("new to Redis ", next)))
			t.Logf("%s: %v", state, counted)
			return maps.Equal(counted, map[string]int{
				"a hit in Redis": 1, "a hit in memory": 0, "a Strong hit": 1, "before a load": 2, "before the first load under a tag that nobody has used": 3,
			})
		})
	}
}

func (s *squares) one(context.Context) (int, error) { return 0, nil }

func TestABatchReadsRedisInOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	other, c := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
	asidetest.InMemory(t, other, asidetest.ItemKey(1000), (&squares{}).one) // Redis knows the tags of all entries
	var ids, missing []int
	for id := range 100 {
		ids = append(ids, id)
		if id%10 < 3 {
			asidetest.Stored(t, other, asidetest.ItemKey(id), id*id)
		} else {
			missing = append(missing, id)
		}
	}
	var src squares
	trips := 0
	c.Proxy.ResetCounts()
	got, err := aside.GetOrLoadMany(t.Context(), c.Cache, ids, asidetest.ItemKey, func(ctx context.Context, ids []int) (map[int]int, error) {
		trips = c.Proxy.Requests()
		return src.load(ctx, ids)
	})
	require.NoError(t, err)
	require.Equal(t, [][]int{missing}, src.calls)
	require.Equal(t, 2, trips, "one to read, one for the leases of what is missing")
	require.Len(t, got, 100)
	for id, v := range got {
		require.Equal(t, id*id, v)
	}
	read := map[string]int{}
	for _, args := range c.Proxy.Log() {
		if args[0] == "GETRANGE" && !asidetest.IsHead(args, args[1]) { // fills may have begun
			read[args[1]]++
		}
	}
	for _, id := range ids {
		require.Equal(t, 1, read[asidetest.ItemKey(id).String()], "each is read once")
	}
	require.NoError(t, c.Close())
	fills := slices.DeleteFunc(c.Asked("EVALSHA"), func(args []string) bool { return !strings.HasPrefix(args[2], "items:") })
	require.Len(t, fills, len(missing))
	leases := slices.DeleteFunc(c.Asked("SET"), func(args []string) bool { return !strings.HasPrefix(args[0], "{items:") })
	require.Len(t, leases, len(missing))
}

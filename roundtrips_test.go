package aside_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A watched cache asks its server through a proxy that counts.
type watched struct {
	*aside.Cache
	proxy *redistest.Proxy
}

func watch(t *testing.T, server *redistest.Server) watched {
	t.Helper()
	return watchedAs(t, server, at)
}

func watchedAs(t *testing.T, server *redistest.Server, options func(addr string) aside.Options) watched {
	t.Helper()
	proxy := redistest.StartProxy(t, server.Addr())
	return watched{connected(t, options(proxy.Addr())), proxy}
}

// asked returns the commands of one kind that were sent, without their names.
func (w watched) asked(name string) (args [][]string) {
	for _, command := range w.proxy.Log() {
		if strings.EqualFold(command[0], name) {
			args = append(args, command[1:])
		}
	}
	return args
}

func TestTheRoundTripsThatACallerWaitsFor(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	other := connected(t, at(server.Addr()))
	for _, id := range []int{1, 2, 3} {
		stored(t, other, itemKey(id), id)
	}
	ctx, tags := t.Context(), aside.WithTags("x", "y")
	inMemory(t, other, itemKey(100), (&squares{}).one, tags) // Redis knows the tags
	loader := func(c watched, trips *int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { *trips = c.proxy.Requests(); return 0, nil }
	}
	for _, state := range []string{"a process that has just begun", "one that knows its tags"} {
		c := watch(t, server)
		if state != "a process that has just begun" {
			inMemory(t, c.Cache, itemKey(100), (&squares{}).one, tags)
		}
		var trips int
		c.proxy.ResetCounts()
		_, err := aside.GetOrLoad(ctx, c.Cache, itemKey(1), loader(c, &trips))
		require.NoError(t, err)
		require.Equal(t, 1, c.proxy.Requests(), "a hit in Redis, for %s", state)
		_, err = aside.GetOrLoad(ctx, c.Cache, itemKey(1), loader(c, &trips))
		require.NoError(t, err)
		require.Equal(t, 1, c.proxy.Requests(), "a hit in memory, for %s", state)
		c.proxy.ResetCounts()
		_, err = aside.GetOrLoad(ctx, c.Cache, itemKey(2), loader(c, &trips), aside.Strong())
		require.NoError(t, err)
		require.Equal(t, 1, c.proxy.Requests(), "a Strong hit, for %s", state)
		c.proxy.ResetCounts()
		_, err = aside.GetOrLoad(ctx, c.Cache, itemKey(1000+len(state)), loader(c, &trips), tags)
		require.NoError(t, err)
		require.Equal(t, 2, trips, "before a load, for %s", state)
		inMemory(t, c.Cache, itemKey(1000+len(state)), (&squares{}).one, tags) // all of it is done
		c.proxy.ResetCounts()
		_, err = aside.GetOrLoad(ctx, c.Cache, itemKey(2000+len(state)), loader(c, &trips), aside.WithTags("new to Redis, "+state))
		require.NoError(t, err)
		require.Equal(t, 3, trips, "the first load under a tag that nobody has used before")
	}
}

func (s *squares) one(context.Context) (int, error) { return 0, nil }

func TestABatchReadsRedisInOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	other, c := connected(t, at(server.Addr())), watch(t, server)
	inMemory(t, other, itemKey(1000), (&squares{}).one) // Redis knows the tags of all entries
	var ids, missing []int
	for id := range 100 {
		ids = append(ids, id)
		if id%10 < 3 {
			stored(t, other, itemKey(id), id*id)
		} else {
			missing = append(missing, id)
		}
	}
	var src squares
	trips := 0
	c.proxy.ResetCounts()
	got, err := aside.GetOrLoadMany(t.Context(), c.Cache, ids, itemKey, func(ctx context.Context, ids []int) (map[int]int, error) {
		trips = c.proxy.Requests()
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
	for _, args := range c.asked("GETRANGE") {
		read[args[0]]++
	}
	for _, id := range ids {
		require.Equal(t, 1, read[itemKey(id).String()], "each is read once")
	}
	require.NoError(t, c.Close())
	leases := slices.DeleteFunc(c.asked("EVALSHA"), func(args []string) bool { return !strings.HasPrefix(args[2], "items:") })
	require.Len(t, leases, 2*len(missing), "a lease and a fill for each")
}

package aside_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

func isScan(args []string) bool { return strings.EqualFold(args[0], "SCAN") }

// scanCount is how many places of the server's table one SCAN of a search looks at.
const scanCount = "250"

// nthScan returns a match for the nth SCAN that is sent, or the nth that begins a pass.
func nthScan(n int, beginning bool) func(args []string) bool {
	return func(args []string) bool {
		if !isScan(args) || beginning && args[1] != "0" {
			return false
		}
		n--
		return n == 0
	}
}

// pages are the pages of a SCAN on which names are found. They are put there meanwhile.
func pages(t *testing.T, server *redistest.Server, names ...string) map[string]int {
	t.Helper()
	for _, name := range names {
		server.MustDo(t, "SET", name, "")
	}
	found := map[string]int{}
	for cursor, page := "0", 0; page == 0 || cursor != "0"; page++ {
		reply := server.MustDo(t, "SCAN", cursor, "COUNT", scanCount).([]any)
		cursor = reply[0].(string)
		for _, name := range reply[1].([]any) {
			found[name.(string)] = page
		}
	}
	for _, name := range names {
		server.MustDo(t, "DEL", name)
	}
	return found
}

// Hazard 2: the scan has passed the place of the key when the load stores its value there, and has still to come to the place of the
// lease when the load gives that back.
func TestALoadInFlightIsNotStoredWhereverTheScanIs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for i := range 3000 { // more than one page
		server.MustDo(t, "SET", "filler:"+strconv.Itoa(i), "")
	}
	var names []string
	for i := range 40 {
		key := items.Key(i).String()
		names = append(names, key, "{"+key+"}!l")
	}
	on := pages(t, server, names...)
	key, between, widest := aside.Key{}, 0, 0
	for i := range 40 {
		k := items.Key(i)
		first, last := on[k.String()], on["{"+k.String()+"}!l"]
		if last-first > widest {
			key, between, widest = k, (first+last)/2, last-first
		}
	}
	require.Greater(t, widest, 3, "one of forty keys lies well before its lease")
	a, b := connected(t, at(server.Addr())), watch(t, server)
	_, err := b.InvalidatePattern(t.Context(), items.Match(aside.Wildcard))
	require.NoError(t, err)
	scans := slices.DeleteFunc(b.proxy.Log(), func(args []string) bool { return !isScan(args) })
	require.Contains(t, scans[0], scanCount)
	perPass := len(scans) / 2
	lease := "{" + key.String() + "}!l"
	for name, c := range map[string]struct {
		scan      int
		beginning bool // of a pass: only those count
		stored    bool // in between
	}{
		"between the places":            {between + 1, false, true},
		"between the passes":            {2, true, false},
		"before the first":              {1, true, true},
		"in the second, between places": {perPass + between + 1, false, false},
	} {
		provoked := false
		for range 5 { // a busy machine may time out, and the search begin again: then this is another place
			refusedBefore := refused(a)
			load := newHeld()
			got := background(t, a, key, load.load("old"), aside.Strong()) // the push of what is above may not have come yet
			<-load.began
			gate := b.proxy.HoldRequests(nthScan(c.scan, c.beginning))
			receipts := make(chan aside.Receipt, 1)
			go func() {
				r, err := b.InvalidatePattern(t.Context(), items.Match(aside.Wildcard))
				if err != nil {
					t.Error(err)
				}
				receipts <- r
			}()
			gate.Wait(t)
			leased := server.MustDo(t, "EXISTS", lease) == int64(1)
			close(load.release)
			require.Equal(t, "old", <-got, name)
			eventually(t, "the fill is over", func() bool {
				return refused(a) > refusedBefore || server.MustDo(t, "EXISTS", key.String()) == int64(1)
			})
			// Memory may refuse it all the same: the push of what is above may come only now.
			require.Equal(t, leased, server.MustDo(t, "EXISTS", key.String()) == int64(1), name)
			gate.Release()
			require.True(t, (<-receipts).Confirmed)
			require.Equal(t, int64(0), server.MustDo(t, "EXISTS", key.String()), name)
			v, err := aside.GetOrLoad(t.Context(), a, key, value("new"), aside.Strong())
			require.NoError(t, err)
			require.Equal(t, "new", v, name)
			_, err = b.Invalidate(t.Context(), key)
			require.NoError(t, err)
			eventually(t, "nothing is left", func() bool { return server.MustDo(t, "EXISTS", key.String(), lease) == int64(0) })
			if provoked = leased == c.stored; provoked {
				break
			}
		}
		require.True(t, provoked, name)
	}
}

func TestWhatAPatternIsAboutIsNotReadInRedisUntilItIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, b := watch(t, server), connected(t, at(server.Addr()))
	others := aside.Policy{Name: "others", Category: "others", TTL: items.TTL}
	stored(t, b, items.Key("a", 1), "old")
	stored(t, b, items.Key("b"), "v")
	stored(t, b, others.Key("a"), "v")
	gate := c.proxy.HoldRequests(nthScan(1, true))
	receipts := make(chan aside.Receipt, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		r, err := c.InvalidatePattern(ctx, items.Match("a", aside.Wildcard))
		if err != nil {
			t.Error(err)
		}
		receipts <- r
	}()
	gate.Wait(t)
	cancel()
	r := <-receipts
	require.False(t, r.Confirmed, "it returns with its context, and goes on")
	require.Zero(t, r.Removed)
	short, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Swept(short)
	require.ErrorIs(t, err, context.Canceled)
	// The connection is held as a whole, so what asks Redis would wait.
	got, err := aside.Lookup(t.Context(), c.Cache, items.Key("a", 1), value("new"))
	require.NoError(t, err)
	require.Equal(t, "new", got.Value)
	require.Equal(t, aside.StatusFallback, got.Status)
	require.Equal(t, "redis has not confirmed an invalidation yet", got.Reason)
	gate.Release()
	require.NoError(t, r.Wait(t.Context()))
	removed, err := r.Swept(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	for _, key := range []aside.Key{items.Key("b"), others.Key("a")} {
		v, err := aside.Get[string](t.Context(), c.Cache, key)
		require.NoError(t, err)
		require.Equal(t, "v", v)
	}
	require.Equal(t, "newer", inMemory(t, c.Cache, items.Key("a", 1), value("newer")))
}

func TestAPatternReachesNoForeignKey(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connected(t, at(server.Addr()))
	stored(t, c, items.Key("a"), "v")
	server.MustDo(t, "SET", "items:foreign", "something else")
	server.MustDo(t, "RPUSH", "items:list", "x")
	server.MustDo(t, "SET", "{items:a}!c:n:1", "a part of something")
	r, err := c.InvalidatePattern(t.Context(), items.Match(aside.Wildcard))
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Removed)
	for _, foreign := range []string{"items:foreign", "items:list", "{items:a}!c:n:1"} {
		require.Equal(t, int64(1), server.MustDo(t, "EXISTS", foreign), foreign)
	}
	require.Equal(t, []string(nil), listed(t, c, aside.Pattern{}))
}

func TestAServerThatHasBecomeAReplicaConfirmsNoPattern(t *testing.T) {
	t.Parallel()
	if inCluster {
		t.Skip("nodes of a cluster take no REPLICAOF")
	}
	server, other := redistest.Start(t), redistest.Start(t)
	c := connected(t, at(server.Addr()))
	server.MustDo(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(other.Port()))
	r, err := c.InvalidatePattern(t.Context(), items.Match("none"))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
	r, err = c.InvalidatePattern(t.Context(), items.Match("none", aside.Wildcard))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
}

func TestManyPatternsAtOnceShareTheirPasses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := watch(t, server)
	const users = 50
	for i := range users {
		stored(t, c.Cache, items.Key("user", i, "x"), "v")
		stored(t, c.Cache, items.Key("user", i, "y"), "v")
		inMemory(t, c.Cache, items.Key("user", i, "x"), value("v")) // or it would be asked for behind what is held
	}
	stored(t, c.Cache, items.Key("user"), "stays")
	gate := c.proxy.HoldRequests(nthScan(1, true))
	over, cancel := context.WithCancel(t.Context())
	cancel() // who calls does not wait
	var receipts []aside.Receipt
	for i := range users {
		r, err := c.InvalidatePattern(over, items.Match("user", i, aside.Wildcard))
		require.NoError(t, err)
		receipts = append(receipts, r)
		if i == 0 {
			gate.Wait(t)
		}
	}
	gate.Release()
	for _, r := range receipts {
		removed, err := r.Swept(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, removed)
	}
	require.LessOrEqual(t, len(c.asked("scan")), 4, "two passes for the first, two for the others")
	_, err := aside.Get[string](t.Context(), c.Cache, items.Key("user"))
	require.NoError(t, err)
}

func TestWithASecretADictionaryOfIDsFindsNoneInTheKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := at(server.Addr())
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	o.Secret = aside.NewSecret(secret)
	c := connected(t, o)
	ids := rounds(10_000, 1_000_000)
	id := func(i int) string { return fmt.Sprintf("user%07d", i) }
	for i := range 100 {
		stored(t, c, aside.TTL.UserProfile.Key(c.HashID(id(i)), "profile"), "v")
	}
	guesses := make(map[string]bool, 2*ids)
	var none *aside.Cache
	for i := range ids {
		guesses[id(i)], guesses[none.HashID(id(i))] = true, true // as it is, and by the hash without a secret
	}
	found := 0
	for _, key := range listed(t, c, aside.Pattern{}) {
		found++
		for part := range strings.SplitSeq(key, ":") {
			require.False(t, guesses[part], part)
		}
	}
	require.Equal(t, 100, found)
}

func TestAPatternEndsWhatMemoryHasWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	a, b := items.Key("user", "a"), items.Key("other", "a")
	c := away(t, aside.Options{}, func(c *aside.Cache) {
		inMemory(t, c, a, value("before"))
		inMemory(t, c, b, value("before"))
	})
	requireStale(t, c, a, "before")
	r, err := c.InvalidatePattern(t.Context(), items.Match("user", aside.Wildcard))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
	requireLoaded(t, c, a)
	requireStale(t, c, b, "before")
}

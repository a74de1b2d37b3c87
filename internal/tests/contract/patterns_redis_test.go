package contract_test

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
	"github.com/gatewayz/aside/internal/asidetest"
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
		key := asidetest.Items.Key(i).String()
		names = append(names, key, "{"+key+"}!l")
	}
	on := pages(t, server, names...)
	key, between, widest := aside.Key{}, 0, 0
	for i := range 40 {
		k := asidetest.Items.Key(i)
		first, last := on[k.String()], on["{"+k.String()+"}!l"]
		if last-first > widest {
			key, between, widest = k, (first+last)/2, last-first
		}
	}
	require.Greater(t, widest, 3, "one of forty keys lies well before its lease")
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
	_, err := b.InvalidatePattern(t.Context(), asidetest.Items.Match(aside.Wildcard))
	require.NoError(t, err)
	scans := slices.DeleteFunc(b.Proxy.Log(), func(args []string) bool { return !isScan(args) })
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
		// A busy machine may time out, and the search begin again: then this is another place.
		asidetest.Repeatedly(t, name, func() bool {
			refusedBefore := asidetest.Refused(a)
			load := asidetest.NewHeld()
			got := asidetest.Background(t, a, key, load.Load("old"), aside.Strong()) // the push of what is above may not have come yet
			<-load.Began
			gate := b.Proxy.HoldRequests(nthScan(c.scan, c.beginning))
			receipts := make(chan aside.Receipt, 1)
			go func() {
				r, err := b.InvalidatePattern(t.Context(), asidetest.Items.Match(aside.Wildcard))
				if err != nil {
					t.Error(err)
				}
				receipts <- r
			}()
			gate.Wait(t)
			leased := server.MustDo(t, "EXISTS", lease) == int64(1)
			close(load.Release)
			require.Equal(t, "old", <-got, name)
			asidetest.Eventually(t, "the fill is over", func() bool {
				return asidetest.Refused(a) > refusedBefore || server.MustDo(t, "EXISTS", key.String()) == int64(1)
			})
			// Memory may refuse it all the same: the push of what is above may come only now.
			require.Equal(t, leased, server.MustDo(t, "EXISTS", key.String()) == int64(1), name)
			gate.Release()
			require.True(t, (<-receipts).Confirmed)
			require.Equal(t, int64(0), server.MustDo(t, "EXISTS", key.String()), name)
			v, err := aside.GetOrLoad(t.Context(), a, key, asidetest.Value("new"), aside.Strong())
			require.NoError(t, err)
			require.Equal(t, "new", v, name)
			_, err = b.Invalidate(t.Context(), key)
			require.NoError(t, err)
			asidetest.Eventually(t, "nothing is left", func() bool { return server.MustDo(t, "EXISTS", key.String(), lease) == int64(0) })
			return leased == c.stored
		})
	}
}

func TestWhatAPatternIsAboutIsNotReadInRedisUntilItIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, b := asidetest.Watch(t, server), asidetest.Connected(t, asidetest.At(server.Addr()))
	others := aside.Policy{Name: "others", Category: "others", TTL: asidetest.Items.TTL}
	asidetest.Stored(t, b, asidetest.Items.Key("a", 1), "old")
	asidetest.Stored(t, b, asidetest.Items.Key("b"), "v")
	asidetest.Stored(t, b, others.Key("a"), "v")
	gate := c.Proxy.HoldRequests(nthScan(1, true))
	receipts := make(chan aside.Receipt, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		r, err := c.InvalidatePattern(ctx, asidetest.Items.Match("a", aside.Wildcard))
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
	_, err := r.WaitCleanup(short)
	require.ErrorIs(t, err, context.Canceled)
	// The connection is held as a whole, so what asks Redis would wait.
	got, err := aside.Lookup(t.Context(), c.Cache, asidetest.Items.Key("a", 1), asidetest.Value("new"))
	require.NoError(t, err)
	require.Equal(t, "new", got.Value)
	require.Equal(t, aside.StatusFallback, got.Status)
	require.Equal(t, "redis has not confirmed an invalidation yet", got.Reason)
	gate.Release()
	require.NoError(t, r.Wait(t.Context()))
	removed, err := r.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	for _, key := range []aside.Key{asidetest.Items.Key("b"), others.Key("a")} {
		v, err := aside.Get[string](t.Context(), c.Cache, key)
		require.NoError(t, err)
		require.Equal(t, "v", v)
	}
	require.Equal(t, "newer", asidetest.InMemory(t, c.Cache, asidetest.Items.Key("a", 1), asidetest.Value("newer")))
}

func TestAPatternReachesNoForeignKey(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	asidetest.Stored(t, c, asidetest.Items.Key("a"), "v")
	server.MustDo(t, "SET", "items:foreign", "something else")
	server.MustDo(t, "RPUSH", "items:list", "x")
	server.MustDo(t, "SET", "{items:a}!c:n:1", "a part of something")
	r, err := c.InvalidatePattern(t.Context(), asidetest.Items.Match(aside.Wildcard))
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Removed)
	for _, foreign := range []string{"items:foreign", "items:list", "{items:a}!c:n:1"} {
		require.Equal(t, int64(1), server.MustDo(t, "EXISTS", foreign), foreign)
	}
	require.Equal(t, []string(nil), listed(t, c, aside.Pattern{}))
}

func TestAServerThatHasBecomeAReplicaConfirmsNoPattern(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("nodes of a cluster take no REPLICAOF")
	}
	server, other := redistest.Start(t), redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	server.MustDo(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(other.Port()))
	r, err := c.InvalidatePattern(t.Context(), asidetest.Items.Match("none"))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
	r, err = c.InvalidatePattern(t.Context(), asidetest.Items.Match("none", aside.Wildcard))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
}

func TestManyPatternsAtOnceShareTheirPasses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Watch(t, server)
	const users = 50
	for i := range users {
		asidetest.Stored(t, c.Cache, asidetest.Items.Key("user", i, "x"), "v")
		asidetest.Stored(t, c.Cache, asidetest.Items.Key("user", i, "y"), "v")
		asidetest.InMemory(t, c.Cache, asidetest.Items.Key("user", i, "x"), asidetest.Value("v")) // or it would be asked for behind what is held
	}
	asidetest.Stored(t, c.Cache, asidetest.Items.Key("user"), "stays")
	gate := c.Proxy.HoldRequests(nthScan(1, true))
	over, cancel := context.WithCancel(t.Context())
	cancel() // who calls does not wait
	var receipts []aside.Receipt
	for i := range users {
		r, err := c.InvalidatePattern(over, asidetest.Items.Match("user", i, aside.Wildcard))
		require.NoError(t, err)
		receipts = append(receipts, r)
		if i == 0 {
			gate.Wait(t)
		}
	}
	gate.Release()
	for _, r := range receipts {
		removed, err := r.WaitCleanup(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, removed)
	}
	require.LessOrEqual(t, len(c.Asked("scan")), 4, "two passes for the first, two for the others")
	_, err := aside.Get[string](t.Context(), c.Cache, asidetest.Items.Key("user"))
	require.NoError(t, err)
}

func TestWithASecretADictionaryOfIDsFindsNoneInTheKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	o.Secret = aside.NewSecret(secret)
	c := asidetest.Connected(t, o)
	ids := asidetest.Rounds(10_000, 1_000_000)
	id := func(i int) string { return fmt.Sprintf("user%07d", i) }
	for i := range 100 {
		asidetest.Stored(t, c, aside.TTL.UserProfile.Key(c.HashID(id(i)), "profile"), "v")
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
	a, b := asidetest.Items.Key("user", "a"), asidetest.Items.Key("other", "a")
	c := asidetest.Away(t, aside.Options{}, func(c *aside.Cache) {
		asidetest.InMemory(t, c, a, asidetest.Value("before"))
		asidetest.InMemory(t, c, b, asidetest.Value("before"))
	})
	asidetest.RequireStale(t, c, a, "before")
	r, err := c.InvalidatePattern(t.Context(), asidetest.Items.Match("user", aside.Wildcard))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
	asidetest.RequireLoaded(t, c, a)
	asidetest.RequireStale(t, c, b, "before")
}

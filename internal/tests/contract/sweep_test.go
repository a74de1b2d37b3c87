package contract_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

// plainClient is a client as others of the same server have one.
func plainClient(t *testing.T, addr string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// fillCategory stores n values under items:bulk:0 and so on, as caches do, but faster.
func fillCategory(t *testing.T, server *redistest.Server, n int) {
	t.Helper()
	fillCategoryBy(t, plainClient(t, server.Addr()), asidetest.At(server.Addr()), n)
}

// fillCategoryBy is fillCategory by a client of one server or of a cluster.
func fillCategoryBy(t *testing.T, client rueidis.Client, o aside.Options, n int) {
	t.Helper()
	asidetest.InMemory(t, asidetest.Connected(t, o), asidetest.Items.Key("first"), asidetest.Value("v"))
	var tags []wire.Tag
	for _, name := range []string{"%all", "%c:items"} {
		text, err := client.Do(t.Context(), client.B().Get().Key(name).Build()).ToString()
		require.NoError(t, err)
		g, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		tags = append(tags, wire.Tag{Name: name, Generation: g})
	}
	require.NoError(t, client.Do(t.Context(), client.B().Del().Key("items:first").Build()).Error())
	now := time.Now()
	for from := 0; from < n; from += 10_000 {
		var cmds rueidis.Commands
		for i := from; i < min(n, from+10_000); i++ {
			key := asidetest.Items.Key("bulk", i).String()
			v, err := wire.Encode(key, wire.Header{
				Codec: wire.ID(wire.JSON), LoadStart: now.UnixMicro(), FreshUntil: now.Add(time.Hour).UnixMicro(), DeadUntil: now.Add(time.Hour).UnixMicro(),
				Nonce: wire.NewNonce(), Tags: tags,
			}, []byte(`"old"`), wire.Limits{MaxValue: 100})
			require.NoError(t, err)
			cmds = append(cmds, client.B().Set().Key(key).Value(rueidis.BinaryString(v)).Px(time.Hour).Build())
		}
		for _, r := range client.DoMulti(t.Context(), cmds...) {
			require.NoError(t, r.Error())
		}
	}
}

// A category is invalidated by one write, however much there is; then its memory is given back, and others hardly notice.
func TestACategoryOfAnySizeIsInvalidatedAtOnceAndSweptInTheBackground(t *testing.T) {
	t.Parallel()
	t.Run("one server", func(t *testing.T) {
		server := redistest.Start(t)
		ofAnySize(t, asidetest.At(server.Addr()), plainClient(t, server.Addr()))
	})
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t)
		other, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: cluster.Addrs(), DisableCache: true})
		require.NoError(t, err)
		t.Cleanup(other.Close)
		ofAnySize(t, asidetest.InClusterOf(cluster), other)
	})
}

func ofAnySize(t *testing.T, o aside.Options, other rueidis.Client) {
	n := asidetest.Rounds(5_000, 1_000_000)
	fillCategoryBy(t, other, o, n)
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	for _, c := range []*aside.Cache{a, b} {
		v, err := aside.Get[string](t.Context(), c, asidetest.Items.Key("bulk", n-1))
		require.NoError(t, err)
		require.Equal(t, "old", v)
	}
	require.NoError(t, other.Do(t.Context(), other.B().Set().Key("other").Value("v").Build()).Error())
	began := time.Now()
	receipt, err := a.InvalidateCategory(t.Context(), "items")
	took := time.Since(began)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	require.Zero(t, receipt.Removed)

	over := make(chan int64, 1)
	go func() {
		removed, err := receipt.WaitCleanup(t.Context())
		if err != nil {
			t.Error(err)
		}
		over <- removed
	}()
	var gets []time.Duration
	removed := int64(-1)
	for i := 0; removed < 0; i++ {
		sent := time.Now()
		require.NoError(t, other.Do(t.Context(), other.B().Get().Key("other").Build()).Error())
		gets = append(gets, time.Since(sent))
		if i%100 == 0 {
			_, err := aside.Get[string](t.Context(), a, asidetest.Items.Key("bulk", (i*997)%n))
			require.ErrorIs(t, err, aside.ErrMiss, "whether or not it is swept already")
		}
		select {
		case removed = <-over:
		default:
		}
	}
	sweep := time.Since(began)
	slices.Sort(gets)
	p99 := gets[len(gets)*99/100]
	t.Logf("%d keys: confirmed in %v; %d removed in %v; %d GETs of another client meanwhile, p50 %v, p99 %v, longest %v",
		n, took, removed, sweep, len(gets), gets[len(gets)/2], p99, gets[len(gets)-1])
	require.EqualValues(t, n, removed)
	if asidetest.AtLength() {
		require.Less(t, took, 5*time.Millisecond)
		require.Less(t, p99, 2*time.Millisecond)
	}
	for key := range b.Keys(t.Context(), asidetest.Items.Match(aside.Wildcard)) {
		t.Error("there is still", key)
	}
	_, err = aside.Get[string](t.Context(), b, asidetest.Items.Key("bulk", n-1))
	require.ErrorIs(t, err, aside.ErrMiss)
	require.NoError(t, other.Do(t.Context(), other.B().Get().Key("other").Build()).Error())
}

// Hazard 14: what was stored after the invalidation stays.
func TestASweepLeavesWhatIsNewer(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x", "not used") },
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			c := asidetest.Connected(t, asidetest.At(server.Addr()))
			w := asidetest.Watch(t, server)
			const n = 16                                       // few: what is done while the gate holds a message must not take long
			long := []string{"x", strings.Repeat("long", 100)} // more than the first look at a value brings
			for i := range n {
				asidetest.InMemory(t, c, asidetest.Items.Key(i), asidetest.Value("old"), aside.WithTags(long...))
			}
			others := aside.Policy{Name: "others", Category: "others", TTL: time.Hour}
			asidetest.Stored(t, c, others.Key("a"), "v")
			asidetest.Stored(t, c, asidetest.Items.Key("untagged"), "v")
			server.MustDo(t, "SET", "items:foreign", "x")
			server.MustDo(t, "SET", "{items:1}!l", "a lease")
			_, err := aside.Get[string](t.Context(), w.Cache, asidetest.Items.Key("none")) // it has a policy for the category
			require.ErrorIs(t, err, aside.ErrMiss)
			gate := w.Proxy.HoldRequests(nthScan(1, true))
			receipt, err := invalidate(w.Cache)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			gate.Wait(t)
			server.MustDo(t, "DEL", "{items:1}!l")
			for i := range n / 2 {
				key := asidetest.Items.Key(i)
				require.Equal(t, "new", strongly(t, c, key, "new", long...))
				asidetest.Eventually(t, "it is stored", func() bool {
					v, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value("not this one"), aside.Strong())
					return err == nil && v == "new" && server.MustDo(t, "EXISTS", "{"+key.String()+"}!l") == int64(0)
				})
			}
			server.MustDo(t, "SET", "{items:15}!l", "a lease")
			gate.Release()
			removed, err := receipt.WaitCleanup(t.Context())
			require.NoError(t, err)
			want := int64(n / 2)
			if name == "category" {
				want++ // the untagged one
			}
			if name == "all" {
				want++ // and that, since the process has no policy for others
			}
			require.Equal(t, want, removed)
			for _, foreign := range []string{"items:foreign", "{items:15}!l"} {
				require.EqualValues(t, 1, server.MustDo(t, "EXISTS", foreign), foreign)
			}
			for i := range n / 2 {
				require.EqualValues(t, 1, server.MustDo(t, "EXISTS", asidetest.Items.Key(i).String()))
			}
			if name != "all" {
				require.EqualValues(t, 1, server.MustDo(t, "EXISTS", others.Key("a").String()))
			}
		})
	}
}

func strongly(t *testing.T, c *aside.Cache, key aside.Key, v string, tags ...string) string {
	t.Helper()
	got, err := aside.GetOrLoad(t.Context(), c, key, asidetest.Value(v), aside.Strong(), aside.WithTags(tags...))
	require.NoError(t, err)
	return got
}

func TestASweepGoesOnWhenTheServerIsBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	fillCategory(t, server, 3000)
	w := asidetest.Watch(t, server)
	gate := w.Proxy.HoldRequests(nthScan(3, false))
	receipt, err := w.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	gate.Wait(t)
	w.Proxy.CloseConnections()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return w.Health().State == aside.StateDegraded || w.Metrics().TrackingLost > 0 })
	gate.Release()
	removed, err := receipt.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3000, removed)
}

// Hazard 176: the values of a call whose reply is lost may be removed, and are not counted then.
func TestASweepIsRepeatedWhereAReplyIsLost(t *testing.T) {
	t.Parallel()
	const portion = 256 // values, at most; on a cluster it has many calls
	server := redistest.Start(t)
	fillCategory(t, server, 3000)
	w := asidetest.Watch(t, server)
	calls := 0
	gate := w.Proxy.HoldReplies(func(args []string) bool {
		if !strings.EqualFold(args[0], "EVALSHA") || !strings.HasPrefix(args[3], "items:bulk:") {
			return false
		}
		calls++
		return calls == 3
	})
	receipt, err := w.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	gate.Wait(t)
	w.Proxy.CloseConnections()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return w.Health().State == aside.StateDegraded || w.Metrics().TrackingLost > 0 })
	gate.Release()
	removed, err := receipt.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, removed, int64(3000))
	require.GreaterOrEqual(t, removed, int64(3000-portion), "the replies to one portion are lost")
	for key := range w.Keys(t.Context(), asidetest.Items.Match(aside.Wildcard)) {
		t.Error("there is still", key)
	}
	require.Equal(t, []any{"0", []any{}}, server.MustDo(t, "SCAN", "0", "MATCH", "items:*", "COUNT", "100000"))
}

func TestCloseEndsASweep(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	fillCategory(t, server, 3000)
	w := asidetest.Watch(t, server)
	gate := w.Proxy.HoldRequests(nthScan(2, false))
	receipt, err := w.InvalidateCategory(t.Context(), "items")
	require.NoError(t, err)
	gate.Wait(t)
	closed := make(chan struct{})
	go func() { w.Close(); close(closed) }()
	removed, err := receipt.WaitCleanup(t.Context())
	require.ErrorIs(t, err, aside.ErrClosed)
	if !asidetest.InCluster { // there, keys are gathered first, so that a call has several of one slot
		require.Positive(t, removed, "so far")
	}
	require.Less(t, removed, int64(3000))
	select {
	case <-closed:
	case <-time.After(asidetest.Bound):
		t.Fatal("Close waits for the sweep")
	}
	gate.Release()
}

func TestInvalidationsDuringASweepAreSweptTogether(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.Watch(t, server)
	asidetest.Stored(t, w.Cache, asidetest.Items.Key("a"), "v")
	gate := w.Proxy.HoldRequests(nthScan(1, true))
	receipts := make([]aside.Receipt, 20)
	for i := range receipts {
		var err error
		receipts[i], err = w.InvalidateCategory(t.Context(), "items")
		require.NoError(t, err)
		if i == 0 {
			gate.Wait(t)
			gate.Release()
			_, err := receipts[0].WaitCleanup(t.Context())
			require.NoError(t, err)
		}
	}
	for _, r := range receipts {
		_, err := r.WaitCleanup(t.Context())
		require.NoError(t, err)
	}
	require.Less(t, len(w.Asked("scan")), 10)
}

// What begins like a key of ours, and is not for this user, does not keep a sweep from its end.
func TestASweepPassesOverWhatItsUserMayNotTouch(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, asidetest.ACLRules("a-long-password", "items")...)...)
	server.MustDo(t, "SET", "foreign:of:another:program", "x")
	o := asidetest.At(server.Addr())
	o.Policies = []aside.Policy{{Name: "foreign", Category: "foreign", TTL: time.Hour}} // so that its keys are looked at
	o.Redis.Username, o.Redis.Password = "limited", "a-long-password"
	c := asidetest.Connected(t, o)
	for _, invalidate := range []func() (aside.Receipt, error){
		func() (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
		func() (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
	} {
		asidetest.Stored(t, c, asidetest.Items.Key("a"), "v", aside.WithTags("x"))
		receipt, err := invalidate()
		require.NoError(t, err)
		removed, err := receipt.WaitCleanup(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, removed)
	}
}

func TestOnInvalidatedIsToldOfWhatIsConfirmed(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		told := make(chan aside.Invalidation, 100)
		var calls atomic.Int64
		c := newCache(aside.Options{OnInvalidated: func(i aside.Invalidation) {
			told <- i
			if calls.Add(1) == 1 {
				panic("one that panics does no harm")
			}
		}})
		ctx := context.Background()
		must := func(r aside.Receipt, err error) {
			require.NoError(t, err)
			require.True(t, r.Confirmed)
		}
		must(c.Invalidate(ctx, asidetest.Items.Key("a"), asidetest.Items.Key("b")))
		must(c.InvalidateCategory(ctx, "items"))
		must(c.InvalidateTags(ctx, "x:y", "z"))
		must(c.InvalidateAll(ctx))
		must(c.InvalidatePattern(ctx, asidetest.Items.Match("a", aside.Wildcard)))
		for _, want := range []aside.Invalidation{
			{Keys: []string{"items:a", "items:b"}}, {Category: "items"}, {Tags: []string{"x:y", "z"}}, {All: true}, {Pattern: "items:a:*"},
		} {
			got := <-told
			require.WithinDuration(t, time.Now(), got.At, time.Minute)
			got.At = time.Time{}
			require.Equal(t, want, got)
		}
	})
}

func TestOnInvalidatedIsToldAfterAReplayAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	told, release := make(chan aside.Invalidation, 100), make(chan struct{})
	o.OnInvalidated = func(i aside.Invalidation) {
		<-release
		told <- i
	}
	c := asidetest.Connected(t, o)
	proxy.Refuse(true)
	proxy.CloseConnections()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	ctx := t.Context()
	_, err := c.Invalidate(ctx, asidetest.Items.Key("a"))
	require.NoError(t, err)
	_, err = c.InvalidateTags(ctx, "x:y")
	require.NoError(t, err)
	_, err = c.InvalidateCategory(ctx, "items")
	require.NoError(t, err)
	r, err := c.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard))
	require.NoError(t, err)
	require.False(t, r.Confirmed)
	require.Empty(t, told)
	proxy.Refuse(false)
	require.NoError(t, r.Wait(ctx))
	_, err = r.WaitCleanup(ctx)
	require.NoError(t, err)
	close(release)
	var seen []string
	for len(seen) < 4 { // in the order of confirmation, each once at least
		i := <-told
		for _, name := range slices.Concat(i.Keys, i.Tags, []string{i.Category, i.Pattern}) {
			if name != "" && !slices.Contains(seen, name) {
				seen = append(seen, name)
			}
		}
	}
	require.ElementsMatch(t, []string{"items:a", "x:y", "items", "items:*"}, seen)
}

func TestATagThatIsGivenTwiceIsCountedOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	told := make(chan aside.Invalidation, 1)
	o := asidetest.At(server.Addr())
	o.OnInvalidated = func(i aside.Invalidation) { told <- i }
	c := asidetest.Connected(t, o)
	asidetest.Stored(t, c, asidetest.Items.Key("a"), "v", aside.WithTags("x", "y"))
	receipt, err := c.InvalidateTags(t.Context(), "x", "y", "x")
	require.NoError(t, err)
	removed, err := receipt.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	require.Equal(t, []string{"x", "y", "x"}, (<-told).Tags, "as they were given")
}

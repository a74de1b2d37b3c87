package freshness_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 48: of a batch of stale ids, one is slow, or another process loads it. The others do not wait for that longer than for one load.

const batchOf = 100

// A batchSource is what batch loaders load from. It counts the loads of each id.
type batchSource struct {
	began chan []int // gets the ids of each held load

	mu    sync.Mutex
	loads map[int]int
}

func newBatchSource() *batchSource {
	return &batchSource{began: make(chan []int, 100), loads: make(map[int]int)}
}

func (s *batchSource) load(value string, hold <-chan struct{}) func(context.Context, []int) (map[int]string, error) {
	return func(ctx context.Context, ids []int) (map[int]string, error) {
		values := make(map[int]string)
		if value != "old" {
			aside.CurrentLoad(ctx).TTL(time.Hour) // it is not loaded anew
		}
		s.mu.Lock()
		for _, id := range ids {
			s.loads[id]++
			values[id] = value
		}
		s.mu.Unlock()
		if hold != nil {
			s.began <- ids
			<-hold
		}
		return values, nil
	}
}

// times is how often each id has been loaded.
func (s *batchSource) times(id int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads[id]
}

func idsFrom(first int) (ids []int) {
	for i := range batchOf {
		ids = append(ids, first+i)
	}
	return ids
}

// many asks for ids, and requires that all of them have one of some values.
func many(t *testing.T, c *aside.Cache, p *aside.Policy, ids []int, load func(context.Context, []int) (map[int]string, error), values ...string) (got map[int]string) {
	t.Helper()
	got, err := aside.GetOrLoadMany(t.Context(), c, ids, func(id int) aside.Key { return p.Key(id) }, load)
	require.NoError(t, err)
	require.Len(t, got, len(ids))
	for id, v := range got {
		require.Contains(t, values, v, id)
	}
	return got
}

// begin asks for ids until all of them are loaded in the background. The first load of a value may have taken so long that the next one is not due
// yet, so they may begin in several batches.
func (s *batchSource) begin(t *testing.T, c *aside.Cache, p *aside.Policy, ids []int, value string, hold <-chan struct{}) {
	t.Helper()
	var loading []int
	asidetest.Eventually(t, "all are loaded in the background", func() bool {
		many(t, c, p, ids, s.load(value, hold), "old")
		select {
		case begun := <-s.began:
			loading = append(loading, begun...)
		default:
		}
		return len(loading) >= len(ids)
	})
	require.ElementsMatch(t, ids, loading)
}

// leaseOf is what Redis holds in the place of a lease: the nonce of a load, the mark of one that has failed, or nothing.
func leaseOf(t *testing.T, server *redistest.Server, key aside.Key) string {
	t.Helper()
	text, _ := server.MustDo(t, "GET", "{"+key.String()+"}!l").(string)
	return text
}

func TestABatchInTheBackgroundDoesNotWaitForWhatAnotherProcessLoads(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	p := brief(ageing)
	elsewhere, rounds := 0, asidetest.Rounds(3, 100)
	for round := range rounds {
		ids := idsFrom(batchOf * round)
		first := newBatchSource()
		many(t, a, p, ids, first.load("old", nil), "old")
		pastTTL(t, a, p.Key(ids[batchOf-1]))

		s, release := newBatchSource(), make(chan struct{})
		theirs := slices.Clone(ids)
		rand.Shuffle(len(theirs), func(i, j int) { theirs[i], theirs[j] = theirs[j], theirs[i] })
		theirs = theirs[:1+rand.IntN(batchOf/2)]
		s.begin(t, b, p, theirs, "slow", release)
		skipped := a.Metrics().Labels["items"].RefreshesSkipped

		many(t, a, p, ids, s.load("new", nil), "old") // answered at once
		ours := slices.DeleteFunc(slices.Clone(ids), func(id int) bool { return slices.Contains(theirs, id) })
		asidetest.Eventually(t, "all others are loaded, and are there in both processes, while the other process still loads", func() bool {
			for _, c := range []*aside.Cache{a, b} {
				got := many(t, c, p, ours, s.load("new", nil), "old", "new")
				for _, v := range got {
					if v == "old" {
						return false
					}
				}
			}
			return true
		})
		asidetest.Eventually(t, "each id that is loaded elsewhere is counted", func() bool {
			return a.Metrics().Labels["items"].RefreshesSkipped >= skipped+uint64(len(theirs))
		})
		many(t, a, p, theirs, s.load("too often", nil), "old")
		close(release)
		asidetest.Eventually(t, "the other ids follow", func() bool {
			got := many(t, a, p, theirs, s.load("too often", nil), "old", "slow")
			return !slices.ContainsFunc(theirs, func(id int) bool { return got[id] != "slow" })
		})
		for _, id := range ids {
			require.Equal(t, 1, s.times(id), "id %d", id)
		}
		elsewhere += len(theirs)
	}
	require.NotZero(t, elsewhere)
	t.Logf("%d of %d ids were loaded elsewhere", elsewhere, rounds*batchOf)
}

// While the slow id of a batch is loaded, the leases of all its ids are renewed. Otherwise they would be loaded twice.
func TestTheLeasesOfABatchInTheBackgroundAreRenewedTogether(t *testing.T) {
	t.Parallel()
	const lease = 2 * time.Second
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.LeaseTTL = lease
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	p, ids := brief(func(p *aside.Policy) { p.Stale, p.LoadTimeout = time.Hour, time.Minute }), idsFrom(0)
	many(t, a, p, ids, newBatchSource().load("old", nil), "old")
	pastTTL(t, a, p.Key(ids[batchOf-1]))

	s, release := newBatchSource(), make(chan struct{})
	s.begin(t, a, p, ids, "new", release)
	leases := make(map[int]string)
	for _, id := range ids {
		leases[id] = leaseOf(t, server, p.Key(id))
		require.NotEmpty(t, leases[id])
	}
	began, tries := time.Now(), 0
	asidetest.Eventually(t, "the leases would have ended", func() bool {
		many(t, b, p, ids, s.load("too often", nil), "old") // nobody waits
		tries++
		return time.Since(began) > 3*lease/2
	})
	for _, id := range ids {
		require.Equal(t, leases[id], leaseOf(t, server, p.Key(id)), "id %d", id)
	}
	asidetest.Eventually(t, "the other process has tried each", func() bool { return b.Metrics().Labels["items"].RefreshesSkipped >= batchOf })
	close(release)
	asidetest.Eventually(t, "all ids are loaded, and their leases given back", func() bool {
		return !slices.ContainsFunc(ids, func(id int) bool { return leaseOf(t, server, p.Key(id)) != "" })
	})
	for _, id := range ids {
		require.Equal(t, 1, s.times(id), "id %d", id)
	}
	t.Logf("the other process has asked for %d ids %d times", batchOf, tries)
}

// The loader of a batch hangs because of one id, and ignores its context. At LoadTimeout all of its ids are for others to load.
func TestTheLeasesOfABatchInTheBackgroundThatHangsAreGivenBackTogether(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.LeaseTTL = time.Hour // they do not end by themselves
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	p, ids := brief(func(p *aside.Policy) { p.Stale, p.LoadTimeout = time.Hour, 3*time.Second }), idsFrom(0)
	many(t, a, p, ids, newBatchSource().load("old", nil), "old")
	pastTTL(t, a, p.Key(ids[batchOf-1]))

	s, stuck := newBatchSource(), make(chan struct{})
	defer close(stuck)
	s.begin(t, a, p, ids, "never", stuck)
	held := 0
	for _, id := range ids {
		if leaseOf(t, server, p.Key(id)) != "" {
			held++
		}
	}
	require.Equal(t, batchOf, held)
	asidetest.Eventually(t, "the other process loads all of them", func() bool {
		got := many(t, b, p, ids, s.load("new", nil), "old", "new")
		return !slices.ContainsFunc(ids, func(id int) bool { return got[id] != "new" })
	})
}

// An id that fails is marked for the fleet, and the other ids are stored.
func TestAnIDOfABatchInTheBackgroundFailsAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.Backoff = time.Second // so the mark stays for ten
	a, b := asidetest.Connected(t, o), asidetest.Connected(t, o)
	p, ids := brief(ageing), idsFrom(0)
	many(t, a, p, ids, newBatchSource().load("old", nil), "old")
	pastTTL(t, a, p.Key(ids[batchOf-1]))
	const bad = 7
	s := newBatchSource()
	load := func(ctx context.Context, ids []int) (map[int]string, error) {
		s.began <- ids
		aside.CurrentLoad(ctx).TTL(time.Hour)
		values := make(map[int]string)
		for _, id := range ids {
			values[id] = "new"
		}
		delete(values, bad)
		return values, &aside.BatchError[int]{Errors: map[int]error{bad: errDown}}
	}
	asidetest.Eventually(t, "a load begins in the background", func() bool {
		many(t, a, p, ids, load, "old", "new")
		return len(s.began) > 0
	})
	asidetest.Eventually(t, "the leases are given back, and one key is marked", func() bool {
		for _, id := range ids {
			if text := leaseOf(t, server, p.Key(id)); (id == bad) != strings.HasPrefix(text, "-") || id != bad && text != "" {
				return false
			}
		}
		return true
	})
	require.EqualValues(t, 1, a.Metrics().Labels["items"].RefreshErrors)
	for _, id := range ids {
		want := "new"
		if id == bad {
			want = "old"
		}
		v, err := aside.Get[string](t.Context(), b, p.Key(id))
		require.NoError(t, err)
		require.Equal(t, want, v, id)
	}
}

// Callers who need a new value of one id join the batch. They get the older value SoftTimeout after its start.
func TestWhoJoinsABatchInTheBackgroundWaitsForSoftTimeoutOnly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
	p, ids := brief(func(p *aside.Policy) {
		p.Stale, p.StaleIfError, p.SoftTimeout, p.LoadTimeout = 3*time.Second, time.Hour, 50*time.Millisecond, time.Minute
	}), idsFrom(0)
	many(t, a, p, ids, newBatchSource().load("old", nil), "old")
	many(t, b, p, ids, newBatchSource().load("old", nil), "old") // or loads it anew, if the machine is slow
	pastTTL(t, a, p.Key(ids[batchOf-1]))

	s, release := newBatchSource(), make(chan struct{})
	s.begin(t, a, p, ids, "new", release)
	look := func(c *aside.Cache, id int) aside.Result[string] {
		answer := make(chan aside.Result[string], 1)
		go func() {
			r, err := aside.Lookup(t.Context(), c, p.Key(id), func(context.Context) (string, error) {
				return "", errors.New("this process does not load it")
			})
			if err != nil {
				t.Error(err)
			}
			answer <- r
		}()
		select {
		case r := <-answer:
			return r
		case <-time.After(asidetest.Bound):
			require.Fail(t, "a caller waits for the whole batch")
			return aside.Result[string]{}
		}
	}
	counts := make(map[string]int)
	asidetest.Eventually(t, "Stale has ended for all ids", func() bool {
		counts[look(a, ids[rand.IntN(batchOf)]).Reason]++
		return counts["past its TTL, the load takes longer than SoftTimeout"] > 0
	})
	for i, id := range ids {
		for _, c := range []*aside.Cache{a, b} {
			if c == b && i%20 != 0 { // it waits for the lease, as long for each of them
				continue
			}
			asidetest.Eventually(t, "Stale has ended for this id", func() bool { // on a busy machine they are of different ages
				r := look(c, id)
				require.Equal(t, "old", r.Value)
				require.Equal(t, aside.StatusStale, r.Status)
				return r.Reason == "past its TTL, the load takes longer than SoftTimeout"
			})
		}
	}
	close(release)
	asidetest.Eventually(t, "the load went on", func() bool {
		return !slices.ContainsFunc(ids, func(id int) bool { return leaseOf(t, server, p.Key(id)) != "" })
	})
	for _, id := range ids {
		require.Equal(t, 1, s.times(id), "id %d", id)
		for _, c := range []*aside.Cache{a, b} {
			require.Equal(t, "new", look(c, id).Value)
		}
	}
}

package asideprom_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A workload causes, in real time and again and again, all that two caches count: one on Redis, and one in memory mode.
type workload struct {
	t      *testing.T
	cache  *aside.Cache // on Redis
	other  *aside.Cache // of another process
	local  *aside.Cache // in memory mode
	server *redistest.Server
	round  int
}

// The policies of a workload. Times are short, so that a round is.
var (
	brief  = aside.Policy{Name: "brief", Category: "brief", Label: "models", TTL: 50 * time.Millisecond, Stale: 10 * time.Second}
	sturdy = aside.Policy{Name: "sturdy", Category: "sturdy", Label: "models", TTL: 50 * time.Millisecond, StaleIfError: 10 * time.Second}
	hasty  = aside.Policy{Name: "hasty", Category: "hasty", Label: "models", TTL: time.Hour, LoadTimeout: 100 * time.Millisecond}
)

func newWorkload(t *testing.T) *workload {
	t.Helper()
	server := redistest.Start(t)
	o := at(server.Addr())
	o.Policies = append(o.Policies, brief, sturdy, hasty)
	o.MaxLoads, o.MaxQueuedLoads = 2, 1
	local := open(t, aside.Options{
		Policies: o.Policies, MaxEntries: 100, ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, SettleTime: 50 * time.Millisecond, MaxPerSecond: -1},
	})
	w := &workload{t: t, server: server, cache: open(t, o), other: connected(t, server.Addr()), local: local}
	w.connected()
	return w
}

func (w *workload) connected() {
	for _, c := range []*aside.Cache{w.cache, w.other} {
		eventually(w.t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
	}
}

// key has another text in each round.
func (w *workload) key(p aside.Policy, id string) aside.Key { return p.Key(id, w.round) }

// get makes a call whose error is what it is for.
func (w *workload) get(p aside.Policy, id string, load func(context.Context) (string, error), opts ...aside.CallOption) {
	_, _ = aside.GetOrLoad(w.t.Context(), w.cache, w.key(p, id), load, opts...)
}

// grows makes calls to the cache in memory mode until a counter has grown.
func (w *workload) grows(counter func(aside.Metrics) uint64, call func()) {
	before := counter(w.local.Metrics())
	eventually(w.t, "it is counted", func() bool {
		call()
		return counter(w.local.Metrics()) > before
	})
}

func ofModels(counter func(aside.LabelMetrics) uint64) func(aside.Metrics) uint64 {
	return func(m aside.Metrics) uint64 { return counter(m.Labels["models"]) }
}

// run does one round. scraped returns when the state of the cache has been scraped.
func (w *workload) run(scraped func()) {
	w.round++
	w.inMemory()
	w.answers()
	w.loads(scraped)
	w.changes()
	w.outage(scraped)
}

// past returns when a value that was loaded before has lived for longer than its TTL.
func past(ttl time.Duration) { <-time.After(ttl + 10*time.Millisecond) }

func (w *workload) answers() {
	ctx := w.t.Context()
	for range 3 {
		w.get(models, "a", value("v"))
	}
	w.get(models, "none", fails(aside.ErrNotFound))
	w.get(sturdy, "old", value("v"))
	past(sturdy.TTL)
	w.get(sturdy, "old", fails(errSource))
	require.NoError(w.t, aside.Set(ctx, w.other, w.key(models, "of another process"), "v"))
	w.get(models, "of another process", value("v"))
	w.server.MustDo(w.t, "SET", w.key(models, "foreign").String(), "written by something else")
	w.get(models, "foreign", value("v"))
	w.get(models, "a", value("v"), aside.Refresh())
	w.get(brief, "expired", value("v"))
	past(brief.TTL)
	w.get(brief, "expired", value("v"), aside.MaxStale(0))
}

func (w *workload) inMemory() {
	ctx := w.t.Context()
	get := func(p aside.Policy, id string, load func(context.Context) (string, error)) {
		_, _ = aside.GetOrLoad(ctx, w.local, w.key(p, id), load)
	}
	w.grows(ofModels(func(m aside.LabelMetrics) uint64 { return m.Inconsistent }), func() {
		get(models, "wrong", value(fmt.Sprint("each load differs: ", time.Now().UnixNano())))
	})
	w.grows(ofModels(func(m aside.LabelMetrics) uint64 { return m.Unchecked }), func() { get(models, "wrong", fails(errSource)) })
	w.grows(ofModels(func(m aside.LabelMetrics) uint64 { return m.NegativeHits }), func() { get(models, "none", fails(aside.ErrNotFound)) })
	get(brief, "unchanged", value("v"))
	get(brief, "failing", value("v"))
	past(brief.TTL)
	w.grows(ofModels(func(m aside.LabelMetrics) uint64 { return m.NotModified }), func() { get(brief, "unchanged", fails(aside.ErrNotModified)) })
	w.grows(ofModels(func(m aside.LabelMetrics) uint64 { return m.RefreshErrors }), func() { get(brief, "failing", fails(errSource)) })
	w.grows(func(m aside.Metrics) uint64 { return m.InMemory.Evictions }, func() {
		for i := range 200 {
			require.NoError(w.t, aside.Set(ctx, w.local, w.key(models, fmt.Sprint("many", i)), "v"))
		}
	})
	_, err := w.local.InvalidateAll(ctx) // a full memory may not take the values of the next round
	require.NoError(w.t, err)
}

func (w *workload) loads(scraped func()) {
	ctx := w.t.Context()
	w.get(models, "fails", fails(errSource))
	w.get(models, "panics", func(context.Context) (string, error) { panic("on purpose") })
	w.get(models, "cannot be stored", value(strings.Repeat("x", 1000)), aside.WithTags(strings.Repeat("t", 10_000)))
	w.get(models, "invalidated", func(context.Context) (string, error) {
		_, err := w.cache.Invalidate(ctx, w.key(models, "invalidated"))
		return "old", err
	})
	left, leave := context.WithCancel(ctx)
	_, _ = aside.GetOrLoad(left, w.cache, w.key(models, "left"), func(ctx context.Context) (string, error) { leave(); <-ctx.Done(); return "", ctx.Err() })

	release := make(chan struct{})
	var calls sync.WaitGroup
	w.get(hasty, "never returns", func(context.Context) (string, error) { <-release; return "late", nil })
	for i := range 3 {
		calls.Go(func() {
			_, _ = aside.GetOrLoad(ctx, w.cache, w.key(models, fmt.Sprint("held", i)), func(context.Context) (string, error) { <-release; return "v", nil })
		})
	}
	eventually(w.t, "one load waits for a place", func() bool { return w.cache.Metrics().Loading.Queued == 1 })
	w.get(models, "refused", value("v"))
	scraped()
	close(release)
	calls.Wait()
}

func (w *workload) changes() {
	ctx := w.t.Context()
	w.get(models, "tagged", value("v"), aside.WithTags("tag"))
	eventually(w.t, "the value is stored", func() bool {
		return w.server.MustDo(w.t, "EXISTS", w.key(models, "tagged").String()) == int64(1)
	})
	for _, invalidate := range []func() (aside.Receipt, error){
		func() (aside.Receipt, error) { return w.cache.InvalidateTags(ctx, "tag") },
		func() (aside.Receipt, error) {
			return w.cache.InvalidatePattern(ctx, models.Match("a", aside.Wildcard))
		},
		func() (aside.Receipt, error) { return w.cache.InvalidateCategory(ctx, "brief") },
		func() (aside.Receipt, error) { return w.cache.InvalidateAll(ctx) },
	} {
		_, err := invalidate()
		require.NoError(w.t, err)
	}
	w.get(models, "tagged", value("v"))
}

// outage kills Redis while a load holds a lease.
func (w *workload) outage(scraped func()) {
	ctx := w.t.Context()
	began, release := make(chan struct{}), make(chan struct{})
	var call sync.WaitGroup
	call.Go(func() {
		_, _ = aside.GetOrLoad(ctx, w.cache, w.key(models, "leased"), func(context.Context) (string, error) { close(began); <-release; return "v", nil })
	})
	<-began
	w.server.Kill()
	eventually(w.t, "the loss is noticed", func() bool { return w.cache.Health().State == aside.StateDegraded })
	close(release)
	call.Wait()
	w.get(models, "without redis", value("v"))
	_, err := w.cache.InvalidateCategory(ctx, "brief")
	require.NoError(w.t, err)
	scraped()
	w.server.Restart()
	w.connected()
}

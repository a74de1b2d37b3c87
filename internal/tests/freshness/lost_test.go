package freshness_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// The same table while Redis is away: it no longer vouches for what is in memory. Such a value is served for DegradedTTL after the loss, and no
// longer than without the loss.

// A lostRow is one call after Redis was lost.
type lostRow struct {
	phase    string // of the value
	degraded string // what DegradedTTL is: long, off, or over by now
	call     string
	source   string
}

var (
	lostPhases   = []string{"fresh", "stale", "on error", "dead"}
	lostDegraded = []string{"long", "off", "over"}
	lostCalls    = []string{"GetOrLoad", "Lookup", "GetOrLoadMany", "Get", "Strong", "Refresh", "MaxStale(0)", "Set"}
	lostSources  = []string{"ok", "error", "hang"}
)

func (r lostRow) policy() *aside.Policy {
	p := &aside.Policy{
		Name: r.phase + " " + r.degraded, Category: "items", TTL: 300 * time.Millisecond,
		SoftTimeout: 200 * time.Millisecond, LoadTimeout: 2 * time.Second,
	}
	switch r.phase {
	case "fresh":
		p.TTL = time.Hour
	case "stale":
		p.Stale = time.Hour
	case "on error":
		p.StaleIfError = time.Hour
	}
	p.DegradedTTL = map[string]time.Duration{"long": time.Hour, "off": -1, "over": time.Millisecond}[r.degraded]
	return p
}

// A lostWant is what comes of a row. Where the status is known, it is that of a Lookup.
type lostWant struct {
	value, err string
	status     aside.Status
	reason     string
	loads      int64
	then       string // what Get finds afterwards
}

func (r lostRow) expected() (w lostWant) {
	held := r.degraded == "long" && r.phase != "dead"
	atOnce := held && r.phase != "on error"
	old := func(reason string) { w.value, w.status, w.reason = "old", aside.StatusStale, reason }
	if atOnce {
		w.then = "old"
	}
	switch r.call {
	case "Get":
		if atOnce {
			w.value = "old"
		} else {
			w.err = "miss"
		}
		return w
	case "Set": // stores nothing, and removes what is cached
		w.then = ""
		return w
	case "Strong", "Refresh":
		held, atOnce = false, false
	case "MaxStale(0)":
		if r.phase != "fresh" {
			held, atOnce = false, false
		}
	}
	if w.loads = 1; atOnce {
		switch r.phase {
		case "fresh":
			w.loads = 0
			old("redis is unavailable")
		case "stale":
			old("redis is unavailable")
			if r.source == "ok" {
				w.then = "new" // by the load in the background
			}
		}
		return w
	}
	switch {
	case r.source == "ok":
		w.value, w.status, w.reason = "new", aside.StatusFallback, "redis is unavailable"
		switch {
		case r.call == "Refresh": // cannot replace the value in Redis, so none is kept
			w.then = ""
		case r.degraded == "long":
			w.then = "new"
		}
	case !held:
		w.err = r.source
	case r.source == "error":
		old("past its TTL, the load failed")
	default:
		old("past its TTL, the load takes longer than SoftTimeout")
	}
	return w
}

func (r lostRow) play(t *testing.T, c *aside.Cache, key aside.Key) (got lostWant, settled func() lostWant, err error) {
	var loads atomic.Int64
	load := func(ctx context.Context) (string, error) {
		loads.Add(1)
		switch r.source {
		case "error":
			return "", errSource
		case "hang":
			<-ctx.Done()
			return "", ctx.Err()
		}
		return "new", nil
	}
	lookup := func(opts ...aside.CallOption) error {
		result, err := aside.Lookup(t.Context(), c, key, load, opts...)
		if got.value = result.Value; err == nil {
			got.status, got.reason = result.Status, result.Reason
		}
		return err
	}
	switch r.call {
	case "GetOrLoad":
		got.value, err = aside.GetOrLoad(t.Context(), c, key, load)
	case "Lookup":
		err = lookup()
	case "GetOrLoadMany":
		var values map[int]string
		values, err = aside.GetOrLoadMany(t.Context(), c, []int{1}, func(int) aside.Key { return key }, func(ctx context.Context, _ []int) (map[int]string, error) {
			value, err := load(ctx)
			if err != nil {
				return nil, err
			}
			return map[int]string{1: value}, nil
		})
		got.value = values[1]
	case "Get":
		got.value, err = aside.Get[string](t.Context(), c, key)
	case "Strong":
		err = lookup(aside.Strong())
	case "Refresh":
		err = lookup(aside.Refresh())
	case "MaxStale(0)":
		err = lookup(aside.MaxStale(0))
	case "Set":
		err = aside.Set(t.Context(), c, key, "set")
	}
	switch {
	case errors.Is(err, errSource):
		got.err = "error"
	case errors.Is(err, &aside.Error{Code: aside.CodeLoadTimeout}):
		got.err = "hang"
	case errors.Is(err, aside.ErrMiss):
		got.err = "miss"
	case err != nil:
		return got, nil, err
	}
	return got, func() lostWant {
		got.loads = loads.Load()
		got.then, _ = aside.Get[string](t.Context(), c, key)
		return got
	}, nil
}

func TestTheTableOfPhasesAndCallsWithoutRedis(t *testing.T) {
	t.Parallel()
	var rows []lostRow
	for _, phase := range lostPhases {
		for _, degraded := range lostDegraded {
			for _, call := range lostCalls {
				for _, source := range lostSources {
					rows = append(rows, lostRow{phase, degraded, call, source})
				}
			}
		}
	}
	key := func(r lostRow) aside.Key { return r.policy().Key(r.phase, r.degraded, r.call, r.source) }
	c := asidetest.Away(t, aside.Options{MaxLoads: 10_000}, func(c *aside.Cache) {
		for _, r := range rows {
			asidetest.InMemory(t, c, key(r), asidetest.Value("old"))
		}
		last := rows[len(rows)-1] // of the policy whose values are dead after their TTL
		asidetest.Eventually(t, "what is not fresh is past its TTL", func() bool {
			_, err := aside.Get[string](t.Context(), c, key(last))
			return errors.Is(err, aside.ErrMiss)
		})
		asidetest.Eventually(t, "and so is the last stale one", func() bool {
			for info, err := range c.Keys(t.Context(), aside.Pattern{}) {
				require.NoError(t, err)
				if info.TTL > 0 && info.TTL < time.Minute {
					return false
				}
			}
			return true
		})
	})
	asidetest.Eventually(t, "a DegradedTTL of a millisecond is over", func() bool {
		_, err := aside.Get[string](t.Context(), c, key(lostRow{"fresh", "over", "Get", "ok"}))
		return errors.Is(err, aside.ErrMiss)
	})
	var all sync.WaitGroup
	var mu sync.Mutex
	counts := make(map[string]int)
	for _, r := range rows {
		all.Go(func() {
			got, settled, err := r.play(t, c, key(r))
			want := r.expected()
			if got.status == "" {
				want.status, want.reason = "", ""
			}
			for end := time.Now().Add(asidetest.Bound); err == nil && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if got = settled(); got == want { // a load in the background has begun, and has stored its value
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil || got != want {
				t.Errorf("%+v:\nwant %+v\ngot  %+v, %v", r, want, got, err)
			}
			counts["phase "+r.phase]++
			counts["DegradedTTL "+r.degraded]++
			counts["answer "+want.value+want.err+", "+want.reason]++
			counts["rows"]++
		})
	}
	all.Wait()
	require.Equal(t, len(rows), counts["rows"])
	require.Equal(t, aside.StateDegraded, c.Health().State)
	for _, name := range sortedNames(counts) {
		t.Log(counts[name], name)
	}
}

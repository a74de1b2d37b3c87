package main

import (
	"context"
	"flag"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/gatewayz/aside"
)

// A strategiesAsk makes a call and judges it. It may be run on a goroutine of its own.
type strategiesAsk func(ctx context.Context)

func (m *strategiesModel) ask(ctx context.Context, c modelCall, by string, opts ...aside.CallOption) {
	opts = append(opts, aside.WithTags(tagOf(c.key)))
	if c.windows != nil {
		opts = append(opts, c.windows.option())
	}
	ctx = context.WithValue(ctx, askerKey{}, asker{c.windows, c.replaces})
	load := func(ctx context.Context) (int, error) { return m.load(c.life, ctx, c.key) }
	switch by {
	case "GetOrLoad":
		v, err := aside.GetOrLoad(ctx, c.life.Cache, m.key(c.key), load, opts...)
		m.judge(c, answer{number: v, err: err})
	case "Loader":
		m.judge(c, answerOf(c.life.loader.Lookup(ctx, c.key, opts...)))
	default:
		m.judge(c, answerOf(aside.Lookup(ctx, c.life.Cache, m.key(c.key), load, opts...)))
	}
}

// peek is a Get, by which the model also knows whether a call has to wait.
func (m *strategiesModel) peek(key int) (number int, found bool) {
	m.mu.Lock()
	c := m.come("Get", key)
	m.mu.Unlock()
	c.peeks = true
	number, err := aside.Get[int](context.Background(), c.life.Cache, m.key(key))
	m.judge(c, answer{number: number, err: err})
	return number, err == nil
}

// drawAsk draws a call of one key. now is the number of the version that is there, 0 if there is none.
func (m *strategiesModel) drawAsk(t *rapid.T, key int) (ask strategiesAsk, waits func(now int) bool) {
	what := rapid.SampledFrom([]string{"GetOrLoad", "Lookup", "Loader", "MaxStale(0)", "MaxStale", "Strong", "Refresh", "Lookup", "GetOrLoad"}).Draw(t, "call")
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.come(what, key)
	c.windows = m.drawWindows(t, "of the call")
	var opts []aside.CallOption
	switch what {
	case "MaxStale(0)":
		c.maxStale = 0
		opts = append(opts, aside.MaxStale(0))
	case "MaxStale":
		c.maxStale = time.Duration(rapid.IntRange(1, 2).Draw(t, "of Stale")) * max(m.setup.policy.Stale, time.Millisecond) / 2
		opts = append(opts, aside.MaxStale(c.maxStale))
	case "Strong":
		c.fresh = true
		m.supersede(key)
		opts = append(opts, aside.Strong())
	case "Refresh":
		c.fresh, c.replaces = true, true
		m.supersede(key)
		opts = append(opts, aside.Refresh())
	}
	leaves := rapid.IntRange(0, 9).Draw(t, "leaves") == 0
	c.leaves = leaves
	after := time.Millisecond * time.Duration(rapid.IntRange(0, 80).Draw(t, "after"))
	return func(ctx context.Context) {
			if leaves {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, after)
				defer cancel()
			}
			if c.fresh {
				m.mu.Lock()
				m.asking[key]++
				m.mu.Unlock()
			}
			m.ask(ctx, c, what, opts...)
			if c.fresh {
				m.mu.Lock()
				m.asking[key]--
				m.mu.Unlock()
			}
		}, func(now int) bool {
			return c.replaces || c.leaves || slices.ContainsFunc(m.sameAs(now), func(v *version) bool { // which one is there is not known
				return c.fresh && time.Since(v.began) >= v.ttl || c.maxStale >= 0 && time.Since(v.began) >= v.ttl+c.maxStale
			})
		}
}

// drawWindows draws windows of one value, mostly none.
func (m *strategiesModel) drawWindows(t *rapid.T, what string) *ownWindows {
	if rapid.IntRange(0, 5).Draw(t, "own windows "+what) > 0 {
		return nil
	}
	ttl := m.setup.policy.TTL
	w := &ownWindows{stale: rapid.SampledFrom([]time.Duration{0, ttl / 2, 2 * ttl}).Draw(t, "Stale "+what)}
	if more := rapid.SampledFrom([]time.Duration{0, ttl / 2, 2 * ttl}).Draw(t, "StaleIfError "+what); more > 0 {
		w.onError = w.stale + more
	}
	return w
}

func drawKey(t *rapid.T) int { return rapid.IntRange(0, modelKeys-1).Draw(t, "key") }

// aMomentLater lets a moment pass, so that no two things happen at one time, and waits until all others rest.
func aMomentLater() {
	time.Sleep(time.Nanosecond)
	synctest.Wait()
}

// removed notes that versions of keys are not served any more. It requires mu.
func (m *strategiesModel) removed(keys ...int) {
	for _, key := range keys {
		m.barrier[key] = len(m.versions) - 1
		m.supersede(key)
	}
}

func (m *strategiesModel) actions() map[string]func(*rapid.T) {
	all, ctx := []int{0, 1, 2}, context.Background()
	// expire lets a new value come near the end of a phase, where its source fails by then.
	expire := func(t *rapid.T) {
		aMomentLater()
		key, p := drawKey(t), m.setup.policy
		m.mu.Lock()
		m.modes[key] = sourceMode{kind: "ok"}
		c := m.come("Lookup", key)
		m.mu.Unlock()
		m.ask(ctx, c, "Lookup")
		edge := rapid.SampledFrom([]time.Duration{p.TTL, p.TTL + p.Stale, p.TTL + p.Stale, p.TTL + m.setup.rest()}).Draw(t, "edge")
		time.Sleep(max(0, edge+time.Duration(rapid.IntRange(-1, 1).Draw(t, "beside"))*time.Millisecond))
		m.changeSourceOf(t, key, []string{"error", "hang", "deaf", "slow", "slow error", "not found", "no store", "panic", "not modified", "slow, not modified", "blind", "not modified"})
		for range rapid.IntRange(1, 4).Draw(t, "calls") {
			m.askFor(t, key)
		}
	}
	invalidate := func(name string, keys func(key int) []int, do func(key int) error) func(*rapid.T) {
		return func(t *rapid.T) {
			key := drawKey(t)
			aMomentLater()
			err := do(key)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.note("invalidate by %s %d", name, key)
			m.counts["invalidate "+name]++
			m.removed(keys(key)...)
			if err != nil {
				m.complain("invalidation: %v", err)
			}
		}
	}
	one := func(key int) []int { return []int{key} }
	every := func(int) []int { return all }
	ask := func(t *rapid.T) { m.askFor(t, drawKey(t)) }
	behind := func(t *rapid.T) {
		aMomentLater()
		do, _ := m.drawAsk(t, drawKey(t))
		m.mu.Lock()
		m.outstanding++
		m.counts["concurrent calls"]++
		m.mu.Unlock()
		m.busy.Go(func() {
			do(ctx)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.outstanding--
		})
	}
	ways := map[string]func(*rapid.T){
		"key":      invalidate("key", one, func(key int) error { _, err := m.life.Invalidate(ctx, m.key(key)); return err }),
		"category": invalidate("category", every, func(int) error { _, err := m.life.InvalidateCategory(ctx, "items"); return err }),
		"all":      invalidate("all", every, func(int) error { _, err := m.life.InvalidateAll(ctx); return err }),
		"pattern": invalidate("pattern", one, func(key int) error {
			_, err := m.life.InvalidatePattern(ctx, m.setup.policy.Match(key))
			return err
		}),
		"tag": invalidate("tag", every, func(key int) error {
			_, err := m.life.InvalidateTags(ctx, "tag0", "tag1", "batch")
			return err
		}),
	}
	return map[string]func(*rapid.T){
		"":         m.check,
		"advance":  m.advance,
		"advance2": m.advance,
		"ask":      ask,
		"ask2":     ask,
		"ask3":     ask,
		"behind":   behind,
		"get": func(t *rapid.T) {
			aMomentLater()
			m.peek(drawKey(t))
		},
		"many": func(t *rapid.T) {
			aMomentLater()
			m.mu.Lock()
			var calls []modelCall
			for _, key := range all {
				calls = append(calls, m.come("GetOrLoadMany", key))
			}
			life := m.life
			m.mu.Unlock()
			keys := all[:]
			if rapid.Bool().Draw(t, "two") {
				m.mu.Lock()
				life.calls--
				m.mu.Unlock()
				keys = all[1:]
			}
			opts := []aside.CallOption{aside.WithTags("batch")}
			windows := m.drawWindows(t, "of the batch")
			if windows != nil {
				opts = append(opts, windows.option())
			}
			ctx := context.WithValue(ctx, askerKey{}, asker{windows: windows})
			got, err := aside.GetOrLoadMany(ctx, life.Cache, keys, m.key, func(ctx context.Context, keys []int) (map[int]int, error) {
				return m.loadMany(life, ctx, keys)
			}, opts...)
			failed, _ := err.(*aside.BatchError[int])
			for _, key := range keys {
				number, ok := got[key]
				switch {
				case ok:
					m.judge(calls[key], answer{number: number})
				case failed != nil && failed.Errors[key] != nil:
					m.judge(calls[key], answer{err: failed.Errors[key]})
				default:
					m.mu.Lock()
					m.counts["answer not found in a batch"]++
					m.mu.Unlock()
				}
			}
		},
		"set": func(t *rapid.T) {
			key := drawKey(t)
			ttl := m.setup.policy.TTL
			aMomentLater()
			m.mu.Lock()
			v := m.begin(key)
			v.ended = v.began
			m.mu.Unlock()
			opts := []aside.CallOption{aside.WithTags(tagOf(key))}
			if rapid.Bool().Draw(t, "own TTL") {
				ttl = ttl/2 + time.Millisecond
				opts = append(opts, aside.WithTTL(ttl))
			}
			m.mu.Lock()
			v.ttl = ttl
			if w := m.drawWindows(t, "of the Set"); w != nil {
				w.set(v)
				opts = append(opts, w.option())
				m.counts["own windows of a Set"]++
			}
			m.mu.Unlock()
			err := aside.Set(ctx, m.life.Cache, m.key(key), v.number, opts...)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.note("set key %d to version %d", key, v.number)
			m.counts["set"]++
			m.supersede(key)
			m.barrier[key] = v.number - 1
			if err != nil {
				m.complain("Set: %v", err)
			}
		},
		"invalidate": func(t *rapid.T) {
			ways[rapid.SampledFrom([]string{"key", "category", "all", "pattern", "tag"}).Draw(t, "by")](t)
		},
		"source":  m.changeSource,
		"source2": m.changeSource,
		"ask4":    ask,
		"expire":  expire,
		"expire2": expire,
		"behind2": behind,
		"evict": func(t *rapid.T) {
			aMomentLater()
			others := aside.Policy{Name: "others", Category: "others", TTL: time.Hour}
			for i := range 12 {
				if err := aside.Set(ctx, m.life.Cache, others.Key(i), i); err != nil {
					t.Fatal(err)
				}
				_, _ = aside.Get[int](ctx, m.life.Cache, others.Key(i))
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.counts["evict"]++
		},
		"reopen": func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "reopen") > 0 {
				t.Skip("seldom")
			}
			aMomentLater()
			m.life.Close()
			m.busy.Wait()
			m.mu.Lock()
			defer m.mu.Unlock()
			m.counts["reopen"]++
			m.note("close and reopen")
			m.removed(all...)
			m.served = [modelKeys]int{}
			m.open()
		},
	}
}

// askFor asks for a key. Where Get finds a value just before, the call does not wait.
func (m *strategiesModel) askFor(t *rapid.T, key int) {
	aMomentLater()
	now, found := m.peek(key)
	do, waits := m.drawAsk(t, key)
	began := time.Now()
	do(context.Background())
	m.mu.Lock()
	defer m.mu.Unlock()
	if found && !waits(now) {
		m.counts["asked with a value at hand"]++
		if time.Since(began) > 0 {
			m.complain("a call waited although Get found version %d", now)
		}
	}
}

// changeSource gives a key another mode of its source.
func (m *strategiesModel) changeSource(t *rapid.T) {
	m.changeSourceOf(t, drawKey(t), append([]string{"ok", "ok", "not modified", "not modified"}, sourceKinds...))
}

func (m *strategiesModel) changeSourceOf(t *rapid.T, key int, kinds []string) {
	p := m.setup.policy
	mode := sourceMode{
		kind:  rapid.SampledFrom(kinds).Draw(t, "source"),
		takes: rapid.SampledFrom([]time.Duration{time.Millisecond, p.LoadTimeout / 3, p.LoadTimeout - time.Millisecond, p.LoadTimeout + time.Millisecond, 3 * p.LoadTimeout}).Draw(t, "takes"),
		ttl:   rapid.SampledFrom([]time.Duration{time.Millisecond, p.TTL / 2, 2 * p.TTL, 2 * p.TTL}).Draw(t, "own TTL"),
		etag:  rapid.Bool().Draw(t, "ETag"), late: rapid.Bool().Draw(t, "late"), own: m.drawWindows(t, "of the loader"),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.modes[key] = mode
	m.note("source of key %d: %v", key, mode)
}

// advance lets time pass, often until a millisecond beside the end of a phase.
func (m *strategiesModel) advance(t *rapid.T) {
	p, life := m.setup.policy, m.setup.policy.TTL+m.setup.rest()
	d := time.Duration(rapid.Int64Range(0, 2*int64(life)).Draw(t, "d"))
	edge := rapid.SampledFrom([]time.Duration{
		p.TTL / 2, p.TTL, p.TTL, p.TTL + p.Stale, p.TTL + p.Stale, life, life, p.SoftTimeout, p.LoadTimeout, -1,
	}).Draw(t, "edge")
	beside := time.Duration(rapid.IntRange(-1, 1).Draw(t, "beside")) * time.Millisecond
	back := rapid.IntRange(1, 6).Draw(t, "version")
	m.mu.Lock()
	if edge >= 0 && back < len(m.versions) {
		v := m.versions[len(m.versions)-back]
		if to := time.Until(v.began.Add(edge + beside)); to > 0 {
			d = to
			m.counts["advance to an edge"]++
		}
	}
	m.counts["advance"]++
	m.note("advance %v", d)
	m.mu.Unlock()
	time.Sleep(d)
}

// strategiesNeeded must all happen.
var strategiesNeeded = []string{
	"runs", "advance", "advance to an edge", "call GetOrLoad", "call Lookup", "call Loader", "call MaxStale(0)", "call MaxStale", "call Strong", "call Refresh",
	"call Get", "call GetOrLoadMany", "concurrent calls", "set", "evict", "reopen", "invalidate key", "invalidate category", "invalidate all", "invalidate pattern",
	"invalidate tag", "asked with a value at hand", "answer loaded", "answer fresh", "answer ageing", "answer stale", "answer not found", "answer not found, cached",
	"answer error", "answer miss", "answer timeout", "answer backoff", "answer past its TTL, the load failed",
	"answer past its TTL, the load takes longer than SoftTimeout", "answer past its TTL, the last loads failed",
	"previous value", "no previous value", "not modified", "not modified without a previous value", "answer not modified",
	"own windows of a call", "own windows of a loader", "own windows of a Set",
}

// ASIDE_RACES=long makes a million steps; ASIDE_STEPS says how many else.
func TestTheModelOfStrategies(t *testing.T) {
	steps := 50_000
	if raceDetector {
		steps = 10_000
	}
	if os.Getenv("ASIDE_RACES") == "long" {
		steps = 1_000_000
	}
	if n, err := strconv.Atoi(os.Getenv("ASIDE_STEPS")); err == nil {
		steps = n
	}
	const perRun = 100
	require.NoError(t, flag.Set("rapid.steps", strconv.Itoa(perRun)))
	require.NoError(t, flag.Set("rapid.checks", strconv.Itoa(steps/perRun)))
	require.NoError(t, flag.Set("rapid.nofailfile", "true"))
	counts := make(map[string]int)
	var found findings
	defer func() {
		if len(found.texts) > 0 {
			t.Errorf("the first of %d findings: %s", len(found.texts), found.texts[0])
		}
	}()
	rapid.Check(t, func(rt *rapid.T) { runStrategies(t, rt, counts, &found) })
	for _, name := range sortedCounts(counts) {
		t.Log(counts[name], name)
	}
	for _, name := range strategiesNeeded {
		require.NotZero(t, counts[name], name)
	}
	for _, kind := range sourceKinds {
		require.NotZero(t, counts["load "+kind], kind)
	}
}

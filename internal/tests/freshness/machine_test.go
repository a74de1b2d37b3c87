package freshness_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// The machine is two caches on one server, each behind a proxy that cuts, holds and refuses, and a source that fails, hangs and is slow. Values
// live for a fraction of a second. Nobody may get a value that was dead when the call began, nor one from before an invalidation: in the process
// that made it from its return on, in another process once Redis has confirmed it and has told that process.
//
// The source has ETags, and says that values are not modified: mostly when they are not, and now and then without a look at them. Such a value
// counts as loaded anew, unless it was invalidated.

const (
	briefTTL  = 150 * time.Millisecond
	briefRest = 250 * time.Millisecond // beyond the TTL
	longRest  = 350 * time.Millisecond // likewise, of some values
	machines  = 2
	pieces    = 6 // keys
)

var lasting = aside.Policy{
	Name: "items", Category: "items", TTL: briefTTL, Stale: 80 * time.Millisecond, StaleIfError: briefRest, SoftTimeout: 50 * time.Millisecond,
	RefreshAhead: 0.3, LoadTimeout: 400 * time.Millisecond, DegradedTTL: 200 * time.Millisecond, NegativeTTL: -1,
}

// A piece is a value in the caches: which version of the source it is, and by which load.
type piece struct {
	Version int64
	Load    int
}

// An origin is where a piece came from.
type origin struct {
	key          int
	began, ended time.Time // of a Set, its return; ended is zero while the load runs
	dead, stale  time.Time // by when it is, counted from the last load that made it, or that found it to be not modified
}

// renew notes that a load or a Set makes an origin's value, with so much time beyond the TTL.
func (o *origin) renew(began time.Time, rest time.Duration) {
	if stale := began.Add(briefTTL); stale.After(o.stale) {
		o.stale = stale
	}
	if dead := began.Add(briefTTL + rest); dead.After(o.dead) {
		o.dead = dead
	}
}

type machine struct {
	t      *testing.T
	caches [machines]*aside.Cache
	proxy  [machines]*redistest.Proxy

	versions  [pieces]atomic.Int64           // of the source
	writing   [pieces]sync.Mutex             // a key has one writer at a time
	modes     [pieces]atomic.Int64           // of the source
	own       [machines][pieces]atomic.Int64 // the version that a process has invalidated or set last
	confirmed [pieces]atomic.Int64           // the version that Redis has confirmed an invalidation of

	mu      sync.Mutex
	origins []origin
	counts  map[string]int
	wrong   []string

	last     string // fault
	lastOver time.Time
}

func (m *machine) count(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[what]++
}

func (m *machine) complain(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

const (
	works = iota
	fails
	hangs
	isSlow
	claims // not modified, whatever is cached and if nothing is
	modesOfSource
)

// load is the loader of one key.
func (m *machine) load(ctx context.Context, key int) (piece, error) {
	p, of, err := m.loadOne(ctx, key)
	m.end(of)
	return p, err
}

// end notes that a loader has returned a value: what it has loaded for one key of a batch, others may join until it has returned all.
func (m *machine) end(origins ...int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, of := range origins {
		m.origins[of].ended = time.Now()
	}
}

// loadOne loads a key. The result has the origin of of, also where that is not modified.
func (m *machine) loadOne(ctx context.Context, key int) (p piece, of int, err error) {
	mode := m.modes[key].Load()
	began, rest := time.Now(), briefRest
	l := aside.CurrentLoad(ctx).Of(lasting.Key(key))
	if rand.IntN(4) == 0 {
		rest = longRest
		l.Stale(100 * time.Millisecond)
		l.StaleIfError(longRest)
	}
	prior, cached := aside.PreviousOf[piece](ctx, lasting.Key(key))
	p.Version = m.versions[key].Load()
	m.mu.Lock()
	p.Load = len(m.origins)
	m.origins = append(m.origins, origin{key: key, began: began})
	m.origins[p.Load].renew(began, rest)
	m.mu.Unlock()
	switch mode {
	case fails:
		return p, p.Load, errSource
	case hangs:
		<-ctx.Done()
		return p, p.Load, ctx.Err()
	case isSlow:
		select {
		case <-time.After(90 * time.Millisecond):
		case <-ctx.Done():
			return p, p.Load, ctx.Err()
		}
	}
	old, readable := prior.Value()
	switch {
	case cached && (!readable || prior.ETag != "" && prior.ETag != etagOf(old)):
		m.complain("the previous value of key %d is version %d with ETag %q, readable %v", key, old.Version, prior.ETag, readable)
	case cached && (mode == claims || prior.ETag == etagOf(p) || rand.IntN(8) == 0):
		m.mu.Lock()
		m.origins[old.Load].renew(began, rest)
		m.mu.Unlock()
		m.count("not modified")
		if old.Version != p.Version {
			m.count("not modified, without a look")
		}
		return p, old.Load, fmt.Errorf("version %d: %w", old.Version, aside.ErrNotModified)
	case mode == claims:
		return p, p.Load, aside.ErrNotModified
	}
	l.ETag(etagOf(p))
	return p, p.Load, nil
}

func etagOf(p piece) string { return strconv.FormatInt(p.Version, 10) }

func pieceTag(key int) string { return "tag" + strconv.Itoa(key%2) }

// raise sets v to at least to.
func raise(v *atomic.Int64, to int64) {
	for old := v.Load(); old < to && !v.CompareAndSwap(old, to); old = v.Load() {
	}
}

// write changes the source of a key, and invalidates the key or sets it.
func (m *machine) write(rng *rand.Rand, process, key int) (version int64, way string, confirmed bool) {
	m.writing[key].Lock()
	defer m.writing[key].Unlock()
	c, ctx := m.caches[process], m.t.Context()
	version = m.versions[key].Add(1)
	var all [pieces]int64 // what an invalidation of everything is about
	for i := range all {
		all[i] = m.versions[i].Load()
	}
	keys := []int{key}
	every := func() {
		keys = nil
		for i := range all {
			keys = append(keys, i)
		}
	}
	var receipt aside.Receipt
	var err error
	way = []string{"key", "key", "key", "key", "tag", "category", "pattern", "all", "Set", "Set"}[rng.IntN(10)]
	switch way {
	case "key":
		receipt, err = c.Invalidate(ctx, lasting.Key(key))
	case "tag":
		receipt, err = c.InvalidateTags(ctx, pieceTag(key))
	case "category":
		every()
		receipt, err = c.InvalidateCategory(ctx, "items")
	case "all":
		every()
		receipt, err = c.InvalidateAll(ctx)
	case "pattern":
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		receipt, err = c.InvalidatePattern(short, lasting.Match(key))
		cancel()
	case "Set":
		m.mu.Lock()
		p := piece{version, len(m.origins)}
		m.origins = append(m.origins, origin{key: key})
		m.mu.Unlock()
		err = aside.Set(ctx, c, lasting.Key(key), p, aside.WithTags(pieceTag(key)))
		now := time.Now()
		m.mu.Lock()
		m.origins[p.Load].began, m.origins[p.Load].ended = now, now
		m.origins[p.Load].renew(now, briefRest)
		m.mu.Unlock()
	}
	if err != nil {
		m.complain("%s: %v", way, err)
	}
	m.count("write by " + way)
	for _, k := range keys {
		raise(&m.own[process][k], all[k])
		if receipt.Confirmed && way != "Set" {
			raise(&m.confirmed[k], all[k])
		}
	}
	return version, way, receipt.Confirmed && way != "Set"
}

// read makes a call and judges it.
func (m *machine) read(rng *rand.Rand, process int) {
	c, ctx := m.caches[process], m.t.Context()
	key := min(rng.IntN(pieces+2), pieces-1) // the last one, whose source fails for long, three times as often
	call := []string{"GetOrLoad", "GetOrLoad", "Lookup", "Lookup", "Lookup", "GetOrLoadMany", "Get", "Strong", "Refresh", "MaxStale"}[rng.IntN(10)]
	var least [pieces]int64
	for k := range least {
		if least[k] = m.own[process][k].Load(); call == "Strong" || call == "Refresh" {
			least[k] = max(least[k], m.confirmed[k].Load())
		}
	}
	m.count("call " + call)
	began := time.Now()
	load := func(ctx context.Context) (piece, error) { return m.load(ctx, key) }
	tag := aside.WithTags(pieceTag(key))
	lookup := func(opts ...aside.CallOption) {
		r, err := aside.Lookup(ctx, c, lasting.Key(key), load, append(opts, tag)...)
		if err == nil {
			if r.ETag != "" && r.ETag != etagOf(r.Value) { // Set names none
				m.complain("%s of key %d: version %d has ETag %q", call, key, r.Value.Version, r.ETag)
			}
			m.count("answer " + string(r.Status) + ", " + strings.TrimPrefix(r.Reason, "shared a load in flight: "))
		}
		m.judge(process, call, key, r.Value, err, least[key], began)
	}
	switch call {
	case "GetOrLoad":
		p, err := aside.GetOrLoad(ctx, c, lasting.Key(key), load, tag)
		m.judge(process, call, key, p, err, least[key], began)
	case "Get":
		p, err := aside.Get[piece](ctx, c, lasting.Key(key))
		m.judge(process, call, key, p, err, least[key], began)
	case "Strong":
		lookup(aside.Strong())
	case "Refresh":
		lookup(aside.Refresh())
	case "MaxStale":
		lookup(aside.MaxStale(time.Duration(rng.IntN(int(briefRest)))))
	case "Lookup":
		lookup()
	case "GetOrLoadMany":
		keys := []int{key, (key + 2) % pieces, (key + 4) % pieces} // of one tag
		got, err := aside.GetOrLoadMany(ctx, c, keys, func(k int) aside.Key { return lasting.Key(k) }, func(ctx context.Context, keys []int) (map[int]piece, error) {
			values, failed := make(map[int]piece), make(map[int]error)
			var origins []int
			for _, k := range keys {
				p, of, err := m.loadOne(ctx, k)
				if origins = append(origins, of); err != nil {
					failed[k] = err
				} else {
					values[k] = p
				}
			}
			m.end(origins...)
			if len(failed) > 0 {
				return values, &aside.BatchError[int]{Errors: failed}
			}
			return values, nil
		}, tag)
		for k, p := range got {
			m.judge(process, call, k, p, nil, least[k], began)
		}
		if err != nil {
			m.count("answer error")
		}
	}
}

func (m *machine) judge(process int, call string, key int, p piece, err error, least int64, began time.Time) {
	if err != nil {
		what := "answer error"
		switch {
		case errors.Is(err, aside.ErrMiss):
			what = "answer not cached"
		case errors.Is(err, &aside.Error{Code: aside.CodeBackoff}):
			what = "answer error, in backoff"
		case errors.Is(err, &aside.Error{Code: aside.CodeInvalidArgument}) && strings.Contains(err.Error(), "the loader returned ErrNotModified"):
			what = "answer error, not modified without a previous value"
		case !errors.Is(err, errSource) && !errors.Is(err, &aside.Error{Code: aside.CodeLoadTimeout}):
			m.complain("%s: %v", call, err)
		}
		m.count(what)
		return
	}
	m.mu.Lock()
	from := m.origins[p.Load]
	m.mu.Unlock()
	if from.key != key {
		m.complain("%s of key %d got a value of key %d", call, key, from.key)
	}
	if p.Version < least {
		m.complain("process %d, %s of key %d: version %d, from before the invalidation of version %d", process, call, key, p.Version, least)
	}
	if from.ended.IsZero() || !from.ended.Before(began) {
		return // it may come from the load itself
	}
	switch {
	case !began.Before(from.dead):
		m.complain("process %d, %s of key %d: a value that was dead for %v when the call began", process, call, key, began.Sub(from.dead))
	case !began.Before(from.stale):
		m.count("age past the TTL")
	case !began.Before(from.began):
		m.count("age within the TTL")
	}
	if past := began.Sub(from.stale); (call == "Strong" || call == "Refresh") && past >= 25*time.Millisecond { // fresh by an estimate of the server's clock
		m.complain("process %d, %s of key %d: a value %v past its TTL", process, call, key, past)
	}
}

// fault breaks something for a while.
func (m *machine) fault(rng *rand.Rand, server *redistest.Server) {
	p := m.proxy[rng.IntN(machines)]
	lasts := time.Duration(50+rng.IntN(350)) * time.Millisecond
	some := func([]string) bool { return true }
	kind := []string{"cut", "hold requests", "hold replies", "hold pushes", "black hole", "replies lost", "refuse", "slow", "kill"}[rng.IntN(9)]
	m.count("fault: " + kind)
	defer func() { m.last, m.lastOver = kind, time.Now() }()
	switch kind {
	case "cut":
		p.CloseConnections()
		lasts = 20 * time.Millisecond
	case "hold requests":
		defer p.HoldRequests(some).Release()
	case "hold replies":
		defer p.HoldReplies(some).Release()
	case "hold pushes":
		defer p.HoldPushes(some).Release()
	case "black hole":
		p.Blackhole(true)
		defer func() { p.CloseConnections(); p.Blackhole(false) }()
	case "replies lost":
		p.BlackholeReplies(true)
		defer func() { p.CloseConnections(); p.BlackholeReplies(false) }()
	case "refuse":
		p.Refuse(true)
		p.CloseConnections()
		defer p.Refuse(false)
	case "slow":
		p.SetJitter(20*time.Millisecond, 20*time.Millisecond)
		defer p.SetJitter(0, 0)
	case "kill":
		server.Kill()
		defer server.Restart()
	}
	m.pause(lasts)
}

func (m *machine) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-m.t.Context().Done():
	}
}

// elsewhere checks, while nothing is broken, that a confirmed invalidation holds in the other process once that was told.
func (m *machine) elsewhere(rng *rand.Rand) {
	for _, c := range m.caches {
		asidetest.Eventually(m.t, "it is connected", func() bool { return c.Health().State == aside.StateConnected })
	}
	from := rng.IntN(machines)
	other, key := m.caches[1-from], rng.IntN(pieces-1)
	failures := func() uint64 { // of Redis: it may then not have told, and values that it does not vouch for are allowed
		seen := other.Metrics()
		return seen.TrackingLost + seen.Labels["others"].RedisErrors + seen.Labels["items"].RedisErrors
	}
	before := failures()
	version, way, confirmed := m.write(rng, from, key)
	if !confirmed {
		return
	}
	asidetest.AllTold(m.t, other)
	load := func(ctx context.Context) (piece, error) { return m.load(ctx, key) }
	r, err := aside.Lookup(m.t.Context(), other, lasting.Key(key), load, aside.WithTags(pieceTag(key)))
	if err != nil || failures() != before || other.Health().State != aside.StateConnected {
		m.count("not known elsewhere")
		return
	}
	m.count("checked elsewhere")
	if r.Value.Version < version {
		m.complain("the other process got version %d of key %d (%s, %s, from %s, %v old, TTL %v) after version %d was invalidated by %s and it was told; the last fault was %s, %v ago",
			r.Value.Version, key, r.Status, r.Reason, r.Tier, r.Age, r.TTL, version, way, m.last, time.Since(m.lastOver))
	}
}

// machineNeeds must all have happened. A run goes on until they have.
var machineNeeds = []string{
	"call GetOrLoad", "call Lookup", "call GetOrLoadMany", "call Get", "call Strong", "call Refresh", "call MaxStale",
	"write by key", "write by tag", "write by category", "write by pattern", "write by all", "write by Set", "checked elsewhere",
	"answer hit, fresh", "answer hit, fresh, being refreshed", "answer stale, past its TTL, being refreshed", "answer stale, past its TTL, the load failed",
	"answer stale, past its TTL, the load takes longer than SoftTimeout", "age past the TTL", "age within the TTL",
	"not modified", "not modified, without a look", "answer error, not modified without a previous value",
}

func (m *machine) lacks() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(machineNeeds, func(name string) bool { return m.counts[name] == 0 })
}

// In its long form, so many machines run at once, each on a server of its own, and make so many steps together.
const (
	machinesAtLength = 8
	stepsAtLength    = 1_000_000
	longestAtLength  = 30 * time.Minute
)

// asTheyMayTake bounds a run that waits for what machineNeeds names. Most runs have it after five seconds; which ones have not is up to chance.
const asTheyMayTake = 3 * time.Minute

// A step is a call, a write or a fault.
func (m *machine) steps() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for what, times := range m.counts {
		if strings.HasPrefix(what, "call ") || strings.HasPrefix(what, "write ") || strings.HasPrefix(what, "fault: ") {
			n += times
		}
	}
	return n
}

func TestStrategiesInRealTimeUnderFaults(t *testing.T) {
	t.Parallel()
	lasts, steps, atOnce, seed := 5*time.Second, 0, 1, rand.Uint64()
	if asidetest.AtLength() {
		lasts, steps, atOnce = longestAtLength, stepsAtLength/machinesAtLength, machinesAtLength
	}
	if d, err := time.ParseDuration(os.Getenv("ASIDE_SOAK")); err == nil {
		lasts, steps = d, 0
	}
	if s, err := strconv.ParseUint(os.Getenv("ASIDE_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("ASIDE_SEED=%d", seed)
	var all sync.WaitGroup
	ran, sum, began := make([]*machine, atOnce), make(map[string]int), time.Now()
	for i := range ran {
		all.Go(func() { // t.Parallel would let only some of them run at once
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				ran[i] = &machine{t: t, counts: make(map[string]int), origins: make([]origin, 1)}
				ran[i].run(seed+uint64(i), func(took time.Duration) bool {
					made := took >= lasts || steps > 0 && ran[i].steps() >= steps
					return made && (!ran[i].lacks() || took >= asTheyMayTake)
				})
			})
		})
	}
	all.Wait()
	made := 0
	for _, m := range ran {
		made += m.steps()
		for name, times := range m.counts {
			sum[name] += times
		}
	}
	t.Logf("%d steps in %v", made, time.Since(began).Round(time.Second))
	for _, name := range sortedNames(sum) {
		t.Log(sum[name], name)
	}
	require.GreaterOrEqual(t, made, steps*atOnce)
}

// run makes steps until enough reports that they are enough.
func (m *machine) run(seed uint64, enough func(took time.Duration) bool) {
	t := m.t
	server := redistest.Start(t)
	for i := range m.caches {
		m.proxy[i] = redistest.StartProxy(t, server.Addr())
		o := asidetest.At(m.proxy[i].Addr())
		o.OpTimeout, o.LeaseTTL, o.Backoff, o.Logger = 150*time.Millisecond, 300*time.Millisecond, 20*time.Millisecond, asidetest.Quiet()
		o.Policies = []aside.Policy{lasting}
		m.caches[i] = asidetest.Connected(t, o)
	}
	random := func(of uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, of)) }
	var all sync.WaitGroup
	var over atomic.Bool
	stop := func() {
		over.Store(true)
		all.Wait()
	}
	defer stop() // also where it fails on the way
	for process := range machines {
		for n := range 4 {
			rng := random(uint64(10*process + n))
			all.Go(func() {
				for !over.Load() {
					m.read(rng, process)
					m.pause(time.Duration(rng.IntN(6)) * time.Millisecond)
				}
			})
		}
		rng := random(uint64(100 + process))
		all.Go(func() {
			for !over.Load() {
				m.write(rng, process, rng.IntN(pieces-1))
				m.pause(time.Duration(20+rng.IntN(400)) * time.Millisecond) // values also come of age
			}
		})
	}
	moods := random(200)
	all.Go(func() {
		for !over.Load() {
			m.modes[moods.IntN(pieces-1)].Store(int64(moods.IntN(modesOfSource)))
			m.modes[moods.IntN(pieces-1)].Store(works)
			m.pause(time.Duration(moods.IntN(150)) * time.Millisecond)
		}
	})
	all.Go(func() { // the last key is seldom written, and fails for long
		for failing := false; !over.Load(); failing = !failing {
			if failing {
				m.modes[pieces-1].Store(fails)
				m.pause(500 * time.Millisecond)
			} else {
				m.modes[pieces-1].Store(works)
				m.pause(50 * time.Millisecond)
			}
		}
	})
	unsaid := random(400)
	all.Go(func() { // the source also changes without an invalidation: only a loader that does not look calls its value not modified then
		for !over.Load() {
			m.versions[unsaid.IntN(pieces-1)].Add(1)
			m.pause(time.Duration(unsaid.IntN(200)) * time.Millisecond)
		}
	})
	rng := random(300)
	for began := time.Now(); !enough(time.Since(began)); {
		m.fault(rng, server)
		for range 4 {
			m.elsewhere(rng)
		}
	}
	stop()
	same := m.caches[0].Metrics().Labels["items"].NotModified + m.caches[1].Metrics().Labels["items"].NotModified
	require.Positive(t, same)
	require.LessOrEqual(t, same, uint64(m.counts["not modified"]), "the counter notModified")
	for _, text := range m.wrong[:min(len(m.wrong), 20)] {
		t.Error(text)
	}
	for _, name := range machineNeeds {
		require.NotZero(t, m.counts[name], name)
	}
}

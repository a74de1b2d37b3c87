package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gatewayz/aside"
)

// The model of a cache whose policy has strategies: values are served past their TTL, or loaded anew before it ends. It knows of each value when
// its load began, and checks each answer against that. Time is that of a bubble, so ages are exact.

// A strategiesSetup is what a run is made with.
type strategiesSetup struct {
	policy     aside.Policy
	backoff    time.Duration
	maxEntries int
	maxLoads   int
}

func (s strategiesSetup) rest() time.Duration { return max(0, s.policy.Stale, s.policy.StaleIfError) }

func drawSetup(t *rapid.T) strategiesSetup {
	one := func(name string, from ...time.Duration) time.Duration { return rapid.SampledFrom(from).Draw(t, name) }
	ttl := one("TTL", 20*time.Millisecond, 100*time.Millisecond, time.Second, 3*time.Second)
	p := aside.Policy{
		Name: "items", Category: "items", TTL: ttl,
		Stale:        one("Stale", 0, ttl/2, ttl, 3*ttl),
		RefreshAhead: rapid.SampledFrom([]float64{0, 0.2, 0.5}).Draw(t, "RefreshAhead"),
		LoadTimeout:  one("LoadTimeout", 60*time.Millisecond, 200*time.Millisecond, time.Second),
		SoftTimeout:  one("SoftTimeout", -1, time.Millisecond, 50*time.Millisecond),
		LoadGrace:    one("LoadGrace", -1, 0, 100*time.Millisecond),
		NegativeTTL:  one("NegativeTTL", -1, 0, 10*time.Millisecond),
		CloneOnRead:  rapid.IntRange(0, 7).Draw(t, "CloneOnRead") == 0,
	}
	if more := one("StaleIfError", 0, 0, ttl/2, 2*ttl); more > 0 {
		p.StaleIfError = p.Stale + more
	}
	return strategiesSetup{
		p, one("Backoff", -1, 0, 10*time.Millisecond), rapid.SampledFrom([]int{4, 100_000, 100_000}).Draw(t, "MaxEntries"),
		rapid.SampledFrom([]int{2, 256, 256}).Draw(t, "MaxLoads"),
	}
}

// A version is what a load or a Set has made of a key. Versions have numbers in the order in which they began.
type version struct {
	number, key int
	began       time.Time
	ended       time.Time // zero while its load runs
	ttl         time.Duration
	absent      bool
	failed      bool
	late        bool          // its load has ended after its time
	superseded  bool          // other calls may begin a load beside it
	stale, rest time.Duration // for how long after its TTL it is served at once, and at all
	etag        string
	of          int // the version whose value it has, as it is not modified; 0: its own
	barrier     int // of its key when it began
	ctx         context.Context
}

func (v *version) over() bool { return !v.ended.IsZero() }

// lifeOf is how long a version may be served.
func (m *strategiesModel) lifeOf(v *version) time.Duration {
	if !v.absent {
		return v.ttl + v.rest
	}
	if m.setup.policy.NegativeTTL != 0 {
		return m.setup.policy.NegativeTTL
	}
	return min(30*time.Second, m.setup.policy.TTL)
}

// notThere is ErrNotFound of a version.
type notThere int

func (n notThere) Error() string { return fmt.Sprintf("there is no version %d", int(n)) }
func (n notThere) Unwrap() error { return aside.ErrNotFound }

var errStrategiesSource = errors.New("the source is down")

// A sourceMode is what the source does with a load.
type sourceMode struct {
	kind  string
	takes time.Duration
	ttl   time.Duration
	etag  bool        // it names an ETag
	own   *ownWindows // of the loader
	late  bool        // it asks for the previous value when its time is over, and not at first
}

var sourceKinds = []string{"ok", "error", "hang", "deaf", "slow", "slow error", "not found", "no store", "own TTL", "panic", "not modified", "slow, not modified", "blind"}

// A cacheLife is a cache from its beginning to its end, with what its counters are to show.
type cacheLife struct {
	*aside.Cache
	loader                           *aside.Loader[int, int]
	calls, loads, stale, onError     uint64
	unsureStale, unsureOnError, slow uint64
	same, unsureSame                 uint64
}

const modelKeys = 3

type strategiesModel struct {
	setup strategiesSetup
	life  *cacheLife
	t     *rapid.T
	busy  sync.WaitGroup // asynchronous calls

	mu          sync.Mutex
	versions    []*version
	modes       [modelKeys]sourceMode
	barrier     [modelKeys]int // the number below which no version is served any more
	served      [modelKeys]int // the highest one that was served
	asking      [modelKeys]int // how many Strong calls and Refreshes there are
	outstanding int
	wrong       []string
	history     []string
	counts      map[string]int
	start       time.Time
	found       *findings
}

// findings are what was found to be wrong. rapid repeats a run that failed, and the cache draws lots of its own, so that the second run may pass.
type findings struct{ texts []string }

func (f *findings) add(text string) { f.texts = append(f.texts, text) }

func (m *strategiesModel) note(format string, args ...any) {
	m.history = append(m.history, fmt.Sprintf("%v ", time.Since(m.start))+fmt.Sprintf(format, args...))
	if len(m.history) > 400 {
		m.history = m.history[200:]
	}
}

func (m *strategiesModel) count(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[what]++
}

// complain requires mu.
func (m *strategiesModel) complain(format string, args ...any) {
	text := fmt.Sprintf("after %v: ", time.Since(m.start)) + fmt.Sprintf(format, args...)
	m.note("WRONG %s", text)
	m.wrong = append(m.wrong, text)
}

func (m *strategiesModel) open() {
	c, err := aside.New(aside.Options{
		Policies: []aside.Policy{m.setup.policy}, MaxEntries: m.setup.maxEntries, MaxLoads: m.setup.maxLoads, Backoff: m.setup.backoff,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		m.t.Fatalf("%v", err)
	}
	life := &cacheLife{Cache: c}
	life.loader = aside.NewLoader(c, m.setup.policy, func(ctx context.Context, key int) (int, error) { return m.load(life, ctx, key) })
	m.life = life
}

func (m *strategiesModel) key(key int) aside.Key { return m.setup.policy.Key(key) }

func tagOf(key int) string { return "tag" + strconv.Itoa(key%2) }

// begin makes a version. It requires mu.
func (m *strategiesModel) begin(key int) *version {
	v := &version{number: len(m.versions), key: key, began: time.Now(), ttl: m.setup.policy.TTL, stale: m.setup.policy.Stale, rest: m.setup.rest(), barrier: m.barrier[key]}
	m.versions = append(m.versions, v)
	return v
}

// supersede notes that loads of a key that run may be joined by no more callers. It requires mu.
func (m *strategiesModel) supersede(key int) {
	for _, v := range m.versions {
		if v.key == key && !v.over() {
			v.superseded = true
		}
	}
}

// running is how many loads of a key run. It requires mu.
func (m *strategiesModel) running(key int) (n int) {
	for _, v := range m.versions {
		if v.key == key && !v.over() {
			n++
		}
	}
	return n
}

// load is a loader of one key.
func (m *strategiesModel) load(life *cacheLife, ctx context.Context, key int) (int, error) {
	m.mu.Lock()
	life.loads++
	v, mode := m.startLoad(ctx, key)
	m.mu.Unlock()
	return m.finishLoad(life, ctx, v, mode, aside.CurrentLoad(ctx), false)
}

// startLoad requires mu.
func (m *strategiesModel) startLoad(ctx context.Context, key int) (*version, sourceMode) {
	for _, other := range m.versions {
		queued := m.setup.maxLoads < 10 // a load that waits for a place is not known here
		if !queued && other.key == key && !other.over() && !other.superseded && other.ctx.Err() == nil {
			m.complain("a second load of key %d begins while that of version %d runs", key, other.number)
		}
	}
	v := m.begin(key)
	v.ctx = ctx
	if w := askerOf(ctx).windows; w != nil {
		w.set(v)
		m.counts["own windows of a call"]++
	}
	if m.asking[key] > 0 {
		v.superseded = true // it may be that of a Strong call or a Refresh, which others do not all join
	}
	if running := m.running(key); running > 1 {
		m.counts["loads beside each other"]++
	} else {
		m.counts["loads alone"]++
	}
	m.counts["load "+m.modes[key].kind]++
	m.note("load of key %d begins: version %d, %v", key, v.number, m.modes[key])
	return v, m.modes[key]
}

func (m *strategiesModel) finishLoad(life *cacheLife, ctx context.Context, v *version, mode sourceMode, own *aside.Load, inBatch bool) (value int, err error) {
	end := func(failed bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if v.failed, v.late = failed, ctx.Err() != nil; !inBatch { // a batch ends with its last key
			v.ended = time.Now()
			m.countSame(life, v, ctx)
		}
		m.note("load of version %d ends, failed %v", v.number, failed)
	}
	sleep := func() error {
		select {
		case <-time.After(mode.takes):
			return nil
		case <-ctx.Done():
			end(true)
			return ctx.Err()
		}
	}
	var prior *version
	if !mode.late {
		prior = m.previous(ctx, v, inBatch)
	}
	switch mode.kind {
	case "hang":
		<-ctx.Done()
		end(true)
		return 0, ctx.Err()
	case "deaf":
		time.Sleep(mode.takes)
	case "slow", "slow error", "slow, not modified":
		if err := sleep(); err != nil {
			return 0, err
		}
	}
	if mode.late {
		prior = m.previous(ctx, v, inBatch)
	}
	if mode.etag {
		v.etag = fmt.Sprintf("of %d", v.number)
		own.ETag(v.etag)
	}
	if w := mode.own; w != nil {
		own.Stale(w.stale)
		own.StaleIfError(w.onError)
		w.set(v)
		m.count("own windows of a loader")
	}
	switch mode.kind {
	case "error", "slow error":
		end(true)
		return 0, errStrategiesSource
	case "panic":
		end(true)
		panic("the source's bug")
	case "not found":
		v.absent = true
		if m.setup.policy.NegativeTTL < 0 {
			v.ttl = 0
		}
		end(false)
		return 0, notThere(v.number)
	case "no store":
		own.NoStore()
		v.ttl = 0
	case "own TTL":
		own.TTL(mode.ttl)
		v.ttl = mode.ttl
	case "not modified", "slow, not modified", "blind":
		if mode.ttl < m.setup.policy.TTL { // or not
			own.TTL(mode.ttl)
			v.ttl = mode.ttl
		}
		switch {
		case prior != nil:
			v.keep(prior)
			end(false)
			return -1, aside.ErrNotModified
		case mode.kind == "blind":
			m.count("not modified without a previous value")
			end(true)
			return -1, aside.ErrNotModified
		}
	}
	end(false)
	return v.number, nil
}

// loadMany is a loader of many keys. It takes as long as the slowest of them.
func (m *strategiesModel) loadMany(life *cacheLife, ctx context.Context, keys []int) (map[int]int, error) {
	m.mu.Lock()
	life.loads++
	versions, modes := make([]*version, len(keys)), make([]sourceMode, len(keys))
	for i, key := range keys {
		versions[i], modes[i] = m.startLoad(ctx, key)
	}
	m.mu.Unlock()
	values, failed := make(map[int]int), make(map[int]error)
	one := func(i int) {
		value, err := m.finishLoad(life, ctx, versions[i], modes[i], aside.CurrentLoad(ctx).Of(m.key(keys[i])), true)
		if err != nil {
			failed[keys[i]] = err
		} else {
			values[keys[i]] = value
		}
	}
	panicked := true
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, v := range versions {
			v.ended, v.failed, v.late = time.Now(), v.failed || panicked, ctx.Err() != nil
			m.countSame(life, v, ctx)
		}
	}()
	for i := range keys {
		one(i)
	}
	panicked = false
	if len(failed) > 0 {
		return values, &aside.BatchError[int]{Errors: failed}
	}
	return values, nil
}

// A modelCall is one caller.
type modelCall struct {
	life     *cacheLife
	what     string
	key      int
	began    time.Time
	barrier  int           // of its key when it came
	served   int           // likewise
	maxStale time.Duration // negative: none
	fresh    bool          // Strong or Refresh
	replaces bool          // Refresh
	peeks    bool          // Get
	leaves   bool          // its context ends
	batch    bool          // GetOrLoadMany
	windows  *ownWindows
}

// come requires mu.
func (m *strategiesModel) come(what string, key int) modelCall {
	m.counts["call "+what]++
	m.life.calls++
	return modelCall{life: m.life, what: what, key: key, began: time.Now(), barrier: m.barrier[key], served: m.served[key], maxStale: -1, batch: what == "GetOrLoadMany"}
}

// unknown is the status of an answer without one.
const unknown aside.Status = ""

// judge checks an answer.
func (m *strategiesModel) judge(c modelCall, a answer) {
	number, status, reason, err := a.number, a.status, a.reason, a.err
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	waited := now.Sub(c.began)
	m.note("%s of key %d began %v ago: %d %s %q %v", c.what, c.key, waited, number, status, reason, err)
	if waited > m.setup.policy.LoadTimeout {
		m.complain("%s has waited for %v", c.what, waited)
	}
	absent := notThere(0)
	switch {
	case err == nil:
	case errors.As(err, &absent):
		number = int(absent)
	default:
		m.counts["answer error"]++
		m.judgeError(c, err)
		return
	}
	root, sure := m.versions[max(0, min(number, len(m.versions)-1))], true
	v := root
	if !root.absent || err == nil {
		if v, sure = m.judgeVersion(&c, a); v == nil {
			return
		}
	}
	number = v.number
	age := now.Sub(v.began)
	if c.batch { // an id may have been answered before the others
		if age -= waited; age < v.ttl && now.Sub(v.began) >= v.ttl {
			c.life.unsureStale++
			c.life.unsureOnError++
		}
	}
	if v.key != c.key || !v.over() {
		m.complain("%s of key %d got version %d, which is not there", c.what, c.key, number)
		return
	}
	if number <= c.barrier {
		m.complain("%s of key %d got version %d, from before version %d, which was invalidated or replaced", c.what, c.key, number, c.barrier)
	}
	if number < c.served {
		m.complain("%s of key %d got version %d after version %d was served", c.what, c.key, number, c.served)
	}
	if !sure { // the value of several versions
		m.served[c.key] = max(m.served[c.key], root.number)
		m.counts["answer of one of several versions"]++
		if now.Sub(root.began) >= root.ttl || slices.ContainsFunc(m.sameAs(root.number), func(v *version) bool { return now.Sub(v.began) >= v.ttl }) {
			c.life.unsureStale++
			c.life.unsureOnError++
		}
		if v.ended.Before(c.began) && age-waited >= v.ttl+v.rest {
			m.complain("a value is served %v after the last load that could have made it began, its TTL is %v, and %v beyond", age, v.ttl, v.rest)
		}
		return
	}
	m.served[c.key] = max(m.served[c.key], number)
	shared := !v.ended.Before(c.began) // it may come from the load itself
	cached := !shared
	if status != unknown {
		cached = status == aside.StatusHit || status == aside.StatusStale
	}
	switch {
	case cached && v.absent:
		m.counts["answer not found, cached"]++
		if age >= m.lifeOf(v) {
			m.complain("a \"not found\" is served %v after its load", age)
		}
		return
	case v.absent:
		m.counts["answer not found"]++
		return
	case !cached:
		m.counts["answer loaded"]++
		if status == unknown && age >= v.ttl {
			c.life.unsureStale++
			c.life.unsureOnError++
		}
		if c.replaces && v.began.Before(c.began) {
			m.complain("Refresh got version %d of a load that began before", number)
		}
		return
	}
	if number <= m.barrier[c.key] && status != unknown {
		m.complain("%s of key %d got version %d from the cache, although version %d was invalidated or replaced", c.what, c.key, number, m.barrier[c.key])
	}
	if c.replaces {
		m.complain("Refresh was answered from the cache")
	}
	if age >= v.ttl+v.rest {
		m.complain("version %d is served %v after its load began, its TTL is %v, and %v beyond", number, age, v.ttl, v.rest)
	}
	if c.fresh && age >= v.ttl {
		m.complain("%s got a value past its TTL", c.what)
	}
	if c.maxStale >= 0 && age >= v.ttl+c.maxStale {
		m.complain("a call with MaxStale(%v) got a value of %v", c.maxStale, age)
	}
	if age < v.ttl {
		m.counts["answer fresh"]++
		if status == aside.StatusStale {
			m.complain("a fresh value is called stale")
		}
		if strings.Contains(reason, "being refreshed") {
			m.counts["answer ageing"]++
		}
		return
	}
	if status == aside.StatusHit {
		m.complain("a value past its TTL is called a hit")
	}
	behind := reason == "past its TTL, being refreshed"
	if c.peeks || behind || status == unknown && !shared && !c.batch && waited == 0 && m.quiet(c.key) {
		if age >= v.ttl+v.stale || waited > 0 {
			m.complain("%s got a value of %v at once, its TTL is %v, and Stale %v", c.what, age, v.ttl, v.stale)
		}
	}
	switch {
	case status == unknown:
		c.life.stale++
		if c.peeks {
			break
		}
		c.life.unsureOnError++
	case behind:
		m.counts["answer stale"]++
		c.life.stale++
	default:
		m.counts["answer "+reason]++
		c.life.stale++
		c.life.onError++
		if strings.Contains(reason, "SoftTimeout") {
			c.life.slow++
			if waited > m.setup.policy.SoftTimeout || m.setup.policy.SoftTimeout <= 0 {
				m.complain("%s waited for %v, SoftTimeout is %v", c.what, waited, m.setup.policy.SoftTimeout)
			}
		}
	}
}

// quiet reports whether no load of a key runs, or has just failed or come late, for which an old value could stand in. It requires mu.
func (m *strategiesModel) quiet(key int) bool {
	last := time.Time{}
	for _, v := range m.versions {
		if v.key != key {
			continue
		}
		if !v.over() {
			return false
		}
		if (v.failed || v.late) && v.ended.After(last) {
			last = v.ended
		}
	}
	if m.setup.maxLoads < 10 {
		return false // one may wait for a place
	}
	return last.IsZero() || time.Since(last) > 10*time.Second // the longest pause after failures
}

// judgeError checks that no older value was there that could have been the answer. It requires mu.
func (m *strategiesModel) judgeError(c modelCall, err error) {
	switch {
	case errors.Is(err, aside.ErrClosed), c.leaves && errors.Is(err, context.DeadlineExceeded):
		return
	case errors.Is(err, aside.ErrMiss):
		m.counts["answer miss"]++
	case errors.Is(err, &aside.Error{Code: aside.CodeBackoff}):
		m.counts["answer backoff"]++
	case errors.Is(err, &aside.Error{Code: aside.CodeLoadTimeout}):
		m.counts["answer timeout"]++
	case errors.Is(err, &aside.Error{Code: aside.CodeOverloaded}):
		m.counts["answer overloaded"]++
	}
	if c.leaves || c.fresh || c.maxStale >= 0 || c.life != m.life || m.setup.rest() == 0 {
		return
	}
	now := time.Now()
	for info := range c.life.Keys(context.Background(), aside.Pattern{}) {
		if info.Key != m.key(c.key).String() || info.Negative {
			continue
		}
		for _, v := range m.versions {
			if v.key != c.key || !v.began.Equal(now.Add(-info.Age)) || !v.over() || !v.ended.Before(now) || v.failed || v.absent {
				continue
			}
			if c.batch && !v.ended.Before(c.began) {
				continue // an id may have failed before the others were answered
			}
			if c.peeks && info.Age >= v.ttl+v.stale {
				continue
			}
			m.complain("%s of key %d failed with %v, although version %d is cached for %v", c.what, c.key, err, v.number, info.KeptFor)
		}
	}
}

// check compares the counters with what the callers have seen.
func (m *strategiesModel) check(t *rapid.T) {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.outstanding == 0 {
		seen := m.life.Metrics().Labels["items"]
		l := m.life
		within := func(name string, got, least, most uint64) {
			if got < least || got > most {
				m.complain("%s is %d, and not %d to %d: %+v", name, got, least, most, seen)
			}
		}
		within("hits+misses", seen.Hits+seen.Misses, l.calls, l.calls)
		within("loads", seen.Loads, l.loads, l.loads)
		within("staleHits", seen.StaleHits, l.stale, l.stale+l.unsureStale)
		within("staleOnError", seen.StaleOnError, l.onError, min(l.onError+l.unsureOnError, seen.StaleHits))
		within("softTimeouts", seen.SoftTimeouts, l.slow, seen.StaleOnError)
		within("notModified", seen.NotModified, l.same, l.same+l.unsureSame)
		within("refreshErrors", seen.RefreshErrors, 0, seen.Refreshes)
		within("errors", seen.Errors, seen.LoadErrors, seen.LoadErrors)
	}
	if len(m.wrong) > 0 {
		text := fmt.Sprintf("%s\n%+v\n%s", strings.Join(m.wrong, "\n"), m.setup, strings.Join(m.history[max(0, len(m.history)-80):], "\n"))
		m.found.add(text)
		t.Fatal(text)
	}
}

// runStrategies is one run of the model, in a bubble of its own.
func runStrategies(t *testing.T, rt *rapid.T, counts map[string]int, found *findings) {
	var failure any
	synctest.Test(t, func(t *testing.T) {
		defer func() { failure = recover() }()
		m := &strategiesModel{setup: drawSetup(rt), t: rt, counts: counts, start: time.Now(), found: found}
		m.versions = append(m.versions, &version{number: 0, key: -1, ended: time.Now()})
		for key := range m.modes {
			m.modes[key] = sourceMode{kind: "ok"}
		}
		m.open()
		defer func() {
			m.life.Close()
			m.busy.Wait()
			for running := true; running; { // those that ignore their context
				time.Sleep(time.Second)
				synctest.Wait()
				m.mu.Lock()
				running = slices.ContainsFunc(m.versions, func(v *version) bool { return !v.over() })
				m.mu.Unlock()
			}
		}()
		rt.Repeat(m.actions())
		m.busy.Wait()
		m.check(rt)
		m.count("runs") // loads may still run
	})
	if failure != nil {
		panic(failure)
	}
}

// sortedCounts are the names of counts in their order.
func sortedCounts(counts map[string]int) []string { return slices.Sorted(maps.Keys(counts)) }

package freshness_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// The table says what each kind of call does at each moment of a value's life, for each state of the source and each set of strategies. It was
// written from the strategies' description and not from the code. Times are those since the start of the load that made the value.

const (
	loadTakes   = 100 * time.Millisecond
	slowTakes   = 2 * time.Second
	softTimeout = time.Second
	loadTimeout = 3 * time.Second
	maxStale    = 3 * time.Second
	settled     = loadTimeout + 10*time.Millisecond // after the call, everything is over
)

// strategies are those of a policy. by says who gives stale and ifError: the policy, the call, the loader, or the loader, where the call and the policy
// say something else.
type strategies struct {
	stale, ifError, ahead, soft bool
	by                          string
}

var givers = []string{"policy", "call", "call, not as the policy", "loader", "loader, not as the others"}

// other is a window that is none of the row's.
const other = 7 * ttl

func (s strategies) staleUntil() time.Duration {
	if s.stale {
		return 2 * ttl
	}
	return ttl
}

func (s strategies) deadUntil() time.Duration {
	if s.ifError {
		return 3 * ttl
	}
	return s.staleUntil()
}

func (s strategies) policy() aside.Policy {
	p := aside.Policy{Name: "items", Category: "items", TTL: ttl, LoadTimeout: loadTimeout, SoftTimeout: -1}
	switch s.by {
	case "policy":
		p.Stale, p.StaleIfError = s.windows()
	case "call, not as the policy", "loader, not as the others":
		p.Stale, p.StaleIfError = other, other
	}
	if s.ahead {
		p.RefreshAhead = 0.5 // begins between 5 and 7.5 s
	}
	if s.soft {
		p.SoftTimeout = softTimeout
	}
	return p
}

func (s strategies) windows() (stale, ifError time.Duration) {
	if s.stale {
		stale = ttl
	}
	if s.ifError {
		ifError = 2 * ttl
	}
	return stale, ifError
}

// option is what the row's calls say of them.
func (s strategies) option() aside.CallOption {
	switch s.by {
	case "call", "call, not as the policy":
		return aside.WithStale(s.windows())
	case "loader, not as the others":
		return aside.WithStale(other, other)
	}
	return aside.CallOption{}
}

// say is what the row's loader says of them.
func (s strategies) say(ctx context.Context) {
	if s.by == "loader" || s.by == "loader, not as the others" {
		stale, ifError := s.windows()
		aside.CurrentLoad(ctx).Stale(stale)
		aside.CurrentLoad(ctx).StaleIfError(ifError)
	}
}

// phase names the phase of a value.
func (s strategies) phase(age time.Duration) string {
	switch {
	case age < ttl/2 || age < ttl && !s.ahead:
		return "fresh"
	case age < ttl:
		return "ageing"
	case age < s.staleUntil():
		return "stale"
	case age < s.deadUntil():
		return "on error"
	}
	return "dead"
}

// A row is one call.
type row struct {
	strategies
	age    time.Duration
	call   string
	source string
}

// want is what comes of it.
type want struct {
	value  string // "old", "new" or "set"
	err    string // instead
	status aside.Status
	waited time.Duration
	loads  int64
	cached string // what is cached when all is over: "old", "new", "set", "not found" or ""
}

var (
	ages = []time.Duration{
		4 * time.Second, 9 * time.Second, ttl - time.Millisecond, ttl, 11 * time.Second, ttl + maxStale - time.Millisecond, ttl + maxStale,
		15 * time.Second, 18500 * time.Millisecond, 2*ttl - time.Millisecond, 2 * ttl, 22 * time.Second, 27500 * time.Millisecond,
		29500 * time.Millisecond, 29950 * time.Millisecond, 3*ttl - time.Millisecond, 3 * ttl, 35 * time.Second,
	}
	calls = []string{
		"GetOrLoad", "Lookup", "Loader.Get", "GetOrLoadMany", "Get", "Strong", "Refresh", "MaxStale(0)", "MaxStale(3s)", "Set",
	}
	sources = []string{"ok", "slow", "error", "hang", "not found", "not found, not cached", "no store"}
)

// expected is the row's answer.
func (r row) expected() want {
	staleUntil, deadUntil := r.staleUntil(), r.deadUntil()
	switch r.call {
	case "Set":
		return want{cached: "set"}
	case "Get": // serves fresh and stale values, and begins nothing
		if r.age < staleUntil {
			return want{value: "old", cached: r.left()}
		}
		return want{err: "miss", cached: r.left()}
	case "Refresh": // never answered by an older value
		return r.waiting(0)
	case "Strong": // never answered by anything past the TTL
		staleUntil, deadUntil = ttl, 0
	case "MaxStale(0)": // past that, the value counts as dead for this call
		staleUntil, deadUntil = ttl, 0
	case "MaxStale(3s)":
		staleUntil, deadUntil = min(staleUntil, ttl+maxStale), min(deadUntil, ttl+maxStale)
	}
	switch phase := r.phase(r.age); {
	case phase == "fresh":
		return want{value: "old", status: aside.StatusHit, cached: r.left()}
	case phase == "ageing":
		return want{value: "old", status: aside.StatusHit, loads: 1, cached: r.loaded()}
	case r.age < staleUntil:
		return want{value: "old", status: aside.StatusStale, loads: 1, cached: r.loaded()}
	}
	return r.waiting(deadUntil)
}

// waiting is the answer of a call that waits for a load, and may have the older value until the given time instead.
func (r row) waiting(deadUntil time.Duration) want {
	takes := map[string]time.Duration{"slow": slowTakes, "hang": loadTimeout}[r.source]
	if takes == 0 {
		takes = loadTakes
	}
	w := want{loads: 1, waited: takes, cached: r.loaded()}
	old := func(waited time.Duration) want {
		w.value, w.status, w.waited = "old", aside.StatusStale, waited
		return w
	}
	if r.soft && takes > softTimeout && r.age+softTimeout < deadUntil {
		return old(softTimeout)
	}
	switch r.source {
	case "ok", "slow", "no store":
		w.value, w.status = "new", aside.StatusMiss
	case "not found", "not found, not cached": // no failure, so never covered by an older value
		w.err = "not found"
	default:
		if r.age+takes < deadUntil {
			return old(takes)
		}
		w.err = r.source
	}
	return w
}

// loaded is what is cached after a load.
func (r row) loaded() string {
	switch r.source {
	case "ok", "slow":
		return "new"
	case "not found":
		return "not found"
	case "no store", "not found, not cached": // takes the place of the older value, and is not there itself
		return ""
	}
	return r.left()
}

// left is what is cached where nothing has changed.
func (r row) left() string {
	if r.age+settled < r.deadUntil() {
		return "old"
	}
	return ""
}

var errSource = errors.New("the source is down")

// load is the source.
func (r row) load(ctx context.Context) (string, error) {
	takes := loadTakes
	switch r.source {
	case "slow":
		takes = slowTakes
	case "hang":
		takes = time.Hour
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	r.say(ctx)
	switch r.source {
	case "error":
		return "", errSource
	case "not found", "not found, not cached":
		return "", aside.ErrNotFound
	case "no store":
		aside.CurrentLoad(ctx).NoStore()
	}
	return "new", nil
}

// play makes the row's call, and returns what comes of it. The time at which it is called is that of the start of the value's load.
func (r row) play(t *testing.T, c *listing, p *aside.Policy, id int) (got want, err error) {
	key := p.Key(id)
	old := func(ctx context.Context) (string, error) {
		r.say(ctx)
		return "old", nil
	}
	option := r.option()
	if _, err := aside.GetOrLoad(t.Context(), c.Cache, key, old, option); err != nil {
		return got, err
	}
	time.Sleep(r.age)
	var loads atomic.Int64
	load := func(ctx context.Context) (string, error) {
		loads.Add(1)
		return r.load(ctx)
	}
	lookup := func(opts ...aside.CallOption) (err error) {
		began := time.Now()
		result, err := aside.Lookup(t.Context(), c.Cache, key, load, append(opts, option)...)
		got.value = result.Value
		if err == nil {
			got.status = result.Status
			return r.look(result, time.Since(began))
		}
		if !result.Negative && errors.Is(err, aside.ErrNotFound) {
			return errors.New("the result is not negative")
		}
		return err
	}
	began := time.Now()
	switch r.call {
	case "GetOrLoad":
		got.value, err = aside.GetOrLoad(t.Context(), c.Cache, key, load, option)
	case "Lookup":
		err = lookup()
	case "Loader.Get":
		l := aside.NewLoader(c.Cache, *p, func(ctx context.Context, _ int) (string, error) { return load(ctx) })
		got.value, err = l.Get(t.Context(), id, option)
	case "GetOrLoadMany":
		var values map[int]string
		values, err = aside.GetOrLoadMany(t.Context(), c.Cache, []int{id}, func(id int) aside.Key { return p.Key(id) }, func(ctx context.Context, ids []int) (map[int]string, error) {
			value, err := load(ctx)
			switch {
			case errors.Is(err, aside.ErrNotFound):
				return nil, nil
			case err != nil:
				return nil, err
			}
			return map[int]string{ids[0]: value}, nil
		}, option)
		var found bool
		if got.value, found = values[id]; err == nil && !found {
			err = aside.ErrNotFound
		}
	case "Get":
		got.value, err = aside.Get[string](t.Context(), c.Cache, key)
	case "Strong":
		err = lookup(aside.Strong())
	case "Refresh":
		err = lookup(aside.Refresh())
	case "MaxStale(0)":
		err = lookup(aside.MaxStale(0))
	case "MaxStale(3s)":
		err = lookup(aside.MaxStale(maxStale))
	case "Set":
		if r.by == "loader" || r.by == "loader, not as the others" { // nobody else is asked
			option = aside.WithStale(r.windows())
		}
		err = aside.Set(t.Context(), c.Cache, key, "set", option)
	}
	got.waited = time.Since(began)
	switch {
	case errors.Is(err, errSource):
		got.err = "error"
	case errors.Is(err, &aside.Error{Code: aside.CodeLoadTimeout}):
		got.err = "hang"
	case errors.Is(err, aside.ErrNotFound):
		got.err = "not found"
	case errors.Is(err, aside.ErrMiss):
		got.err = "miss"
	case err != nil:
		return got, err
	}
	time.Sleep(settled - got.waited)
	got.loads = loads.Load()
	got.cached, err = r.lookAt(t, c, key)
	return got, err
}

// look checks what a result says beside its value.
func (r row) look(result aside.Result[string], waited time.Duration) error {
	var stale, loadTime time.Duration
	if result.Value == "old" {
		stale = max(0, r.age+waited-ttl)
	} else if loadTime = loadTakes; r.source == "slow" {
		loadTime = slowTakes
	}
	if result.Stale != stale || result.LoadTime != loadTime || result.Negative {
		return fmt.Errorf("the result says something else than stale %v, load time %v: %+v", stale, loadTime, result)
	}
	return nil
}

// lookAt says what is cached, and checks its times.
func (r row) lookAt(t *testing.T, seen *listing, key aside.Key) (cached string, err error) {
	info, ok := seen.of(t, key)
	if !ok {
		return "", nil
	}
	life := r.deadUntil()
	switch {
	case info.Negative:
		cached, life = "not found", ttl
	case info.Age == r.age+settled:
		cached = "old"
	case r.call == "Set":
		cached = "set"
	default:
		cached = "new"
	}
	if cached != "old" && info.Age != settled {
		return "", fmt.Errorf("what is cached is %v old", info.Age)
	}
	if info.KeptFor != life-info.Age || info.TTL != max(0, ttl-info.Age) || info.Stale != (info.Age >= ttl) {
		return "", fmt.Errorf("what is cached has the wrong times: %+v", info)
	}
	return cached, nil
}

// A listing is what a cache holds. The rows of one moment share it: nothing happens to their keys any more.
type listing struct {
	*aside.Cache
	mu   sync.Mutex
	at   time.Time
	keys map[string]aside.KeyInfo
}

func (l *listing) of(t *testing.T, key aside.Key) (info aside.KeyInfo, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now != l.at {
		l.at, l.keys = now, make(map[string]aside.KeyInfo)
		for info, err := range l.Keys(t.Context(), aside.Pattern{}) {
			if err != nil {
				t.Error(err)
			}
			l.keys[info.Key] = info
		}
	}
	info, ok = l.keys[key.String()]
	return info, ok
}

func TestTheTableOfPhasesCallsAndSources(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	rows := make(map[string]int) // of each kind of row, and of each kind of answer
	var wrong []string
	const most = 5000 // of them that are shown
	for i := range 16 * len(givers) {
		s := strategies{i&1 > 0, i&2 > 0, i&4 > 0, i&8 > 0, givers[i/16]}
		synctest.Test(t, func(t *testing.T) {
			cache, err := aside.New(aside.Options{MaxLoads: 10_000, Logger: asidetest.Quiet()})
			require.NoError(t, err)
			defer cache.Close()
			c := &listing{Cache: cache}
			cached, uncached := s.policy(), s.policy()
			uncached.Name, uncached.NegativeTTL = "uncached", -1
			var all sync.WaitGroup
			id := 0
			for _, age := range ages {
				for _, call := range calls {
					for _, source := range sources {
						r := row{s, age, call, source}
						id++
						id, p := id, &cached
						if source == "not found, not cached" {
							p = &uncached
						}
						all.Go(func() {
							got, err := r.play(t, c, p, id)
							want := r.expected()
							if call != "Lookup" && call != "Strong" && call != "Refresh" && call != "MaxStale(0)" && call != "MaxStale(3s)" {
								want.status = ""
							}
							mu.Lock()
							defer mu.Unlock()
							if err != nil || got != want {
								wrong = append(wrong, fmt.Sprintf("%+v, %s:\nwant %+v\ngot  %+v, %v", r, s.phase(age), want, got, err))
							}
							rows["phase "+s.phase(age)]++
							rows["call "+call]++
							rows["by "+s.by]++
							rows["source "+source]++
							rows[fmt.Sprintf("answer %s%s, waited %v, loads %d, then %q", want.value, want.err, want.waited > 0, want.loads, want.cached)]++
							rows["rows"]++
						})
					}
				}
			}
			all.Wait()
		})
	}
	for _, text := range wrong[:min(len(wrong), most)] {
		t.Error(text)
	}
	require.Zero(t, len(wrong))
	for _, phase := range []string{"fresh", "ageing", "stale", "on error", "dead"} {
		require.NotZero(t, rows["phase "+phase], phase)
	}
	require.Equal(t, 16*len(givers)*len(ages)*len(calls)*len(sources), rows["rows"])
	for _, name := range sortedNames(rows) {
		t.Log(rows[name], name)
	}
}

package freshness_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
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

// A setting is how a load in the background and an invalidation meet.
type setting struct{ place, way, where string }

func (s setting) String() string { return s.place + "/" + s.way + "/" + s.where }

const (
	beforeLease = "before its lease"
	inLoader    = "in the loader"
	onItsWay    = "on its way to Redis"
)

var settings = func() (all []setting) {
	for _, place := range []string{beforeLease, inLoader, onItsWay} {
		for _, way := range []string{"key", "tag", "category"} {
			for _, where := range []string{"here", "elsewhere"} {
				all = append(all, setting{place, way, where})
			}
		}
	}
	return all
}()

// Hazard 28, in numbers. A race is one key whose value is loaded anew in the background, and is invalidated meanwhile: by its key, by a tag or by a
// category that no other race has. It counts only if the load was in its place when Redis confirmed the invalidation:
//
//   - before its lease: its first command, the read of the head, was kept back by a proxy.
//   - in the loader: the loader had begun, and had not returned.
//   - on its way to Redis: its fill was kept back by a proxy, or, in half of the races here, by the codec.
//
// An invalidation of the same process is sent on the same connection as that command, and is behind it: the proxy has both when it lets them go.
// So Redis runs the one directly behind the other, before this process has an answer. No call that begins after the confirmation gets a value from before
// the invalidation: not in the process that has invalidated, not in the other one once it has been told, and not with Strong in either. All keys are
// looked at once more later: what is stored late is found then.
func TestRacesOfInvalidationsWithRefreshes(t *testing.T) {
	t.Parallel()
	runRaces(t, 4, asidetest.Rounds(576, 100_000), func(t *testing.T, server *redistest.Server, policies map[int]*aside.Policy) asidetest.Racer {
		return asidetest.LocalRacer{Cache: asidetest.Connected(t, asidetest.At(server.Addr())), Policies: policies}
	})
}

// The same with another operating-system process.
func TestRacesOfInvalidationsWithRefreshesOfAnotherProcess(t *testing.T) {
	t.Parallel()
	runRaces(t, 2, asidetest.Rounds(576, 9_000), func(t *testing.T, server *redistest.Server, _ map[int]*aside.Policy) asidetest.Racer {
		p := redistest.Spawn(t, "racer", "ADDR="+server.Addr())
		line, err := p.Line()
		require.NoError(t, err)
		require.Equal(t, "ready", line)
		return &remoteRacer{t, p, json.NewEncoder(p.Stdin)}
	})
}

type remoteRacer struct {
	t      *testing.T
	p      *redistest.Subprocess
	orders *json.Encoder
}

func (r *remoteRacer) Obey(o asidetest.RacerOrder) (answers []string) {
	require.NoError(r.t, r.orders.Encode(o))
	line, err := r.p.Line()
	require.NoError(r.t, err)
	require.NoError(r.t, json.Unmarshal([]byte(line), &answers))
	return answers
}

const racedAtOnce = 16 // keys of one lane

// raceCounts are of all lanes.
type raceCounts struct {
	mu    sync.Mutex
	begun map[setting]int // races that count, or may yet
	turns map[setting]int
	raced map[string]int // races that count
	other map[string]int
	wrong []string
}

func (c *raceCounts) count(what map[string]int, name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what[name] += n
}

// next is the setting of which there are the fewest races; false if there are enough of each.
func (c *raceCounts) next(each int) (s setting, turn int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s = settings[0]
	for _, other := range settings {
		if c.begun[other] < c.begun[s] {
			s = other
		}
	}
	if c.begun[s] >= each {
		return s, 0, false
	}
	c.turns[s]++
	c.begun[s] += racedAtOnce
	return s, c.turns[s], true
}

func runRaces(t *testing.T, lanes, races int, other func(*testing.T, *redistest.Server, map[int]*aside.Policy) asidetest.Racer) {
	if asidetest.InCluster {
		t.Skip("in numbers on one server; TestAnInvalidationBeatsARefreshInEachPlace is run on clusters")
	}
	each := (races + len(settings) - 1) / len(settings)
	counts := &raceCounts{begun: make(map[setting]int), turns: make(map[setting]int), raced: make(map[string]int), other: make(map[string]int)}
	began := time.Now()
	var all sync.WaitGroup
	for n := range lanes {
		server := redistest.Start(t) // here, so that without one this test is skipped
		all.Go(func() {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				newRaceLane(t, n, server, counts, other).run(each)
			})
		})
	}
	all.Wait()
	sum := 0
	for _, s := range settings {
		n := counts.raced[s.String()]
		require.GreaterOrEqual(t, n, each, s)
		sum += n
	}
	for _, name := range sortedNames(counts.raced) {
		t.Log(counts.raced[name], name)
	}
	for _, name := range sortedNames(counts.other) {
		t.Log(counts.other[name], name)
	}
	t.Logf("%d races in %v, %d reads from before an invalidation", sum, time.Since(began).Round(time.Second), len(counts.wrong))
	for _, text := range counts.wrong[:min(len(counts.wrong), 20)] {
		t.Error(text)
	}
	require.NotZero(t, counts.other["fills refused"], "of what was invalidated by its key")
}

// A raceLane races with 16 keys at once.
type raceLane struct {
	t      *testing.T
	n      int
	counts *raceCounts
	c      *aside.Cache // that loads in the background
	proxy  *redistest.Proxy
	here   asidetest.Racer
	other  asidetest.Racer

	encoding atomic.Pointer[func(value string)]
	batch    int
	last     []*raced
}

// A raced is one key, and the load of it.
type raced struct {
	asidetest.Raced
	key            aside.Key
	stale          bool        // it was, and is loaded anew
	changed        atomic.Bool // its source
	once           sync.Once
	began, release chan struct{}
}

func newRaceLane(t *testing.T, n int, server *redistest.Server, counts *raceCounts, other func(*testing.T, *redistest.Server, map[int]*aside.Policy) asidetest.Racer) *raceLane {
	l := &raceLane{t: t, n: n, counts: counts}
	codec := &asidetest.RacedCodec{Encoding: func(value string) {
		if f := l.encoding.Load(); f != nil {
			(*f)(value)
		}
	}}
	policies := make(map[int]*aside.Policy)
	for i := range racedAtOnce {
		slot := n*racedAtOnce + i
		policies[slot] = asidetest.RacedPolicy(slot, codec)
	}
	l.proxy = redistest.StartProxy(t, server.Addr())
	o := asidetest.At(l.proxy.Addr())
	o.MaxLoads, o.LeaseTTL = 1000, time.Minute // no renewal comes in between
	l.c = asidetest.Connected(t, o)
	l.here, l.other = asidetest.LocalRacer{Cache: l.c, Policies: policies}, other(t, server, policies)
	return l
}

func (l *raceLane) run(each int) {
	lastCounted := time.Now()
	for missed := 0; ; {
		s, turn, ok := l.counts.next(each)
		if !ok {
			break
		}
		n := l.race(s, turn)
		l.counts.mu.Lock()
		l.counts.begun[s] += n - racedAtOnce
		l.counts.mu.Unlock()
		if n == 0 {
			missed++
		} else {
			lastCounted = time.Now()
		}
		if missed > 20 && time.Since(lastCounted) > asidetest.Bound || l.t.Failed() {
			l.t.Errorf("%d batches of races that do not count, the last one %s", missed, s)
			return
		}
	}
	l.look("at the end", l.last)
	l.counts.count(l.counts.other, "fills refused", int(l.c.Metrics().Labels["lanes"].FillsRejected))
}

// within reports whether something happens in time. A race that does not come about is repeated.
func within(ok func() bool) bool {
	for end := time.Now().Add(time.Second); !ok(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func orders(do string, all []*raced) asidetest.RacerOrder {
	o := asidetest.RacerOrder{Do: do, New: "new"}
	for _, r := range all {
		o.All = append(o.All, r.Raced)
	}
	return o
}

// race makes a race of each key, and returns how many count.
func (l *raceLane) race(s setting, turn int) (count int) {
	l.batch++
	all := make([]*raced, racedAtOnce)
	for i := range all {
		slot := l.n*racedAtOnce + i
		r := &raced{began: make(chan struct{}), release: make(chan struct{})}
		r.Raced = asidetest.Raced{Slot: slot, ID: fmt.Sprintf("%d-%d", l.n, l.batch)}
		r.key = l.here.(asidetest.LocalRacer).Policies[slot].Key(r.ID)
		all[i] = r
	}
	if all = l.prepare(all); len(all) == 0 {
		l.counts.count(l.counts.other, "batches that could not be prepared", 1)
		return 0
	}

	// 1. Each value is loaded anew in the background, and is in its place.
	byCodec := s.place == onItsWay && s.where == "here" && turn%2 == 0
	var gate *redistest.Gate
	encoding, encoded := atomic.Int64{}, make(chan struct{})
	if s.place == beforeLease {
		keys := make(map[string]bool)
		for _, r := range all {
			keys[r.key.String()] = true
		}
		gate = l.proxy.HoldRequests(func(args []string) bool { return len(args) > 3 && keys[args[1]] && asidetest.IsHead(args, args[1]) })
	}
	all = l.refresh(all, s.place == beforeLease)
	if s.place == onItsWay {
		if byCodec {
			hold := func(value string) {
				if strings.HasPrefix(value, "from before ") {
					encoding.Add(1)
					<-encoded
				}
			}
			l.encoding.Store(&hold)
		} else {
			gate = l.proxy.HoldRequests(func(args []string) bool {
				return args[0] == "EVALSHA" && slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, "from before ") })
			})
		}
		for _, r := range all {
			close(r.release)
		}
	}
	inPlace := func() int {
		switch {
		case gate != nil:
			return gate.Held()
		case byCodec:
			return int(encoding.Load())
		}
		return len(all)
	}
	within(func() bool { return inPlace() >= len(all) })

	// 2. The source changes, and the values are invalidated.
	for _, r := range all {
		r.changed.Store(true)
	}
	var receipts []string
	from, released := l.other, false
	if s.where == "here" {
		from = l.here
	}
	release := func() {
		switch released = true; {
		case gate != nil:
			gate.Release()
		case byCodec:
			l.encoding.Store(nil)
			close(encoded)
		default:
			for _, r := range all {
				close(r.release)
			}
		}
	}
	if gate != nil && s.where == "here" {
		behind := l.proxy.HoldRequests(func(args []string) bool { return l.invalidates(args, s.way, all) })
		var invalidating sync.WaitGroup
		invalidating.Go(func() { receipts = from.Obey(orders(s.way, all)) })
		within(func() bool { return behind.Held() >= len(all) })
		count = min(inPlace(), behind.Held(), len(all))
		behind.Release()
		release()
		invalidating.Wait()
	} else {
		before := inPlace()
		receipts = from.Obey(orders(s.way, all))
		count = min(before, inPlace(), len(all))
	}
	if slices.ContainsFunc(receipts, func(text string) bool { return text != "confirmed" }) { // the machine was so busy that the connection was given up
		if !released {
			release()
		}
		l.counts.count(l.counts.other, "races without a confirmation", len(all))
		l.last = nil
		return 0
	}
	name := s.String()
	l.counts.count(l.counts.raced, name, count)
	switch {
	case byCodec:
		l.counts.count(l.counts.other, name+", while it was encoded", count)
	case s.place == onItsWay && s.where == "here":
		l.counts.count(l.counts.other, name+", directly behind the fill", count)
	}

	// 3. Nobody gets the older value: before the load goes on, when it does, and later.
	if !released && rand.IntN(2) == 0 {
		l.counts.count(l.counts.other, "races whose values were read before the load went on", count)
		when := name + ", before the load goes on"
		switch {
		case s.way != "key": // the load has its lease still, and other loads of the key wait for that
			l.judge(when+", where it was invalidated", from, "get", all)
			if gate == nil { // otherwise the proxy holds all commands of this process
				require.Empty(l.t, l.here.Obey(orders("told", nil)))
				l.judge(when+", in the process that loads", l.here, "get", all)
			}
		case gate == nil:
			l.judge(when+", where it was invalidated", from, "read", all)
			l.look(when, all)
		default:
			l.judge(when+", in the other process", l.other, "read", all)
		}
	}
	if !released {
		release()
	}
	l.judge(name+", where it was invalidated", from, "read", all)
	l.look(name, all)
	l.look("a while after another race", l.last)
	l.last = all
	l.proxy.ResetCounts()
	return count
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// prepare stores older values, in Redis and in the memory of both processes. It returns the keys for which that was done: a load under which Redis has
// pushed something about its tag is not stored.
func (l *raceLane) prepare(all []*raced) (ready []*raced) {
	var loading sync.WaitGroup
	for _, r := range all {
		loading.Go(func() {
			_, err := aside.GetOrLoad(l.t.Context(), l.c, r.key, asidetest.Value("old"), aside.WithTags(asidetest.RacedTag(r.Slot)))
			if err != nil {
				l.t.Error(err)
			}
		})
	}
	loading.Wait()
	within(func() bool {
		ready = slices.DeleteFunc(slices.Clone(all), func(r *raced) bool {
			_, _ = aside.Get[string](l.t.Context(), l.c, r.key)
			_, err := aside.Get[string](canceled(l.t), l.c, r.key)
			return err != nil
		})
		theirs := l.other.Obey(orders("get", ready))
		var both []*raced
		for i, r := range ready {
			if theirs[i] == "old" {
				both = append(both, r)
			}
		}
		ready = both
		return len(ready) == len(all)
	})
	return ready
}

// refresh has each value loaded anew in the background, and returns those for which that has begun. It does not where memory has lost a value: Redis
// also pushes that another process has extended the life of a tag's generation.
func (l *raceLane) refresh(all []*raced, atOnce bool) []*raced {
	var asking sync.WaitGroup
	for _, r := range all {
		if atOnce { // the loader runs after the invalidation
			close(r.release)
		}
		asking.Go(func() {
			load := func(ctx context.Context) (string, error) {
				v := "from before " + r.ID // so that the proxy knows it
				if r.changed.Load() {
					v = "new"
					aside.CurrentLoad(ctx).TTL(asidetest.RacedLater)
				}
				r.once.Do(func() { close(r.began) })
				<-r.release
				return v, nil
			}
			ctx, cancel := context.WithTimeout(l.t.Context(), time.Second)
			defer cancel()
			within(func() bool {
				got, err := aside.Lookup(ctx, l.c, r.key, load, aside.WithTags(asidetest.RacedTag(r.Slot)))
				r.stale = err == nil && got.Value == "old" && got.Status == aside.StatusStale
				return r.stale || err != nil || got.Value != "old"
			})
		})
	}
	asking.Wait()
	if !atOnce {
		within(func() bool {
			return !slices.ContainsFunc(all, func(r *raced) bool { return r.stale && !closed(r.began) })
		})
	}
	return slices.DeleteFunc(all, func(r *raced) bool {
		if r.stale && (atOnce || closed(r.began)) {
			return false
		}
		if !atOnce {
			close(r.release)
		}
		return true
	})
}

// invalidates reports whether a command is the invalidation of one of the keys.
func (l *raceLane) invalidates(args []string, way string, all []*raced) bool {
	if len(args) < 4 || args[0] != "EVALSHA" || slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, "from before ") }) {
		return false
	}
	return slices.ContainsFunc(all, func(r *raced) bool {
		switch way {
		case "key":
			return args[3] == r.key.String()
		case "tag":
			return strings.HasPrefix(args[3], "%t:") && strings.HasSuffix(args[3], asidetest.RacedTag(r.Slot))
		}
		return args[3] == "%c:"+asidetest.LanePolicy(r.Slot).Category
	})
}

// look reads in both processes.
func (l *raceLane) look(when string, all []*raced) {
	for name, r := range map[string]asidetest.Racer{"the process that loads": l.here, "the other process": l.other} {
		l.judge(when+", "+name+", Strong", r, "strong", all)
		require.Empty(l.t, r.Obey(orders("told", nil)))
		l.judge(when+", "+name, r, "read", all)
	}
}

// judge reads, and notes what is from before the invalidation.
func (l *raceLane) judge(when string, by asidetest.Racer, do string, all []*raced) {
	if len(all) == 0 {
		return
	}
	for i, v := range by.Obey(orders(do, all)) {
		l.counts.count(l.counts.other, "reads", 1)
		if v != "new" && (do != "get" || v != "error: "+aside.ErrMiss.Error()) {
			l.counts.mu.Lock()
			l.counts.wrong = append(l.counts.wrong, fmt.Sprintf("%s: %s is %q", when, all[i].key, v))
			l.counts.mu.Unlock()
		}
	}
}

package near

import (
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const stressKeys, stressTags = 4, 2

// A source is what stands behind a key, a tag or a connection: it changes, and then whoever changed it says so.
type source struct {
	mu      sync.Mutex // of those who change it: nobody could say which of two Puts comes last
	version atomic.Uint64
	told    atomic.Uint64 // the version that everybody must know of, because the call has returned that tells of it
}

// change makes a new version and tells of it.
func (s *source) change(tell func(version uint64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := s.version.Add(1)
	tell(version)
	s.told.Store(version)
}

// A versioned is a value that says by itself from when it is.
type versioned struct{ key, tag, conn uint64 }

// stress is what goes on around a cache while TestNothingIsFoundThatIsOlderThanAChangeThatHasReturned runs.
type stress struct {
	c     *Cache
	clock *Clock
	keys  [stressKeys]source
	tags  [stressTags]source
	conn  source
	wire  atomic.Pointer[connection]
	// What happened, so that the test knows that it was worth its while.
	hits, stored, broken, pushed, untracked, learnt, notLearnt, changes, retired, lost, swept atomic.Int64
}

// A connection is the validity of everything that is read on it. Its number is the version that it is known by.
type connection struct {
	Validity
	number uint64
}

func (s *stress) key(r *rand.Rand) (name string, key, tag *source, tagName string) {
	n := r.IntN(stressKeys)
	return "key " + strconv.Itoa(n), &s.keys[n], &s.tags[n%stressTags], "tag " + strconv.Itoa(n%stressTags)
}

// read looks for a value, and fails the test if it is older than it may be.
func (s *stress) read(t *testing.T, r *rand.Rand) {
	name, key, tag, _ := s.key(r)
	least := versioned{key.told.Load(), tag.told.Load(), s.conn.told.Load()}
	e := s.c.Get(name)
	if e == nil {
		return
	}
	s.hits.Add(1)
	if v := e.Value.(versioned); v.key < least.key || len(e.Scope.Validities) > 0 && (v.tag < least.tag || v.conn < least.conn) {
		t.Errorf("%s: %+v is found, where nothing may be older than %+v", name, v, least)
	}
}

// load fills a key, as a load does that reads the key's tag first.
func (s *stress) load(r *rand.Rand) {
	name, key, tag, tagName := s.key(r)
	fence := s.c.Fence(name, nil)
	defer fence.End()
	wire := s.wire.Load()
	g := s.c.Generation(tagName)
	if g == nil {
		fence := s.c.Fence(tagName, nil)
		defer fence.End()
		fence.Arm()
		version := tag.version.Load()
		pause(r)
		if g = s.c.Learn(fence, version, &wire.Validity); g == nil {
			s.notLearnt.Add(1)
			return
		}
		s.learnt.Add(1)
	}
	fence.Arm()
	e := entry(s.clock, nil, time.Hour, g.Validities([]*Validity{&wire.Validity})...)
	e.Value = versioned{key.version.Load(), tag.version.Load(), wire.number}
	pause(r)
	switch {
	case s.c.Insert(name, e, fence):
		s.stored.Add(1)
	case fence.BrokenHere():
		s.broken.Add(1)
	case fence.Broken():
		s.pushed.Add(1)
	case !e.Scope.Valid():
		s.untracked.Add(1)
	}
}

// pause is the time that a read takes.
func pause(r *rand.Rand) {
	for range r.IntN(3) {
		runtime.Gosched()
	}
}

// change changes a key, a tag, or the connection.
func (s *stress) change(r *rand.Rand) {
	name, key, tag, tagName := s.key(r)
	s.changes.Add(1)
	switch n := r.IntN(20); {
	case n < 6:
		key.change(func(uint64) { s.c.Delete(name) })
	case n < 8:
		key.change(func(version uint64) { s.c.Put(name, entry(s.clock, versioned{key: version}, time.Hour)) })
	case n < 14:
		key.change(func(uint64) { s.c.Push(name) })
	case n < 16:
		s.retired.Add(1)
		tag.change(func(uint64) { s.c.Retire(tagName) })
	case n < 18:
		s.retired.Add(1)
		tag.change(func(uint64) { s.c.Push(tagName) })
	case n < 19:
		s.lost.Add(1)
		s.conn.change(func(version uint64) { s.wire.Swap(&connection{number: version}).Revoke() })
	default:
		s.swept.Add(s.c.Sweep())
	}
}

func TestNothingIsFoundThatIsOlderThanAChangeThatHasReturned(t *testing.T) {
	t.Parallel()
	c, clock := newCache(t, roomy)
	s := &stress{c: c, clock: clock}
	s.wire.Store(&connection{})
	var seen = map[string]*atomic.Int64{
		"hits": &s.hits, "stored": &s.stored, "refused after a change here": &s.broken, "refused after a push": &s.pushed,
		"refused because it is not valid": &s.untracked, "generations learnt": &s.learnt, "not learnt": &s.notLearnt, "changes": &s.changes,
		"tags retired": &s.retired, "connections lost": &s.lost, "swept": &s.swept,
	}
	raced := func(often int64) bool {
		for _, n := range seen {
			if n.Load() < often {
				return false
			}
		}
		return true
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	begin := func(seed uint64, do func(r *rand.Rand)) {
		all.Go(func() {
			for r := rand.New(rand.NewPCG(seed, 1)); !stop.Load(); {
				do(r)
			}
		})
	}
	for n := range uint64(4) {
		begin(n, func(r *rand.Rand) { s.read(t, r); s.load(r); s.read(t, r) })
	}
	for n := range uint64(2) {
		begin(100+n, func(r *rand.Rand) { s.change(r); s.read(t, r); pause(r) })
	}
	slow := time.Now().Add(20 * time.Second) // from then on it is enough that each has happened
	ended := await(func() bool {
		return t.Failed() || uint64(s.changes.Load()) >= rounds()/4 && raced(races) || time.Now().After(slow) && raced(1)
	})
	stop.Store(true)
	all.Wait()
	for what, n := range seen {
		t.Logf("%d %s", n.Load(), what)
		require.Positive(t, n.Load(), "%s: never happened", what)
	}
	if !ended {
		t.Log("ended by the clock")
	}
	require.Zero(t, watched(c), "fences are left over")
}

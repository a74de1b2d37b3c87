package aside

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/nearby"
	"github.com/gatewayz/aside/internal/stats"
	"github.com/gatewayz/aside/internal/weakmap"
	"github.com/gatewayz/aside/internal/wire"
)

// A resolved policy is a policy of one cache, with the defaults filled in and the overrides applied. It owns the policy's entries in memory, so
// that a hit finds it without a search.
type resolved struct {
	policy Policy
	source atomic.Pointer[Policy] // the policy of the first key: a hit compares pointers before it compares fields
	engine.Policy
}

// is reports whether r is p, resolved.
func (r *resolved) is(p *Policy) bool { return r.source.Load() == p || r.policy.equal(p) }

// A policyTable has a cache's policies by name. It is bounded for programs that make a policy for each tenant: beyond mostPoliciesMet, it
// keeps a policy that was first used in a call while an entry in memory belongs to it, and the newest of the others.
type policyTable struct {
	opts    *Options
	metrics *stats.Registry
	byName  atomic.Pointer[map[string]*resolved] // policies that are kept for good; reading it takes no lock

	mu       sync.Mutex // for writers, too
	met      int        // how many of byName were first used in a call; guarded by mu
	fleeting weakmap.Map[resolved]
	calls    map[*stats.Counters]uint64 // of each label at the last inUse, which one goroutine calls
}

const (
	mostPoliciesMet  = 256  // first used in a call, and kept for good
	mostPoliciesHeld = 1024 // others that are kept
	mostInUse        = 256  // categories that inUse returns
)

// newPolicyTable fills a table from Options, and returns an error for each invalid policy. The predeclared rows are in the table once they
// are used or listed, since a program may have policies of its own with their names.
func newPolicyTable(opts *Options, metrics *stats.Registry) (*policyTable, []error) {
	t := &policyTable{opts: opts, metrics: metrics, fleeting: weakmap.New[resolved](mostPoliciesHeld), calls: make(map[*stats.Counters]uint64)}
	t.byName.Store(&map[string]*resolved{})
	var errs []error
	for i := range opts.Policies {
		_, err := t.register(&opts.Policies[i], true)
		all := []error{err}
		if several, ok := err.(interface{ Unwrap() []error }); ok {
			all = several.Unwrap()
		}
		for _, err := range all {
			if err != nil {
				errs = append(errs, fmt.Errorf("Options.Policies[%d]: %w", i, err))
			}
		}
	}
	known := *t.byName.Load()
	for _, name := range slices.Sorted(maps.Keys(opts.TTLs)) {
		if d := opts.TTLs[name]; d < time.Millisecond {
			errs = append(errs, invalidOption("Options.TTLs[%q] is %v: set a duration of at least 1ms", name, d))
		}
		isRows := slices.ContainsFunc(predeclared(), func(row *Policy) bool { return row.Name == name })
		if _, ok := known[name]; !ok && !isRows {
			listed := "Options.Policies lists none"
			if len(known) > 0 {
				listed = "those in Options.Policies are " + nearby.Names(name, slices.Collect(maps.Keys(known)))
			}
			errs = append(errs, invalidOption("Options.TTLs: no policy is named %q: %s; list it there", name, listed))
		}
	}
	return t, errs
}

// resolve finds a key's policy, and registers a new one.
func (t *policyTable) resolve(p *Policy) (*resolved, error) {
	// The fields are compared even if the pointer is known: a policy that was changed after its first use is another policy.
	if r, ok := (*t.byName.Load())[p.name()]; ok && r.policy.equal(p) {
		r.source.CompareAndSwap(nil, p)
		return r, nil
	}
	return t.register(p, isRow(p))
}

// isRow reports whether a policy is a row of the predeclared table. Rows are few, and kept for good once they are used.
func isRow(p *Policy) bool {
	return slices.ContainsFunc(predeclared(), func(row *Policy) bool { return row.Name == p.Name && row.equal(p) })
}

// register adds a policy to the table: listed in Options, or first used in a call.
func (t *policyTable) register(p *Policy, listed bool) (*resolved, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	if err := p.validateBeside(t.opts.NotFound); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.find(p.name()); r != nil {
		if r.policy.equal(p) {
			return r, nil
		}
		return nil, invalidOption("two different policies are named %q, one of category %q and one of category %q, or they differ in another field, such as their Codec, or one was changed after its first use: give each its own Name, or override a duration with Options.TTLs",
			p.name(), r.policy.Category, p.Category)
	}
	ttl := p.TTL
	if d, ok := t.opts.TTLs[p.name()]; ok {
		ttl = d
	}
	ttl = engine.Bounded(ttl)
	r := &resolved{policy: *p}
	q := &r.Policy
	q.Name, q.Label, q.Category, q.Owner = p.name(), p.label(), p.Category, ownerOf(p)
	q.Tags = []string{keyspace.All, keyspace.CategoryTag(p.Category)}
	q.TTL = ttl
	q.NegativeTTL = engine.Bounded(cmp.Or(p.NegativeTTL, min(t.opts.NegativeTTL, ttl)))
	q.NotFound = slices.Concat(p.NotFound, t.opts.NotFound) // a policy's own are more special
	q.DegradedTTL = engine.Bounded(cmp.Or(p.DegradedTTL, t.opts.DegradedTTL))
	q.LoadTimeout = engine.Bounded(cmp.Or(p.LoadTimeout, t.opts.LoadTimeout))
	q.LoadGrace = engine.Bounded(cmp.Or(p.LoadGrace, t.opts.LoadGrace))
	if err := r.setWindows(p, t.opts); err != nil {
		return nil, err
	}
	q.Place, q.MemoryTTL = engine.Place(p.Place), engine.Bounded(p.MemoryTTL)
	q.MaxBatch, q.Jitter, q.Codec, q.CloneOnRead = p.MaxBatch, p.Jitter, p.Codec, p.CloneOnRead
	q.Counters, q.Holder = t.metrics.Label(p.label(), listed), r
	t.add(r, listed)
	return r, nil
}

// setWindows fills in the strategies of a policy, and refuses those that contradict each other with the cache's defaults.
func (r *resolved) setWindows(p *Policy, o *Options) error {
	stale, onError := engine.Bounded(cmp.Or(p.Stale, o.Stale)), engine.Bounded(cmp.Or(p.StaleIfError, o.StaleIfError))
	soft := engine.Bounded(cmp.Or(p.SoftTimeout, o.SoftTimeout))
	switch {
	case p.StaleIfError > 0 && onError < stale:
		return invalidOption("policy %q: StaleIfError is %v, less than Stale, which is %v: set at least as much, or leave it unset", p.name(), onError, stale)
	case p.SoftTimeout > 0 && soft >= r.LoadTimeout:
		return invalidOption("policy %q: SoftTimeout is %v, and LoadTimeout %v: set less than LoadTimeout", p.name(), soft, r.LoadTimeout)
	}
	r.Windows = freshness.Windows{Ahead: max(0, cmp.Or(p.RefreshAhead, o.RefreshAhead)), Stale: stale, OnError: onError}
	r.SoftTimeout = soft
	return nil
}

// find is called with mu held.
func (t *policyTable) find(name string) *resolved {
	if r := (*t.byName.Load())[name]; r != nil {
		return r
	}
	return t.fleeting.Find(name)
}

// add is called with mu held.
func (t *policyTable) add(r *resolved, listed bool) {
	if !listed && t.met >= mostPoliciesMet {
		t.fleeting.Note(r.policy.name(), r)
		return
	}
	if !listed {
		t.met++
	}
	byName := maps.Clone(*t.byName.Load())
	byName[r.policy.name()] = r
	t.byName.Store(&byName)
}

// all are the policies in the table.
func (t *policyTable) all() map[string]*resolved {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := maps.Clone(*t.byName.Load())
	maps.Insert(list, t.fleeting.All())
	return list
}

// categories returns the categories of all policies that the cache knows.
func (t *policyTable) categories() (names []string) {
	for _, r := range t.all() {
		names = append(names, r.policy.Category)
	}
	return names
}

// inUse returns the categories that were used since its last call: see tags.Registry.Touch.
func (t *policyTable) inUse() (list []string) {
	used := make(map[*stats.Counters]bool)
	categories := make(map[string]bool)
	for _, r := range *t.byName.Load() {
		if _, looked := used[r.Counters]; !looked {
			now := r.Counters.Calls()
			used[r.Counters] = now != t.calls[r.Counters]
			t.calls[r.Counters] = now
		}
		if category := r.policy.Category; used[r.Counters] && !categories[category] && len(categories) < mostInUse {
			categories[category] = true
			list = append(list, category)
		}
	}
	for counters := range t.calls {
		if _, looked := used[counters]; !looked {
			delete(t.calls, counters)
		}
	}
	return list
}

// codecName is the name of the codec with an ID.
func (t *policyTable) codecName(id uint32) string {
	if codec, ok := wire.Builtin(id); ok {
		return codec.Name()
	}
	for _, r := range t.all() {
		if own := r.policy.Codec; own != nil && wire.ID(own) == id {
			return r.policy.codecName()
		}
	}
	return "unknown"
}

// ownerOf identifies a policy in its stored values, by a hash of its name and by its version. The hash of a policy that is named like its
// category is 0.
func ownerOf(p *Policy) uint64 {
	if p.name() == p.Category {
		return uint64(p.Version)
	}
	sum := sha256.Sum256([]byte(p.name()))
	return max(binary.LittleEndian.Uint64(sum[:])>>engine.VersionBits, 1)<<engine.VersionBits | uint64(p.Version)
}

// nameOfOwner is the name of the policy that a stored value belongs to, as far as this process knows it.
func (t *policyTable) nameOfOwner(owner uint64, category string) string {
	if owner>>engine.VersionBits == 0 {
		return category
	}
	for name, r := range t.all() {
		if r.Owner>>engine.VersionBits == owner>>engine.VersionBits && r.policy.Category == category {
			return name
		}
	}
	return "one that this process has not used"
}

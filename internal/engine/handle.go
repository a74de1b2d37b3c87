package engine

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
)

// A Load is the load that a loader runs in. A loader uses it to adapt how its value is cached. In a batch it stands for all of its ids, and
// Of for one.
type Load struct {
	engine   *Engine
	attempts []*attempt
	parent   *Load
	alone    bool // nobody waits for it: see LoadAlone

	mu      sync.Mutex
	ttl     time.Duration // guarded by mu
	noStore bool          // guarded by mu
	tags    []string      // guarded by mu
	ended   bool          // guarded by mu
	each    []*Load       // of a batch whose ids have loaders of their own: one for each attempt; guarded by mu
}

type loadKey struct{}

func LoadOf(ctx context.Context) *Load {
	l, _ := ctx.Value(loadKey{}).(*Load)
	return l
}

// parentOf is loadOf for a context whose caller may have left: one that must not be used any more, and panics, is in no load.
func parentOf(ctx context.Context) (l *Load) {
	defer func() { _ = recover() }()
	return LoadOf(ctx)
}

// underWay is l, or the load around it, that has not ended yet; nil where all have, which is what is left of a loader whose context is
// used after it has returned.
func (l *Load) underWay() *Load {
	for ; l != nil; l = l.parent {
		l.mu.Lock()
		over := l.ended
		l.mu.Unlock()
		if !over {
			break
		}
	}
	return l
}

// TTL sets how long the loaded values are served, in place of the policy's TTL, unless the load has ended. Zero or less means that they are
// not stored.
func (l *Load) TTL(d time.Duration) {
	if d <= 0 {
		l.NoStore()
		return
	}
	l.set(func() { l.ttl = d })
}

// NoStore keeps the loaded values from being stored, unless the load has ended.
func (l *Load) NoStore() { l.set(func() { l.noStore = true }) }

// Tag gives the loaded values further tags, which the loader could not know before, unless the load has ended.
func (l *Load) Tag(tags ...string) { l.set(func() { l.tags = append(l.tags, tags...) }) }

func (l *Load) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		change()
	}
}

// Of returns the share that a key of a policy has in the load of a batch, nil where the load is not of that key. A load of one key is its
// own share.
func (l *Load) Of(key string, is func(Holder) bool) *Load {
	at := slices.IndexFunc(l.attempts, func(a *attempt) bool { return a.Key == key && is(a.Policy.Holder) })
	switch {
	case at < 0:
		return nil
	case len(l.attempts) == 1:
		return l
	}
	var own *Load
	l.set(func() { own = l.shares()[at] })
	return own
}

// shares are the Loads of the attempts of a batch. It is called with mu held.
func (l *Load) shares() []*Load {
	if l.each == nil {
		l.each = make([]*Load, len(l.attempts))
		for i := range l.each {
			l.each[i] = &Load{engine: l.engine, attempts: l.attempts[i : i+1], parent: l}
		}
	}
	return l.each
}

// refusedTags is the error of a load whose loader has given its value tags that no entry takes, nil where it takes them.
func (a *attempt) refusedTags(names []string) error {
	if len(names) == 0 {
		return nil
	}
	tags, err := tagNames(names)
	if err == nil {
		slices.Sort(tags)
		n := len(a.Tags) - len(a.Policy.Tags)
		for _, tag := range slices.Compact(tags) {
			if !slices.Contains(a.Tags, tag) {
				n++
			}
		}
		if n <= keyspace.MaxTags {
			return nil
		}
		err = invalidArgument(strconv.Itoa(n) + " tags, an entry takes at most " + strconv.Itoa(keyspace.MaxTags))
	}
	return &Error{Code: CodeInvalidArgument, Key: a.Key, Message: "the loader has given its value tags by Load.Tag that are refused", Err: err}
}

// PerID returns contexts in which each id of a batch has a Load of its own.
func (l *Load) PerID(ctx context.Context, n int) func(i int) context.Context {
	if l == nil || n != len(l.attempts) {
		return func(int) context.Context { return ctx }
	}
	l.mu.Lock()
	each := l.shares()
	l.mu.Unlock()
	return func(i int) context.Context { return context.WithValue(ctx, loadKey{}, each[i]) }
}

// end closes the load to further changes.
func (l *Load) end() {
	l.mu.Lock()
	l.ended = true
	each := l.each
	l.mu.Unlock()
	for _, one := range each {
		one.end()
	}
}

// A decision is what a loader has said about a value.
type decision struct {
	ttl   time.Duration // 0 for the policy's
	store bool
	tags  []string
}

// decision is about the value of attempt i, once the load has ended.
func (l *Load) decision(i int) decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := decision{l.ttl, !l.noStore, l.tags}
	if l.each != nil {
		own := l.each[i].decision(0)
		d.ttl, d.store, d.tags = cmp.Or(own.ttl, d.ttl), d.store && own.store, slices.Concat(d.tags, own.tags)
	}
	return d
}

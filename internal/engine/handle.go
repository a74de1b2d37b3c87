package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/wire"
)

// A Load is the load that a loader runs in. The loader uses it to change how its value is cached. In a batch a Load stands for all ids, and Of
// returns the Load of one.
type Load struct {
	engine   *Engine
	attempts []*attempt
	parent   *Load
	alone    bool               // no caller waits for it: see LoadAlone
	counted  atomic.Bool        // how it ended
	observed *observe.Operation // nil: nobody is told of it

	mu     sync.Mutex
	own    decision // without those of each; guarded by mu
	ended  bool     // guarded by mu
	each   []*Load  // of a batch whose ids have loaders of their own: one for each attempt; guarded by mu
	handle any      // see Handle; guarded by mu
}

// Handle returns what the package above gives to the program in the place of the load: what make has returned at the first call.
func (l *Load) Handle(make func(*Load) any) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handle == nil {
		l.handle = make(l)
	}
	return l.handle
}

type loadKey struct{}

// LoadOf returns the load whose loader ctx was made for, nil if there is none.
func LoadOf(ctx context.Context) *Load {
	l, _ := ctx.Value(loadKey{}).(*Load)
	return l
}

// outsideLoads returns ctx as that of a load which no other load waits for.
func outsideLoads(ctx context.Context) context.Context {
	return context.WithValue(ctx, loadKey{}, (*Load)(nil))
}

// parentOf is LoadOf for a context whose caller may have left. Such a context may panic, and then is in no load.
func parentOf(ctx context.Context) (l *Load) {
	defer func() { _ = recover() }()
	return LoadOf(ctx)
}

// running returns l, or the nearest load around it, that has not ended. It returns nil if all have ended: the loader's context is used after
// the loader has returned.
func (l *Load) running() *Load {
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
	l.set(func() { l.own.ttl = d })
}

// longestRetry bounds RetryAfter.
const longestRetry = 10 * time.Minute

// RetryAfter sets when the next load begins at the earliest, if this one fails, unless it has ended.
func (l *Load) RetryAfter(d time.Duration) {
	l.set(func() { l.own.retryAfter = min(max(d, 0), longestRetry) })
}

// Stale sets for how long after their TTL the loaded values are served at once, in place of what the call or the policy says, unless the load has
// ended.
func (l *Load) Stale(d time.Duration) { l.set(func() { l.own.stale = &d }) }

// StaleIfError sets for how long after their TTL they are served where they cannot be loaded anew.
func (l *Load) StaleIfError(d time.Duration) { l.set(func() { l.own.onError = &d }) }

// ETag sets what the source calls the loaded values, unless the load has ended.
func (l *Load) ETag(tag string) { l.set(func() { l.own.etag = tag }) }

// NoStore keeps the loaded values from being stored, unless the load has ended.
func (l *Load) NoStore() { l.set(func() { l.own.noStore = true }) }

// Tag gives the loaded values further tags, which the loader could not know before, unless the load has ended.
func (l *Load) Tag(tags ...string) { l.set(func() { l.own.tags = append(l.own.tags, tags...) }) }

func (l *Load) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		change()
	}
}

// Of returns the Load of one key of a policy in a batch, nil if the batch does not load that key. For a load of one key it is l itself.
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

// refusedTags returns an error if a loader has named tags that cannot be used for a: too many, or not valid.
func (a *attempt) refusedTags(names []string) error {
	if len(names) == 0 {
		return nil
	}
	tags, err := tagNames(names)
	if err == nil {
		n := a.countTags(tags)
		if n <= keyspace.MaxTags {
			return nil
		}
		err = invalidArgument(strconv.Itoa(n) + " tags, at most " + strconv.Itoa(keyspace.MaxTags) + " allowed")
	}
	return &Error{Code: CodeInvalidArgument, Key: a.Key, Message: "Load.Tag: tags refused", Err: err}
}

// countTags is how many tags a has with late ones, without those of its policy.
func (a *attempt) countTags(late []string) int {
	n := len(a.Tags) - len(a.Policy.Tags)
	slices.Sort(late)
	for _, tag := range slices.Compact(late) {
		if !a.has(tag) {
			n++
		}
	}
	return n
}

// refusedETag returns an error if an ETag cannot be stored.
func (a *attempt) refusedETag(etag string) error {
	if len(etag) <= wire.MaxETag && !strings.ContainsFunc(etag, unicode.IsControl) {
		return nil
	}
	return &Error{
		Code: CodeInvalidArgument, Key: a.Key,
		Message: fmt.Sprintf("Load.ETag: %.50q… has %d bytes: use at most %d, and no control characters", etag, len(etag), wire.MaxETag),
	}
}

// A portion is a part of the ids of a load, which its loader gets in one call.
type portion struct {
	load     *Load
	from, to int // of load's attempts
}

type portionKey struct{}

// InPortion returns the context for a call of the loader of ctx with the ids from one index to another.
func InPortion(ctx context.Context, from, to int) context.Context {
	l := LoadOf(ctx)
	if l == nil || from == 0 && to == len(l.attempts) {
		return ctx
	}
	return context.WithValue(ctx, portionKey{}, portion{l, from, to})
}

// PerID returns contexts in which each of the n ids of a call of the loader has a Load of its own.
func (l *Load) PerID(ctx context.Context, n int) func(i int) context.Context {
	shared := func(int) context.Context { return ctx }
	if l == nil {
		return shared
	}
	p, ok := ctx.Value(portionKey{}).(portion)
	if !ok || p.load != l { // a portion of a load around l, whose values ctx has too
		p = portion{l, 0, len(l.attempts)}
	}
	if n != p.to-p.from {
		return shared
	}
	l.mu.Lock()
	each := l.shares()[p.from:p.to]
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

// A decision is what a loader has decided about a value by its Load.
type decision struct {
	ttl        time.Duration // 0: the policy's
	noStore    bool
	tags       []string
	retryAfter time.Duration  // 0: as after any failure
	stale      *time.Duration // nil: the call's or the policy's
	onError    *time.Duration // nil: likewise
	etag       string
}

// decision returns the decision about the value of attempt i, once the load has ended.
func (l *Load) decision(i int) decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.own
	if l.each != nil {
		own := l.each[i].decision(0)
		d.ttl, d.noStore, d.tags = cmp.Or(own.ttl, d.ttl), d.noStore || own.noStore, slices.Concat(d.tags, own.tags)
		d.retryAfter, d.etag = cmp.Or(own.retryAfter, d.retryAfter), cmp.Or(own.etag, d.etag)
		d.stale, d.onError = cmp.Or(own.stale, d.stale), cmp.Or(own.onError, d.onError)
	}
	return d
}

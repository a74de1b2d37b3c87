package engine

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// A loader may ask its source whether the cached value is still right. If it is, the value counts as loaded anew: it gets new times, and is not
// transferred again. In Redis only its head is written.
//
// The source speaks of the value alone, and knows nothing of what was invalidated. So a value counts as the previous one only if none of the
// generations that it carries had changed before the load began:
//
//  1. A value carries a tag. The tag is invalidated.
//  2. A load begins, and reads the value in Redis. The source answers that it is not modified.
//  3. The value must not come back with new times.
//
// The value keeps the generations that it carries. So an invalidation that comes later, during the load too, ends it like any value.

// A prior is the cached value of a key whose value is loaded anew, as it was before the load began.
type prior struct {
	etag     string
	loadedAt int64         // on the cache's clock
	took     time.Duration // how long its load took
	carried  tags.Capture  // the generations that it carries in Redis
	entry    *near.Entry   // in memory mode

	// Of a value in Redis:
	header wire.Header
	head   []byte          // the head that a restamp replaces; nil if there is none
	size   int64           // of the value in Redis, with its chunks
	read   redisstore.Read // a small value as a whole, of a large one its manifest; without a value if only its head was read

	mu    sync.Mutex
	value any // a pointer to it, or its encoded form; nil until it is needed; guarded by mu
}

// longestPriorHead is how many bytes of a value are read where only its head is needed. The head of a value with very many tags is longer.
const longestPriorHead = 2 << 10

// notePrior notes a value in Redis as the one that a's load may find to be not modified. Whether its tags were invalidated is not looked at yet.
func (e *Engine) notePrior(ctx context.Context, a *attempt, r redisstore.Read) {
	h, size, need, err := wire.Peek(e.named(a.Key), r.Value)
	if err != nil || !h.Extended || h.Negative || a.otherOwner(h.Policy) != nil || !e.servable(a, &h) {
		return
	}
	if len(r.Value) < need {
		r = e.Store.Get(ctx, redisstore.Get{Key: a.Key, Fence: a.fence, Head: need})[0]
		nonce, ok := wire.HeadNonce(r.Value)
		if r.Err != nil || !ok || nonce != h.Nonce || len(r.Value) < need {
			return
		}
		if h, size, _, err = wire.Peek(e.named(a.Key), r.Value); err != nil {
			return
		}
	}
	p := &prior{etag: h.ETag, took: h.LoadDuration, header: h, head: r.Value[:need], size: size}
	out, _, _ := e.onThisClock(a, &h)
	p.loadedAt = out.LoadedAt
	if !a.headAlone() {
		p.read = r
	}
	for _, entry := range []*near.Entry{a.held(), e.oldEntry(a)} {
		if entry != nil && wire.Nonce(entry.Plan.Nonce) == h.Nonce && fits(entry.Value, a.Type) {
			p.value = entry.Value
			break
		}
	}
	a.prior = p
}

// held is the entry that a load in the background is to replace.
func (a *attempt) held() *near.Entry {
	if a.old == nil || a.old.Plan == nil {
		return nil
	}
	return a.old
}

// oldEntry is the entry in memory that is not dead yet, with a plan.
func (e *Engine) oldEntry(a *attempt) *near.Entry {
	if entry, _ := e.Near.Old(a.Key); entry != nil && entry.Plan != nil && a.sameOwner(entry) {
		return entry
	}
	return nil
}

// judgePrior drops the previous value if one of its tags was invalidated before the load, or may have been. It is called when the value has been
// read, since its loader may be called without a lease, and when the lease is granted: see takeLeases.
func judgePrior(m *tags.Snapshot, a *attempt) {
	if a.prior == nil {
		return
	}
	var is tags.Standing
	if is, _ = m.Judge(&a.prior.carried, a.prior.header.Tags, a.Policy.Tags, true, 0); is != tags.Current {
		a.prior = nil
	}
}

// notePriorHere notes the value in memory, in memory mode.
func (e *Engine) notePriorHere(a *attempt) {
	a.prior = nil
	entry := e.oldEntry(a)
	if entry == nil || a.Replace || IsAbsent(entry.Value) || !fits(entry.Value, a.Type) {
		return
	}
	a.prior = &prior{etag: entry.Plan.ETag, loadedAt: entry.LoadedAt, entry: entry, value: entry.Value, took: entry.LoadTime}
	if a.reason == ReasonNotCached && !e.Clock.Before(entry.Plan.FreshUntil) {
		a.reason = ReasonExpired
	}
}

// valueOfPrior returns the previous value of a. If memory does not hold it, it is read in Redis and decoded.
func (e *Engine) valueOfPrior(ctx context.Context, a *attempt) (value any, ok bool) {
	p := a.prior
	if p == nil {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.value == nil {
		p.value = e.readPrior(ctx, a)
	}
	return p.value, p.value != nil
}

// readPrior reads and decodes the previous value, nil if that fails. What it finds out about the value says nothing about a.
func (e *Engine) readPrior(ctx context.Context, a *attempt) any {
	p, b := a.prior, a.again()
	ctx, cancel := e.budget(ctx, b)
	defer cancel()
	r := p.read
	if r.Value == nil {
		if r = e.Store.Get(ctx, redisstore.Get{Key: b.Key})[0]; r.Err != nil {
			return nil
		}
	}
	b.tolerant, b.Strong, b.Replace = true, false, false
	v, ok := e.openEnvelope(ctx, b, r)
	if !ok || v.header.Nonce != p.header.Nonce {
		return nil
	}
	value, _ := e.valueOf(&v)
	return value
}

// A Previous is what a loader gets to know of the cached value.
type Previous struct {
	ETag  string
	Age   time.Duration // since its load began
	Value any           // a pointer to the value, or the encoded value of a policy with CloneOnRead: see Copy
}

// Previous returns the cached value of the load's only key, if it may be served where the load fails, and was not invalidated.
func (l *Load) Previous(ctx context.Context, typ reflect.Type) (Previous, bool) {
	if l == nil || len(l.attempts) != 1 {
		return Previous{}, false
	}
	a, running := l.attempts[0], false
	l.set(func() { running = true })
	if !running || a.Type != typ {
		return Previous{}, false
	}
	value, ok := l.engine.valueOfPrior(ctx, a)
	if !ok {
		return Previous{}, false
	}
	return Previous{a.prior.etag, time.Duration(max(0, l.engine.Clock.Now()-a.prior.loadedAt)), value}, true
}

var errNoPrevious = errors.New("there is no cached value that could be kept: return ErrNotModified only if Previous has returned one")

// keepPrior makes the previous value the result of a load whose source says that it is not modified.
func (e *Engine) keepPrior(ctx context.Context, a *attempt) {
	if !a.NotModified {
		return
	}
	value, ok := e.valueOfPrior(ctx, a)
	if !ok {
		a.Loaded = Loaded{Err: &Error{Code: CodeInvalidArgument, Key: a.Key, Message: "the loader returned ErrNotModified", Err: errNoPrevious}}
		return
	}
	a.Loaded = Loaded{Value: value, NotModified: true}
}

// inherit gives a what its previous value carries, and reports whether that has tags which a's request does not name.
func (a *attempt) inherit() (late bool) {
	p := a.prior
	if a.etag == "" {
		a.etag = p.etag
	}
	a.took = max(a.took, p.took/2) // the next load may find a new value, which takes longer; but one slow answer is forgotten
	own := a.Tags[:len(a.Tags):len(a.Tags)]
	for _, t := range p.carried.Tags {
		if !a.has(t.Tag) {
			own = append(own, t.Tag)
			a.captured.Tags = append(a.captured.Tags, t)
		}
	}
	if p.head == nil { // memory mode: the entry's validities stand for the generations
		names, _ := keyspace.NamedTags(p.entry.Scope.Tags)
		for _, tag := range names {
			if !a.has(tag) {
				own = append(own, tag)
			}
		}
	}
	late = len(own) > len(a.Tags)
	a.Tags = own
	return late
}

// overTags reports whether a has more tags, those that its loader has named included, than an entry takes: each load may name others.
func (a *attempt) overTags(names []string) bool {
	late, err := tagNames(names)
	return err == nil && a.countTags(late) > keyspace.MaxTags
}

// withPrior adds the validities that the previous value rests on, in memory mode.
func (a *attempt) withPrior(list []*near.Validity) []*near.Validity {
	if !a.NotModified {
		return list
	}
	for _, v := range a.prior.entry.Scope.Validities {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// longestCopied is up to what size Redis copies a value in one piece that gets a head of another length, as with another ETag. To copy 256 KiB
// takes Redis a millisecond.
const longestCopied = 8 << 10

var errLongCopy = errors.New("longer than Redis is to copy")

// restampHead makes what replaces the head of a value in Redis that is not modified.
func (e *Engine) restampHead(a *attempt) (redisstore.Restamping, error) {
	p, h := a.prior, a.header()
	head, err := wire.Restamp(e.named(a.Key), p.head, h)
	if err != nil {
		return redisstore.Restamping{}, err
	}
	r := redisstore.Restamping{Key: a.Key, Nonce: a.nonceText, Previous: p.header.Nonce, Head: head, Replaces: len(p.head), Until: h.DeadUntil}
	if !wire.IsChunked(head) && len(head) != len(p.head) && p.size > longestCopied {
		return r, errLongCopy
	}
	if wire.IsChunked(head) {
		m, err := wire.ReadManifest(e.named(a.Key), head, e.limits())
		if err != nil {
			return r, err
		}
		r.Payload, r.Chunks = p.header.Payload.String(), m.Chunks
		a.payload = p.header.Payload
	}
	return r, nil
}

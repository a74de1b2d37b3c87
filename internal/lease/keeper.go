// Package lease renews the leases of loads until their values are stored, and releases leases, also after an outage.
package lease

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A Keeper renews and releases the leases of a cache's loads. One timer serves all of them, and those that are due are renewed in one round trip.
type Keeper struct {
	store    *redisstore.Store
	life     time.Duration   // of a lease
	maxValue int64           // bytes of the largest value
	run      func(f func())  // runs f in the background
	toReturn *leasesToReturn // that Redis did not confirm

	mu    sync.Mutex
	held  list.List   // of *Held, those that are renewed next first; guarded by mu
	timer *time.Timer // fires when the first ones are due; nil until it is needed; guarded by mu
	armed bool        // the timer runs; guarded by mu
}

// NewKeeper makes one. Leases live for life, values have at most maxValue bytes, and run runs a function in the background.
func NewKeeper(store *redisstore.Store, life time.Duration, maxValue int, run func(f func())) *Keeper {
	return &Keeper{store: store, life: life, maxValue: int64(maxValue), run: run, toReturn: newLeasesToReturn()}
}

// A Lease is one that a load holds.
type Lease struct {
	Key, Nonce  string
	LoadTimeout time.Duration // bounds how long its value may take to encode
	Holder      Holder

	until time.Time // when it expires by the last reply of Redis; guarded by the keeper's mu
}

// A Holder is what has a lease.
type Holder interface {
	LeaseLost()    // the lease is no longer held, or must not be used any more
	LeaseDoubted() // the lease may have expired: Redis has not confirmed a renewal in time
}

// Held are the leases of one load. The zero value has none.
type Held struct {
	keeper *Keeper

	// All guarded by the keeper's mu.
	place  *list.Element // nil when they are not renewed any more
	leases []*Lease
	few    [1]*Lease // room for leases
	due    time.Time // when they are renewed
	loaded time.Time // when the loader has returned; zero before that
}

// Hold renews leases until their values are stored. Whoever holds them calls ContextEnded if the load's context ends.
func (k *Keeper) Hold(leases ...*Lease) *Held {
	if len(leases) == 0 {
		return new(Held)
	}
	now := time.Now()
	for _, l := range leases {
		l.until = now.Add(k.life)
	}
	h := &Held{keeper: k, due: now.Add(k.life / 3)}
	h.leases = append(h.few[:0], leases...)
	k.mu.Lock()
	h.place = k.held.PushBack(h)
	k.arm()
	k.mu.Unlock()
	return h
}

// Loaded says that the loader has returned. The end of the load's context no longer matters.
func (h *Held) Loaded() {
	if h.keeper == nil {
		return
	}
	h.keeper.mu.Lock()
	defer h.keeper.mu.Unlock()
	h.loaded = time.Now()
}

// Stored ends the renewal. The values are stored, or will not be.
func (h *Held) Stored() {
	if h.keeper == nil {
		return
	}
	h.keeper.mu.Lock()
	defer h.keeper.mu.Unlock()
	h.drop()
}

// ContextEnded releases the leases, unless the values are loaded: the load's time is up, or no caller waits any more. A loader that hangs must not
// block other processes.
func (h *Held) ContextEnded() {
	if h.keeper == nil {
		return
	}
	h.keeper.mu.Lock()
	var leases []*Lease
	if h.loaded.IsZero() {
		leases = h.drop()
	}
	h.keeper.mu.Unlock()
	h.keeper.Release(requestsOf(leases))
}

// drop ends the renewal, and returns the leases that were renewed until then. It requires the keeper's mu.
func (h *Held) drop() []*Lease {
	if h.place == nil {
		return nil
	}
	h.keeper.held.Remove(h.place)
	h.place = nil
	return h.leases
}

// arm starts the timer where it is needed. It requires mu.
func (k *Keeper) arm() {
	first := k.held.Front()
	if first == nil || k.armed {
		return
	}
	k.armed = true
	wait := time.Until(first.Value.(*Held).due)
	if k.timer == nil {
		k.timer = time.AfterFunc(wait, func() { k.run(k.renewDue) })
	} else {
		k.timer.Reset(wait)
	}
}

// renewDue renews the leases that are due, and those that soon will be.
func (k *Keeper) renewDue() {
	now := time.Now()
	var due []renewal
	var hung []*Lease
	k.mu.Lock()
	k.armed = false
	for e := k.held.Front(); e != nil && e.Value.(*Held).due.Sub(now) < k.life/12; e = k.held.Front() {
		h := e.Value.(*Held)
		if !h.loaded.IsZero() && now.Sub(h.loaded) > k.timeToStore(h.leases) {
			hung = append(hung, h.drop()...) // a codec hangs, which must not block other processes either
			continue
		}
		h.due = now.Add(k.life / 3)
		k.held.MoveToBack(e)
		for _, l := range h.leases {
			due = append(due, renewal{h, l})
		}
	}
	k.arm() // the next ones do not wait for a server that hangs
	k.mu.Unlock()
	for _, l := range hung {
		l.Holder.LeaseLost()
	}
	k.Release(requestsOf(hung))
	if len(due) > 0 {
		k.renew(due)
	}
}

// A renewal is that of one lease of a load.
type renewal struct {
	of    *Held
	lease *Lease
}

// timeToStore bounds how long the leases of loaded values are renewed: for as long as a load may take, and what the largest values need.
func (k *Keeper) timeToStore(leases []*Lease) time.Duration {
	var encoding time.Duration
	for _, l := range leases {
		encoding = max(encoding, l.LoadTimeout)
	}
	sending, cancel := k.store.Budget(context.Background(), k.maxValue*int64(len(leases)), len(leases))
	defer cancel()
	until, _ := sending.Deadline()
	return time.Until(until) + encoding
}

// renew renews leases, and goes on with those that may still be held. Redis does not always push the loss of a lease: it pushes changes of the
// key, which was missing before and still is. Without Lost and Doubted later callers would join the load:
//
//  1. A load of K runs here under the lease L.
//  2. Redis evicts L, or L expires while this process is suspended.
//  3. Another process changes the source and invalidates K. There is nothing to remove, and no process is notified.
//  4. A caller comes here. It must not get the value that was loaded before step 3.
func (k *Keeper) renew(due []renewal) {
	reqs := make([]redisstore.Request, len(due))
	for i, r := range due {
		reqs[i] = redisstore.Request{Key: r.lease.Key, Nonce: r.lease.Nonce}
	}
	ctx, cancel := k.store.Budget(context.Background(), 0, len(due))
	defer cancel()
	asked := time.Now()
	held, errs := k.store.Renew(ctx, reqs...)
	for i, r := range due {
		switch k.renewed(r, asked, held[i], errs[i]) {
		case lost:
			r.lease.Holder.LeaseLost()
		case doubted:
			r.lease.Holder.LeaseDoubted()
		}
	}
}

// A state is what the reply to a renewal says of a lease.
type state int

const (
	unchanged state = iota
	lost
	doubted
)

// renewed notes the reply to the renewal of a lease.
func (k *Keeper) renewed(r renewal, asked time.Time, held bool, err error) state {
	h, l := r.of, r.lease
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case h.place == nil: // it has ended meanwhile
		return unchanged
	case err == nil && held:
		l.until = asked.Add(k.life)
		return unchanged
	case err == nil:
		h.leases = slices.DeleteFunc(h.leases, func(other *Lease) bool { return other == l })
		if len(h.leases) == 0 {
			h.drop()
		}
		return lost
	case !time.Now().Before(l.until):
		// A failed renewal does not end the lease: it may have been carried out, or the next one may be in time, and the fill
		// finds out. But the lease may also have expired by now.
		return doubted
	}
	return unchanged
}

func requestsOf(leases []*Lease) (reqs []redisstore.Request) {
	for _, l := range leases {
		reqs = append(reqs, redisstore.Request{Key: l.Key, Nonce: l.Nonce})
	}
	return reqs
}

package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside"
)

// hurry is how long those wait who are in one.
func hurry(random *rand.Rand) time.Duration {
	return 5*time.Millisecond + time.Duration(random.Int64N(int64(15*time.Millisecond)))
}

// deadline gives the next reads a context: one in eight times a short one, one in four times one without a deadline, and otherwise
// one that is longer than reads take, so that nobody waits for a source that hangs for as long as it does.
func (t *tape) deadline() (over func()) {
	limit := time.Second
	switch n := t.random.IntN(8); {
	case n == 0:
		t.w.hasty.Add(1)
		limit = hurry(t.random)
	case n < 3:
		t.ctx = context.Background()
		return func() {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.ctx = ctx
	return func() {
		cancel()
		t.ctx = context.Background()
	}
}

const (
	visitors   = 48 // at a time, of a process
	visitEvery = 4 * time.Millisecond
)

// visits has somebody come by every now and then who asks for one key, whatever those do who came before.
func (w *worker) visits(random *rand.Rand) {
	w.passing = make(chan *tape, visitors)
	for range visitors {
		w.passing <- w.newTape(random)
	}
	own := rand.New(rand.NewPCG(random.Uint64(), 0))
	w.busy.Go(func() {
		for w.rest(rand.N(2 * visitEvery)) {
			key := own.IntN(keyCount)
			if w.Apart && batchOnly(key, w.Role) {
				continue
			}
			w.visit(func(t *tape) { t.read(t.quickDoor(key), key) })
		}
		for range visitors {
			<-w.passing
		}
	})
}

// visit does something on a tape of its own, if there is one left.
func (w *worker) visit(do func(t *tape)) {
	select {
	case t := <-w.passing:
		w.busy.Go(func() {
			defer func() {
				t.flush()
				w.passing <- t
			}()
			if t.random.IntN(3) == 0 {
				w.hasty.Add(1)
				ctx, cancel := context.WithTimeout(context.Background(), hurry(t.random))
				t.ctx = ctx
				defer func() {
					cancel()
					t.ctx = context.Background()
				}()
			}
			do(t)
		})
	default:
	}
}

const (
	leastBatch = 1100 // ids
	mostBatch  = 4000
	hugeBatch  = 6000 // of the worker whose replies can be held back
	others     = 6000 // ids that nobody judges, of each group that has large batches
	batchEvery = 200 * time.Millisecond
)

// isOther reports whether an id is one that nobody judges.
func isOther(id string) bool { return strings.HasPrefix(id, "x") }

// largeBatches reads some keys together with thousands of others, for which Redis is asked in several portions, and meanwhile those
// alone too, some in a hurry. In a schedule in which everything is invalidated again and again, so many values cost more than they
// show: there are few then.
func (w *worker) largeBatches(random *rand.Rand) {
	t := w.newTape(random)
	every := batchEvery
	switch {
	case !w.Apart:
		every *= 5
	case w.Role == 0: // whose replies can be held back
		every /= 10
	}
	w.busy.Go(func() {
		defer t.flush()
		for w.rest(every/2 + rand.N(every)) {
			w.largeBatch(t)
		}
	})
}

func (w *worker) largeBatch(t *tape) {
	g := t.random.IntN(batchGroups)
	var keys keySet
	for range 1 + t.random.IntN(6) {
		keys |= one(g*groupSize + t.random.IntN(groupSize))
	}
	if w.Apart {
		keys = (1<<groupSize - 1) << (g * groupSize)
	}
	d, opts, n := doorMany, t.tags[g], leastBatch
	if t.random.IntN(4) > 0 {
		d, opts = doorStrongMany, t.strong[g] // so that Redis is asked for all of them
	}
	switch {
	case !w.Apart:
		n += t.random.IntN(400)
	case w.Role == 0 && t.random.IntN(2) == 0:
		n = 2100 + t.random.IntN(hugeBatch-2100)
	case t.random.IntN(4) > 0:
		n += t.random.IntN(mostBatch - leastBatch)
	}
	ids := make([]string, 0, n)
	for at := t.random.IntN(others); len(ids) < n; at++ {
		ids = append(ids, "x"+groups[g].letter+strconv.Itoa(at%others))
	}
	keys.each(func(k int) { ids[t.random.IntN(1000)] = idOf(k) }) // in the first portion
	w.batches.Add(1)
	w.ids.Add(uint64(n))
	over := make(chan struct{})
	defer close(over)
	keys.each(func(k int) { w.alone(k, over) })
	policy := &groups[g].policy
	ctx, caller := t.calling()
	call := now()
	values, err := aside.GetOrLoadMany(ctx, w.cache, ids, func(id string) aside.Key { return policy.Key(id) },
		func(ctx context.Context, ids []string) (map[string]value, error) {
			return w.loadMany(ctx, &groups[g], ids)
		}, opts...)
	ret := now()
	if err == nil {
		caller.answered.Store(ret)
	}
	keys.each(func(k int) {
		if slices.Contains(ids, idOf(k)) { // another one may have taken its place
			v, err := ofBatch(values, err, idOf(k))
			t.note(read{key: uint8(k), door: d, call: call, ret: ret}, v, err)
		}
	})
}

// alone reads a key by itself, again and again while a batch with it is under way: with short deadlines until one ends before the
// answer, then once without, whose answer may be taken for the batch's.
func (w *worker) alone(key int, over <-chan struct{}) {
	w.visit(func(t *tape) {
		before := t.ctx
		defer func() { t.ctx = before }()
		rest := func(most time.Duration) bool {
			select {
			case <-over:
				return false
			case <-time.After(rand.N(most)):
				return true
			}
		}
		for {
			for left := false; !left; {
				ctx, cancel := context.WithTimeout(context.Background(), hurry(t.random))
				t.ctx = ctx
				w.hasty.Add(1)
				t.read(doorGet, key)
				left = ctx.Err() != nil
				cancel()
				if !rest(6 * time.Millisecond) {
					return
				}
			}
			t.ctx = context.Background()
			t.read(doorGet, key)
			if !rest(60 * time.Millisecond) {
				return
			}
		}
	})
}

// watchHealth notes when the cache says that Redis is not in use.
func (w *worker) watchHealth() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	inUse, last, since := true, now(), time.Time{}
	for {
		h := w.cache.Health()
		at := now()
		up := h.State == aside.StateConnected
		switch {
		case up && !inUse:
			w.session.send(frameRecords, appendHealth(nil, true, at))
		case !up && inUse:
			w.session.send(frameRecords, appendHealth(nil, false, last))
		case up && !since.IsZero() && !h.Since.Equal(since): // it was away in between
			w.session.send(frameRecords, appendHealth(appendHealth(nil, false, last), true, at))
		}
		inUse, last, since = up, at, h.Since
		select {
		case <-w.ended:
			return
		case <-tick.C:
		}
	}
}

// pauses is JSON that now and then takes its time, as when a process is not scheduled between a reply and what it does with it.
var pauses = &pausing{}

type pausing struct {
	next  atomic.Int64 // when
	count atomic.Uint64
}

// Name implements aside.Codec.
func (*pausing) Name() string { return "pausing" }

// Marshal implements aside.Codec.
func (*pausing) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal implements aside.Codec.
func (p *pausing) Unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	if next, at := p.next.Load(), now(); at > next && p.next.CompareAndSwap(next, at+int64(50*time.Millisecond+rand.N(300*time.Millisecond))) && next > 0 {
		p.count.Add(1)
		time.Sleep(10*time.Millisecond + rand.N(150*time.Millisecond))
	}
	return err
}

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/gatewayz/aside"
)

// A tape records what one goroutine does. It is not for several.
type tape struct {
	w       *worker
	random  *rand.Rand
	records []byte
	sent    int64            // when records were sent last
	ctx     context.Context  // of the reads, for now
	failed  bool             // whether the last read failed as the source did
	again   keySet           // what is to be changed once more
	hoard   [keyCount]uint32 // what a broken worker has seen once, plus one
	loads   [keyCount]func(context.Context) (value, error)
	keys    [keyCount]aside.Key
	tags    [len(groups)][]aside.CallOption
	strong  [len(groups)][]aside.CallOption
	refresh [len(groups)][]aside.CallOption
}

func (w *worker) newTape(random *rand.Rand) *tape {
	t := &tape{w: w, ctx: context.Background(), random: rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))}
	for k := range keyCount {
		g := groupOf(k)
		t.keys[k] = g.policy.Key(idOf(k))
		t.loads[k] = func(ctx context.Context) (value, error) { return w.load(ctx, k) }
	}
	for i := range groups {
		if len(groups[i].tags) > 0 {
			t.tags[i] = []aside.CallOption{aside.WithTags(groups[i].tags...)}
		}
		t.refresh[i] = append([]aside.CallOption{aside.Refresh()}, t.tags[i]...)
		t.strong[i] = append([]aside.CallOption{aside.Strong()}, t.tags[i]...)
		if w.Broken == brokenWeak {
			t.strong[i] = t.tags[i]
		}
	}
	return t
}

// often is how often each of the doors is taken, of a thousand times.
var often = [readDoors]int{
	doorLoad: 240, doorMany: 100, doorLoader: 200, doorLoaderMany: 90, doorLookup: 200, doorGet: 30, doorRefresh: 5, doorStrong: 120, doorStrongMany: 15,
}

func (t *tape) someDoor(key int) door {
	if t.w.Apart && shunned(key) {
		return [...]door{doorLoad, doorLoader, doorLookup, doorLoaderMany, doorMany}[t.random.IntN(5)]
	}
	n := t.random.IntN(1000)
	for d, share := range often {
		if n -= share; n < 0 {
			return door(d)
		}
	}
	panic("the shares of the doors do not add up to a thousand")
}

// quickDoor is one of those that memory can answer.
func (t *tape) quickDoor(key int) door {
	if t.w.Apart && shunned(key) {
		return [...]door{doorLoad, doorLoader, doorLookup}[t.random.IntN(3)]
	}
	return [...]door{doorLoad, doorLoader, doorLookup, doorGet}[t.random.IntN(4)]
}

// readAlong reads, in bursts, until the worker stops.
func (w *worker) readAlong(t *tape) {
	defer t.flush()
	for {
		for range 1 + t.random.IntN(8) {
			if key := t.random.IntN(keyCount); !w.Apart || !batchOnly(key, w.Role) || w.looking.Load() {
				t.burst(key)
			}
		}
		if now()-t.sent > int64(20*time.Millisecond) {
			t.flush()
		}
		if !w.rest(rand.N(2 * time.Millisecond)) {
			return
		}
	}
}

// burst reads a key again and again: who looks often sees a change at once. Every other time it takes any door and waits for
// what that takes, so that it often joins those who wait already; otherwise it goes on for as long as memory answers.
func (t *tape) burst(key int) {
	defer t.deadline()()
	t.read(t.someDoor(key), key)
	if t.random.IntN(2) == 0 {
		for n := t.random.IntN(12); n > 0 && t.ctx.Err() == nil; n-- {
			t.read(t.someDoor(key), key)
		}
		return
	}
	began := now()
	for n := t.random.IntN(400); n > 0 && now()-began < int64(time.Millisecond) && t.ctx.Err() == nil; n-- {
		t.read(t.quickDoor(key), key)
		if n%8 == 0 {
			runtime.Gosched() // nobody's reply is to wait behind all those who read
		}
	}
}

// rest reports false when the worker stops.
func (w *worker) rest(d time.Duration) bool {
	select {
	case <-w.stop:
		return false
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.stop:
		return false
	case <-timer.C:
		return true
	}
}

// sees reports whether a door gives a version.
func (t *tape) sees(d door, key int, version uint32) bool {
	got, ok := t.read(d, key)
	return got == version || !ok && !t.failed
}

// read takes a door to a key, and records what it gives: of a door to many, for some of the group's keys.
func (t *tape) read(d door, key int) (version uint32, ok bool) {
	if d == doorMany || d == doorLoaderMany || d == doorStrongMany {
		return t.readMany(d, key)
	}
	w, g := t.w, key/groupSize
	ctx, caller := t.calling()
	r := read{key: uint8(key), door: d, call: now()}
	var v value
	var err error
	look := func(opts []aside.CallOption) {
		var result aside.Result[value]
		result, err = aside.Lookup(ctx, w.cache, t.keys[key], t.loads[key], opts...)
		if v = result.Value; err == nil {
			w.requireETag(result, key)
			r.tier, r.status = indexOf(tierNames, string(result.Tier)), indexOf(statusNames, string(result.Status))
		}
	}
	switch d {
	case doorLoad:
		v, err = aside.GetOrLoad(ctx, w.cache, t.keys[key], t.loads[key], t.tags[g]...)
	case doorLoader:
		v, err = w.loaders[g].Get(ctx, idOf(key), t.tags[g]...)
	case doorLookup:
		look(t.tags[g])
	case doorStrong:
		look(t.strong[g])
	case doorRefresh:
		v, err = aside.GetOrLoad(ctx, w.cache, t.keys[key], t.loads[key], t.refresh[g]...)
	case doorGet:
		if v, err = aside.Get[value](ctx, w.cache, t.keys[key]); errors.Is(err, aside.ErrMiss) {
			return 0, false
		}
	}
	r.ret = now()
	if err == nil {
		caller.answered.Store(r.ret)
	}
	return t.note(r, v, err)
}

// note records a read, and complains of what must not be: an error, or another key's value.
func (t *tape) note(r read, v value, err error) (version uint32, ok bool) {
	key := int(r.key)
	t.failed = err != nil && t.w.Windows != nil && errors.Is(err, errSource)
	switch {
	case t.failed:
		t.w.failed.Add(1)
		return 0, false
	case err != nil && t.ctx.Err() != nil && errors.Is(err, t.ctx.Err()):
		t.w.left.Add(1)
		return 0, false
	case err != nil:
		t.w.session.fail("%s of %s: %v", r.door, keyName(key), err)
		return 0, false
	case v.Key != key || len(v.Padding) != groupOf(key).padding:
		t.w.session.fail("%s of %s gave a value of %s", r.door, keyName(key), keyName(v.Key))
		return 0, false
	}
	if t.w.Broken == brokenHoards && r.door == doorLoad && t.random.IntN(5) == 0 {
		if t.hoard[key] == 0 {
			t.hoard[key] = 1 + v.Version
		}
		v.Version = t.hoard[key] - 1
	}
	r.version = v.Version
	if t.records = appendRead(t.records, &r); len(t.records) > 16<<10 {
		t.flush()
	}
	return r.version, true
}

// readMany reads some keys of the group together, the one that was asked for among them.
func (t *tape) readMany(d door, key int) (version uint32, ok bool) {
	w, g := t.w, key/groupSize
	ctx, caller := t.calling()
	keys := one(key)
	for range 1 + t.random.IntN(3) {
		keys |= one(g*groupSize + t.random.IntN(groupSize))
	}
	if w.Apart {
		keys.each(func(k int) {
			if k != key && (batchOnly(k, w.Role) || d == doorStrongMany && shunned(k)) {
				keys &^= one(k)
			}
		})
	}
	var ids []string
	keys.each(func(k int) { ids = append(ids, idOf(k)) })
	policy := &groups[g].policy
	load := func(ctx context.Context, ids []string) (map[string]value, error) {
		return w.loadMany(ctx, &groups[g], ids)
	}
	var values map[string]value
	var err error
	call := now()
	switch d {
	case doorMany:
		values, err = aside.GetOrLoadMany(ctx, w.cache, ids, func(id string) aside.Key { return policy.Key(id) }, load, t.tags[g]...)
	case doorStrongMany:
		values, err = aside.GetOrLoadMany(ctx, w.cache, ids, func(id string) aside.Key { return policy.Key(id) }, load, t.strong[g]...)
	case doorLoaderMany:
		values, err = w.loaders[g].GetMany(ctx, ids, t.tags[g]...)
	}
	ret := now()
	if err == nil {
		caller.answered.Store(ret)
	}
	keys.each(func(k int) {
		v, err := ofBatch(values, err, idOf(k))
		got, noted := t.note(read{key: uint8(k), door: d, call: call, ret: ret}, v, err)
		if k == key {
			version, ok = got, noted
		}
	})
	return version, ok
}

// ofBatch is what a batch comes to for one id.
func ofBatch(values map[string]value, err error, id string) (value, error) {
	v, ok := values[id]
	if ok {
		return v, nil
	}
	if batch := (*aside.BatchError[string])(nil); errors.As(err, &batch) && batch.Errors[id] != nil {
		return v, batch.Errors[id]
	}
	return v, err
}

// flush sends the records to the judge.
func (t *tape) flush() {
	t.sent = now()
	if len(t.records) > 0 {
		t.w.session.send(frameRecords, t.records)
		t.records = t.records[:0]
	}
}

// writeAlong changes keys in the source, then invalidates them, until the worker stops.
func (w *worker) writeAlong(t *tape) {
	defer t.flush()
	longest := 40 * time.Millisecond
	if w.Apart {
		longest *= 25 // what went wrong once is to be seen before the next write mends it
	}
	for w.rest(rand.N(longest)) {
		t.write()
	}
}

// pick takes one to three of some keys.
func (t *tape) pick(from keySet) (some keySet) {
	for range 1 + t.random.IntN(3) {
		some |= one(t.one(from))
	}
	return some
}

// one takes one of some keys.
func (t *tape) one(from keySet) int {
	for k := t.random.IntN(keyCount); ; k = (k + 1) % keyCount {
		if from.has(k) {
			return k
		}
	}
}

func (t *tape) write() {
	w, ctx := t.w, context.Background()
	i := invalidation{door: doorAll, keys: everyKey, proc: w.Proc}
	invalidate := func() (aside.Receipt, error) { return w.cache.InvalidateAll(ctx) }
	from, n := everyKey, t.random.IntN(1000)
	if w.Apart {
		from, n = ownedBy(w.Role), t.random.IntN(600)
		if t.again != 0 {
			n = t.random.IntN(500)
		}
	}
	byPattern := func(text string) {
		i.door = doorPattern
		invalidate = func() (aside.Receipt, error) {
			pattern, err := aside.ParsePattern(text)
			if err != nil {
				return aside.Receipt{}, err
			}
			return w.cache.InvalidatePattern(ctx, pattern)
		}
	}
	switch {
	case n < 500:
		key := t.one(from)
		switch {
		case t.again != 0:
			key = t.again.first()
		case w.Apart && t.random.IntN(4) == 0: // batches are few
			if batch := from & batchKeys; batch != 0 {
				key = t.one(batch)
			}
		}
		i.keys = one(key)
		switch i.door = doorKey; {
		case w.Placed && key/groupSize == inMemoryAlone && n%2 == 0: // such values hear of patterns in a way of their own
			byPattern(keyName(key) + "*")
		case n < 200:
			i.door = doorLoaderInval
			invalidate = func() (aside.Receipt, error) { return w.loaders[key/groupSize].Invalidate(ctx, idOf(key)) }
		default:
			invalidate = func() (aside.Receipt, error) { return w.cache.Invalidate(ctx, t.keys[key]) }
		}
	case n < 600:
		i.door, i.keys = doorKeys, t.pick(from)
		invalidate = func() (aside.Receipt, error) {
			var keys []aside.Key
			i.keys.each(func(k int) { keys = append(keys, t.keys[k]) })
			return w.cache.Invalidate(ctx, keys...)
		}
	case n < 880:
		tag := tags[t.random.IntN(len(tags))]
		i.door, i.keys = doorTag, tagged(tag)
		invalidate = func() (aside.Receipt, error) { return w.cache.InvalidateTags(ctx, tag) }
	case n < 960:
		category := categories[t.random.IntN(len(categories))]
		i.door, i.keys = doorCategory, inCategory(category)
		invalidate = func() (aside.Receipt, error) { return w.cache.InvalidateCategory(ctx, category) }
	case n < 980:
		text := patterns[t.random.IntN(len(patterns))]
		i.keys = matching(text)
		byPattern(text)
	}
	changed := i.keys
	if i.door != doorKey && i.door != doorLoaderInval && i.door != doorKeys {
		changed = t.pick(i.keys)
	}
	setting := -1
	if w.Apart && w.Windows != nil && i.keys.count() == 1 && t.random.IntN(3) == 0 {
		setting = i.keys.first()
		w.changing[setting].Lock()
	} else if w.Apart {
		i.keys.each(func(k int) { w.changing[k].RLock() })
	}
	unlock := sync.OnceFunc(func() {
		if setting >= 0 {
			w.changing[setting].Unlock()
		} else if w.Apart {
			i.keys.each(func(k int) { w.changing[k].RUnlock() })
		}
	})
	defer unlock()
	if _, err := w.source.ask(askUpdate, changed); err != nil {
		w.session.fail("%v", err)
		return
	}
	receipt, err := aside.Receipt{Confirmed: true}, error(nil)
	forget := w.Broken == brokenForgets && t.random.IntN(20) == 0
	i.call = now()
	if !forget {
		receipt, err = invalidate()
	}
	i.ret = now()
	if err != nil {
		w.session.fail("%s: %v", i.door, err)
		return
	}
	seq := w.seq.Add(1)
	t.records = appendInvalidation(t.records, &i, seq, receipt.Confirmed)
	t.flush() // at once, so that it is known of though the process be killed
	if !receipt.Confirmed {
		w.receipts.Go(func() { w.awaitReceipt(receipt, i.door, seq) })
	}
	if setting >= 0 {
		t.set(setting)
	}
	unlock()
	// Nobody is as likely to see the old value as who asks at once.
	key := t.one(changed)
	t.read(t.someDoor(key), key)
	// What is changed is often changed again at once.
	if w.Apart && t.random.IntN(5) > 0 && w.rest(rand.N(30*time.Millisecond)) {
		t.again = one(key)
		t.write()
		t.again = 0
	}
}

// longestOutage is longer than all faults of a schedule together.
const longestOutage = 2 * time.Minute

func (w *worker) awaitReceipt(receipt aside.Receipt, d door, seq uint32) {
	ctx, cancel := context.WithTimeout(context.Background(), longestOutage)
	defer cancel()
	if err := receipt.Wait(ctx); err != nil {
		w.session.fail("%s was not confirmed: %v", d, err)
		return
	}
	w.session.send(frameRecords, appendConfirmation(nil, seq, now()))
}

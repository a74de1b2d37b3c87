package redisstore

import (
	"slices"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
)

// tracking listens to what the server says of the keys that were read through it. rueidis hands the messages of each
// connection to a CacheStore of its own, in the order in which they came; the ones given to it here store nothing.
//
// A read that is to be remembered is noted here before it is sent. Its connection is noted when the request goes out, and
// when the reply comes by that very connection, the fence of the read is armed and the connection's voucher handed out. A
// reply that has no request on its connection gets none: what is asked of the node of a cluster that is only about to get a key
// is not tracked. Reads of one key can be under way to several servers; the reply of one says nothing of the others.
type tracking struct {
	pushed func(key string) // told each key that somebody has changed
	gap    func()           // told when a connection has broken, or everything was flushed
	now    func() int64

	mu      sync.Mutex
	pending map[string][]*look       // guarded by mu
	probes  map[string]chan struct{} // keys whose change is waited for, and what is closed when it has come; guarded by mu
}

// A look is a tracked read under way.
type look struct {
	fence   *near.Fence
	to      *session      // that it is being sent to
	by      *wire         // that it was sent on
	voucher *near.Voucher // once its reply has come
}

// begin notes a read that is about to be sent. Without a fence there is nothing to note.
func (t *tracking) begin(key string, f *near.Fence) *look {
	if f == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending == nil {
		t.pending = make(map[string][]*look)
	}
	l := &look{fence: f}
	t.pending[key] = append(t.pending[key], l)
	return l
}

// sending notes where a read is about to be sent, also when it has been sent elsewhere before: nil is where nothing is tracked.
func (t *tracking) sending(l *look, to *session) {
	if l == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l.to, l.by, l.voucher = to, nil, nil
}

// end gives the voucher of a read, if its reply has come in the right way.
func (t *tracking) end(key string, l *look) *near.Voucher {
	if l == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := slices.DeleteFunc(t.pending[key], func(other *look) bool { return other == l })
	if t.pending[key] = rest; len(rest) == 0 {
		delete(t.pending, key)
	}
	return l.voucher
}

// expect has told closed when key is pushed, until calledOff.
func (t *tracking) expect(key string, told chan struct{}) (calledOff func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.probes == nil {
		t.probes = make(map[string]chan struct{})
	}
	t.probes[key] = told
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.probes[key] == told {
			delete(t.probes, key)
		}
	}
}

// expected reports whether key is one that a server is tried with.
func (t *tracking) expected(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	told, ok := t.probes[key]
	if told != nil {
		close(told)
		t.probes[key] = nil // later changes of the key are none of a user's either
	}
	return ok
}

// wire listens to one connection.
type wire struct {
	t       *tracking
	of      *session
	broken  func(cause error)
	mu      sync.Mutex
	voucher *near.Voucher // until the next gap; guarded by mu
	given   bool          // somebody has it; guarded by mu
}

// newWire is called for each connection that is made.
func (t *tracking) newWire(of *session, broken func(cause error)) *wire {
	return &wire{t: t, of: of, broken: broken, voucher: new(near.Voucher)}
}

// Flight notes that a request for key goes out on this connection. It answers that nothing is cached here. Of several reads
// of one key by one client nobody knows whose request this is; they are noted in their order.
func (w *wire) Flight(key, _ string, _ time.Duration, _ time.Time) (rueidis.RedisMessage, rueidis.CacheEntry) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	for _, l := range w.t.pending[key] {
		if l.to == w.of && l.by == nil {
			l.by = w
			break
		}
	}
	return rueidis.RedisMessage{}, nil
}

// Update is called in the place of a reply. Nor does anyone know whose reply this is: it counts for all reads of the key on
// this connection. One whose own reply is still to come is armed too early, which costs it its voucher if the key changes in
// between, and does no harm else.
func (w *wire) Update(key, _ string, _ rueidis.RedisMessage) int64 {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	for _, l := range w.t.pending[key] {
		if l.by == w && l.voucher == nil {
			l.fence.Arm()
			l.voucher = w.current()
		}
	}
	return 0
}

// Cancel is called when a request has failed, or its reply was an error.
func (w *wire) Cancel(key, _ string, _ error) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	for _, l := range w.t.pending[key] {
		if l.by == w {
			l.by, l.voucher = nil, nil
		}
	}
}

// Delete is called in the place of a push, with nil for a push that is about all keys.
func (w *wire) Delete(keys []rueidis.RedisMessage) {
	if keys == nil { // FLUSHALL and FLUSHDB: what was read is out of date, not merely in doubt
		w.replace(new(near.Voucher), (*near.Voucher).Withdraw)
		return
	}
	for _, k := range keys {
		if key, err := k.ToString(); err == nil && !w.t.expected(key) {
			w.t.pushed(key)
		}
	}
}

// doubt ends all that the connection has vouched for so far: it is sound, but its server may not have been told of changes.
func (w *wire) doubt() {
	w.replace(new(near.Voucher), func(v *near.Voucher) { v.Lose(w.t.now()) })
}

// Close is called when the connection has broken.
func (w *wire) Close(cause error) {
	none := new(near.Voucher)
	none.Lose(w.t.now())
	w.replace(none, func(v *near.Voucher) { v.Lose(w.t.now()) })
	w.broken(cause)
}

// replace ends all that the connection has vouched for.
func (w *wire) replace(next *near.Voucher, end func(*near.Voucher)) {
	w.mu.Lock()
	end(w.voucher)
	w.voucher, w.given = next, false
	w.mu.Unlock()
	w.t.gap()
}

// vouches reports whether there is something that the connection vouches for.
func (w *wire) vouches() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.given
}

func (w *wire) current() *near.Voucher {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given = true
	return w.voucher
}

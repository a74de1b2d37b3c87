package redisstore

import (
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
)

// tracking receives the server's pushes about the keys that were read. rueidis passes the messages of each connection, in their
// order, to a CacheStore of that connection. The CacheStores given to it here store nothing.
//
// A tracked read has a number of its own, which is part of its request: see trackedStart. rueidis passes the request along with
// the reply. So it is known which read a reply belongs to, and on which connection it came. At the position of the reply the fence
// of the read is armed, and the connection's validity is handed out.
//
// Every connection is in the mode in which the server tracks each key that is read (CLIENT TRACKING ON OPTOUT, and no read is ever
// opted out). So for every reply that has come, the server will push changes. With OPTIN, the request that enables tracking for
// one read can be refused while the read behind it is answered, and rueidis does not show that.
type tracking struct {
	pushed func(key string) // called with each key that another client has changed
	gap    func()           // called when a connection has broken, or everything was flushed
	now    func() int64

	mu      sync.Mutex
	pending map[uint64]*trackedRead // by their numbers; guarded by mu
	last    uint64                  // the number of the last read; guarded by mu
	probes  map[string][]*probe     // by the names of their keys; guarded by mu
}

// A trackedRead is a tracked read in progress.
type trackedRead struct {
	number   uint64 // of the last request for it, 0 where that is not tracked
	fence    *near.Fence
	validity *near.Validity // once its reply has come
}

// numberRead gives a read a new number each time that it is about to be sent. A read without a fence is nil, and needs nothing else.
func (t *tracking) numberRead(l *trackedRead) (number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	if l == nil {
		return t.last
	}
	delete(t.pending, l.number)
	if t.pending == nil {
		t.pending = make(map[uint64]*trackedRead)
	}
	l.number, l.validity = t.last, nil
	t.pending[l.number] = l
	return l.number
}

// reads is how many tracked reads were sent.
func (t *tracking) reads() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// markUntracked notes that a read is sent without tracking.
func (t *tracking) markUntracked(l *trackedRead) {
	if l == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pending, l.number)
	l.number, l.validity = 0, nil
}

// endRead returns the validity of a read, nil unless its reply came on a tracked connection.
func (t *tracking) endRead(l *trackedRead) *near.Validity {
	if l == nil || l.number == 0 { // a read that found no place to be sent must not wait for a lock either
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pending, l.number)
	return l.validity
}

// A tracked read is a GETRANGE whose start is so far before the beginning of every value that the server takes it for 0. The
// number of the read is in the lower digits of the start. All starts have the same length, since rueidis shows the arguments
// without a separator.
const (
	startBase   = 100_000_000_000_000_000
	startDigits = 18
)

func trackedStart(number uint64) int64 { return -startBase - int64(number) }

// numberOf parses the number of a read from its command as rueidis shows it: the name, then all arguments but the key.
func numberOf(cmd string) (number uint64, ok bool) {
	const before = "GETRANGE-"
	if len(cmd) < len(before)+startDigits || cmd[:len(before)] != before {
		return 0, false
	}
	n, err := strconv.ParseUint(cmd[len(before):len(before)+startDigits], 10, 64)
	if err != nil || n <= startBase {
		return 0, false
	}
	return n - startBase, true
}

// trackedConn receives the messages of one connection.
type trackedConn struct {
	t        *tracking
	session  *session
	broken   func(cause error)
	mu       sync.Mutex
	validity *near.Validity // valid until the next gap; guarded by mu
	missing  *near.Validity // likewise, for keys that were found missing; guarded by mu
	given    bool           // a read has got one of them; guarded by mu
}

// newConn is called for each connection that is made.
func (t *tracking) newConn(of *session, broken func(cause error)) *trackedConn {
	return &trackedConn{t: t, session: of, broken: broken, validity: new(near.Validity), missing: new(near.Validity)}
}

// Flight is called when a request is sent. Its answer says that nothing is cached here.
func (w *trackedConn) Flight(string, string, time.Duration, time.Time) (rueidis.RedisMessage, rueidis.CacheEntry) {
	return rueidis.RedisMessage{}, nil
}

// Update is called at the position of a reply that is no error.
func (w *trackedConn) Update(key, cmd string, reply rueidis.RedisMessage) int64 {
	number, ok := numberOf(cmd)
	if !ok {
		w.t.probeRead(w, key, reply)
		return 0
	}
	text, _ := reply.ToString()
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	if l := w.t.pending[number]; l != nil {
		l.fence.Arm()
		l.validity = w.issue(text == "")
	}
	return 0
}

// Cancel is called when a request has failed, or its reply was an error. Then there is no Update, and the read gets no validity.
func (w *trackedConn) Cancel(string, string, error) {}

// Delete is called at the position of a push, with nil for a push about all keys.
func (w *trackedConn) Delete(keys []rueidis.RedisMessage) {
	if keys == nil { // FLUSHALL and FLUSHDB: values that were read are out of date, not merely unconfirmed
		w.t.notifyFlush(w)
		w.revoke()
		return
	}
	for _, k := range keys {
		if key, err := k.ToString(); err == nil && !w.t.notifyProbe(w, key) {
			w.t.pushed(key)
		}
	}
}

// revoke ends all validities of the connection so far. The values that were read by it are out of date.
func (w *trackedConn) revoke() { w.endAll((*near.Validity).Revoke, false) }

// lapse ends all validities of the connection so far. The connection is sound, but its server may not have received all changes.
func (w *trackedConn) lapse() { w.endAll(w.lapseValidity, false) }

// lapseMissing is lapse for keys that were found missing. While a cluster node gives a slot away, it pushes changes of the keys
// that it has. A key that it does not have is created at the other node.
func (w *trackedConn) lapseMissing() {
	w.mu.Lock()
	w.lapseValidity(w.missing)
	w.missing = new(near.Validity)
	w.mu.Unlock()
	w.t.gap()
}

func (w *trackedConn) lapseValidity(v *near.Validity) { v.Lapse(w.t.now()) }

// Close is called when the connection has broken.
func (w *trackedConn) Close(cause error) {
	w.endAll(w.lapseValidity, true)
	w.broken(cause)
}

// endAll ends all validities of the connection. If the connection is over, later validities have lapsed from the beginning.
func (w *trackedConn) endAll(end func(*near.Validity), over bool) {
	w.mu.Lock()
	end(w.validity)
	end(w.missing)
	w.validity, w.missing, w.given = new(near.Validity), new(near.Validity), false
	if over {
		w.lapseValidity(w.validity)
		w.lapseValidity(w.missing)
	}
	w.mu.Unlock()
	w.t.gap()
}

// inUse reports whether a read has got a validity that has not ended.
func (w *trackedConn) inUse() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.given
}

// issue returns the validity for a reply.
func (w *trackedConn) issue(missing bool) *near.Validity {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.given {
		w.given = true
		signal(w.session.wake)
	}
	if missing {
		return w.missing
	}
	return w.validity
}

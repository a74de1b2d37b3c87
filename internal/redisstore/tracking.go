package redisstore

import (
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
)

// tracking listens to what the server says of the keys that were read through it. rueidis hands the messages of each
// connection to a CacheStore of its own, in the order in which they came; the ones given to it here store nothing.
//
// A read that is to be remembered has a number of its own, which travels in its request: see trackedStart. rueidis shows the
// request beside its reply, so it is known which read a reply belongs to, and by which connection it came. In the place of the
// reply the fence of the read is armed, and the connection's voucher handed out.
//
// Every connection is in the mode in which the server remembers each key that is read (CLIENT TRACKING ON OPTOUT, and no read is
// ever opted out), so a reply that has come is one that the server will tell of. With OPTIN, the request that switches it on for
// one read can be refused while the read behind it is answered, and rueidis does not show that.
type tracking struct {
	pushed func(key string) // told each key that somebody has changed
	gap    func()           // told when a connection has broken, or everything was flushed
	now    func() int64

	mu      sync.Mutex
	pending map[uint64]*trackedRead // by their numbers; guarded by mu
	last    uint64                  // the number of the last read; guarded by mu
	probes  map[string][]*probe     // by the names of keys that servers are tried with; guarded by mu
}

// A look is a tracked read under way.
type trackedRead struct {
	number  uint64 // of the request that was sent last, 0 where it is not tracked
	fence   *near.Fence
	voucher *near.Voucher // once its reply has come
}

// begin notes a read that is about to be sent. Without a fence there is nothing to note.
func (t *tracking) beginRead(f *near.Fence) *trackedRead {
	if f == nil {
		return nil
	}
	return &trackedRead{fence: f}
}

// sending gives a read that is about to be sent its number, another one each time that it is sent.
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
	l.number, l.voucher = t.last, nil
	t.pending[l.number] = l
	return l.number
}

// reads is how many there have been that were to be remembered.
func (t *tracking) reads() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// untracked notes that a read is sent where the server does not remember it.
func (t *tracking) markUntracked(l *trackedRead) {
	if l == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pending, l.number)
	l.number, l.voucher = 0, nil
}

// end gives the voucher of a read, if its reply has come in the right way.
func (t *tracking) endRead(l *trackedRead) *near.Voucher {
	if l == nil || l.number == 0 { // whoever found no place to be sent waits for no lock either
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pending, l.number)
	return l.voucher
}

// A tracked read is a GETRANGE whose start is so far before the beginning of every value that the server takes it for 0: the
// number of the read is in its lower digits. All starts have the same length, since rueidis shows the arguments without a
// separator.
const (
	startBase   = 100_000_000_000_000_000
	startDigits = 18
)

func trackedStart(number uint64) int64 { return -startBase - int64(number) }

// numberOf reads the number of a read from its command as rueidis shows it: the name, then all arguments but the key.
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

// wire listens to one connection.
type trackedConn struct {
	t       *tracking
	session *session
	broken  func(cause error)
	mu      sync.Mutex
	voucher *near.Voucher // until the next gap; guarded by mu
	missing *near.Voucher // likewise, for what was found missing; guarded by mu
	given   bool          // somebody has one of them; guarded by mu
}

// newWire is called for each connection that is made.
func (t *tracking) newConn(of *session, broken func(cause error)) *trackedConn {
	return &trackedConn{t: t, session: of, broken: broken, voucher: new(near.Voucher), missing: new(near.Voucher)}
}

// Flight is called when a request goes out. It answers that nothing is cached here.
func (w *trackedConn) Flight(string, string, time.Duration, time.Time) (rueidis.RedisMessage, rueidis.CacheEntry) {
	return rueidis.RedisMessage{}, nil
}

// Update is called in the place of a reply that is no error.
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
		l.voucher = w.issue(text == "")
	}
	return 0
}

// Cancel is called when a request has failed, or its reply was an error. Then there is no Update, and the read has no voucher.
func (w *trackedConn) Cancel(string, string, error) {}

// Delete is called in the place of a push, with nil for a push that is about all keys.
func (w *trackedConn) Delete(keys []rueidis.RedisMessage) {
	if keys == nil { // FLUSHALL and FLUSHDB: what was read is out of date, not merely in doubt
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

// withdraw ends all that the connection has vouched for so far, and has it be out of date.
func (w *trackedConn) revoke() { w.endAll((*near.Voucher).Withdraw, false) }

// doubt ends all that the connection has vouched for so far: it is sound, but its server may not have been told of changes.
func (w *trackedConn) lapse() { w.endAll(w.lapseVoucher, false) }

// doubtMissing is doubt for what was found missing. While a node of a cluster gives a slot away, it tells of what happens to the keys
// that it has. A key that it does not have is made at the other node.
func (w *trackedConn) lapseMissing() {
	w.mu.Lock()
	w.lapseVoucher(w.missing)
	w.missing = new(near.Voucher)
	w.mu.Unlock()
	w.t.gap()
}

func (w *trackedConn) lapseVoucher(v *near.Voucher) { v.Lose(w.t.now()) }

// Close is called when the connection has broken.
func (w *trackedConn) Close(cause error) {
	w.endAll(w.lapseVoucher, true)
	w.broken(cause)
}

// replace ends all that the connection has vouched for. One that is over vouches for nothing afterwards.
func (w *trackedConn) endAll(end func(*near.Voucher), over bool) {
	w.mu.Lock()
	end(w.voucher)
	end(w.missing)
	w.voucher, w.missing, w.given = new(near.Voucher), new(near.Voucher), false
	if over {
		w.lapseVoucher(w.voucher)
		w.lapseVoucher(w.missing)
	}
	w.mu.Unlock()
	w.t.gap()
}

// vouches reports whether there is something that the connection vouches for.
func (w *trackedConn) inUse() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.given
}

// current is what the connection vouches with for a reply now.
func (w *trackedConn) issue(missing bool) *near.Voucher {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.given {
		w.given = true
		signal(w.session.wake)
	}
	if missing {
		return w.missing
	}
	return w.voucher
}

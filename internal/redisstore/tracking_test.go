package redisstore

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
)

// A listener is a tracking whose connections a test plays, with a memory that gets the pushes.
type listener struct {
	*tracking
	memory *near.Cache
	client *session
	gaps   int
}

func newListener(t *testing.T) *listener {
	clock := near.NewClock()
	t.Cleanup(clock.Stop)
	l := &listener{memory: near.New(near.Options{MaxEntries: 100, MaxBytes: 1 << 20}, clock), client: new(session)}
	t.Cleanup(l.memory.Close)
	l.tracking = &tracking{pushed: l.memory.Push, gap: func() { l.gaps++ }, now: clock.Now}
	return l
}

func (l *listener) connect() *wire { return l.newWire(l.client, func(error) {}) }

// begin begins a read that is sent to the listener's client.
func (l *listener) begin(key string, f *near.Fence) *look {
	under := l.tracking.begin(key, f)
	l.sending(under, l.client)
	return under
}

// read plays a read of key up to its reply.
func (l *listener) read(t *testing.T, on *wire) (*near.Fence, *near.Voucher) {
	f := l.memory.Fence(key, nil)
	t.Cleanup(f.End)
	under := l.begin(key, f)
	send(on)
	on.Update(key, "GET", rueidis.RedisMessage{})
	return f, l.end(key, under)
}

func send(on *wire) { on.Flight(key, "GET", time.Hour, time.Now()) }

func push(on *wire) { on.t.pushed(key) }

func TestAReadIsVouchedForByItsConnection(t *testing.T) {
	t.Parallel()
	l := newListener(t)
	w := l.connect()
	f, v := l.read(t, w)
	require.True(t, v.Valid())
	require.False(t, f.Broken())
	push(w)
	require.True(t, f.Broken(), "what comes after the reply is about it")
	require.True(t, v.Valid(), "the connection goes on")
	require.Empty(t, l.pending)
	_, again := l.read(t, w)
	require.Same(t, v, again)
}

func TestAPushBeforeTheReplySaysNothingOfIt(t *testing.T) {
	t.Parallel()
	l := newListener(t)
	w := l.connect()
	f := l.memory.Fence(key, nil)
	defer f.End()
	under := l.begin(key, f)
	send(w)
	push(w)
	w.Update(key, "GET", rueidis.RedisMessage{})
	require.True(t, l.end(key, under).Valid())
	require.False(t, f.Broken())
}

// Hazard 6: rueidis sends a redirected command again on another connection, in a way that the server does not track.
func TestAReplyWithoutARequestOnItsConnectionGetsNoVoucher(t *testing.T) {
	t.Parallel()
	for name, play := range map[string]func(l *listener, asked, answered *wire){
		"no request at all":     func(*listener, *wire, *wire) {},
		"on another connection": func(_ *listener, asked, _ *wire) { send(asked) },
		"redirected": func(_ *listener, asked, _ *wire) {
			send(asked)
			asked.Cancel(key, "GET", errors.New("ASK"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(t)
			asked, answered := l.connect(), l.connect()
			f := l.memory.Fence(key, nil)
			defer f.End()
			under := l.begin(key, f)
			play(l, asked, answered)
			answered.Update(key, "GET", rueidis.RedisMessage{})
			require.Nil(t, l.end(key, under))
		})
	}
}

func TestSeveralReadsOfOneKeyAtTheSameTime(t *testing.T) {
	t.Parallel()
	l := newListener(t)
	w := l.connect()
	var fences [2]*near.Fence
	var under [2]*look
	for i := range fences {
		fences[i] = l.memory.Fence(key, nil)
		defer fences[i].End()
		under[i] = l.begin(key, fences[i])
		send(w)
	}
	w.Update(key, "GET", rueidis.RedisMessage{})
	push(w) // between the two replies
	w.Update(key, "GET", rueidis.RedisMessage{})
	for i, f := range fences {
		require.NotNil(t, l.end(key, under[i]))
		require.True(t, f.Broken(), "nobody knows which of the replies was whose")
	}
	require.Empty(t, l.pending)
}

// Hazard 19.
func TestTheEndOfAConnectionIsNothingToAnother(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*wire){
		"closed":  func(w *wire) { w.Close(errors.New("broken")) },
		"flushed": func(w *wire) { w.Delete(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(t)
			old, next := l.connect(), l.connect()
			_, before := l.read(t, old)
			f := l.memory.Fence(key, nil)
			defer f.End()
			under := l.begin(key, f)
			send(next)
			next.Update(key, "GET", rueidis.RedisMessage{})
			end(old)
			after := l.end(key, under)
			require.False(t, before.Valid())
			require.True(t, after.Valid())
			require.Equal(t, 1, l.gaps)
		})
	}
}

func TestAFlushedConnectionGoesOnAndAClosedOneDoesNot(t *testing.T) {
	t.Parallel()
	l := newListener(t)
	w := l.connect()
	_, first := l.read(t, w)
	w.Delete(nil)
	_, second := l.read(t, w)
	require.False(t, first.Valid())
	require.True(t, second.Valid())
	w.Close(errors.New("broken"))
	_, third := l.read(t, w)
	require.False(t, second.Valid())
	require.False(t, third.Valid())
}

// A read that was moved to another node is sent again there, and tracked there.
func TestAReadThatFailedOnOneConnectionIsVouchedForByTheNext(t *testing.T) {
	t.Parallel()
	l := newListener(t)
	first, second := l.connect(), l.connect()
	f := l.memory.Fence(key, nil)
	defer f.End()
	under := l.begin(key, f)
	send(first)
	first.Cancel(key, "GET", errors.New("MOVED"))
	l.sending(under, second.of)
	send(second)
	second.Update(key, "GET", rueidis.RedisMessage{})
	first.Close(errors.New("gone"))
	v := l.end(key, under)
	require.Same(t, second.current(), v)
	require.True(t, v.Valid())
	require.Empty(t, l.pending)
}

// Hazards 6, 19 and 20: while the table changes, reads of one key are under way to its old node and to its new one. Which of the
// requests goes out first, and which of the replies comes first, is anybody's guess.
func TestReadsOfOneKeyAtTwoNodesAreNotMistakenForEachOther(t *testing.T) {
	t.Parallel()
	l := newListener(t)
	old, next := l.newWire(new(session), func(error) {}), l.newWire(new(session), func(error) {})
	fences, under := [2]*near.Fence{}, [2]*look{}
	for i := range fences {
		fences[i] = l.memory.Fence(key, nil)
		defer fences[i].End()
		under[i] = l.tracking.begin(key, fences[i])
	}
	l.sending(under[0], old.of)
	l.sending(under[1], next.of)
	send(next)
	send(old)
	next.Update(key, "GET", rueidis.RedisMessage{})
	push(next)
	old.Update(key, "GET", rueidis.RedisMessage{})
	require.Same(t, old.current(), l.end(key, under[0]))
	require.Same(t, next.current(), l.end(key, under[1]))
	require.True(t, fences[1].Broken(), "what came after its own reply is about it, whatever came before that of the other")
}

// Hazard 6: a node that is only about to get a key answers, and does not track. Another read of the key is tracked there a little
// later, and says nothing of what the first has read.
func TestAReadThatWasSentOnIsNotVouchedForByAnother(t *testing.T) {
	t.Parallel()
	l := newListener(t)
	old, next := l.newWire(new(session), func(error) {}), l.newWire(new(session), func(error) {})
	first, second := l.memory.Fence(key, nil), l.memory.Fence(key, nil)
	defer first.End()
	defer second.End()
	under := l.tracking.begin(key, first)
	l.sending(under, old.of)
	send(old)
	old.Cancel(key, "GET", errors.New("ASK"))
	l.sending(under, nil) // and it is answered
	other := l.tracking.begin(key, second)
	l.sending(other, next.of)
	send(next)
	next.Update(key, "GET", rueidis.RedisMessage{})
	require.Nil(t, l.end(key, under))
	require.Same(t, next.current(), l.end(key, other))
	require.Empty(t, l.pending)
}

func TestAReadThatHasNoReplyIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *wire){
		"sent, and that is all": func(*wire) {},
		"failed":                func(w *wire) { w.Cancel(key, "GET", errors.New("broken")) },
		"failed after a reply": func(w *wire) {
			w.Update(key, "GET", rueidis.RedisMessage{})
			w.Cancel(key, "GET", errors.New("broken"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(t)
			w := l.connect()
			f := l.memory.Fence(key, nil)
			defer f.End()
			under := l.begin(key, f)
			send(w)
			end(w)
			require.Nil(t, l.end(key, under))
		})
	}
}

// Hazard 19: of a read under way, nobody vouches for what came by a connection that has broken since.
func TestAReadWhoseConnectionBreaksAfterTheReplyIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*wire){
		"closed":  func(w *wire) { w.Close(errors.New("broken")) },
		"flushed": func(w *wire) { w.Delete(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(t)
			w := l.connect()
			f := l.memory.Fence(key, nil)
			defer f.End()
			under := l.begin(key, f)
			send(w)
			w.Update(key, "GET", rueidis.RedisMessage{})
			end(w)
			require.False(t, l.end(key, under).Valid())
		})
	}
}

// Hazard 20.
func TestAGenerationThatWasReadBeforeAPushIsNotLearnt(t *testing.T) {
	t.Parallel()
	l := newListener(t)
	w := l.connect()
	f, v := l.read(t, w)
	require.NotNil(t, l.memory.Learn(f, 7, v))
	push(w)
	require.Nil(t, l.memory.Learn(f, 7, v))
	require.Nil(t, l.memory.Generation(key))
}

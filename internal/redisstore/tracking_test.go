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
	gaps   int
}

func newListener(t *testing.T) *listener {
	clock := near.NewClock()
	t.Cleanup(clock.Stop)
	l := &listener{memory: near.New(near.Options{MaxEntries: 100, MaxBytes: 1 << 20}, clock)}
	t.Cleanup(l.memory.Close)
	l.tracking = &tracking{pushed: l.memory.Push, gap: func() { l.gaps++ }, now: clock.Now}
	return l
}

func (l *listener) connect() *wire { return l.newWire(func(error) {}) }

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
	send(second)
	second.Update(key, "GET", rueidis.RedisMessage{})
	first.Close(errors.New("gone"))
	v := l.end(key, under)
	require.Same(t, second.current(), v)
	require.True(t, v.Valid())
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

package redisstore

import (
	"errors"
	"strconv"
	"testing"

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

func (l *listener) connect() *trackedConn { return l.newConn(l.client, func(error) {}) }

// begin begins a read that is sent.
func (l *listener) begin(f *near.Fence) *trackedRead {
	under := &trackedRead{fence: f}
	l.numberRead(under)
	return under
}

// read plays a read of key up to its reply.
func (l *listener) read(t *testing.T, on *trackedConn) (*near.Fence, *near.Validity) {
	f := l.memory.Fence(key, nil)
	t.Cleanup(f.End)
	under := l.begin(f)
	reply(on, under.number)
	return f, l.endRead(under)
}

// command is how rueidis shows the request of a read.
func command(number uint64) string {
	return "GETRANGE" + strconv.FormatInt(trackedStart(number), 10) + "1000"
}

// reply plays the reply to a read.
func reply(on *trackedConn, number uint64) { on.Update(key, command(number), rueidis.RedisMessage{}) }

func push(on *trackedConn) { on.t.pushed(key) }

func TestTheNumberOfAReadTravelsInItsCommand(t *testing.T) {
	t.Parallel()
	for _, number := range []uint64{1, 2, 99, 1 << 52} {
		require.Negative(t, trackedStart(number))
		got, ok := numberOf(command(number))
		require.True(t, ok)
		require.Equal(t, number, got)
	}
	for _, other := range []string{"GET", "GETRANGE", "GETRANGE0100", "GETRANGE-1", "STRLEN-100000000000000001100"} {
		_, ok := numberOf(other)
		require.False(t, ok, other)
	}
}

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
	under := l.begin(f)
	push(w)
	reply(w, under.number)
	require.True(t, l.endRead(under).Valid())
	require.False(t, f.Broken())
}

// Hazard 6: a reply that was not asked for in a way that the server tracks says nothing.
func TestAReplyThatBelongsToNoTrackedReadGetsNoVoucher(t *testing.T) {
	t.Parallel()
	for name, play := range map[string]func(l *listener, w *trackedConn, under *trackedRead){
		"none":                          func(*listener, *trackedConn, *trackedRead) {},
		"of a command without a number": func(_ *listener, w *trackedConn, _ *trackedRead) { w.Update(key, "GET", rueidis.RedisMessage{}) },
		"of another read":               func(_ *listener, w *trackedConn, under *trackedRead) { reply(w, under.number+1) },
		"of the request before this one": func(l *listener, w *trackedConn, under *trackedRead) {
			before := under.number
			l.numberRead(under)
			reply(w, before)
		},
		"and then sent where none tracks": func(l *listener, w *trackedConn, under *trackedRead) { reply(w, under.number); l.markUntracked(under) },
		"that was sent where nobody tracks": func(l *listener, w *trackedConn, under *trackedRead) {
			before := under.number
			l.markUntracked(under)
			reply(w, before)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(t)
			w := l.connect()
			f := l.memory.Fence(key, nil)
			defer f.End()
			under := l.begin(f)
			play(l, w, under)
			require.Nil(t, l.endRead(under))
			require.Empty(t, l.pending)
		})
	}
}

// Hazard 51: the end of one read, and the order in which requests go out, say nothing of another read of the same key.
func TestSeveralReadsOfOneKeyAreToldApart(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(l *listener, w *trackedConn, first *trackedRead){
		"both wait": func(*listener, *trackedConn, *trackedRead) {},
		"the first gives up": func(l *listener, w *trackedConn, first *trackedRead) {
			w.Cancel(key, command(first.number), errors.New("time is up"))
			l.endRead(first)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(t)
			w := l.connect()
			first, second := l.memory.Fence(key, nil), l.memory.Fence(key, nil)
			defer first.End()
			defer second.End()
			a := l.begin(first)
			b := l.begin(second)
			between(l, w, a)
			// The requests went out in the other order: the reply of b comes first, and is older than the change.
			reply(w, b.number)
			push(w)
			reply(w, a.number)
			require.NotNil(t, l.endRead(b))
			require.True(t, second.Broken(), "the change came after its reply")
			require.False(t, first.Broken(), "the change came before its reply")
			l.endRead(a)
			require.Empty(t, l.pending)
		})
	}
}

// Hazard 19.
func TestTheEndOfAConnectionIsNothingToAnother(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*trackedConn){
		"closed":  func(w *trackedConn) { w.Close(errors.New("broken")) },
		"flushed": func(w *trackedConn) { w.Delete(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(t)
			old, next := l.connect(), l.connect()
			_, before := l.read(t, old)
			f := l.memory.Fence(key, nil)
			defer f.End()
			under := l.begin(f)
			reply(next, under.number)
			end(old)
			after := l.endRead(under)
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
	under := l.begin(f)
	first.Cancel(key, command(under.number), errors.New("MOVED"))
	l.numberRead(under)
	reply(second, under.number)
	first.Close(errors.New("gone"))
	v := l.endRead(under)
	require.Same(t, second.issue(true), v)
	require.True(t, v.Valid())
	require.Empty(t, l.pending)
}

// Hazard 19: a read under way gets no validity from a connection that has broken since its reply came.
func TestAReadWhoseConnectionBreaksAfterTheReplyIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*trackedConn){
		"closed":  func(w *trackedConn) { w.Close(errors.New("broken")) },
		"flushed": func(w *trackedConn) { w.Delete(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(t)
			w := l.connect()
			f := l.memory.Fence(key, nil)
			defer f.End()
			under := l.begin(f)
			reply(w, under.number)
			end(w)
			require.False(t, l.endRead(under).Valid())
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

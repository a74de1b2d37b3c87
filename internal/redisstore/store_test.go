package redisstore

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bound = 20 * time.Second

// only is the link of a store on one server.
func only(s *Store) *link { return s.table.Load().only() }

func open(t *testing.T, o Options) *Store {
	t.Helper()
	o.Lease = 5 * time.Second
	if o.OpTimeout == 0 {
		o.OpTimeout = 5 * time.Second
	}
	s := Open(o)
	t.Cleanup(s.Close)
	return s
}

func connected(t *testing.T, addr string) *Store {
	t.Helper()
	return up(t, Options{Client: clientOf(addr), Format: format})
}

func up(t *testing.T, o Options) *Store {
	t.Helper()
	s := open(t, o)
	require.Eventually(t, func() bool { return s.State().Up }, bound, time.Millisecond)
	return s
}

func clientOf(addr string) rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true}
}

var format = Format{Magic: "\xc1\xa5", Version: 1, Flags: 7, LoadStart: 8, Nonce: 48, Chunked: 4}

// entry is the start of a value of the format, as far as scripts look, and a text.
func entry(version, flags byte, start int64, text string) string {
	head := append([]byte(format.Magic), version, flags, 0, 0, 0, 0)
	return string(binary.LittleEndian.AppendUint64(head, uint64(start))) + text
}

// everyServer runs a test on a real server and on miniredis, so that users can test with the latter.
func everyServer(t *testing.T, test func(t *testing.T, s *Store, do func(args ...string) any)) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		test(t, connected(t, server.Addr()), func(args ...string) any { return server.MustDo(t, args...) })
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		addr := miniredis.RunT(t).Addr()
		conn := redistest.Raw(t, addr)
		test(t, connected(t, addr), func(args ...string) any {
			v, err := conn.Do(args...)
			require.NoError(t, err)
			return v
		})
	})
}

const (
	key   = "cat:a"
	lease = "{cat:a}!l"
)

func grants(g []Grant, _ []Generation) []Grant { return g }

func acquireOne(t *testing.T, s *Store, nonce string, r Rejected) Grant {
	t.Helper()
	g := grants(s.Acquire(t.Context(), nil, Request{Key: key, Nonce: nonce, Rejected: r}))[0]
	require.NoError(t, g.Err)
	return g
}

func fillOne(t *testing.T, s *Store, nonce, value string, life time.Duration) Outcome {
	t.Helper()
	now, _, ok := s.Now("")
	require.True(t, ok)
	out, errs := s.Fill(t.Context(), Filling{Key: key, Nonce: nonce, Value: []byte(value), Until: now + life.Microseconds()})
	require.NoError(t, errs[0])
	return out[0]
}

func TestALeaseIsGrantedToOneAndItsFillIsStored(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		require.Equal(t, []Read{{}}, s.Get(t.Context(), Get{Key: key}))
		first := acquireOne(t, s, "first", Rejected{})
		require.True(t, first.Granted)
		require.Positive(t, first.Now)
		second := acquireOne(t, s, "second", Rejected{})
		require.False(t, second.Granted)
		require.False(t, second.Present)
		require.Positive(t, second.Now)

		require.Equal(t, Refused, fillOne(t, s, "second", "theirs", time.Minute))
		require.Equal(t, Stored, fillOne(t, s, "first", "ours", time.Minute))
		require.Equal(t, Refused, fillOne(t, s, "first", "again", time.Minute), "a lease fills once")
		require.True(t, acquireOne(t, s, "third", Rejected{}).Present)
		require.Greater(t, do("PTTL", key), int64(59_000))
		require.LessOrEqual(t, do("PTTL", key), int64(60_000))
		require.Equal(t, int64(0), do("EXISTS", lease))
	})
}

func TestAnInvalidationTakesTheLeaseAway(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		do("SET", key, "old")
		acquireOne(t, s, "n", Reject([]byte("old"), 3, false))
		removed, errs := s.Remove(t.Context(), key, "cat:never there")
		require.Nil(t, errs)
		require.EqualValues(t, 1, removed, "the lease does not count")
		require.Equal(t, Refused, fillOne(t, s, "n", "older", time.Minute))
		require.Equal(t, int64(0), do("EXISTS", key, lease))
	})
}

func TestARejectedValueCanBeReplacedAndNoOther(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		head := strings.Repeat("h", 64)
		do("SET", key, head+"bad")
		rejected := Reject([]byte(head), 67, false)
		require.True(t, acquireOne(t, s, "n", Rejected{}).Present, "who rejects nothing is to read what is there")
		require.True(t, acquireOne(t, s, "n", Reject([]byte(head), 68, false)).Present, "another length is another value")
		require.True(t, acquireOne(t, s, "n", Reject([]byte(strings.Repeat("x", 64)), 67, false)).Present, "another head is another value")
		require.True(t, acquireOne(t, s, "n", Reject([]byte(head), 68, true)).Present, "it is shorter than what was read of another one")
		require.True(t, acquireOne(t, s, "n", Reject([]byte(head), 66, true)).Granted, "of a value that was cut the length is not known")
		do("DEL", lease)
		require.True(t, acquireOne(t, s, "n", rejected).Granted)
		require.Equal(t, Stored, fillOne(t, s, "n", "good", time.Minute))
		require.True(t, acquireOne(t, s, "m", rejected).Present, "it has been replaced meanwhile")

		do("SET", key, "")
		require.True(t, acquireOne(t, s, "m", Rejected{}).Granted, "an empty value is none of ours, and read as none")
		do("DEL", lease, key)
		do("RPUSH", key, "x")
		require.True(t, IsWrongType(s.Get(t.Context(), Get{Key: key})[0].Err))
		require.True(t, acquireOne(t, s, "l", Rejected{}).Granted, "what is no string is no value")
		require.Equal(t, Stored, fillOne(t, s, "l", "good", time.Minute))
	})
}

func TestSeizeSupersedesWhoeverHoldsTheLease(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		acquireOne(t, s, "first", Rejected{})
		g := grants(s.Seize(t.Context(), nil, Request{Key: key, Nonce: "second"}))[0]
		require.NoError(t, g.Err)
		require.True(t, g.Granted)
		require.Equal(t, Refused, fillOne(t, s, "first", "old", time.Minute))
		require.Equal(t, Stored, fillOne(t, s, "second", "new", time.Minute))
	})
}

func TestAFillReplacesNoValueOfANewerBuild(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		fill := func(s *Store) Outcome {
			require.NoError(t, grants(s.Seize(t.Context(), nil, Request{Key: key, Nonce: "n"}))[0].Err)
			return fillOne(t, s, "n", "ours", time.Minute)
		}
		for _, newer := range []string{entry(2, 0, 1, "x"), entry(255, 0, 1, "x"), entry(1, 8, 1, "x"), entry(1, 128, 1, "x"), "\xc1\xa5\x02\x00"} {
			do("SET", key, newer)
			require.Equal(t, Refused, fill(s), "%q", newer)
			require.Equal(t, int64(0), do("EXISTS", key, lease), "out of date, so it goes too")
		}
		for _, other := range []string{entry(1, 3, 1, "x"), entry(0, 0, 1, "x"), "\xc1\xa5", "\xc1\xa4\xff\xff", "", "foreign"} {
			do("SET", key, other)
			require.Equal(t, Stored, fill(s), "%q", other)
			require.Equal(t, "ours", do("GET", key))
		}
		do("DEL", key)
		do("RPUSH", key, "x")
		require.Equal(t, Stored, fill(s), "what is no string is nobody's value")
		do("SET", key, entry(2, 0, 1, "x"))
		require.Equal(t, Refused, fillOne(t, s, "not the holder", "ours", time.Minute))
		require.Equal(t, int64(1), do("EXISTS", key), "only the lease's holder removes anything")

		for addr := range only(s).session.Load().client.Nodes() {
			require.Equal(t, Stored, fill(up(t, Options{Client: clientOf(addr)})), "without a format nothing is recognized")
		}
		require.Equal(t, "ours", do("GET", key))
	})
}

func TestDiscardKeepsAValueThatIsLoadedLaterAndNoOther(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		const before = int64(1_763_950_000_123_456) // with all of its low bytes in use
		discard := func(value string) (kept bool) {
			do("SET", key, value)
			require.NoError(t, s.Discard(t.Context(), key, before))
			return do("EXISTS", key) == int64(1)
		}
		require.True(t, discard(entry(1, 0, before, "the winner's")))
		require.True(t, discard(entry(1, 3, before+1, "the winner's")))
		require.False(t, discard(entry(1, 0, before-1, "older")))
		require.False(t, discard(entry(1, 0, 0, "older")))
		for _, unreadable := range []string{"", "foreign", strings.Repeat("\xff", 80), entry(1, 0, before, "")[:15], entry(2, 0, before, "x"), entry(1, 8, before, "x")} {
			require.False(t, discard(unreadable), "%q", unreadable)
		}
		do("RPUSH", key, "x")
		acquired := grants(s.Seize(t.Context(), nil, Request{Key: key, Nonce: "n"}))[0]
		require.NoError(t, acquired.Err)
		require.NoError(t, s.Discard(t.Context(), key, before))
		require.Equal(t, int64(0), do("EXISTS", key))
		require.NoError(t, s.Discard(t.Context(), key, before), "nor does it need a value")
		require.Equal(t, Stored, fillOne(t, s, "n", "theirs", time.Minute), "another's lease stays")
	})
}

// renewOne reports whether the lease of key is still held.
func renewOne(t *testing.T, s *Store, nonce string) bool {
	t.Helper()
	held, errs := s.Renew(t.Context(), Request{Key: key, Nonce: nonce})
	require.NoError(t, errs[0])
	return held[0]
}

func TestOnlyTheHolderRenewsAndReleases(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		acquireOne(t, s, "n", Rejected{})
		do("PEXPIRE", lease, "1000")
		require.False(t, renewOne(t, s, "another"))
		require.LessOrEqual(t, do("PTTL", lease), int64(1000))
		require.Empty(t, s.Release(t.Context(), Request{Key: key, Nonce: "another"}))
		require.True(t, renewOne(t, s, "n"))
		require.Greater(t, do("PTTL", lease), int64(1000))
		require.Empty(t, s.Release(t.Context(), Request{Key: key, Nonce: "n"}))
		require.Equal(t, int64(0), do("EXISTS", lease))
		require.False(t, renewOne(t, s, "n"))
		require.Equal(t, int64(0), do("EXISTS", lease), "a renewal revives nothing")
	})
}

func TestAFillThatComesAfterItsOwnEndIsNotStored(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		acquireOne(t, s, "n", Rejected{})
		require.Equal(t, Expired, fillOne(t, s, "n", "late", -time.Second))
		require.Equal(t, int64(0), do("EXISTS", key, lease))
	})
}

func TestEachKeyOfABatchHasItsOwnAnswer(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		do("SET", "a", "value")
		do("SET", "{b}!l", "another's", "PX", "60000")
		do("RPUSH", "l", "x")
		reads := s.Get(t.Context(), Get{Key: "a"}, Get{Key: "b"}, Get{Key: "l"})
		require.Equal(t, "value", string(reads[0].Value))
		require.Equal(t, Read{}, reads[1])
		require.Error(t, reads[2].Err)
		asked := grants(s.Acquire(t.Context(), nil, Request{Key: "a", Nonce: "n"}, Request{Key: "b", Nonce: "n"}, Request{Key: "c", Nonce: "n"}))
		require.True(t, asked[0].Present)
		require.False(t, asked[1].Granted)
		require.True(t, asked[2].Granted)
		require.Empty(t, s.Get(t.Context()))
		require.Empty(t, grants(s.Acquire(t.Context(), nil)))
	})
}

func TestWithoutAConnectionEveryOperationFailsAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Client: clientOf("127.0.0.1:1")})
	require.ErrorIs(t, s.Get(t.Context(), Get{Key: key})[0].Err, ErrUnavailable)
	require.ErrorIs(t, grants(s.Acquire(t.Context(), nil, Request{Key: key}))[0].Err, ErrUnavailable)
	_, errs := s.Fill(t.Context(), Filling{Key: key})
	require.ErrorIs(t, errs[0], ErrUnavailable)
	_, errs = s.Remove(t.Context(), key)
	require.ErrorIs(t, errs[0], ErrUnavailable)
	_, _, known := s.Now("")
	require.False(t, known)
	require.Eventually(t, func() bool { return s.State().Cause != nil }, bound, time.Millisecond)
	require.False(t, s.State().Up)
}

func TestEachChangeOfStateIsToldOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	states := make(chan State, 100)
	s := open(t, Options{Client: clientOf(server.Addr()), OnState: func(s State) { states <- s }})
	require.True(t, (<-states).Up)
	server.Kill()
	for range 10 {
		s.Get(t.Context(), Get{Key: key})
	}
	down := <-states
	require.False(t, down.Up)
	require.Error(t, down.Cause)
	server.Restart()
	require.True(t, (<-states).Up)
	require.Empty(t, states, "the attempts in between are no changes")
}

func TestAServerThatAnswersWithErrorsIsNotGivenUp(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	server.MustDo(t, "RPUSH", key, "x")
	for range 10 * tripAfter {
		require.Error(t, s.Get(t.Context(), Get{Key: key})[0].Err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 * tripAfter {
		require.Error(t, s.Get(ctx, Get{Key: key})[0].Err, "nor for callers that have left")
	}
	require.True(t, s.State().Up)
	require.NoError(t, s.Get(t.Context(), Get{Key: "other"})[0].Err)
}

func TestAServerThatIsTooSlowIsGivenUpAndACallerInAHurryIsNot(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := up(t, Options{Client: clientOf(server.Addr()), OpTimeout: 30 * time.Millisecond})
	read := func(ctx context.Context) error {
		ctx, cancel := s.Budget(ctx, 0, 1)
		defer cancel()
		return s.Get(ctx, Get{Key: key})[0].Err
	}
	require.Eventually(t, func() bool { return read(t.Context()) == nil && s.grace.over.Load() }, bound, time.Millisecond)
	server.Pause()
	for range 5 * tripAfter {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
		require.True(t, IsTimeout(read(ctx)))
		require.True(t, CallersOwn(ctx))
		cancel()
	}
	require.Zero(t, only(s).failed.Load())
	require.True(t, s.State().Up)
	for range tripAfter {
		require.True(t, IsTimeout(read(t.Context())))
	}
	require.Eventually(t, func() bool { return !s.State().Up }, bound, time.Millisecond)
	server.Resume()
	require.Eventually(t, func() bool { return s.State().Up }, bound, time.Millisecond)
}

func TestNothingIsSentForACallerWhoHasLeft(t *testing.T) {
	t.Parallel()
	s := connected(t, miniredis.RunT(t).Addr())
	left, leave := context.WithCancel(t.Context())
	leave()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	spent, cancel := (&Store{}).Budget(t.Context(), 0, 1)
	defer cancel()
	<-spent.Done()
	for _, ctx := range []context.Context{left, late, spent} {
		results := s.each(ctx, batch{names: make([]string, 2), plain: func(rueidis.Client, int) rueidis.Completed {
			t.Error("a command was made")
			return rueidis.Completed{}
		}})
		require.Len(t, results, 2)
		for _, r := range results {
			require.ErrorIs(t, r.Error(), ctx.Err())
		}
	}
	require.Zero(t, only(s).failed.Load())
}

// tardy has a deadline that has passed, and ends a moment later, as a timer does.
type tardy struct{ context.Context }

func (tardy) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

func TestWhoseTheEndOfAContextWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{opTimeout: time.Second}
		budget := func(ctx context.Context) context.Context {
			ctx, cancel := s.Budget(ctx, 0, 1)
			t.Cleanup(cancel)
			return ctx
		}
		within := func(d time.Duration) context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			t.Cleanup(cancel)
			return ctx
		}
		left, leave := context.WithCancel(t.Context())
		hurried, patient, leaving := budget(within(time.Millisecond)), budget(within(time.Minute)), budget(left)
		leave()
		require.True(t, CallersOwn(leaving))
		require.False(t, CallersOwn(hurried), "it has not ended")
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, CallersOwn(hurried))
		require.Error(t, patient.Err())
		require.False(t, CallersOwn(patient))
		require.False(t, CallersOwn(context.Background()))

		for cause, own := range map[error]bool{ErrBudget: false, context.DeadlineExceeded: true} {
			ctx, end := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Millisecond, func() { end(cause) })
			require.Equal(t, own, CallersOwn(tardy{ctx}), "the connection's deadline struck before the context's timer")
		}
	})
}

func TestTheServersClockIsKnownWithinARoundTrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c serverClock
		_, _, ok := c.Now()
		require.False(t, ok)
		ahead := func() int64 { return time.Now().Add(time.Hour).UnixMicro() } // the server's clock
		read := func(there, back time.Duration) {
			sent := time.Now()
			time.Sleep(there)
			server := ahead()
			time.Sleep(back)
			c.note(sent, server)
		}
		check := func(most time.Duration) {
			t.Helper()
			now, within, ok := c.Now()
			require.True(t, ok)
			require.LessOrEqual(t, within, most.Microseconds()+1)
			require.InDelta(t, ahead(), now, float64(within))
		}
		read(80*time.Millisecond, 20*time.Millisecond)
		check(50 * time.Millisecond)
		read(time.Millisecond, 0)
		check(500 * time.Microsecond)
		read(0, 90*time.Millisecond)
		check(500 * time.Microsecond) // the better reading stands
		time.Sleep(trusted)
		read(0, 90*time.Millisecond)
		check(45 * time.Millisecond) // until it is old
	})
}

func TestAStepOfTheServersClockIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []time.Duration{time.Hour, -time.Hour, 100 * time.Millisecond, -100 * time.Millisecond} {
			var c serverClock
			server := func() int64 { return time.Now().UnixMicro() }
			c.note(time.Now(), server()) // as precise as can be
			earlier, old := time.Now(), server()
			time.Sleep(time.Second)
			stepped := func() int64 { return server() + step.Microseconds() }
			sent := time.Now()
			time.Sleep(40 * time.Millisecond)
			c.note(sent, stepped())
			now, within, _ := c.Now()
			require.InDelta(t, stepped(), now, float64(within), "a step of %v", step)

			// An answer from before the step that was long on its way.
			c.note(earlier, old)
			now, within, _ = c.Now()
			require.InDelta(t, stepped(), now, float64(within), "a step of %v", step)
		}
	})
}

func TestLargeValuesAreGivenMoreTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{grace: grace{limit: 50 * time.Millisecond}}
		s.grace.over.Store(true)
		limit := func(size int64, keys int) time.Duration {
			ctx, cancel := s.Budget(t.Context(), size, keys)
			defer cancel()
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			return time.Until(deadline)
		}
		for size, want := range map[int64]time.Duration{0: 50 * time.Millisecond, -1: 50 * time.Millisecond, 32 << 20: 1050 * time.Millisecond, 64 << 20: 2050 * time.Millisecond} {
			require.Equal(t, want, limit(size, 1))
			require.Equal(t, want, limit(size, 0))
		}
		require.Equal(t, 1050*time.Millisecond, limit(0, 1+8192), "so are many keys")
		require.Equal(t, 2050*time.Millisecond, limit(32<<20, 1+8192))
		const years = 100 * 365 * 24 * time.Hour
		require.Greater(t, limit(math.MaxInt64, 1), years)
		require.Greater(t, limit(0, math.MaxInt), years)
		require.Greater(t, limit(math.MaxInt64, math.MaxInt), years)
	})
}

// Not parallel: it looks for goroutines that are left.
func TestCloseLeavesNothingBehindWhenTheServerIsMute(t *testing.T) {
	for name, change := range map[string]func(o *rueidis.ClientOption, dialed func()){
		"plain": func(*rueidis.ClientOption, func()) {},
		"tls":   func(o *rueidis.ClientOption, _ func()) { o.TLSConfig = &tls.Config{} },
		"sentinel": func(o *rueidis.ClientOption, _ func()) {
			o.ForceSingleClient, o.Sentinel.MasterSet = false, "m"
		},
		"DialCtxFn": func(o *rueidis.ClientOption, dialed func()) {
			o.DialCtxFn = func(ctx context.Context, dst string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				dialed()
				return d.DialContext(ctx, "tcp", dst)
			}
		},
		"DialFn": func(o *rueidis.ClientOption, dialed func()) {
			o.DialFn = func(dst string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				dialed()
				return d.Dial("tcp", dst)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			mute, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer mute.Close()
			o := clientOf(mute.Addr().String())
			o.ConnWriteTimeout = bound // so that rueidis does not give up by itself
			o.Dialer.Timeout = bound
			var dials atomic.Int32
			change(&o, func() { dials.Add(1) })
			s := Open(Options{Client: o})
			conn, err := mute.Accept()
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Read(make([]byte, 1))
			require.NoError(t, err, "the client waits for an answer now")
			began := time.Now()
			s.Close()
			require.Less(t, time.Since(began), abandonAfter)
			require.NoError(t, goleak.Find(before))
			if strings.HasPrefix(name, "Dial") {
				require.NotZero(t, dials.Load(), "the user's own function dials")
			}
		})
	}
}

func TestCloseDoesNotWaitForADialThatCannotBeCutOff(t *testing.T) {
	t.Parallel()
	dialing, release := make(chan struct{}), make(chan struct{})
	o := clientOf("127.0.0.1:1")
	o.DialFn = func(string, *net.Dialer, *tls.Config) (net.Conn, error) {
		close(dialing)
		<-release
		return nil, errors.New("released")
	}
	s := Open(Options{Client: o})
	<-dialing
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(bound):
		t.Error("Close waits for the dial")
	}
	close(release)
	<-closed
}

func TestDescribeTellsTheKindAndNothingElse(t *testing.T) {
	t.Parallel()
	require.Equal(t, "redis is unavailable", Describe(ErrUnavailable))
	require.Equal(t, "redis did not answer in time", Describe(context.DeadlineExceeded))
	require.Equal(t, "redis did not answer in time", Describe(os.ErrDeadlineExceeded))
	require.Equal(t, "the connection to redis failed", Describe(errors.New("dial tcp canary:6379")))
	server := redistest.Start(t)
	err := connected(t, server.Addr()).Get(t.Context(), Get{Key: key})[0].Err
	require.NoError(t, err)
	server.MustDo(t, "RPUSH", key, "x")
	require.Equal(t, "redis answered WRONGTYPE", Describe(connected(t, server.Addr()).Get(t.Context(), Get{Key: key})[0].Err))
}

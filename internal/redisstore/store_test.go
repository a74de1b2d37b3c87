package redisstore

import (
	"context"
	"errors"
	"os"
	"strings"
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

func open(t *testing.T, o Options) *Store {
	t.Helper()
	o.OpTimeout, o.Lease = 5*time.Second, 5*time.Second
	s := Open(o)
	t.Cleanup(s.Close)
	return s
}

func connected(t *testing.T, addr string) *Store {
	t.Helper()
	s := open(t, Options{Client: rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true}})
	require.Eventually(t, func() bool { return s.State().Up }, bound, time.Millisecond)
	return s
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

func acquireOne(t *testing.T, s *Store, nonce string, r Rejected) Grant {
	t.Helper()
	g := s.Acquire(t.Context(), Request{Key: key, Nonce: nonce, Rejected: r})[0]
	require.NoError(t, g.Err)
	return g
}

func fillOne(t *testing.T, s *Store, nonce, value string, life time.Duration) Outcome {
	t.Helper()
	now, _, ok := s.Now()
	require.True(t, ok)
	out, errs := s.Fill(t.Context(), Filling{Key: key, Nonce: nonce, Value: []byte(value), Until: now + life.Microseconds()})
	require.NoError(t, errs[0])
	return out[0]
}

func TestALeaseIsGrantedToOneAndItsFillIsStored(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		require.Equal(t, []Read{{}}, s.Read(t.Context(), key))
		first := acquireOne(t, s, "first", Rejected{})
		require.True(t, first.Granted)
		require.Positive(t, first.Now)
		second := acquireOne(t, s, "second", Rejected{})
		require.False(t, second.Granted)
		require.Nil(t, second.Value)
		require.Positive(t, second.HeldFor)
		require.LessOrEqual(t, second.HeldFor, 5*time.Second)

		require.Equal(t, Refused, fillOne(t, s, "second", "theirs", time.Minute))
		require.Equal(t, Stored, fillOne(t, s, "first", "ours", time.Minute))
		require.Equal(t, Refused, fillOne(t, s, "first", "again", time.Minute), "a lease fills once")
		require.Equal(t, []byte("ours"), acquireOne(t, s, "third", Rejected{}).Value)
		require.Greater(t, do("PTTL", key), int64(59_000))
		require.LessOrEqual(t, do("PTTL", key), int64(60_000))
		require.Equal(t, int64(0), do("EXISTS", lease))
	})
}

func TestAnInvalidationTakesTheLeaseAway(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		do("SET", key, "old")
		acquireOne(t, s, "n", Reject([]byte("old"), 3))
		removed, err := s.Remove(t.Context(), key, "cat:never there")
		require.NoError(t, err)
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
		rejected := Reject([]byte(head), 67)
		require.Equal(t, head+"bad", string(acquireOne(t, s, "n", Rejected{}).Value), "who rejects nothing gets what is there")
		require.NotNil(t, acquireOne(t, s, "n", Reject([]byte(head), 68)).Value, "another length is another value")
		require.NotNil(t, acquireOne(t, s, "n", Reject([]byte(strings.Repeat("x", 64)), 67)).Value, "another head is another value")
		require.True(t, acquireOne(t, s, "n", rejected).Granted)
		require.Equal(t, Stored, fillOne(t, s, "n", "good", time.Minute))
		require.Equal(t, "good", string(acquireOne(t, s, "m", rejected).Value), "it has been replaced meanwhile")

		do("SET", key, "")
		require.NotNil(t, acquireOne(t, s, "m", Rejected{}).Value, "an empty value is a value")
		require.True(t, acquireOne(t, s, "m", Reject(nil, 0)).Granted)
		do("DEL", lease, key)
		do("RPUSH", key, "x")
		require.True(t, IsWrongType(s.Read(t.Context(), key)[0].Err))
		require.True(t, acquireOne(t, s, "l", Rejected{}).Granted, "what is no string is no value")
		require.Equal(t, Stored, fillOne(t, s, "l", "good", time.Minute))
	})
}

func TestSeizeSupersedesWhoeverHoldsTheLease(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		acquireOne(t, s, "first", Rejected{})
		g := s.Seize(t.Context(), Request{Key: key, Nonce: "second"})[0]
		require.NoError(t, g.Err)
		require.True(t, g.Granted)
		require.Equal(t, Refused, fillOne(t, s, "first", "old", time.Minute))
		require.Equal(t, Stored, fillOne(t, s, "second", "new", time.Minute))
	})
}

func TestOnlyTheHolderRenewsAndReleases(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		acquireOne(t, s, "n", Rejected{})
		do("PEXPIRE", lease, "1000")
		require.NoError(t, s.Renew(t.Context(), Request{Key: key, Nonce: "another"}))
		require.LessOrEqual(t, do("PTTL", lease), int64(1000))
		require.NoError(t, s.Release(t.Context(), Request{Key: key, Nonce: "another"}))
		require.NoError(t, s.Renew(t.Context(), Request{Key: key, Nonce: "n"}))
		require.Greater(t, do("PTTL", lease), int64(1000))
		require.NoError(t, s.Release(t.Context(), Request{Key: key, Nonce: "n"}))
		require.Equal(t, int64(0), do("EXISTS", lease))
		require.NoError(t, s.Renew(t.Context(), Request{Key: key, Nonce: "n"}))
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
		do("SET", "{b}!l", "another's")
		do("RPUSH", "l", "x")
		reads := s.Read(t.Context(), "a", "b", "l")
		require.Equal(t, "value", string(reads[0].Value))
		require.Equal(t, Read{}, reads[1])
		require.Error(t, reads[2].Err)
		grants := s.Acquire(t.Context(), Request{Key: "a", Nonce: "n"}, Request{Key: "b", Nonce: "n"}, Request{Key: "c", Nonce: "n"})
		require.Equal(t, "value", string(grants[0].Value))
		require.False(t, grants[1].Granted)
		require.True(t, grants[2].Granted)
		require.Empty(t, s.Read(t.Context()))
		require.Empty(t, s.Acquire(t.Context()))
	})
}

func TestWithoutAConnectionEveryOperationFailsAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Client: rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, ForceSingleClient: true}})
	require.ErrorIs(t, s.Read(t.Context(), key)[0].Err, ErrUnavailable)
	require.ErrorIs(t, s.Acquire(t.Context(), Request{Key: key})[0].Err, ErrUnavailable)
	_, errs := s.Fill(t.Context(), Filling{Key: key})
	require.ErrorIs(t, errs[0], ErrUnavailable)
	_, err := s.Remove(t.Context(), key)
	require.ErrorIs(t, err, ErrUnavailable)
	_, _, known := s.Now()
	require.False(t, known)
	require.Eventually(t, func() bool { return s.State().Cause != nil }, bound, time.Millisecond)
	require.False(t, s.State().Up)
}

func TestEachChangeOfStateIsToldOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	states := make(chan State, 100)
	s := open(t, Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true}, OnState: func(s State) { states <- s }})
	require.True(t, (<-states).Up)
	server.Kill()
	for range 10 {
		s.Read(t.Context(), key)
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
		require.Error(t, s.Read(t.Context(), key)[0].Err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 * tripAfter {
		require.Error(t, s.Read(ctx, key)[0].Err, "nor for callers that have left")
	}
	require.True(t, s.State().Up)
	require.NoError(t, s.Read(t.Context(), "other")[0].Err)
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

func TestLargeValuesAreGivenMoreTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{opTimeout: 50 * time.Millisecond}
		for size, want := range map[int64]time.Duration{0: 50 * time.Millisecond, 32 << 20: 1050 * time.Millisecond, 64 << 20: 2050 * time.Millisecond} {
			ctx, cancel := s.Budget(t.Context(), size)
			deadline, _ := ctx.Deadline()
			require.Equal(t, want, time.Until(deadline))
			cancel()
		}
	})
}

func TestDescribeTellsTheKindAndNothingElse(t *testing.T) {
	t.Parallel()
	require.Equal(t, "redis is unavailable", Describe(ErrUnavailable))
	require.Equal(t, "redis did not answer in time", Describe(context.DeadlineExceeded))
	require.Equal(t, "redis did not answer in time", Describe(os.ErrDeadlineExceeded))
	require.Equal(t, "the connection to redis failed", Describe(errors.New("dial tcp canary:6379")))
	server := redistest.Start(t)
	err := connected(t, server.Addr()).Read(t.Context(), key)[0].Err
	require.NoError(t, err)
	server.MustDo(t, "RPUSH", key, "x")
	require.Equal(t, "redis answered WRONGTYPE", Describe(connected(t, server.Addr()).Read(t.Context(), key)[0].Err))
}

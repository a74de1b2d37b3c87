package redisstore

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
		require.Greater(t, do("PTTL", key), int64(50_000))
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
		do("SET", lease, "of another program, for ever")
		taken := acquireOne(t, s, "n", rejected)
		require.True(t, taken.Granted && taken.Holds)
		do("DEL", lease)
		there := acquireOne(t, s, "n", rejected)
		require.True(t, there.Granted && there.Holds)
		do("DEL", lease, key)
		gone := acquireOne(t, s, "n", rejected)
		require.True(t, gone.Granted)
		require.False(t, gone.Holds, "the rejected value was removed meanwhile")
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

// A process that dies renews nothing. However it has come by its lease, the lease ends by itself.
func TestALeaseEndsByItself(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		ends := func(how string) {
			t.Helper()
			require.Positive(t, do("PTTL", lease), how)
			require.LessOrEqual(t, do("PTTL", lease), bound.Milliseconds(), how)
		}
		require.True(t, acquireOne(t, s, "first", Rejected{}).Granted)
		ends("acquired")
		do("PERSIST", lease)
		require.True(t, acquireOne(t, s, "second", Rejected{}).Granted)
		ends("taken over")
		do("PERSIST", lease)
		require.True(t, grants(s.Seize(t.Context(), nil, Request{Key: key, Nonce: "third"}))[0].Granted)
		ends("seized")
		do("DEL", lease)
		do("SET", key, "old")
		require.True(t, acquireOne(t, s, "fourth", Reject([]byte("old"), 3, false)).Granted)
		ends("beside a value")
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
		do("PEXPIRE", lease, "3000")
		require.False(t, renewOne(t, s, "another"))
		require.LessOrEqual(t, do("PTTL", lease), int64(3000))
		require.Empty(t, s.Release(t.Context(), Request{Key: key, Nonce: "another"}))
		require.True(t, renewOne(t, s, "n"))
		require.Greater(t, do("PTTL", lease), int64(3000))
		require.Empty(t, s.Release(t.Context(), Request{Key: key, Nonce: "n"}))
		require.Equal(t, int64(0), do("EXISTS", lease))
		require.False(t, renewOne(t, s, "n"))
		require.Equal(t, int64(0), do("EXISTS", lease), "a renewal revives nothing")
	})
}

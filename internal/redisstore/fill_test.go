package redisstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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

func TestAFillThatComesAfterItsOwnEndIsNotStored(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		acquireOne(t, s, "n", Rejected{})
		require.Equal(t, Expired, fillOne(t, s, "n", "late", -time.Second))
		require.Equal(t, int64(0), do("EXISTS", key, lease))
	})
}

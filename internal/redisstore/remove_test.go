package redisstore

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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

package redisstore

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redistest"
)

// contents are what a tag's key may hold, and whether that is a generation.
var contents = map[string]bool{
	"1": true, "1763700000000000": true, "9007199254740990": true, "9007199254740991": true,
	"": false, "0": false, "007": false, "-5": false, "+5": false, " 12": false, "12 ": false, "12\n": false, "1e9": false, "0x10": false, "1.5": false,
	"1_000": false, "nan": false, "inf": false, "12\x0034": false, "٣": false,
	"9007199254740992": false, "9007199254740993": false, "9999999999999999": false, "17637000000000000": false, strings.Repeat("1", 1000): false,
}

// Hazard 57: from 2^53 on, adding 1 to a number of Lua's changes nothing.
func TestAGenerationThatIsNoneIsReplacedAndTheNextOneIsAlwaysAnother(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(args ...string) any) {
		tag := Tag{Key: "%t:x", Life: time.Minute}
		one := func(g []Generation) uint64 {
			require.NoError(t, g[0].Err)
			require.True(t, IsGeneration(g[0].Value), g[0].Value)
			held, err := ParseGeneration([]byte(do("GET", tag.Key).(string)))
			require.NoError(t, err)
			require.Equal(t, held, g[0].Value)
			return g[0].Value
		}
		check := func(content string, put func(), ok bool) {
			put()
			parsed, err := ParseGeneration([]byte(content))
			require.Equal(t, ok, err == nil, "in Go: %q", content)
			first := one(s.Ensure(t.Context(), tag))
			require.Equal(t, ok, first == parsed, "in a script: %q", content)
			require.Equal(t, first, one(s.Ensure(t.Context(), tag)))
			put()
			seen := map[uint64]bool{first: true}
			for range 3 {
				g := one(s.Bump(t.Context(), tag))
				require.False(t, seen[g], "%q: %d again", content, g)
				seen[g] = true
			}
		}
		for content, ok := range contents {
			check(content, func() { do("SET", tag.Key, content) }, ok)
		}
		for _, command := range [][]string{{"HSET", tag.Key, "f", "1"}, {"RPUSH", tag.Key, "1"}} {
			check("", func() { do("DEL", tag.Key); do(command...) }, false)
		}
	})
}

// Hazard 79: what a tag leaves in Redis lives a little longer than what carries it.
func TestTheKeyOfATagLivesAsLongAsItMust(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(args ...string) any) {
		of := func(life time.Duration) Tag { return Tag{Key: "%t:x", Life: life} }
		left := func() time.Duration { return time.Duration(do("PTTL", "%t:x").(int64)) * time.Millisecond }
		g := s.Ensure(t.Context(), of(time.Minute))[0]
		require.NoError(t, g.Err)
		require.InDelta(t, 3*time.Minute, left(), float64(10*time.Second))

		require.Equal(t, g, s.Ensure(t.Context(), of(2*time.Minute))[0])
		require.InDelta(t, 3*time.Minute, left(), float64(10*time.Second), "it lives long enough, and is not changed")
		require.Equal(t, g, s.Ensure(t.Context(), of(time.Hour))[0])
		require.InDelta(t, 3*time.Hour, left(), float64(10*time.Second), "it has to live longer")
		require.Equal(t, g, s.Ensure(t.Context(), of(time.Minute))[0])
		require.InDelta(t, 3*time.Hour, left(), float64(10*time.Second), "and lives no shorter for whom less would do")

		next := s.Bump(t.Context(), of(time.Minute))[0]
		require.Greater(t, next.Value, g.Value)
		require.InDelta(t, 3*time.Hour, left(), float64(10*time.Second), "its next generation lives as long as it would have")

		do("SET", "%t:x", "1763700000000000")
		require.NoError(t, s.Bump(t.Context(), of(time.Minute))[0].Err)
		require.InDelta(t, unknownLife, left(), float64(10*time.Second), "where the server does not know, long")

		do("DEL", "%t:x")
		gone := s.Bump(t.Context(), of(time.Minute))[0]
		require.NoError(t, gone.Err)
		require.True(t, IsGeneration(gone.Value))
		require.EqualValues(t, 0, do("EXISTS", "%t:x"), "nothing carries what was not there")
		require.Greater(t, s.Ensure(t.Context(), of(longestLife+time.Hour))[0].Value, gone.Value)
		require.Greater(t, left(), longestLife)

		for range 2 {
			require.NoError(t, s.Bump(t.Context(), Tag{Key: "%c:x"})[0].Err)
			require.NoError(t, s.Ensure(t.Context(), Tag{Key: "%c:x"})[0].Err)
			require.EqualValues(t, -1, do("PTTL", "%c:x"))
			do("DEL", "%c:x")
		}
	})
}

// Who may not ask how long a key lives could not see that it does not live long enough.
func TestTheKeyOfATagLivesLongWhereNobodyMayAskForHowLong(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	server.MustDo(t, "ACL", "SETUSER", "default", "-pttl")
	for range 2 {
		g := s.Ensure(t.Context(), Tag{Key: "%t:x", Life: time.Minute})[0]
		require.NoError(t, g.Err)
		server.MustDo(t, "ACL", "SETUSER", "default", "+pttl")
		left := time.Duration(server.MustDo(t, "PTTL", "%t:x").(int64)) * time.Millisecond
		require.InDelta(t, unknownLife, left, float64(time.Minute))
		server.MustDo(t, "ACL", "SETUSER", "default", "-pttl")
		require.NoError(t, s.Bump(t.Context(), Tag{Key: "%t:x", Life: time.Minute})[0].Err)
	}
}

func TestATagIsBumpedThoughTheServerHasNoMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	s := connected(t, server.Addr())
	there, lasting, missing := Tag{Key: "%t:there", Life: time.Hour}, Tag{Key: "%all"}, Tag{Key: "%t:missing", Life: time.Hour}
	before := s.Ensure(t.Context(), there, lasting)
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	_, err := server.Do("SET", "a", "b")
	require.ErrorContains(t, err, "OOM")
	for i, g := range s.Bump(t.Context(), there, lasting, missing) {
		require.NoError(t, g.Err)
		if i < 2 {
			require.Greater(t, g.Value, before[i].Value)
			held, err := ParseGeneration([]byte(server.MustDo(t, "GET", []string{there.Key, lasting.Key}[i]).(string)))
			require.NoError(t, err, "it is stored, though there is no room")
			require.Equal(t, g.Value, held)
		}
	}
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", missing.Key))
}

// Whoever has read that a tag has no generation hears that it was invalidated, though there is none afterwards either.
func TestWhoHasReadThatATagIsMissingIsToldOfItsInvalidation(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	told := make(chan string, 10)
	reader := up(t, Options{Client: clientOf(server.Addr()), Format: format, Pushed: func(key string) { told <- key }})
	clock := near.NewClock()
	memory := near.New(near.Options{MaxEntries: 10, MaxBytes: 1 << 20}, clock)
	t.Cleanup(func() { memory.Close(); clock.Stop() })
	fence := memory.Fence("%t:x", nil)
	defer fence.End()
	r := reader.Get(t.Context(), Get{Key: "%t:x", Fence: fence, Head: GenerationLen})[0]
	require.NoError(t, r.Err)
	require.Empty(t, r.Value)
	require.NotNil(t, r.Validity)
	writer := connected(t, server.Addr())
	bumped := writer.Bump(t.Context(), Tag{Key: "%t:x", Life: time.Hour})[0]
	require.NoError(t, bumped.Err)
	require.True(t, bumped.Missing)
	select {
	case key := <-told:
		require.Equal(t, "%t:x", key)
	case <-time.After(bound):
		t.Fatal("not told")
	}
	require.EqualValues(t, 0, server.MustDo(t, "EXISTS", "%t:x"))
	made := writer.Ensure(t.Context(), Tag{Key: "%t:x", Life: time.Hour})[0]
	require.NoError(t, made.Err)
	require.Greater(t, made.Value, bumped.Value)
	bumped = writer.Bump(t.Context(), Tag{Key: "%t:x", Life: time.Hour}, Tag{Key: "%all"})[0]
	require.NoError(t, bumped.Err)
	require.False(t, bumped.Missing)
	require.Greater(t, bumped.Value, made.Value)
}

package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

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

// One refusal is enough: callers do not wait until the connection is examined, which may be a second later.
func TestAServerThatRefusesWhatItIsForIsGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	l := only(s)
	refused := []rueidis.RedisResult{errorReply(t, server, "READONLY You can't write against a read only replica.")}
	l.note(t.Context(), l.session.Load(), time.Millisecond, 1, refused)
	require.Nil(t, l.session.Load())
	require.Eventually(t, func() bool { return s.State().Up }, bound, time.Millisecond, "the server refuses nothing more")
}

// errorReply is an error reply of a server.
func errorReply(t *testing.T, server *redistest.Server, text string) rueidis.RedisResult {
	t.Helper()
	c, err := rueidis.NewClient(clientOf(server.Addr()))
	require.NoError(t, err)
	defer c.Close()
	r := c.Do(t.Context(), c.B().Eval().Script("return redis.error_reply(ARGV[1])").Numkeys(0).Arg(text).Build())
	require.ErrorContains(t, r.Error(), text)
	return r
}

func TestAServerThatIsTooSlowIsGivenUpAndACallerInAHurryIsNot(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := up(t, Options{Client: clientOf(server.Addr()), OpTimeout: 400 * time.Millisecond})
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

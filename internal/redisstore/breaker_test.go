package redisstore

import (
	"context"
	"testing"
	"time"

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

package redisstore

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

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

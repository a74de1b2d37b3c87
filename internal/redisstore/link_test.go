package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// A caller can have got hold of a client just before its connection broke: rueidis would make another one in his time.
func TestAClientWhoseConnectionHasBrokenMakesNoOtherOne(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	s := connected(t, proxy.Addr())
	held := s.session.Load().client
	proxy.CloseConnections()
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return held.Do(ctx, held.B().Get().Key(key).Build()).Error()
	}
	require.Eventually(t, func() bool { return s.session.Load() != nil && s.session.Load().client != held }, bound, time.Millisecond, "there is a new one")
	require.Error(t, ask())
	require.Error(t, ask(), "not even the next time")
	require.Equal(t, 1, proxy.Connections())
}

package contract_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// pausing is a codec that waits, each time it has found a value, until it is let go.
type pausing struct {
	aside.Codec
	decoding, release chan struct{}
}

func (p *pausing) Name() string { return "pausing" }

func (p *pausing) Unmarshal(data []byte, v any) error {
	select {
	case p.decoding <- struct{}{}:
	case <-p.release:
	}
	<-p.release
	return p.Codec.Unmarshal(data, v)
}

// Hazard 9: the same with a value that another process has loaded. That it has the tag is only known when Redis has
// delivered it: who joins those who wait for it cannot be kept off before.
func TestWhoCameAfterATagWasInvalidatedTakesNoValueReadEarlierThatHasIt(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]aside.CallOption{"plain": nil, "strong": {aside.Strong()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			codec := &pausing{aside.JSON, make(chan struct{}), make(chan struct{})}
			slow := aside.Policy{Category: "slow", TTL: time.Hour, Codec: codec}
			loaded := func(v string) func(context.Context) (string, error) {
				return func(ctx context.Context) (string, error) {
					aside.CurrentLoad(ctx).Tag("late")
					return v, nil
				}
			}
			writer, c := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
			_, err := aside.GetOrLoad(t.Context(), writer, slow.Key(1), loaded("old"))
			require.NoError(t, err)
			asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", "slow:1") == int64(1) })

			first := asidetest.Background(t, c, slow.Key(1), loaded("unused"), opts...)
			<-codec.decoding // what it has read is as it should be, so far
			receipt, err := c.InvalidateTags(t.Context(), "late")
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			later := asidetest.Waiting(t, c, slow.Key(1), loaded("new"))
			close(codec.release)
			require.Equal(t, "old", <-first)
			require.Equal(t, "new", <-later)
		})
	}
}

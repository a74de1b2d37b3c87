package contract_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Chunks may take longer than the limit of a call that knew nothing of them. What it then asks Redis for is not cut off.
func TestWhatIsAskedAfterChunksHasTime(t *testing.T) {
	for name, want := range map[string]aside.Status{"generations of tags": aside.StatusHit, "a lease": aside.StatusMiss} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			writer, key := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Items.Key("large")
			load := func(ctx context.Context) ([]byte, error) {
				aside.CurrentLoad(ctx).Tag("late")
				return asidetest.Large(80 * asidetest.Chunk), nil
			}
			_, err := aside.GetOrLoad(t.Context(), writer, key, load)
			require.NoError(t, err)
			asidetest.Eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", key.String()).(int64) == 1 })
			const limit = time.Second // and 635 ms for the chunks
			w := asidetest.WatchedAs(t, server, func(addr string) aside.Options {
				o := asidetest.At(addr)
				o.OpTimeout = limit
				return o
			})
			last := func(args []string) bool {
				return strings.EqualFold(args[0], "GETRANGE") && strings.HasSuffix(args[1], ":79")
			}
			gate := w.Proxy.HoldRequests(last)
			if want == aside.StatusMiss {
				for _, k := range server.MustDo(t, "KEYS", asidetest.LargeKey+"*:79").([]any) {
					server.MustDo(t, "DEL", k.(string))
				}
			}
			got := make(chan aside.Result[[]byte], 1)
			began := time.Now()
			go func() {
				r, _ := aside.Lookup(t.Context(), w.Cache, key, load)
				got <- r
			}()
			gate.Wait(t)
			<-time.After(time.Until(began.Add(limit + 50*time.Millisecond)))
			gate.Release()
			r := <-got
			require.Equal(t, want, r.Status, r.Reason)
			require.Len(t, r.Value, 80*asidetest.Chunk)
		})
	}
}

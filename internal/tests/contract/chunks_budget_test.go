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
			asidetest.Repeatedly(t, "the last chunk comes after the limit, and before the time for chunks is over", func() bool {
				if want == aside.StatusMiss {
					for _, k := range server.MustDo(t, "KEYS", asidetest.LargeKey+"*:79").([]any) {
						server.MustDo(t, "DEL", k.(string))
					}
				}
				w := asidetest.WatchedAs(t, server, func(addr string) aside.Options {
					o := asidetest.At(addr)
					o.OpTimeout = limit
					return o
				})
				gate := w.Proxy.HoldRequests(func(args []string) bool {
					return strings.EqualFold(args[0], "GETRANGE") && strings.HasSuffix(args[1], ":79")
				})
				got := make(chan aside.Result[[]byte], 1)
				began := time.Now()
				go func() {
					r, _ := aside.Lookup(t.Context(), w.Cache, key, load)
					got <- r
				}()
				asidetest.Eventually(t, "the last chunk is asked for, or there was no time for that", func() bool { return gate.Held() > 0 || len(got) > 0 })
				<-time.After(time.Until(began.Add(limit + 50*time.Millisecond)))
				gate.Release()
				r := <-got
				require.Len(t, r.Value, 80*asidetest.Chunk)
				require.NoError(t, w.Close()) // it stores nothing during the next try
				return r.Status == want
			})
		})
	}
}

package aside_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// Chunks may take longer than the limit of a call that knew nothing of them. What it then asks Redis for is not cut off.
func TestWhatIsAskedAfterChunksHasTime(t *testing.T) {
	for name, want := range map[string]aside.Status{"generations of tags": aside.StatusHit, "a lease": aside.StatusMiss} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			writer, key := connected(t, at(server.Addr())), items.Key("large")
			load := func(ctx context.Context) ([]byte, error) {
				aside.Loading(ctx).Tag("late")
				return large(80 * chunk), nil
			}
			_, err := aside.GetOrLoad(t.Context(), writer, key, load)
			require.NoError(t, err)
			eventually(t, "it is stored", func() bool { return server.MustDo(t, "EXISTS", key.String()).(int64) == 1 })
			const limit = time.Second // and 635 ms for the chunks
			w := watchedAs(t, server, func(addr string) aside.Options {
				o := at(addr)
				o.OpTimeout = limit
				return o
			})
			last := func(args []string) bool {
				return strings.EqualFold(args[0], "GETRANGE") && strings.HasSuffix(args[1], ":79")
			}
			gate := w.proxy.HoldRequests(last)
			if want == aside.StatusMiss {
				for _, k := range server.MustDo(t, "KEYS", largeKey+"*:79").([]any) {
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
			require.Len(t, r.Value, 80*chunk)
		})
	}
}

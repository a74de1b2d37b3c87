package contract_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 38: a process that waits for another one's load looks again and again at a large value that it cannot use. What the head of the
// value shows is seen before its chunks are read, and chunks that were of no use are not read a second time.
func TestWaitingBesideALargeValueThatIsOfNoUseReadsItsHeadAlone(t *testing.T) {
	t.Parallel()
	newer := asidetest.Items
	newer.Version = 1
	for name, test := range map[string]struct {
		policy aside.Policy
		spoil  func(t *testing.T, server *redistest.Server)
		chunks int // that are read, at most
	}{
		"of an older version": {newer, func(*testing.T, *redistest.Server) {}, 0},
		"past its TTL": {asidetest.Items, func(t *testing.T, server *redistest.Server) {
			asidetest.Eventually(t, "its TTL is over", func() bool { return server.MustDo(t, "PTTL", "items:large").(int64) < 0 })
		}, 0},
		"without one of its chunks": {asidetest.Items, func(t *testing.T, server *redistest.Server) {
			keys := server.MustDo(t, "KEYS", asidetest.LargeKey+"*:3").([]any)
			require.Len(t, keys, 1)
			server.MustDo(t, "DEL", keys[0].(string))
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			writer := asidetest.Connected(t, asidetest.At(server.Addr()))
			var opts []aside.CallOption
			if name == "past its TTL" {
				opts = append(opts, aside.WithTTL(aside.Policy{}.TTL+1500e6)) // and Redis is told to keep it
			}
			asidetest.Repeatedly(t, "it is stored, and kept in time", func() bool {
				asidetest.Stored(t, writer, asidetest.Items.Key("large"), asidetest.Large(4*asidetest.Chunk), opts...)
				return name != "past its TTL" || server.MustDo(t, "PERSIST", "items:large") == int64(1)
			})
			if name == "past its TTL" {
				asidetest.Eventually(t, "its TTL is over", func() bool {
					_, err := aside.Get[[]byte](t.Context(), writer, asidetest.Items.Key("large"))
					return err != nil
				})
			} else {
				test.spoil(t, server)
			}
			holder, w := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
			key := test.policy.Key("large")
			began, release := make(chan struct{}), make(chan struct{})
			first := make(chan error, 1)
			go func() {
				_, err := aside.GetOrLoad(t.Context(), holder, key, func(context.Context) ([]byte, error) {
					close(began)
					<-release
					return []byte("new"), nil
				})
				first <- err
			}()
			<-began
			got := make(chan string, 1)
			go func() {
				v, _ := aside.GetOrLoad(t.Context(), w.Cache, key, func(context.Context) ([]byte, error) { return []byte("its own"), nil })
				got <- string(v)
			}()
			looks := func() (heads, chunks int) {
				for _, args := range w.Asked("GETRANGE") {
					switch {
					case args[0] == "items:large":
						heads++
					case strings.HasPrefix(args[0], asidetest.LargeKey):
						chunks++
					}
				}
				return heads, chunks
			}
			asidetest.Eventually(t, "it looks again and again", func() bool { heads, _ := looks(); return heads >= 5 })
			_, chunks := looks()
			close(release)
			require.NoError(t, <-first)
			require.Equal(t, "new", <-got)
			require.LessOrEqual(t, chunks, test.chunks)
		})
	}
}

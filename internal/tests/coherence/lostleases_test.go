package coherence_test

import (
	"context"
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 54. The lease of a load goes without anybody's doing, and so without a message; then a pattern that the key matches is
// invalidated, which changes nothing of the key in Redis. Whoever comes after that must not join the load.
func TestALoadThatHasLostItsLeaseIsNotJoined(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, server *redistest.Server, lease string){
		"deleted": func(t *testing.T, server *redistest.Server, lease string) { server.MustDo(t, "DEL", lease) },
		"expired": func(t *testing.T, server *redistest.Server, lease string) {
			asidetest.Eventually(t, "it has ended", func() bool {
				server.MustDo(t, "PEXPIRE", lease, "1") // again, if a renewal came in between
				return server.MustDo(t, "EXISTS", lease) == int64(0)
			})
		},
		"taken over": func(t *testing.T, server *redistest.Server, lease string) {
			server.MustDo(t, "SET", lease, "another", "PX", "50")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			o := asidetest.At(server.Addr())
			o.LeaseTTL = time.Second
			a, b := asidetest.Connected(t, o), asidetest.Connected(t, asidetest.At(server.Addr()))
			doomed, old := asidetest.NewHeld(), hex.EncodeToString(asidetest.Large(1<<20)) // so large that its chunks would be sent before its lease is compared
			first := asidetest.Background(t, a, asidetest.Items.Key("a"), doomed.Load(old))
			<-doomed.Began
			lose(t, server, "{items:a}!l")
			receipt, err := b.InvalidatePattern(t.Context(), asidetest.Items.Match(aside.Wildcard)) // Invalidate changes a missing key too, and so tells a
			if name == "taken over" {
				receipt, err = b.Invalidate(t.Context(), asidetest.Items.Key("a"))
			}
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)

			fresh := asidetest.NewHeld()
			close(fresh.Release)
			var last <-chan string
			asidetest.Eventually(t, "somebody loads anew", func() bool {
				last = asidetest.Background(t, a, asidetest.Items.Key("a"), fresh.Load("new"))
				return fresh.Loads.Load() > 0
			})
			require.Equal(t, "new", <-last)
			close(doomed.Release)
			require.Equal(t, old, <-first, "those who were waiting get it")
			asidetest.Eventually(t, "it is not stored", func() bool { return asidetest.Refused(a) > 0 })
			if name != "taken over" { // that lease is there to be removed, so this process is told before it asks
				require.Empty(t, server.MustDo(t, "KEYS", "*!c:*"), "nothing was sent")
			}
			v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("new")) // a busy machine may have lost that lease too
			require.NoError(t, err)
			require.Equal(t, "new", v)
		})
	}
}

// The chunks of a large value are guarded twice: the lease is read before the first one. This value has none.
func TestWhatWasLoadedUnderALostLeaseIsNotSent(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	o := asidetest.At(proxy.Addr())
	o.LeaseTTL = 2 * time.Second
	c := asidetest.Connected(t, o)
	doomed := asidetest.NewHeld()
	first := asidetest.Background(t, c, asidetest.Items.Key("a"), doomed.Load("old"))
	<-doomed.Began
	nonce, ok := server.MustDo(t, "GETDEL", "{items:a}!l").(string)
	require.True(t, ok)
	fresh := asidetest.NewHeld()
	close(fresh.Release)
	asidetest.Eventually(t, "the loss is known", func() bool {
		asidetest.Background(t, c, asidetest.Items.Key("a"), fresh.Load("new"))
		return fresh.Loads.Load() > 0
	})
	close(doomed.Release)
	require.Equal(t, "old", <-first)
	asidetest.Eventually(t, "it is not stored", func() bool { return asidetest.Refused(c) > 0 })
	asked := 0
	for _, args := range proxy.Log() {
		if args[0] == "EVALSHA" && args[2] == "2" && args[5] == nonce {
			asked++
			require.False(t, asidetest.IsFill(args, "items:a"), "%q", args)
		}
	}
	require.Positive(t, asked, "for the lease, and to renew it")
}

// Redis cannot be asked for as long as a lease lives: nobody knows any more whether it is held. A server without tracking shows it,
// since there the connection's loss alone keeps nobody from joining.
func TestALoadWhoseLeaseMayHaveEndedIsNotJoined(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, asidetest.Mini(t))
	o := asidetest.At(proxy.Addr())
	o.LeaseTTL = 300 * time.Millisecond
	c := asidetest.Connected(t, o)
	doomed := asidetest.NewHeld()
	first := asidetest.Background(t, c, asidetest.Items.Key("a"), doomed.Load("old"))
	<-doomed.Began
	proxy.Blackhole(true)
	fresh := asidetest.NewHeld()
	close(fresh.Release)
	asidetest.Eventually(t, "somebody loads anew", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, _ = aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), fresh.Load("new"))
		return fresh.Loads.Load() > 0
	})
	proxy.Blackhole(false)
	close(doomed.Release)
	require.Equal(t, "old", <-first)
}

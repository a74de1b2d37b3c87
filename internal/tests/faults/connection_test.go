package faults_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A server that comes back with what it had saved has forgotten every invalidation since, not only those of the last seconds,
// nor only the last few thousand.
func TestAnInvalidationThatTheServerHasForgottenIsNotUndoneHoweverManyCameAfterIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	key := asidetest.Items.Key("a")
	asidetest.InMemory(t, c, key, asidetest.Value("old"))
	server.MustDo(t, "SAVE")
	receipt, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	for i := range 5 { // more than are remembered
		others := make([]aside.Key, 1000)
		for j := range others {
			others[j] = asidetest.Items.Key("other", i, j)
		}
		receipt, err = c.Invalidate(t.Context(), others...)
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
	}
	server.Kill()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	proxy.Refuse(true)
	server.Restart()
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", key.String()), "the server has the old value again")
	proxy.Refuse(false)
	asidetest.Eventually(t, "it is back", func() bool {
		r, err := aside.Lookup(t.Context(), c, key, asidetest.Value("new"))
		require.NoError(t, err)
		require.Equal(t, "new", r.Value, r.Status)
		return r.Status == aside.StatusHit
	})
}

// A user who may do all but touch one category: degraded or not, but not back and forth with every call.
func TestALackOfPermissionForSomeKeysIsLoggedOnceAndRetriedSlowly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, asidetest.ACLRules("a-long-password", "items")...)...)
	var log asidetest.Logbook
	o := asidetest.At(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Logger = "limited", "a-long-password", log.Logger()
	c := asidetest.Connected(t, o)
	foreign := aside.Policy{Name: "foreign", Category: "foreign", TTL: time.Hour, DegradedTTL: -1}
	for began, i := time.Now(), 0; time.Since(began) < 2*time.Second; i++ {
		_, err := aside.GetOrLoad(t.Context(), c, foreign.Key(i), asidetest.Value("v"))
		require.NoError(t, err)
	}
	lines := log.Lines(t)
	require.LessOrEqual(t, len(lines), 6, "%d lines in 2 s", len(lines))
}

// The same for an invalidation that is not permitted: it waits in the journal, and must not have the connection made anew for
// every attempt.
func TestAnInvalidationThatIsNotPermittedDoesNotTakeTheConnectionWithIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, asidetest.ACLRules("a-long-password", "items")...)...)
	var log asidetest.Logbook
	o := asidetest.At(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Logger = "limited", "a-long-password", log.Logger()
	c := asidetest.Connected(t, o)
	foreign := aside.Policy{Name: "foreign", Category: "foreign", TTL: time.Hour}
	receipt, err := c.Invalidate(t.Context(), foreign.Key(1))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	select {
	case <-time.After(2 * time.Second):
	case <-t.Context().Done():
	}
	lines := log.Lines(t)
	require.LessOrEqual(t, len(lines), 6, "%d lines in 2 s, and no call", len(lines))
}

// A server that may not tell of changes any more is used without, as it would be by a process that starts now.
func TestACacheFindsBackToAServerThatTracksNoMore(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := asidetest.WatchedAs(t, server, asidetest.Anonymously)
	require.True(t, w.Health().Tracking)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking")
	w.Proxy.CloseConnections()
	asidetest.Eventually(t, "the loss is noticed", func() bool { return w.Health().State == aside.StateDegraded })
	asidetest.Eventually(t, "it is back, without tracking", func() bool { return w.Health().State == aside.StateConnected })
	require.False(t, w.Health().Tracking)
}

// And the other way round.
func TestACacheFindsOutThatAServerTracksAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking")
	w := asidetest.WatchedAs(t, server, asidetest.Anonymously)
	require.False(t, w.Health().Tracking)
	server.MustDo(t, "ACL", "SETUSER", "default", "+client|tracking")
	w.Proxy.CloseConnections()
	asidetest.Eventually(t, "it is back, with tracking", func() bool {
		_, err := aside.GetOrLoad(t.Context(), w.Cache, asidetest.Items.Key("a"), asidetest.Value("v"), aside.Strong()) // or nobody notices
		require.NoError(t, err)
		return w.Health().Tracking
	})
}

// Nor for want of the right to tell others.
func TestAnInvalidationIsNotRepeatedForWantOfTheRightToPublish(t *testing.T) {
	t.Parallel()
	invalidatedOnce(t, "resetchannels")
}

// callersDials counts the connections that are made, and which of them in the time of a caller.
type callersDials struct{ all, callers atomic.Int64 }

func (d *callersDials) dial(ctx context.Context, addr string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
	d.all.Add(1)
	if end, ok := ctx.Deadline(); ok && time.Until(end) < 200*time.Millisecond { // a caller has 100 ms, and the connector 3 s
		d.callers.Add(1)
	}
	return dialer.DialContext(ctx, "tcp", addr)
}

func TestNoCallerDials(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*rueidis.ClientOption){
		"as it is":              func(*rueidis.ClientOption) {},
		"several connections":   func(r *rueidis.ClientOption) { r.PipelineMultiplex = 2 },
		"no tracking":           func(r *rueidis.ClientOption) { r.AlwaysRESP2 = true },
		"several, and one goes": func(r *rueidis.ClientOption) { r.PipelineMultiplex = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.MayDeny() // the user may not publish, which is for servers without tracking
			proxy := redistest.StartProxy(t, server.Addr())
			var d callersDials
			o := asidetest.At(proxy.Addr())
			o.OpTimeout, o.Redis.ConnWriteTimeout, o.Redis.DialCtxFn = 100*time.Millisecond, 0, d.dial
			change(&o.Redis)
			c := asidetest.Connected(t, o)
			use := func() {
				keys := make([]aside.Key, 20)
				for i := range keys {
					keys[i] = asidetest.Items.Key(i)
					_, err := aside.GetOrLoad(t.Context(), c, keys[i], asidetest.Value("v"))
					require.NoError(t, err)
				}
				_, err := c.Invalidate(t.Context(), keys...)
				require.NoError(t, err)
			}
			use()
			require.Zero(t, d.callers.Load(), "connected")
			proxy.CloseConnections()
			for range 5 {
				use()
			}
			asidetest.Eventually(t, "it is back", func() bool { use(); return c.Health().State == aside.StateConnected })
			require.Zero(t, d.callers.Load(), "after a loss")
			require.Positive(t, d.all.Load())
		})
	}
}

// FAULTS 3: the first call of a policy finds a server that hangs.
func TestAHungServerCostsTheFirstCallOfAPolicyNoMoreThanAnyOther(t *testing.T) {
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.OpTimeout, o.Redis.ConnWriteTimeout, o.Redis.Dialer.KeepAlive = 0, 0, 0
	c := asidetest.Connected(t, o)
	others := aside.Policy{Name: "others", Category: "items", TTL: time.Hour}
	i := 0
	asidetest.Repeatedly(t, "operations are quick, and the first ones of the process are over", func() bool {
		i++
		began := time.Now()
		_, err := aside.GetOrLoad(t.Context(), c, others.Key(i), asidetest.Value("v"))
		require.NoError(t, err)
		return i >= 20 && time.Since(began) < 50*time.Millisecond
	})
	server.Pause()
	defer server.Resume()
	atMost, began := asidetest.Allowing(t), time.Now()
	_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
	took := time.Since(began)
	require.NoError(t, err)
	require.Less(t, took, atMost(150*time.Millisecond))
}

// A key that the user may not touch stays in the journal; the others with it do not.
func TestAForbiddenInvalidationHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, asidetest.ACLRules("a-long-password", "items")...)...)
	o := asidetest.At(server.Addr())
	o.Redis.Username, o.Redis.Password = "limited", "a-long-password"
	c := asidetest.Connected(t, o)
	foreign := aside.Policy{Name: "foreign", Category: "foreign", TTL: time.Hour}
	receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"), foreign.Key(1), asidetest.Items.Key("b"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	asidetest.Eventually(t, "what is permitted is confirmed, and cached again", func() bool {
		for _, id := range []string{"a", "b"} {
			r, err := aside.Lookup(t.Context(), c, asidetest.Items.Key(id), asidetest.Value("v"))
			require.NoError(t, err)
			if r.Status != aside.StatusHit {
				return false
			}
		}
		return true
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, receipt.Wait(ctx), context.Canceled, "the one that is not is still waited for")
}

func TestAServerThatIsNoClusterIsFoundOutAndHasOneConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.Redis.ForceSingleClient = false
	c := asidetest.Connected(t, o)
	require.True(t, c.Health().Tracking)
	asidetest.InMemory(t, c, asidetest.Items.Key("a"), asidetest.Value("v"))
	asidetest.Eventually(t, "who has asked is gone", func() bool {
		list := server.MustDo(t, "CLIENT", "LIST", "TYPE", "normal").(string)
		return strings.Count(list, "id=") == 2 // and the one that asks here
	})
}

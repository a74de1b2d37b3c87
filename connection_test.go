package aside_test

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
	"github.com/gatewayz/aside/internal/redistest"
)

// A server that comes back with what it had saved has forgotten every invalidation since, not only those of the last seconds,
// nor only the last few thousand.
func TestAnInvalidationThatTheServerHasForgottenIsNotUndoneHoweverManyCameAfterIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := connected(t, at(server.Addr()))
	key := items.Key("a")
	inMemory(t, c, key, value("old"))
	server.MustDo(t, "SAVE")
	receipt, err := c.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
	for i := range 5 { // more than are remembered
		others := make([]aside.Key, 1000)
		for j := range others {
			others[j] = items.Key("other", i, j)
		}
		receipt, err = c.Invalidate(t.Context(), others...)
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
	}
	server.Kill()
	eventually(t, "the loss is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	server.Restart()
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", key.String()), "the server has the old value again")
	eventually(t, "it is back", func() bool {
		r, err := aside.Lookup(t.Context(), c, key, value("new"))
		require.NoError(t, err)
		require.Equal(t, "new", r.Value, r.Status)
		return r.Status == aside.StatusHit
	})
}

// A user who may do all but touch one category: degraded or not, but not back and forth with every call.
func TestALackOfPermissionForSomeKeysIsLoggedOnceAndRetriedSlowly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, aclRules("a-long-password", "items")...)...)
	var log logbook
	o := at(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Logger = "limited", "a-long-password", log.logger()
	c := connected(t, o)
	foreign := aside.Policy{Name: "foreign", Category: "foreign", TTL: time.Hour, DegradedTTL: -1}
	for began, i := time.Now(), 0; time.Since(began) < 2*time.Second; i++ {
		_, err := aside.GetOrLoad(t.Context(), c, foreign.Key(i), value("v"))
		require.NoError(t, err)
	}
	lines := log.lines(t)
	require.LessOrEqual(t, len(lines), 6, "%d lines in 2 s", len(lines))
}

// The same for an invalidation that is not permitted: it waits in the journal, and must not have the connection made anew for
// every attempt.
func TestAnInvalidationThatIsNotPermittedDoesNotTakeTheConnectionWithIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, aclRules("a-long-password", "items")...)...)
	var log logbook
	o := at(server.Addr())
	o.Redis.Username, o.Redis.Password, o.Logger = "limited", "a-long-password", log.logger()
	c := connected(t, o)
	foreign := aside.Policy{Name: "foreign", Category: "foreign", TTL: time.Hour}
	receipt, err := c.Invalidate(t.Context(), foreign.Key(1))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	select {
	case <-time.After(2 * time.Second):
	case <-t.Context().Done():
	}
	lines := log.lines(t)
	require.LessOrEqual(t, len(lines), 6, "%d lines in 2 s, and no call", len(lines))
}

// A server that may not tell of changes any more is used without, as it would be by a process that starts now.
func TestACacheFindsBackToAServerThatTracksNoMore(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := watchedAs(t, server, anonymously)
	require.True(t, w.Health().Tracking)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking")
	w.proxy.CloseConnections()
	eventually(t, "the loss is noticed", func() bool { return w.Health().State == aside.StateDegraded })
	eventually(t, "it is back, without tracking", func() bool { return w.Health().State == aside.StateConnected })
	require.False(t, w.Health().Tracking)
}

// And the other way round.
func TestACacheFindsOutThatAServerTracksAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking")
	w := watchedAs(t, server, anonymously)
	require.False(t, w.Health().Tracking)
	server.MustDo(t, "ACL", "SETUSER", "default", "+client|tracking")
	w.proxy.CloseConnections()
	eventually(t, "it is back, with tracking", func() bool {
		_, err := aside.GetOrLoad(t.Context(), w.Cache, items.Key("a"), value("v"), aside.Strong()) // or nobody notices
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
	if end, ok := ctx.Deadline(); ok && time.Until(end) < time.Second { // the connector's own have 3 s
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
			o := at(proxy.Addr())
			o.OpTimeout, o.Redis.ConnWriteTimeout, o.Redis.DialCtxFn = 100*time.Millisecond, 0, d.dial
			change(&o.Redis)
			c := connected(t, o)
			use := func() {
				keys := make([]aside.Key, 20)
				for i := range keys {
					keys[i] = items.Key(i)
					_, err := aside.GetOrLoad(t.Context(), c, keys[i], value("v"))
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
			eventually(t, "it is back", func() bool { use(); return c.Health().State == aside.StateConnected })
			require.Zero(t, d.callers.Load(), "after a loss")
			require.Positive(t, d.all.Load())
		})
	}
}

// FAULTS 3: the first call of a policy finds a server that hangs.
func TestAHungServerCostsTheFirstCallOfAPolicyNoMoreThanAnyOther(t *testing.T) {
	server := redistest.Start(t)
	o := at(server.Addr())
	o.OpTimeout, o.Redis.ConnWriteTimeout = 0, 0
	c := connected(t, o)
	others := aside.Policy{Name: "others", Category: "items", TTL: time.Hour}
	for i := range 20 { // so that one operation at least was quick, and the first ones of the process are over
		_, err := aside.GetOrLoad(t.Context(), c, others.Key(i), value("v"))
		require.NoError(t, err)
	}
	server.Pause()
	defer server.Resume()
	began := time.Now()
	_, err := aside.GetOrLoad(t.Context(), c, items.Key("a"), value("v"))
	require.NoError(t, err)
	require.Less(t, time.Since(began), 150*time.Millisecond)
}

// A key that the user may not touch stays in the journal; the others with it do not.
func TestAForbiddenInvalidationHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "limited"}, aclRules("a-long-password", "items")...)...)
	o := at(server.Addr())
	o.Redis.Username, o.Redis.Password = "limited", "a-long-password"
	c := connected(t, o)
	foreign := aside.Policy{Name: "foreign", Category: "foreign", TTL: time.Hour}
	receipt, err := c.Invalidate(t.Context(), items.Key("a"), foreign.Key(1), items.Key("b"))
	require.NoError(t, err)
	require.False(t, receipt.Confirmed)
	eventually(t, "what is permitted is confirmed, and cached again", func() bool {
		for _, id := range []string{"a", "b"} {
			r, err := aside.Lookup(t.Context(), c, items.Key(id), value("v"))
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
	o := at(server.Addr())
	o.Redis.ForceSingleClient = false
	c := connected(t, o)
	require.True(t, c.Health().Tracking)
	inMemory(t, c, items.Key("a"), value("v"))
	eventually(t, "who has asked is gone", func() bool {
		list := server.MustDo(t, "CLIENT", "LIST", "TYPE", "normal").(string)
		return strings.Count(list, "id=") == 2 // and the one that asks here
	})
}

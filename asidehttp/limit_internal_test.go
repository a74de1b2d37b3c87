package asidehttp

import (
	"math"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func limiterOf(t testing.TB, o Options) *limiter {
	l, err := o.limiter()
	require.NoError(t, err)
	return l
}

func TestAClientHasItsBurstAndThenItsRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiterOf(t, Options{Rate: 2, Burst: 3})
		a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		take := func(addr netip.Addr) bool { _, ok := l.take(addr); return ok }
		for range 3 {
			require.True(t, take(a))
		}
		wait, ok := l.take(a)
		require.False(t, ok)
		require.Equal(t, 500*time.Millisecond, wait)
		require.True(t, take(b), "another client is not held up")

		time.Sleep(wait - time.Nanosecond)
		require.False(t, take(a), "asking again does not put it off")
		time.Sleep(2 * time.Nanosecond)
		require.True(t, take(a))
		require.False(t, take(a))
		time.Sleep(time.Hour)
		for range 3 {
			require.True(t, take(a))
		}
		require.False(t, take(a), "no more than a burst is saved")
	})
}

func TestTheDefaultsLimit(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Rate: math.NaN(), Burst: -5}, {Rate: math.Inf(1)}} {
		l, _ := o.limiter()
		n := 0
		for ; n < 1000; n++ {
			if _, ok := l.take(netip.Addr{}); !ok {
				break
			}
		}
		require.InDelta(t, 50, n, 5)
	}
	for _, o := range []Options{{Rate: math.NaN()}, {Rate: math.Inf(1)}, {Burst: -1}, {TrustedProxies: make([]netip.Prefix, 1)}} {
		require.Error(t, o.Validate())
	}
	l := limiterOf(t, Options{Rate: -1})
	for range 1000 {
		_, ok := l.take(netip.Addr{})
		require.True(t, ok)
	}
}

func TestOneSubscriberIsOneClient(t *testing.T) {
	t.Parallel()
	l := limiterOf(t, Options{Rate: 1e-9, Burst: 1})
	take := func(addr string) bool { _, ok := l.take(netip.MustParseAddr(addr)); return ok }
	require.True(t, take("2001:db8:1:2::1"))
	require.False(t, take("2001:db8:1:2:ffff::7"))
	require.True(t, take("2001:db8:1:3::1"))
}

// However many clients there are, memory is bounded; who is not told apart shares, and nobody gets a new allowance by crowding
// out his old one.
func TestCrowdsShareAndForgetNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiterOf(t, Options{Rate: 0.001, Burst: 2})
		addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
		take := func(i int) bool { _, ok := l.take(addr(i)); return ok }
		require.Equal(t, []bool{true, true, false}, []bool{take(0), take(0), take(0)})
		served := 0
		for i := 1; i < 3*maxClients; i++ {
			if take(i) {
				served++
			}
		}
		require.Len(t, l.clients, maxClients)
		require.Equal(t, maxClients-1+2, served)
		_, ok := l.take(netip.MustParseAddr("192.0.2.1"))
		require.True(t, ok, "another network is not held up by the crowd")
		require.False(t, take(0), "not crowded out")
		time.Sleep(time.Hour) // all but the first are full again, and make room
		require.True(t, take(3*maxClients))
		require.Less(t, len(l.clients), 10)
		require.Empty(t, l.wider)
	})
}

func TestWhoTheClientIs(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, tt := range []struct {
		name      string
		proxies   []netip.Prefix
		remote    string
		forwarded []string
		want      string
	}{
		{"nobody is trusted", nil, "10.0.0.1:555", []string{"192.0.2.7"}, "10.0.0.1"},
		{"not a proxy", proxies, "192.0.2.1:555", []string{"192.0.2.7"}, "192.0.2.1"},
		{"a proxy", proxies, "10.0.0.1:555", []string{"192.0.2.7"}, "192.0.2.7"},
		{"a proxy over IPv6", proxies, "[fd00::1]:555", []string{"2001:db8::7"}, "2001:db8::7"},
		{"an IPv4 address in IPv6", proxies, "[::ffff:10.0.0.1]:555", []string{"::ffff:192.0.2.7"}, "192.0.2.7"},
		{"a proxy behind another", proxies, "10.0.0.1:555", []string{"192.0.2.7, 10.0.0.2"}, "192.0.2.7"},
		{"several headers", proxies, "10.0.0.1:555", []string{"192.0.2.7", "10.0.0.2"}, "192.0.2.7"},
		{"what the client has made up", proxies, "10.0.0.1:555", []string{"203.0.113.5, 10.9.9.9, 192.0.2.7"}, "192.0.2.7"},
		{"with a port", proxies, "10.0.0.1:555", []string{"192.0.2.7:8080"}, "192.0.2.7"},
		{"no address", proxies, "10.0.0.1:555", []string{"192.0.2.7, unknown"}, "10.0.0.1"},
		{"no header", proxies, "10.0.0.1:555", nil, "10.0.0.1"},
		{"only proxies", proxies, "10.0.0.1:555", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"an address without a port", proxies, "192.0.2.1", nil, "192.0.2.1"},
		{"a socket", proxies, "@", []string{"192.0.2.7"}, "invalid IP"},
	} {
		l := limiterOf(t, Options{TrustedProxies: tt.proxies})
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.remote
		r.Header["X-Forwarded-For"] = tt.forwarded
		require.Equal(t, tt.want, l.client(r).String(), tt.name)
	}
}

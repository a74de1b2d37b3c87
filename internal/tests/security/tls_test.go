package security_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A server wants a certificate of its clients, and this process has none, or another one. In TLS 1.3 it says so when the client has begun
// to write: what is said does not depend on which of the two comes first.
func TestARefusedCertificateIsSaidOnce(t *testing.T) {
	t.Parallel()
	foreign, _ := asidetest.Certificate(t, "client.test", time.Now().Add(time.Hour))
	for name, own := range map[string][]tls.Certificate{"none": nil, "another one": {foreign}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addr, pool := asidetest.OverTLS(t)
			var log asidetest.Logbook
			var dials atomic.Int64
			o := aside.Options{Redis: asidetest.To(addr, asidetest.Trusting(pool, "redis.test")), Logger: log.Logger()}
			o.Redis.TLSConfig.Certificates = own
			o.Redis.ConnWriteTimeout, o.Redis.Dialer.KeepAlive = 2500*time.Millisecond, 250*time.Millisecond // a busy machine may be slow to refuse it
			o.Redis.TLSConfig.VerifyConnection = func(tls.ConnectionState) error { dials.Add(1); return nil }
			c := asidetest.NewCache(t, o)
			seen := make(map[string]int)
			asidetest.Eventually(t, "several attempts fail", func() bool { seen[c.Health().Reason]++; return dials.Load() >= 6 })
			delete(seen, "connecting to redis")
			asidetest.Eventually(t, "it is logged", func() bool { return len(log.Lines(t)) > 0 })
			require.Len(t, log.Lines(t), 1, "%v\n%s", seen, log.String())
			require.Len(t, seen, 1)
			require.Contains(t, c.Health().Reason, "redis refused the TLS handshake")
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	const host, password = "redis.test", "canary-of-a-password"
	server := redistest.Start(t, "--requirepass", password)
	good, trusted := asidetest.Certificate(t, host, time.Now().Add(time.Hour))
	expired, ofExpired := asidetest.Certificate(t, host, time.Now().Add(-time.Hour))
	for name, test := range map[string]struct {
		offers *tls.Config // nil for a server without TLS
		trusts *x509.CertPool
		reason string // why it is refused; empty where it is not
	}{
		"a good certificate":         {&tls.Config{Certificates: []tls.Certificate{good}}, trusted, ""},
		"an expired one":             {&tls.Config{Certificates: []tls.Certificate{expired}}, ofExpired, "certificate of redis was refused: it has expired, or is not valid yet"},
		"that of another authority":  {&tls.Config{Certificates: []tls.Certificate{good}}, ofExpired, "certificate of redis was refused: it is signed by an authority that is not trusted"},
		"TLS 1.0":                    {&tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, trusted, "refused the TLS handshake: protocol version"},
		"no TLS":                     {nil, trusted, "redis"},
		"a certificate of elsewhere": {&tls.Config{Certificates: []tls.Certificate{good}}, trusted, "certificate of redis was refused: it is for another host"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, connections, seen := asidetest.Terminate(t, server.Addr(), test.offers)
			o := asidetest.Anonymously(addr)
			o.Redis.Password = password
			o.Redis.TLSConfig = &tls.Config{RootCAs: test.trusts, ServerName: host}
			if name == "a certificate of elsewhere" {
				o.Redis.TLSConfig.ServerName = "another.test"
			}
			var log asidetest.Logbook
			o.Logger = log.Logger()
			if test.reason == "" {
				c := asidetest.Connected(t, o)
				asidetest.Stored(t, c, asidetest.Items.Key("tls"), "v")
				return
			}
			o.Redis.Dialer.Timeout = time.Second
			c := asidetest.NewCache(t, o)
			asidetest.Eventually(t, "it is refused", func() bool { return strings.Contains(c.Health().Reason, test.reason) && connections.Load() > 0 })
			require.Equal(t, aside.StateDegraded, c.Health().State)
			for _, name := range []string{host, "another.test", "127.0.0.1"} { // a health check that asks for no key shows the reason
				require.NotContains(t, c.Health().Reason, name)
			}
			asidetest.RequireLoaded(t, c, asidetest.Items.Key("a"))
			require.NotContains(t, strings.ToUpper(seen.String()), "HELLO", "nothing is sent but a handshake")
			for _, text := range []string{log.String(), seen.String(), fmt.Sprintf("%+v %+v %+v", o, c, c.Health())} {
				require.NotContains(t, text, password)
			}
		})
	}
}

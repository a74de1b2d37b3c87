package aside_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// certificate makes a certificate of its own authority.
func certificate(t *testing.T, host string, until time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// terminate takes connections for a server, with TLS where there is a configuration for it, and counts them.
func terminate(t *testing.T, server string, config *tls.Config) (addr string, connections *atomic.Int64, seen *logbook) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	connections, seen = new(atomic.Int64), new(logbook)
	var busy sync.WaitGroup
	busy.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			busy.Go(func() {
				defer conn.Close()
				plain := conn
				if config != nil {
					plain = tls.Server(conn, config)
				}
				back, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer back.Close()
				busy.Go(func() { _, _ = io.Copy(plain, back); conn.Close() })
				_, _ = io.Copy(io.MultiWriter(seen, back), plain)
			})
		}
	})
	t.Cleanup(func() { l.Close(); busy.Wait() })
	return l.Addr().String(), connections, seen
}

// overTLS is the address of a real server that speaks TLS, and what it is trusted by. Unless args say otherwise it wants a certificate of
// its clients.
func overTLS(t *testing.T, args ...string) (s *redistest.Server, addr string, pool *x509.CertPool) {
	t.Helper()
	cert, pool := certificate(t, "redis.test", time.Now().Add(time.Hour))
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return name
	}
	c, k := write("cert.pem", "CERTIFICATE", cert.Certificate[0]), write("key.pem", "PRIVATE KEY", key)
	port := strconv.Itoa(redistest.FreePort(t))
	s = redistest.Start(t, append([]string{"--tls-port", port, "--tls-cert-file", c, "--tls-key-file", k, "--tls-ca-cert-file", c}, args...)...)
	return s, net.JoinHostPort("127.0.0.1", port), pool
}

// A server wants a certificate of its clients, and this process has none, or another one. In TLS 1.3 it says so when the client has begun
// to write: what is said does not depend on which of the two comes first.
func TestARefusedCertificateIsSaidOnce(t *testing.T) {
	t.Parallel()
	foreign, _ := certificate(t, "client.test", time.Now().Add(time.Hour))
	for name, own := range map[string][]tls.Certificate{"none": nil, "another one": {foreign}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addr, pool := overTLS(t)
			var log logbook
			var dials atomic.Int64
			o := aside.Options{Redis: to(addr, trusting(pool, "redis.test")), Logger: log.logger()}
			o.Redis.TLSConfig.Certificates = own
			o.Redis.TLSConfig.VerifyConnection = func(tls.ConnectionState) error { dials.Add(1); return nil }
			c := newCache(t, o)
			seen := make(map[string]int)
			eventually(t, "several attempts fail", func() bool { seen[c.Health().Reason]++; return dials.Load() >= 6 })
			delete(seen, "connecting to redis")
			require.Len(t, log.lines(t), 1, "%v\n%s", seen, log.String())
			require.Len(t, seen, 1)
			require.Contains(t, c.Health().Reason, "redis refused the TLS handshake")
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	const host, password = "redis.test", "canary-of-a-password"
	server := redistest.Start(t, "--requirepass", password)
	good, trusted := certificate(t, host, time.Now().Add(time.Hour))
	expired, ofExpired := certificate(t, host, time.Now().Add(-time.Hour))
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
			addr, connections, seen := terminate(t, server.Addr(), test.offers)
			o := anonymously(addr)
			o.Redis.Password = password
			o.Redis.TLSConfig = &tls.Config{RootCAs: test.trusts, ServerName: host}
			if name == "a certificate of elsewhere" {
				o.Redis.TLSConfig.ServerName = "another.test"
			}
			var log logbook
			o.Logger = log.logger()
			if test.reason == "" {
				c := connected(t, o)
				stored(t, c, items.Key("tls"), "v")
				return
			}
			o.Redis.Dialer.Timeout = time.Second
			c := newCache(t, o)
			eventually(t, "it is refused", func() bool { return strings.Contains(c.Health().Reason, test.reason) && connections.Load() > 0 })
			require.Equal(t, aside.StateDegraded, c.Health().State)
			for _, name := range []string{host, "another.test", "127.0.0.1"} { // a health check that asks for no key shows the reason
				require.NotContains(t, c.Health().Reason, name)
			}
			requireLoaded(t, c, items.Key("a"))
			require.NotContains(t, strings.ToUpper(seen.String()), "HELLO", "nothing is sent but a handshake")
			for _, text := range []string{log.String(), seen.String(), fmt.Sprintf("%+v %+v %+v", o, c, c.Health())} {
				require.NotContains(t, text, password)
			}
		})
	}
}

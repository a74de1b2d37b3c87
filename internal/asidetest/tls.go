package asidetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// Certificate makes a certificate of its own authority.
func Certificate(t *testing.T, host string, until time.Time) (tls.Certificate, *x509.CertPool) {
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

// Terminate takes connections for a server, with TLS where there is a configuration for it, and counts them.
func Terminate(t *testing.T, server string, config *tls.Config) (addr string, connections *atomic.Int64, seen *Logbook) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	connections, seen = new(atomic.Int64), new(Logbook)
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

// OverTLS is the address of a real server that speaks TLS, and what it is trusted by. Unless args say otherwise it wants a certificate of
// its clients.
func OverTLS(t *testing.T, args ...string) (s *redistest.Server, addr string, pool *x509.CertPool) {
	t.Helper()
	cert, pool := Certificate(t, "redis.test", time.Now().Add(time.Hour))
	s, port, _ := ServerOverTLS(t, cert, args...)
	return s, net.JoinHostPort("127.0.0.1", port), pool
}

// ServerOverTLS is a real server with a certificate, the port at which it speaks TLS, and the file with the certificate.
func ServerOverTLS(t *testing.T, cert tls.Certificate, args ...string) (s *redistest.Server, port, file string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return name
	}
	file, port = write("cert.pem", "CERTIFICATE", cert.Certificate[0]), strconv.Itoa(redistest.FreePort(t))
	own := []string{"--tls-port", port, "--tls-cert-file", file, "--tls-key-file", write("key.pem", "PRIVATE KEY", key), "--tls-ca-cert-file", file}
	return redistest.Start(t, append(own, args...)...), port, file
}

package asidetest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// Answering runs a server that does the same with each connection.
func Answering(t *testing.T, do func(conn net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var busy sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	busy.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			busy.Go(func() { defer conn.Close(); do(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		busy.Wait()
	})
	return l.Addr().String()
}

func To(addr string, change ...func(*rueidis.ClientOption)) rueidis.ClientOption {
	o := rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true}
	for _, c := range change {
		c(&o)
	}
	return o
}

func Trusting(pool *x509.CertPool, name string) func(*rueidis.ClientOption) {
	return func(o *rueidis.ClientOption) { o.TLSConfig = &tls.Config{RootCAs: pool, ServerName: name} }
}

package asidehttp_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
)

// saying is a server that answers every command with one error.
func saying(t *testing.T, words string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(asidetest.Bound))
				in := bufio.NewReader(conn)
				for {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					var n int
					if _, err := fmt.Sscanf(line, "*%d", &n); err != nil {
						return
					}
					for range 2 * n {
						if _, err := in.ReadString('\n'); err != nil {
							return
						}
					}
					if _, err := io.WriteString(conn, "-"+words+"\r\n"); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// Health names no host, key or user.
func TestHealthNamesNoHostAndNoUser(t *testing.T) {
	t.Parallel()
	for _, words := range []string{
		"ERR user svc-billing is disabled on db1.corp.example",
		"ERR no route to shard prod-7.redis.internal for key user:4711:profile",
		"NOAUTH user svc-billing must log in at vault.corp.example",
		"ERR 'svc-billing' may not connect from web-3",
		"WRONGPASS account svc-billing is locked",
		"ERR DB index is out of range for svc-billing",
		"ERR backend db1:6379 refused",
	} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			var log output
			c, err := aside.New(aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{saying(t, words)}}, Logger: log.logger()})
			require.NoError(t, err)
			defer c.Close()
			eventually(t, "it has failed", func() bool { return !strings.Contains(c.Health().Reason, "connecting") })
			w := httptest.NewRecorder()
			asidehttp.Health(c, asidehttp.HealthOptions{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			for _, name := range []string{"svc-billing", "corp.example", "redis.internal", "4711", "web-3", "db1"} {
				require.NotContains(t, w.Body.String(), name)
			}
		})
	}
}

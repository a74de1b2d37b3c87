package aside_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// overTLS is the address of a real server that speaks TLS, and what it is trusted by.
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

// What is said of mistakes of deployment tells what it is: it does not end with a code, or with "failed", and it does not lead elsewhere.
func TestWhatIsSaidOfAMistakeLeadsToIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		says string
		with func(t *testing.T) rueidis.ClientOption
	}{
		// 7.0.15: "max number of clients + cluster connections reached".
		"too many clients of a node of a cluster": {"takes no more connections", func(t *testing.T) rueidis.ClientOption {
			s := redistest.Start(t, "--cluster-enabled", "yes")
			s.MustDo(t, "CONFIG", "SET", "maxclients", "1")
			conn, err := net.Dial("tcp", s.Addr())
			require.NoError(t, err)
			t.Cleanup(func() { conn.Close() })
			return rueidis.ClientOption{InitAddress: []string{s.Addr()}}
		}},
		// The server closes such a connection before the handshake: the port does speak TLS.
		"too many clients of a server with TLS": {"connections", func(t *testing.T) rueidis.ClientOption {
			s, addr, pool := overTLS(t, "--tls-auth-clients", "no")
			s.MustDo(t, "CONFIG", "SET", "maxclients", "1")
			conn, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			t.Cleanup(func() { conn.Close() })
			return to(addr, trusting(pool, "redis.test"))
		}},
		"a node of a cluster that knows of no slots": {"slots", func(t *testing.T) rueidis.ClientOption {
			return rueidis.ClientOption{InitAddress: []string{redistest.Start(t, "--cluster-enabled", "yes").Addr()}}
		}},
		"a server or proxy of RESP2 alone": {"RESP3", func(t *testing.T) rueidis.ClientOption {
			return to(answering(t, func(conn net.Conn) {
				b := make([]byte, 4096)
				for {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					for range strings.Count(string(b[:n]), "*") {
						_, _ = io.WriteString(conn, "-NOPROTO unsupported protocol version\r\n")
					}
				}
			}))
		}},
		"a server that lets this address not in": {"allowlist", func(t *testing.T) rueidis.ClientOption {
			return to(answering(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, "-ERR Client IP address is not in the allowlist.\r\n")
			}))
		}},
		"a path of a socket that is too long": {"socket", func(t *testing.T) rueidis.ClientOption {
			return rueidis.MustParseURL("unix:///tmp/" + strings.Repeat("x", 120) + ".sock")
		}},
		"a function for credentials that fails": {"AuthCredentialsFn", func(t *testing.T) rueidis.ClientOption {
			return to(redistest.Start(t).Addr(), func(o *rueidis.ClientOption) {
				o.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
					return rueidis.AuthCredentials{}, errors.New("the token has expired")
				}
			})
		}},
		// Username and Password are those of the primary, and they are set.
		"a password of Sentinels": {"Sentinel.Password", func(t *testing.T) rueidis.ClientOption {
			s := redistest.StartSentinel(t, "main", redistest.Start(t, "--requirepass", "of the primary"), 1)
			s.MustDo(t, "ACL", "SETUSER", "default", "resetpass", ">of the Sentinels")
			return to(s.Addr(), func(o *rueidis.ClientOption) { o.Sentinel.MasterSet, o.Password = "main", "of the primary" })
		}},
		// The address that is configured can be reached: it is another one that cannot.
		"a Sentinel that names an address that leads nowhere": {"Sentinel", func(t *testing.T) rueidis.ClientOption {
			p := redistest.Start(t)
			s := redistest.StartSentinel(t, "main", p, 1)
			p.Kill()
			return to(s.Addr(), func(o *rueidis.ClientOption) { o.Sentinel.MasterSet = "main" })
		}},
		"a user who may not run TIME": {"TIME", func(t *testing.T) rueidis.ClientOption {
			s := redistest.Start(t)
			s.MustDo(t, "ACL", "SETUSER", "default", "-time")
			return to(s.Addr())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := aside.Options{Redis: test.with(t), Logger: quiet()}
			c := newCache(t, o)
			eventually(t, "it is said", func() bool { h := c.Health(); return h.Reason != "" && h.Reason != "connecting to redis" })
			<-time.After(time.Second)
			require.Contains(t, c.Health().Reason, test.says)
		})
	}
}

// A server wants a certificate of its clients, and this process has none, or another one. In TLS 1.3 it says so when the client has begun
// to write: what is said must not depend on which of the two comes first, and nothing has changed that would be worth a line.
func TestARefusedCertificateIsSaidOnce(t *testing.T) {
	t.Parallel()
	foreign, _ := certificate(t, "client.test", time.Now().Add(time.Hour))
	for name, own := range map[string][]tls.Certificate{"none": nil, "another one": {foreign}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addr, pool := overTLS(t)
			var log logbook
			o := aside.Options{Redis: to(addr, trusting(pool, "redis.test")), Logger: log.logger()}
			o.Redis.TLSConfig.Certificates = own
			c := newCache(t, o)
			seen := make(map[string]int)
			for began := time.Now(); time.Since(began) < 25*time.Second; time.Sleep(20 * time.Millisecond) {
				seen[c.Health().Reason]++
			}
			delete(seen, "connecting to redis")
			t.Logf("%v\n%s", seen, log.String())
			require.Len(t, log.lines(t), 1)
			require.Len(t, seen, 1)
		})
	}
}

// The log names the reason, also where it is another one than that of the first line.
func TestTheLogNamesTheReasonThatLasts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var log logbook
	o := at(server.Addr())
	o.Logger = log.logger()
	c := connected(t, o)
	server.Kill()
	eventually(t, "it is known why there is no connection", func() bool { return c.Health().Reason == connectionRefused })
	<-time.After(11 * time.Second)
	require.Equal(t, connectionRefused, c.Health().Reason)
	require.Contains(t, log.String(), connectionRefused)
}

// The README says of docs/messages.md that it lists each reason of Health.
func TestThePageOfMessagesHasEachReason(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/messages.md")
	require.NoError(t, err)
	for name, with := range map[string]func(t *testing.T) *redistest.Server{
		"MISCONF": func(t *testing.T) *redistest.Server {
			s := redistest.Start(t, "--save", "1 1")
			s.MustDo(t, "SET", "a", "b")
			require.NoError(t, os.RemoveAll(s.MustDo(t, "CONFIG", "GET", "dir").([]any)[1].(string)))
			_, _ = s.Do("BGSAVE")
			eventually(t, "it cannot save", func() bool { _, err := s.Do("SET", "a", "b"); return err != nil })
			return s
		},
		"BUSY": func(t *testing.T) *redistest.Server {
			s := redistest.Start(t, "--busy-reply-threshold", "10")
			conn := redistest.Raw(t, s.Addr())
			done := make(chan struct{})
			go func() { defer close(done); _, _ = conn.Do("EVAL", "while true do end", "0") }()
			t.Cleanup(func() { _, _ = s.Do("SCRIPT", "KILL"); <-done })
			eventually(t, "it is busy", func() bool { _, err := s.Do("GET", "a"); return err != nil })
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, aside.Options{Redis: to(with(t).Addr()), Logger: quiet()})
			eventually(t, "it is said", func() bool { return strings.Contains(c.Health().Reason, name) })
			require.Contains(t, string(page), c.Health().Reason)
		})
	}
}

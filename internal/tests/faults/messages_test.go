package faults_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// speakingTLS is what such a server does that speaks TLS and nothing else.
func speakingTLS(config *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		c := tls.Server(conn, config)
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
}

// A cause is something that is wrong with Redis, or on the way there.
type cause struct {
	name   string
	reason string // Health.Reason, whole
	with   func(t *testing.T) rueidis.ClientOption
}

func causes() []cause {
	const host = "redis.test"
	withTLS := func(t *testing.T, change func(*tls.Config), until time.Time, name string) rueidis.ClientOption {
		cert, pool := asidetest.Certificate(t, host, until)
		config := &tls.Config{Certificates: []tls.Certificate{cert}}
		if change != nil {
			change(config)
		}
		return asidetest.To(asidetest.Answering(t, speakingTLS(config)), asidetest.Trusting(pool, name))
	}
	later := time.Now().Add(time.Hour)
	return append(mistakes(), []cause{
		{"nothing listens", "redis cannot be reached: nothing listens at its address (connection refused)", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(closedPort(t))
		}},
		{"no such host", "redis cannot be reached: DNS knows no such host name", func(*testing.T) rueidis.ClientOption {
			return asidetest.To("no-such-host.test:6379", func(o *rueidis.ClientOption) {
				// As the resolver says it, on a machine that has none too.
				o.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "no-such-host.test", IsNotFound: true}}
				}
			})
		}},
		{"DNS is away", "redis cannot be reached: DNS gave no answer for its host name", func(*testing.T) rueidis.ClientOption {
			return asidetest.To("some-host.test:6379", func(o *rueidis.ClientOption) {
				o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
					d.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
						return nil, &net.OpError{Op: "dial", Net: "udp", Err: os.NewSyscallError("connect", os.ErrDeadlineExceeded)}
					}}
					return d.DialContext(ctx, "tcp", addr)
				}
			})
		}},
		{"no such socket", "redis cannot be reached: there is no such socket file", func(t *testing.T) rueidis.ClientOption {
			return rueidis.MustParseURL("unix://" + filepath.Join(t.TempDir(), "no.sock"))
		}},
		{"a black hole", "redis did not answer in time", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(asidetest.Answering(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }))
		}},
		{"another service", "what answers at the address does not speak the protocol of redis: check host and port, and whether it wants TLS", func(t *testing.T) rueidis.ClientOption {
			s := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(s.Close)
			return asidetest.To(s.Listener.Addr().String())
		}},
		{"a proxy that does not know HELLO", "the connection was closed before redis had answered: it may want TLS (rediss://), be a proxy that does not know HELLO, or take no more connections", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(asidetest.Answering(t, func(conn net.Conn) { _, _ = bufio.NewReader(conn).ReadString('\n') }))
		}},
		{"no TLS to a server with TLS", "the connection was closed before redis had answered: it may want TLS (rediss://), be a proxy that does not know HELLO, or take no more connections", func(t *testing.T) rueidis.ClientOption {
			cert, _ := asidetest.Certificate(t, host, later)
			return asidetest.To(asidetest.Answering(t, speakingTLS(&tls.Config{Certificates: []tls.Certificate{cert}})))
		}},
		{"TLS to a server without", "redis did not answer the TLS handshake in time: check that its port speaks TLS", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t).Addr(), asidetest.Trusting(nil, host))
		}},
		{"TLS to a server of another protocol", "redis speaks no TLS at this port: check the port, or connect without TLS (redis://)", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(asidetest.Answering(t, func(conn net.Conn) {
				_, _ = io.WriteString(conn, "SSH-2.0-something\r\n")
				_, _ = io.Copy(io.Discard, conn)
			}), asidetest.Trusting(nil, host))
		}},
		{"TLS to a server that closes", "redis closed the connection in the TLS handshake: check that its port speaks TLS, and whether it takes more connections (maxclients)", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(asidetest.Answering(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) }), asidetest.Trusting(nil, host))
		}},
		{"an expired certificate", "the certificate of redis was refused: it has expired, or is not valid yet", func(t *testing.T) rueidis.ClientOption {
			return withTLS(t, nil, time.Now().Add(-time.Hour), host)
		}},
		{"a certificate of another host", "the certificate of redis was refused: it is for another host", func(t *testing.T) rueidis.ClientOption {
			return withTLS(t, nil, later, "another.test")
		}},
		{"a certificate of another authority", "the certificate of redis was refused: it is signed by an authority that is not trusted", func(t *testing.T) rueidis.ClientOption {
			o := withTLS(t, nil, later, host)
			_, o.TLSConfig.RootCAs = asidetest.Certificate(t, host, later)
			return o
		}},
		{"no certificate of this process's", "redis refused the TLS handshake: certificate required (it wants a certificate of this process that it trusts: TLSConfig.Certificates)", func(t *testing.T) rueidis.ClientOption {
			return withTLS(t, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, later, host)
		}},
		{"an old TLS", "redis refused the TLS handshake: protocol version not supported (TLS 1.2 or later is needed)", func(t *testing.T) rueidis.ClientOption {
			return withTLS(t, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, later, host)
		}},
		{"too many clients", "redis answered ERR max number of clients reached: it takes no more connections: raise maxclients there, or find out who holds so many", func(t *testing.T) rueidis.ClientOption {
			s := redistest.Start(t)
			s.MustDo(t, "CONFIG", "SET", "maxclients", "1")
			conn, err := net.Dial("tcp", s.Addr())
			require.NoError(t, err)
			t.Cleanup(func() { conn.Close() })
			return asidetest.To(s.Addr())
		}},
		{"a database that is not there", "redis answered ERR DB index is out of range: it has fewer databases than the number that it was asked for", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t).Addr(), func(o *rueidis.ClientOption) { o.SelectDB = 99 })
		}},
		{"a database of a cluster", "redis answered ERR SELECT is not allowed in cluster mode: a cluster has database 0 alone", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t, "--cluster-enabled", "yes").Addr(), func(o *rueidis.ClientOption) { o.SelectDB = 1 })
		}},
		{"a cluster without slots", "redis answered CLUSTERDOWN: the cluster lacks a node for some slots, or this node cannot reach the others", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t, "--cluster-enabled", "yes").Addr())
		}},
		{"a Sentinel's port", "redis answered ERR unknown command 'TIME': it is a Sentinel (set Sentinel.MasterSet), or the command is renamed or switched off", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.StartSentinel(t, "main", redistest.Start(t), 1).Addr())
		}},
		{"a Sentinel that watches another primary", "redis answered ERR No such master with that name: the Sentinels watch no primary of that name (Sentinel.MasterSet)", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.StartSentinel(t, "main", redistest.Start(t), 1).Addr(), func(o *rueidis.ClientOption) { o.Sentinel.MasterSet = "other" })
		}},
		{"no Sentinel", "redis answered ERR unknown command 'SENTINEL': it is no Sentinel: leave Sentinel.MasterSet unset, or name the port of one (mostly 26379)", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t).Addr(), func(o *rueidis.ClientOption) { o.Sentinel.MasterSet = "other" })
		}},
		{"no password", "redis answered NOAUTH: it asks for a password: set Username and Password", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t, "--requirepass", asidetest.Canary).Addr())
		}},
		{"a wrong password", "redis answered WRONGPASS: check the user name and the password", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t, "--requirepass", "another one").Addr(), func(o *rueidis.ClientOption) { o.Password = asidetest.Canary })
		}},
		{"protected mode", "redis answered DENIED: it takes connections of its own host alone (protected mode): give it a password, or bind it to an address", func(t *testing.T) rueidis.ClientOption {
			// A server does so with clients of other hosts.
			return asidetest.To(asidetest.Answering(t, func(conn net.Conn) {
				_, _ = io.WriteString(conn, "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set\r\n")
				_, _ = bufio.NewReader(conn).ReadString('\n')
			}))
		}},
		{"a command that the user may not run", "redis answered NOPERM to UNLINK in a script: its user lacks a permission that docs/redis.md lists", func(t *testing.T) rueidis.ClientOption {
			s := redistest.Start(t)
			s.MustDo(t, "ACL", "SETUSER", "default", "-unlink")
			return asidetest.To(s.Addr())
		}},
		{"a command that is renamed", "redis answered ERR to UNLINK in a script: the command is renamed or switched off there, and a cache cannot do without it; docs/redis.md lists all of them", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t, "--rename-command", "UNLINK", "OTHERWISE").Addr())
		}},
		{"a replica", "redis answered READONLY: it is a replica", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t, "--replicaof", "127.0.0.1", strconv.Itoa(redistest.Start(t).Port())).Addr())
		}},
		{"a server that lacks replicas", "redis answered NOREPLICAS to SET: it takes no writes, removals included, while it has too few replicas (min-replicas-to-write)", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t, "--min-replicas-to-write", "1").Addr())
		}},
	}...)
}

// closedPort is an address at which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// Health and one line of the log say why Redis is not used, and what to do; no host, no user, no secret.
func TestWhatIsWrongWithRedisIsSaidSoThatItCanBeMended(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster || asidetest.AsUser {
		t.Skip("these servers are configured for what goes wrong")
	}
	for _, cause := range causes() {
		t.Run(cause.name, func(t *testing.T) {
			t.Parallel()
			var log asidetest.Logbook
			o := aside.Options{Redis: cause.with(t), Logger: log.Logger()}
			o.Redis.Dialer.Timeout = time.Second
			if host, port, err := net.SplitHostPort(o.Redis.InitAddress[0]); err == nil && host == "127.0.0.1" {
				o.Redis.InitAddress[0] = net.JoinHostPort("localhost", port) // a name that must not be told
			}
			c := asidetest.NewCache(t, o)
			defer func() {
				if t.Failed() {
					t.Logf("said: %q", c.Health().Reason)
				}
			}()
			asidetest.Eventually(t, cause.reason, func() bool { return c.Health().Reason == cause.reason })
			require.Equal(t, aside.StateDegraded, c.Health().State)
			asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), cause.reason[:20]) })
			for _, secret := range []string{asidetest.Canary, "localhost", "127.0.0.1", "redis.test", "host.test"} {
				require.NotContains(t, c.Health().Reason, secret)
			}
			require.NotContains(t, log.String(), asidetest.Canary)
		})
	}
}

// docs/messages.md has a row for each reason that is caused here, and for each line that the packages log.
func TestThePageOfMessagesIsWhatIsSaid(t *testing.T) {
	t.Parallel()
	page := asidetest.Page(t, "docs/messages.md")
	reasons, lines, found := strings.Cut(page, "\n## Log lines\n")
	require.True(t, found)
	want := map[string]bool{}
	for _, c := range causes() {
		want[c.reason] = true
	}
	require.ElementsMatch(t, keysOf(want), firstColumn(reasons), "the reasons of Health")
	logged, tests := messages(t)
	require.ElementsMatch(t, logged, firstColumn(lines), "the lines of the log")
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(page, -1)
	require.NotEmpty(t, named)
	for _, row := range regexp.MustCompile("(?m)^\\| `aside.*$").FindAllString(lines, -1) {
		require.Contains(t, row, "`Test", "a test that causes the line")
	}
	for _, name := range named {
		require.Contains(t, tests, name[1], "a test that the page names")
	}
}

func keysOf(set map[string]bool) (list []string) {
	for k := range set {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// firstColumn are the texts in backquotes that begin the rows of tables.
func firstColumn(page string) (list []string) {
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(page, -1) {
		list = append(list, row[1])
	}
	return list
}

// messages are what the packages of the module log, and the names of its tests.
func messages(t *testing.T) (logged []string, tests []string) {
	t.Helper()
	set := map[string]bool{}
	walk := func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{"examples", "bench", "checker", "mutants", "redistest", "asidetest"}, d.Name()) || len(d.Name()) > 1 && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case filepath.Ext(path) != ".go":
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if strings.HasPrefix(n.Name.Name, "Test") {
					tests = append(tests, n.Name.Name)
				}
			case *ast.AssignStmt: // of a line whose text is chosen before
				if text := beginning(n.Rhs[0]); strings.HasPrefix(text, "asidehttp: ") && !strings.HasSuffix(path, "_test.go") {
					set[text] = true
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "NewRecord" && !strings.HasSuffix(path, "_test.go") {
					if text := beginning(n.Args[2]); text != "" { // else it is passed on
						set[text] = true
					}
				}
				method, ok := n.Fun.(*ast.SelectorExpr)
				if strings.HasSuffix(path, "_test.go") || !ok {
					return true
				}
				at, ok := map[string]int{"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "LogAttrs": 2}[method.Sel.Name]
				if !ok || len(n.Args) <= at {
					return true
				}
				if text := beginning(n.Args[at]); strings.HasPrefix(text, "aside") {
					set[text] = true
				}
			}
			return true
		})
		return nil
	}
	require.NoError(t, filepath.WalkDir(asidetest.Root(t), walk))
	return keysOf(set), tests
}

// beginning is the constant text that an expression begins with.
func beginning(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return strings.TrimSpace(text)
	case *ast.BinaryExpr:
		return beginning(e.X)
	}
	return ""
}

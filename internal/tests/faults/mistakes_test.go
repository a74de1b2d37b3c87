package faults_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// full is a server that has one client, and takes no other one.
func full(t *testing.T, s *redistest.Server, addr string) {
	s.MustDo(t, "CONFIG", "SET", "maxclients", "1")
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
}

// mistakes are causes that are made where a program is deployed, and states of a server that it mends itself, or a person has to.
func mistakes() []cause {
	answers := func(name, reason, answer string) cause {
		return cause{name, reason, func(t *testing.T) rueidis.ClientOption { return asidetest.To(asidetest.AnsweringWith(t, answer)) }}
	}
	failing := func(err error) func(*rueidis.ClientOption) {
		return func(o *rueidis.ClientOption) {
			o.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return nil, err }
		}
	}
	return []cause{
		{"too many clients of a node of a cluster", "redis answered ERR max number of clients + cluster connections reached: it takes no more connections: raise maxclients there, or find out who holds so many", func(t *testing.T) rueidis.ClientOption {
			s := redistest.Start(t, "--cluster-enabled", "yes")
			full(t, s, s.Addr())
			return rueidis.ClientOption{InitAddress: []string{s.Addr()}}
		}},
		{"too many clients of a server with TLS", "redis closed the connection in the TLS handshake: check that its port speaks TLS, and whether it takes more connections (maxclients)", func(t *testing.T) rueidis.ClientOption {
			s, addr, pool := asidetest.OverTLS(t, "--tls-auth-clients", "no")
			full(t, s, addr)
			return asidetest.To(addr, asidetest.Trusting(pool, "redis.test"))
		}},
		{"a node of a cluster that knows of no slots", "some slots of the cluster have no node, or this node knows of none", func(t *testing.T) rueidis.ClientOption {
			return rueidis.ClientOption{InitAddress: []string{redistest.Start(t, "--cluster-enabled", "yes").Addr()}}
		}},
		answers("a server or proxy of RESP2 alone", "redis answered NOPROTO: it does not speak RESP3: set Options.Redis.AlwaysRESP2 (protocol=2 in REDIS_URL), and do without client tracking", "-NOPROTO unsupported protocol version"),
		{"a server that does not let this address in", "redis answered ERR: the log has its words", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(asidetest.Answering(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, "-ERR Client IP address 127.0.0.1:4711 is not in the allowlist.\r\n")
			}))
		}},
		answers("a proxy that knows no server", "redis answered ERR: the log has its words", "-no upstream host"),
		{"a path of a socket that is too long", "redis cannot be reached: its address is not a valid one: the path of a socket has at most 107 bytes, and some IPv6 addresses need a zone", func(*testing.T) rueidis.ClientOption {
			return rueidis.MustParseURL("unix:///tmp/" + strings.Repeat("x", 120) + ".sock")
		}},
		{"no way there", "redis cannot be reached: there is no way to its address", func(*testing.T) rueidis.ClientOption {
			return asidetest.To("redis.test:6379", failing(&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}))
		}},
		{"a dialer of the program's that fails", "Options.Redis.DialCtxFn failed: the log has its error", func(*testing.T) rueidis.ClientOption {
			return asidetest.To("redis.test:6379", failing(errors.New("the tunnel is shut")))
		}},
		{"a function for credentials that fails", "Options.Redis.AuthCredentialsFn failed: the log has its error", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t).Addr(), func(o *rueidis.ClientOption) {
				o.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
					return rueidis.AuthCredentials{}, context.DeadlineExceeded // of another server
				}
			})
		}},
		{"a function for credentials that panics", "Options.Redis.AuthCredentialsFn failed: the log has its error", func(t *testing.T) rueidis.ClientOption {
			return asidetest.To(redistest.Start(t).Addr(), func(o *rueidis.ClientOption) {
				o.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) { panic("oops") }
			})
		}},
		// Username and Password are those of the primary, and they are set.
		{"no password of the Sentinels", "a Sentinel answered NOAUTH: it asks for a password of its own: set Sentinel.Username and Sentinel.Password", func(t *testing.T) rueidis.ClientOption {
			s := redistest.StartSentinel(t, "main", redistest.Start(t, "--requirepass", asidetest.Canary), 1)
			s.MustDo(t, "ACL", "SETUSER", "default", "resetpass", ">of the Sentinels")
			return asidetest.To(s.Addr(), func(o *rueidis.ClientOption) { o.Sentinel.MasterSet, o.Password = "main", asidetest.Canary })
		}},
		{"a wrong password of the Sentinels", "a Sentinel answered WRONGPASS: check Sentinel.Username and Sentinel.Password", func(t *testing.T) rueidis.ClientOption {
			s := redistest.StartSentinel(t, "main", redistest.Start(t), 1)
			s.MustDo(t, "ACL", "SETUSER", "default", "resetpass", ">of the Sentinels")
			return asidetest.To(s.Addr(), func(o *rueidis.ClientOption) { o.Sentinel.MasterSet, o.Sentinel.Password = "main", asidetest.Canary })
		}},
		{"no password of the primary that Sentinels name", "redis answered NOAUTH: it asks for a password: set Username and Password", func(t *testing.T) rueidis.ClientOption {
			s := redistest.StartSentinel(t, "main", redistest.Start(t, "--requirepass", "of the primary"), 1)
			return asidetest.To(s.Addr(), func(o *rueidis.ClientOption) { o.Sentinel.MasterSet = "main" })
		}},
		// The address that is configured can be reached: it is another one that cannot.
		{"Sentinels that name a primary that is away", "the primary that the Sentinels name cannot be reached: nothing listens at its address (connection refused)", func(t *testing.T) rueidis.ClientOption {
			p := redistest.Start(t)
			s := redistest.StartSentinel(t, "main", p, 1)
			p.Kill()
			return asidetest.To(s.Addr(), func(o *rueidis.ClientOption) { o.Sentinel.MasterSet = "main" })
		}},
		{"a user who may not run TIME", "redis answered NOPERM to TIME: its user lacks a permission that docs/redis.md lists", func(t *testing.T) rueidis.ClientOption {
			s := redistest.Start(t)
			s.MustDo(t, "ACL", "SETUSER", "default", "-time")
			return asidetest.To(s.Addr())
		}},
		{"a password in the place of a user name", "redis answered WRONGPASS: check the user name and the password: there is a user name alone; a password without a user name is written redis://:password@host", func(t *testing.T) rueidis.ClientOption {
			o := rueidis.MustParseURL("redis://" + asidetest.Canary + "@" + redistest.Start(t, "--requirepass", asidetest.Canary).Addr())
			o.ForceSingleClient = true
			o.AuthCredentialsFn, o.Username = aside.Credentials(o.Username, aside.Secret{}), "" // as OptionsFromEnv does
			return o
		}},
		{"a server that cannot save", "redis answered MISCONF to SET: it takes no writes, removals included, since it cannot save; its log says why", func(t *testing.T) rueidis.ClientOption {
			s := redistest.Start(t, "--save", "1 1")
			s.MustDo(t, "SET", "a", "b")
			require.NoError(t, os.RemoveAll(s.MustDo(t, "CONFIG", "GET", "dir").([]any)[1].(string)))
			_, _ = s.Do("BGSAVE")
			asidetest.Eventually(t, "it cannot save", func() bool { _, err := s.Do("SET", "a", "b"); return err != nil })
			return asidetest.To(s.Addr())
		}},
		{"a script that does not end", "redis answered BUSY: a script or a function keeps it busy", func(t *testing.T) rueidis.ClientOption {
			s := redistest.Start(t, "--busy-reply-threshold", "10")
			conn := redistest.Raw(t, s.Addr())
			done := make(chan struct{})
			go func() { defer close(done); _, _ = conn.Do("EVAL", "while true do end", "0") }()
			t.Cleanup(func() { _, _ = s.Do("SCRIPT", "KILL"); <-done })
			asidetest.Eventually(t, "it is busy", func() bool { _, err := s.Do("GET", "a"); return err != nil })
			return asidetest.To(s.Addr())
		}},
		answers("a server that starts", "redis answered LOADING: it is starting, and reads its data", "-LOADING Redis is loading the dataset in memory"),
		answers("a replica without its primary", "redis answered MASTERDOWN: it is a replica that has lost its primary", "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
	}
}

// The log, and nothing else, has the words of a server that are not known: they may name a user, a key or a host.
func TestTheLogHasTheWordsOfTheServer(t *testing.T) {
	t.Parallel()
	for words, logged := range map[string]string{
		"ERR user svc-billing is disabled on db1.corp.example":                "user svc-billing is disabled on db1.corp.example",
		"ERR no route to shard prod-7.corp.example for key user:4711:profile": "no route to shard prod-7.corp.example for key user:4711:profile",
		"ERR backend db1:6379 refused":                                        "backend db1:6379 refused",
		"ERR " + asidetest.Canary + " may not connect from 10.1.2.3":          "[hidden] may not connect from [hidden]",
		"no upstream host": "no upstream host",
		"NOPERM this user has no permissions to run the 'corp' command":                 "",
		"NOAUTH user svc-billing must log in at vault.corp.example":                     "",
		"ERR DB index is out of range for svc-billing":                                  "",
		"WRONGPASS account svc-billing is locked at db1.corp.example, ask user:4711":    "",
		"LOADING db1.corp.example is loading what svc-billing has left of user:4711":    "",
		"ERR max number of clients reached on db1.corp.example, of which svc-billing's": "",
	} {
		t.Run(strings.ReplaceAll(words, asidetest.Canary, "SECRET"), func(t *testing.T) {
			t.Parallel()
			var log asidetest.Logbook
			o := aside.Options{Redis: asidetest.To(asidetest.AnsweringWith(t, "-"+words)), Logger: log.Logger()}
			o.Redis.Password = asidetest.Canary
			c := asidetest.NewCache(t, o)
			asidetest.Eventually(t, "it is logged", func() bool {
				return strings.Contains(log.String(), "redis answered") && strings.Contains(log.String(), logged)
			})
			reason := c.Health().Reason
			for _, name := range []string{"svc-billing", "corp", "4711", "db1", "10.1.2.3", "upstream"} {
				require.NotContains(t, strings.ToLower(reason), name)
			}
			if logged != "" {
				require.Equal(t, "redis answered ERR: the log has its words", reason)
			}
			asidetest.RequireNoCanary(t, log.String(), "the log")
		})
	}
}

// The log, and nothing else, has the words of the program's own functions.
func TestTheLogHasTheErrorOfTheProgramsOwnFunction(t *testing.T) {
	t.Parallel()
	const words = "the token of " + asidetest.Canary + " has expired\n\x1b[31m"
	for name, with := range map[string]func(o *rueidis.ClientOption){
		"DialCtxFn": func(o *rueidis.ClientOption) {
			o.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
				return nil, errors.New(words)
			}
		},
		"DialFn": func(o *rueidis.ClientOption) {
			o.DialFn = func(string, *net.Dialer, *tls.Config) (net.Conn, error) { return nil, errors.New(words) }
		},
		"AuthCredentialsFn": func(o *rueidis.ClientOption) {
			o.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
				return rueidis.AuthCredentials{Password: asidetest.Canary}, errors.New(words + strings.Repeat("x", 1000))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log asidetest.Logbook
			o := asidetest.Secretive(redistest.Start(t).Addr())
			o.Redis.SelectDB, o.Logger = 0, log.Logger()
			if name == "AuthCredentialsFn" { // which has its own
				o.Redis.Username, o.Redis.Password, o.Redis.Sentinel = "", "", rueidis.SentinelOption{}
			}
			with(&o.Redis)
			c := asidetest.NewCache(t, o)
			asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "the token of [hidden] has expired") })
			require.Contains(t, c.Health().Reason, "Options.Redis."+name+" failed")
			require.NotContains(t, c.Health().Reason, "token")
			require.NotContains(t, log.String(), "x1b")
			require.Less(t, len(log.String()), 1000)
			asidetest.RequireNoCanary(t, log.String(), "the log")
		})
	}
}

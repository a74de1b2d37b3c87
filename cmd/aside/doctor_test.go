package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A good server: nothing about it is worth a warning.
var good = []string{"--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"}

// patient allows for a busy machine.
var patient = []string{"-op-timeout", "20s"}

// examined runs doctor, and returns its findings by their check: the worst of each.
func (s shell) examined(t testing.TB, args ...string) (found map[string]finding, code int) {
	t.Helper()
	out, errs, code := s.run(t, append([]string{"doctor", "-json"}, args...)...)
	require.Empty(t, errs)
	var list []finding
	require.NoError(t, json.Unmarshal([]byte(out), &list), out)
	worse := []string{levelOK, levelUnknown, levelWarn, levelFail}
	rank := func(f finding) int { return strings.Index(strings.Join(worse, " "), f.Level) }
	found = map[string]finding{}
	for _, f := range list {
		if before, ok := found[f.Check]; !ok || rank(f) > rank(before) {
			found[f.Check] = f
		}
	}
	return found, code
}

// operatorRules are those of the second user in docs/redis.md, with a password.
func operatorRules(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/redis.md")
	require.NoError(t, err)
	line := regexp.MustCompile(`(?s)ACL SETUSER operator (.*?)\n\n`).FindStringSubmatch(string(text))
	require.NotNil(t, line)
	var rules []string
	for _, rule := range strings.Fields(line[1]) {
		rules = append(rules, strings.NewReplacer("PASSWORD", asidetest.Canary, "models", "products").Replace(rule))
	}
	return rules
}

func TestDoctorIsQuietOnAGoodServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, good...)
	seed(t, server, map[string][]byte{"7": asidetest.Large(1 << 20), "8": []byte("small")}, "supplier 3")
	on(server).requireDocumented(t, "doctor", patient...)
	found, code := on(server).examined(t, patient...)
	for check, f := range found {
		require.Equal(t, levelOK, f.Level, "%s: %s", check, f.Text)
	}
	require.Equal(t, exitOK, code)
	require.Contains(t, found["keys"].Text, "2 of them values")
	require.Empty(t, left(t, server, "%doctor:*"))

	// As the operator of docs/redis.md nothing is left out, as the program's user what needs more permissions is.
	server.MustDo(t, append([]string{"ACL", "SETUSER", "operator"}, operatorRules(t)...)...)
	server.MustDo(t, append([]string{"ACL", "SETUSER", "aside"}, asidetest.ACLRules(asidetest.Canary, "products")...)...)
	as := func(user string) shell {
		return shell{"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + strconv.Itoa(server.Port()), "REDIS_USERNAME=" + user, "REDIS_PASSWORD=" + asidetest.Canary}
	}
	found, code = as("operator").examined(t, patient...)
	for check, f := range found {
		require.Equal(t, levelOK, f.Level, "%s: %s", check, f.Text)
	}
	require.Equal(t, exitOK, code)
	require.Contains(t, found["permissions"].Text, "asked by ACL DRYRUN")
	found, code = as("aside").examined(t, patient...)
	require.Equal(t, exitOK, code)
	require.Contains(t, found["permissions"].Text, "tried")
	for check, why := range map[string]string{
		"version": "NOPERM info", "eviction": "NOPERM info", "durability": "NOPERM info", "tracking table": "NOPERM info",
		"buffers": "NOPERM config|get", "idle timeout": "NOPERM config|get",
	} {
		require.Equal(t, finding{Check: check, Level: levelUnknown, Text: why}, found[check])
	}
	require.Empty(t, left(t, server, "%doctor:*"))
}

func left(t testing.TB, server *redistest.Server, pattern string) []any {
	return server.MustDo(t, "KEYS", pattern).([]any)
}

// A complaint is a server, and what doctor says of it.
type complaint struct {
	check, level, text string
	server             func(t *testing.T) shell
	args               []string
}

func TestDoctorComplains(t *testing.T) {
	t.Parallel()
	with := func(prepare func(t *testing.T, s *redistest.Server), args ...string) func(t *testing.T) shell {
		return func(t *testing.T) shell {
			s := redistest.Start(t, append(good[:len(good):len(good)], args...)...)
			prepare(t, s)
			return on(s)
		}
	}
	started := func(args ...string) func(t *testing.T) shell {
		return with(func(*testing.T, *redistest.Server) {}, args...)
	}
	holding := func(keys ...[]string) func(t *testing.T) shell {
		return with(func(t *testing.T, s *redistest.Server) {
			seed(t, s, map[string]product{"7": {"lamp"}})
			for _, args := range keys {
				s.MustDo(t, args...)
			}
		})
	}
	user := func(url string, rules ...string) func(t *testing.T) shell {
		return func(t *testing.T) shell {
			s := redistest.Start(t, good...)
			seed(t, s, map[string]product{"7": {"lamp"}})
			s.MustDo(t, append([]string{"ACL", "SETUSER", "u", "on", ">" + asidetest.Canary, "~*", "&*", "+@all"}, rules...)...)
			return shell{"REDIS_URL=redis://u:" + asidetest.Canary + "@" + s.Addr() + url}
		}
	}
	for _, c := range []complaint{
		{"connection", levelFail, "nothing listens at its address", func(t *testing.T) shell { return shell{"REDIS_URL=redis://" + asidetest.Nobody(t)} }, nil},
		{"connection", levelFail, "WRONGPASS", func(t *testing.T) shell {
			return shell{"REDIS_URL=redis://u:" + asidetest.Canary + "@" + redistest.Start(t).Addr()}
		}, nil},
		{"connection", levelFail, "NOPERM", user("", "-strlen"), nil},
		{"tls", levelWarn, "the certificate ends on ", func(t *testing.T) shell { return overTLS(t, time.Now().Add(20*24*time.Hour)) }, nil},
		{"permissions", levelFail, "lacks 1 rules", user("", "-strlen"), nil},
		{"permissions", levelFail, "lacks 2 rules", user("", "-strlen", "-script|load", "-acl"), nil},
		{"permissions", levelFail, "lacks 1 rules", user("", "resetkeys", "~products:*"), nil},
		{"tracking", levelWarn, "switched off by RESP2", user("?protocol=2"), nil},
		{"tracking", levelWarn, "CLIENT TRACKING", user("", "-client|tracking"), nil},
		{"latency", levelFail, "OpTimeout is 1ms", delayed, []string{"-op-timeout", "1ms"}},
		{"clock", levelWarn, "off by", aMinuteOff, nil},
		{"version", levelFail, "cluster_state is fail", func(t *testing.T) shell {
			s := redistest.Start(t, append(good[:len(good):len(good)], "--cluster-enabled", "yes")...)
			s.MustDo(t, "CLUSTER", "ADDSLOTSRANGE", "0", "16000")
			return on(s)
		}, nil},
		{"eviction", levelWarn, "refuses to store values", started("--maxmemory-policy", "noeviction"), nil},
		{"eviction", levelWarn, "evicts generations in use", started("--maxmemory-policy", "allkeys-random"), nil},
		{"eviction", levelFail, "it is full", with(func(t *testing.T, s *redistest.Server) { s.MustDo(t, "CONFIG", "SET", "maxmemory", "1mb") }, "--maxmemory-policy", "noeviction"), nil},
		{"durability", levelFail, "it is a replica", func(t *testing.T) shell {
			primary := redistest.Start(t, good...)
			return on(redistest.Start(t, append(good[:len(good):len(good)], "--replicaof", "127.0.0.1 "+strconv.Itoa(primary.Port()))...))
		}, nil},
		{"durability", levelFail, "the last snapshot failed", func(t *testing.T) shell {
			dir := filepath.Join(t.TempDir(), "removed")
			require.NoError(t, os.Mkdir(dir, 0o700))
			s := redistest.Start(t, append(good[:len(good):len(good)], "--dir", dir)...)
			require.NoError(t, os.RemoveAll(dir))
			s.MustDo(t, "BGSAVE")
			asidetest.Eventually(t, "the snapshot fails", func() bool { return says(s, "persistence", "rdb_last_bgsave_status:err") })
			return on(s)
		}, nil},
		{"durability", levelWarn, "is not in step yet", func(t *testing.T) shell {
			primary := redistest.Start(t, good...)
			waitingReplica(t, primary)
			return on(primary)
		}, nil},
		{"tracking table", levelWarn, "(tracking-table-max-keys)", with(func(t *testing.T, s *redistest.Server) {
			conn, err := net.Dial("tcp", s.Addr())
			require.NoError(t, err)
			t.Cleanup(func() { conn.Close() })
			text := "HELLO 3\r\nCLIENT TRACKING ON\r\n"
			for i := range 20 {
				text += fmt.Sprintf("GET k%d\r\n", i)
			}
			_, err = io.WriteString(conn, text)
			require.NoError(t, err)
			asidetest.Eventually(t, "the keys are tracked", func() bool { return says(s, "stats", "tracking_total_keys:20") })
			s.MustDo(t, "CONFIG", "SET", "tracking-table-max-keys", "20")
		}), nil},
		{"buffers", levelWarn, "1.0 MiB of replies", started("--client-output-buffer-limit", "normal 1mb 0 0"), nil},
		{"idle timeout", levelWarn, "idle for 5 s", started("--timeout", "5"), nil},
		{"keys", levelWarn, "may not read 1 of them", user("", "resetkeys", "~%*", "~{%*"), nil},
		{"foreign values", levelWarn, "no value of a cache: 1,", holding([]string{"SET", "products:x", "no value"}), nil},
		{"foreign values", levelWarn, "no value of a cache: 1,", holding([]string{"HSET", "products:x", "a", "b"}), nil},
		{"endless leases", levelWarn, "without an end, which no cache has written: 1,", holding([]string{"SET", "{products:x}!l", "nonce"}), nil},
		{"orphaned chunks", levelWarn, "whose value is gone: 2,", holding([]string{"SET", "{products:7}!c:aa:0", "x"}, []string{"SET", "{products:x}!c:aa:0", "x", "EX", "1000"}), nil},
		{"versions", levelWarn, "two builds are in use", holding([]string{"SET", "products:x", "\xc1\xa5\x02" + strings.Repeat("x", 90)}), nil},
	} {
		t.Run(c.check+" "+c.text, func(t *testing.T) {
			t.Parallel()
			sh := c.server(t)
			args := c.args
			if args == nil {
				args = patient
			}
			found, code := sh.examined(t, args...)
			require.Equal(t, c.level, found[c.check].Level, "%+v", found)
			require.Contains(t, found[c.check].Text+found[c.check].Advice, c.text)
			require.NotEmpty(t, found[c.check].Text)
			require.Equal(t, exitFinding, code)
		})
	}
}

// A server quotes what it was sent in its errors: here the AUTH with the password.
func TestNoPasswordIsPrinted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "HELLO", "", "--rename-command", "AUTH", "")
	sh := shell{"REDIS_URL=redis://u:" + asidetest.Canary + "@" + server.Addr()}
	for _, args := range append(onARedis, []string{"doctor"}) {
		out, errs, code := sh.run(t, args...)
		require.Equal(t, exitFinding, code, args)
		require.NotEmpty(t, out+errs)
	}
}

// delayed is a server that takes ten milliseconds for each round trip.
func delayed(t *testing.T) shell {
	proxy := redistest.StartProxy(t, redistest.Start(t, good...).Addr())
	proxy.SetDelay(5 * time.Millisecond)
	return shell{"REDIS_URL=redis://" + proxy.Addr()}
}

// overTLS is a server with a certificate that ends at a time.
func overTLS(t *testing.T, end time.Time) shell {
	cert, _ := asidetest.Certificate(t, "localhost", end)
	_, port, c := asidetest.ServerOverTLS(t, cert, append(good[:len(good):len(good)], "--tls-auth-clients", "no")...)
	return shell{"REDIS_URL=rediss://localhost:" + port, "SSL_CERT_FILE=" + c}
}

func TestDoctorOverTLS(t *testing.T) {
	t.Parallel()
	found, code := overTLS(t, time.Now().Add(90*24*time.Hour)).examined(t, patient...)
	require.Equal(t, exitOK, code, "%+v", found)
	require.Contains(t, found["tls"].Text, "the certificate ends on ")
}

func TestDoctorOnACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, good...)
	cluster.WaitReplicated()
	found, code := shell{"REDIS_URL=redis://" + cluster.Addrs()[0]}.examined(t, patient...)
	require.Equal(t, exitOK, code, "%+v", found)
	require.Contains(t, found["version"].Text, "cluster_state is ok")
	require.NotEmpty(t, found["eviction"].Node)
}

// aMinuteOff is a server whose answers to TIME are changed on their way.
func aMinuteOff(t *testing.T) shell {
	server := redistest.Start(t, good...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	times := regexp.MustCompile(`\*2\r\n\$10\r\n(\d{10})\r\n`)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server.Addr())
			if err != nil {
				client.Close()
				continue
			}
			go func() { _, _ = io.Copy(upstream, client); upstream.Close() }()
			go func() {
				defer client.Close()
				buf := make([]byte, 1<<16)
				for {
					n, err := upstream.Read(buf)
					_, _ = client.Write(times.ReplaceAllFunc(buf[:n], func(reply []byte) []byte {
						seconds, _ := strconv.Atoi(string(times.FindSubmatch(reply)[1]))
						return fmt.Appendf(nil, "*2\r\n$10\r\n%d\r\n", seconds+60)
					}))
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return shell{"REDIS_URL=redis://" + listener.Addr().String()}
}

// waitingReplica tells a server that it is a replica, and never takes the data.
func waitingReplica(t *testing.T, primary *redistest.Server) {
	conn, err := net.Dial("tcp", primary.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	primary.MustDo(t, "CONFIG", "SET", "repl-diskless-sync", "yes", "repl-diskless-sync-delay", "300")
	_, err = io.WriteString(conn, "REPLCONF capa eof\r\n") // it can do without a file
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, len("+OK\r\n")))
	require.NoError(t, err)
	_, err = io.WriteString(conn, "PSYNC ? -1\r\n")
	require.NoError(t, err)
	asidetest.Eventually(t, "the server has a replica", func() bool { return says(primary, "replication", "connected_slaves:1") })
}

// says reports whether an answer to INFO contains a text.
func says(s *redistest.Server, about, text string) bool {
	answer, err := s.Do("INFO", about)
	return err == nil && strings.Contains(answer.(string), text)
}

// What could not be asked is not permitted.
func TestDoctorDoesNotTakeSilenceForPermission(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, good...)
	proxy := redistest.StartProxy(t, server.Addr())
	gate := proxy.HoldRequests(func(args []string) bool { return len(args) > 3 && args[1] == "DRYRUN" && args[3] == "SCAN" })
	cmd := shell{"REDIS_URL=redis://" + proxy.Addr()}.command(t, append([]string{"doctor", "-json"}, patient...)...)
	var out strings.Builder
	cmd.Stdout = &out
	require.NoError(t, cmd.Start())
	gate.Wait(t)
	proxy.CloseConnections()
	require.NoError(t, cmd.Wait(), "%s", out.String())
	require.Regexp(t, `"permissions",\s+"level": "not checked"`, out.String())
}

// Of an interrupted examination nothing is printed, and nothing is left.
func TestDoctorIsInterrupted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, good...)
	proxy := redistest.StartProxy(t, server.Addr())
	own := func(args []string) bool { return strings.HasPrefix(args[len(args)-1], "%doctor:") }
	gate := proxy.HoldPushes(own)
	cmd := shell{"REDIS_URL=redis://" + proxy.Addr()}.command(t, "doctor")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Start())
	gate.Wait(t) // it has written its key, and waits for the push
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Error(t, cmd.Wait())
	require.Equal(t, exitFinding, cmd.ProcessState.ExitCode())
	require.Empty(t, out.String())
	require.Equal(t, "aside doctor: interrupted\n", errs.String())
	require.Empty(t, server.MustDo(t, "KEYS", "%doctor:*"))
}

package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestServerAnswers(t *testing.T) {
	t.Parallel()
	s := Start(t)
	equal(t, s.MustDo(t, "PING"), "PONG")
	equal(t, s.MustDo(t, "SET", "k", "a\r\nb"), "OK")
	equal(t, s.MustDo(t, "GET", "k"), "a\r\nb")
	equal(t, s.MustDo(t, "GET", "absent"), nil)
	s.FlushAll(t)
	equal(t, s.MustDo(t, "DBSIZE"), int64(0))
}

func TestArgumentsWinOverDefaults(t *testing.T) {
	t.Parallel()
	s := Start(t, "--maxmemory", "10mb", "--loglevel", "notice", "--requirepass", "open sesame")
	equal(t, s.MustDo(t, "CONFIG", "GET", "maxmemory"), []any{"maxmemory", "10485760"})
	if !strings.Contains(s.Log(), "Ready to accept connections") {
		t.Errorf("no start-up lines in the log: %q", s.Log())
	}
	_, err := Raw(t, s.Addr()).Do("GET", "k")
	if refusal := Error(""); !errors.As(err, &refusal) || !strings.HasPrefix(string(refusal), "NOAUTH") {
		t.Errorf("without the password: %v", err)
	}
}

func TestClusterNodeStarts(t *testing.T) {
	t.Parallel()
	s := Start(t, "--cluster-enabled", "yes")
	id := s.MustDo(t, "CLUSTER", "MYID")
	s.Restart()
	equal(t, s.MustDo(t, "CLUSTER", "MYID"), id) // the node keeps its directory
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	s := Start(t)
	s.MustDo(t, "SET", "k", "v")
	addr, pid := s.Addr(), s.Pid()

	s.Kill()
	s.Kill() // twice is once
	if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		conn.Close()
		t.Fatal("a killed server accepts connections")
	}
	equal(t, s.Pid(), 0)

	s.Restart()
	equal(t, s.Addr(), addr)
	equal(t, s.MustDo(t, "GET", "k"), nil)
	if s.Pid() == pid || s.Pid() == 0 {
		t.Errorf("pid %d after a restart of %d", s.Pid(), pid)
	}

	pid = s.Pid()
	s.Restart() // of a running server
	if s.Pid() == pid || s.Pid() == 0 {
		t.Errorf("pid %d after a restart of %d", s.Pid(), pid)
	}
	equal(t, s.MustDo(t, "PING"), "PONG")
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	s := Start(t)
	open := Raw(t, s.Addr())
	equal(t, must(open.Do("PING")), "PONG")

	s.Pause()
	open.Timeout = time.Second // in which it is written also on a busy machine
	_, err := open.Do("PING")
	if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("PING to a paused server: %v, want a time-out", err)
	}
	fresh := Raw(t, s.Addr()) // the kernel accepts it
	fresh.Timeout = 50 * time.Millisecond
	if _, err := fresh.Do("PING"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("PING on a fresh connection: %v, want a time-out", err)
	}

	s.Resume()
	equal(t, s.MustDo(t, "PING"), "PONG")
	open.Timeout = Patience
	equal(t, must(open.Receive()), "PONG") // the late reply
}

// A command that a paused server has not read must die with it: tests of late
// writes depend on that.
func TestKilledWhilePaused(t *testing.T) {
	t.Parallel()
	s := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	c := Raw(t, s.Addr())
	equal(t, must(c.Do("SET", "before", "1")), "OK")
	s.Pause()
	c.Timeout = 50 * time.Millisecond
	if _, err := c.Do("SET", "late", "1"); err == nil {
		t.Fatal("a paused server answered")
	}
	s.Restart()
	equal(t, s.MustDo(t, "EXISTS", "before", "late"), int64(1))
}

func TestRestartWaitsForTheData(t *testing.T) {
	t.Parallel()
	s := Start(t, "--appendonly", "yes", "--key-load-delay", "50") // 50 µs a key
	s.MustDo(t, "EVAL", "for i = 1, 4096 do redis.call('SET', i, i) end", "0")
	s.Restart()
	equal(t, s.MustDo(t, "DBSIZE"), int64(4096))
}

func TestRawReplies(t *testing.T) {
	t.Parallel()
	s := Start(t)
	c := Raw(t, s.Addr())
	equal(t, must(c.Do("RPUSH", "list", "a", "", "c")), int64(3))
	equal(t, must(c.Do("LRANGE", "list", "0", "-1")), []any{"a", "", "c"})
	equal(t, must(c.Do("LRANGE", "none", "0", "-1")), []any{})
	equal(t, must(c.Do("EVAL", "return {1, {'x', false}, redis.error_reply('ERR no')}", "0")),
		[]any{int64(1), []any{"x", nil}, Error("ERR no")})

	_, err := c.Do("INCR", "list")
	if refusal := Error(""); !errors.As(err, &refusal) || !strings.HasPrefix(string(refusal), "WRONGTYPE") {
		t.Errorf("INCR of a list: %v", err)
	}
	equal(t, must(c.Do("PING")), "PONG") // an error reply does not end the connection

	equal(t, must(c.Do("SUBSCRIBE", "news")), []any{"subscribe", "news", int64(1)})
	equal(t, s.MustDo(t, "PUBLISH", "news", "hello"), int64(1))
	equal(t, must(c.Receive()), []any{"message", "news", "hello"})
}

func TestManyServersAtOnce(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for i := range 8 {
		s := Start(t)
		wg.Go(func() {
			name := fmt.Sprint(i)
			if _, err := s.Do("SET", "me", name); err != nil {
				t.Error(err)
			}
			s.Restart()
			if _, err := s.Do("SET", "me", name); err != nil {
				t.Error(err)
			}
			if v, err := s.Do("GET", "me"); v != name || err != nil {
				t.Errorf("server %d answers as %v, %v", i, v, err)
			}
		})
	}
	wg.Wait()
}

// Whoever takes the port between its reservation and the server's bind answers a
// PING as well as ours would.
func TestTakenPortIsNoticed(t *testing.T) {
	t.Parallel()
	first := Start(t)
	second := &Server{t: t, bin: first.bin, dir: t.TempDir(), args: first.args, port: first.port}
	for range 5 {
		if err := second.start(); !errors.Is(err, errPortTaken) {
			second.Kill()
			t.Fatalf("start on a taken port: %v", err)
		}
	}
	equal(t, first.MustDo(t, "PING"), "PONG")
}

func TestFailedStartShowsTheLog(t *testing.T) {
	t.Parallel()
	Start(t) // skips this test where there is no server
	tb := &recorder{TB: t}
	tb.run(func() { Start(tb, "--no-such-option", "1") })
	if !strings.Contains(tb.fatal, "no-such-option") || !strings.Contains(tb.fatal, "exited") {
		t.Errorf("Start ended with %q", tb.fatal)
	}
}

func TestRestartReportsTrouble(t *testing.T) {
	t.Parallel()
	tb := &recorder{TB: t}
	s := Start(t)
	s.t = tb
	s.args = append(s.args, "--no-such-option", "1")
	s.Restart()
	if !strings.Contains(tb.failed, "no-such-option") {
		t.Errorf("Restart reported %q", tb.failed)
	}
	s.Pause()
	if !strings.Contains(tb.failed, "does not run") {
		t.Errorf("Pause reported %q", tb.failed)
	}
}

func TestMissingServerSkipsOrFails(t *testing.T) {
	t.Setenv("PATH", t.TempDir())

	t.Setenv(requireEnv, "")
	tb := &recorder{TB: t}
	tb.run(func() { Start(tb) })
	if want := "redis-server not found: skipping; `make test` installs it"; tb.skipped != want || tb.fatal != "" {
		t.Errorf("skipped with %q, failed with %q", tb.skipped, tb.fatal)
	}

	t.Setenv(requireEnv, "1")
	tb = &recorder{TB: t}
	tb.run(func() { Start(tb) })
	if !strings.Contains(tb.fatal, requireEnv) || tb.skipped != "" {
		t.Errorf("skipped with %q, failed with %q", tb.skipped, tb.fatal)
	}
}

func TestFreePortIsFreeAndKept(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 200 {
		port := FreePort(t)
		if seen[port] {
			t.Fatalf("port %d given twice", port)
		}
		seen[port] = true
		if _, err := dial(net.JoinHostPort("127.0.0.1", fmt.Sprint(port))); err == nil {
			t.Fatalf("somebody listens on %d", port)
		}
	}
}

// Leak checks of other packages leave out goroutines by this name.
func TestGoroutineIsTheNameOfTheGoroutine(t *testing.T) {
	t.Parallel()
	Start(t)
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if !strings.Contains(string(stacks), "\n"+Goroutine+"(") {
		t.Errorf("no goroutine in %s", Goroutine)
	}
}

// recorder is a testing.TB that remembers how a test ended instead of ending one.
type recorder struct {
	testing.TB
	skipped, fatal, failed string
}

// run calls f on a goroutine that Skip and Fatal may end.
func (r *recorder) run(f func()) {
	var wg sync.WaitGroup
	wg.Go(f)
	wg.Wait()
}

func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Errorf(format string, args ...any) { r.failed = fmt.Sprintf(format, args...) }

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %#v, want %#v", got, want)
	}
}

func must(v any, err error) any {
	if err != nil {
		return err
	}
	return v
}

func TestAPortIsKeptFromOtherTestBinaries(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("by an abstract socket, which Linux alone has")
	}
	port := FreePort(t)
	if _, err := claimPort(port); err == nil {
		t.Fatal("claimed twice") // the system knows the name, so another process finds the same
	}
	releasePort(port)
	claim, err := claimPort(port)
	if err != nil {
		t.Fatal(err)
	}
	claim.Close()
}

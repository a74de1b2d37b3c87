// Package redistest gives tests real redis-server processes, which they may
// kill, stop, resume and configure, and real processes of their own to play the
// other members of a fleet.
//
// It needs nothing but the standard library: what a test says about the client
// library must not depend on that same library.
package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// startTimeout bounds how long a server may take until it answers. It is
	// long because a loaded two-core machine runs several test binaries at once.
	startTimeout = time.Minute

	// pollInterval is how often a condition is looked at while waiting for it.
	pollInterval = 5 * time.Millisecond

	// requireEnv, set to 1, makes a missing redis-server a failure instead of a
	// skipped test.
	requireEnv = "ASIDE_REQUIRE_REDIS"
)

// User is, where a test binary sets it before its first server, a user that every server has, with the rules of ACL SETUSER
// behind its name. When a test ends its servers must have denied that user nothing, but for those of [Server.MayDeny].
var User []string

// Alone is whether every server of [Start] is a Redis Cluster of one node, which has all slots: it refuses what such clusters do,
// commands whose keys are in several slots above all. A test binary sets it before its first server.
var Alone bool

// errPortTaken says that a server gave up because its port, or its cluster bus
// port, belongs to somebody else.
var errPortTaken = errors.New("port in use")

// Server is a redis-server process on 127.0.0.1. Its methods may be called from
// any goroutine.
type Server struct {
	t        testing.TB
	bin      string
	dir      string
	args     []string
	password string

	port int // written by Start only, before anybody else has the server

	mayDeny atomic.Bool
	alone   bool   // a cluster of its own
	conf    string // the file that it is configured by, and writes to: of a Sentinel

	mu     sync.Mutex // guards what follows, and is held while a process starts
	proc   *process   // nil while no process runs
	paused bool
}

// Start runs a redis-server without persistence on a free port, waits until it
// answers, and kills it when the test ends. args are added to its command line
// and win over the defaults: "--maxmemory", "10mb".
//
// Without a redis-server in PATH the test is skipped, or fails where
// ASIDE_REQUIRE_REDIS is 1.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv(requireEnv) == "1" {
			t.Fatalf("redis-server not found, and %s=1 asks for it: run scripts/install-test-tools.sh", requireEnv)
		}
		t.Skip("redis-server not found: skipping; `make test` installs it")
	}
	s := &Server{
		t:        t,
		bin:      bin,
		dir:      t.TempDir(), // before our own Cleanup, so that it is removed after the kill
		password: option(args, "--requirepass"),
	}
	s.args = []string{
		"--bind", "127.0.0.1",
		"--save", "",
		"--appendonly", "no",
		"--dir", s.dir,
		"--protected-mode", "no",
		"--daemonize", "no",
		"--loglevel", "warning",
	}
	if v := majorVersion(bin); v >= 7 { // older servers allow DEBUG anyway and refuse the option
		s.args = append(s.args, "--enable-debug-command", "yes")
	}
	if len(User) > 0 {
		s.args = append(append(s.args, "--user"), User...)
	}
	s.args = append(s.args, args...)
	if s.alone = Alone && !slices.Contains(args, "--cluster-enabled"); s.alone {
		s.args = append(s.args, "--cluster-enabled", "yes")
	}

	for range 20 {
		s.port = reservePort(t)
		if err = s.start(); err == nil {
			if s.alone {
				s.MustDo(t, "CLUSTER", "ADDSLOTSRANGE", "0", strconv.Itoa(Slots-1))
				s.awaitSlots()
			}
			t.Cleanup(func() {
				s.checkDenials()
				s.Kill()
				releasePort(s.port)
			})
			return s
		}
		releasePort(s.port)
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	t.Fatalf("redistest: redis-server %s: %v\n%s", strings.Join(args, " "), err, s.Log())
	return nil
}

// Addr returns host:port. It stays the same through Kill and Restart.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Port returns the TCP port.
func (s *Server) Port() int { return s.port }

// Pid returns the id of the running process, 0 where none runs.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return 0
	}
	return s.proc.pid()
}

// Log returns what the server has printed, over all its starts.
func (s *Server) Log() string {
	log, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// Do sends one command on a connection of its own, and returns the reply as
// [Conn.Do] does. It logs in as the default user where Start was given a
// --requirepass.
func (s *Server) Do(args ...string) (any, error) {
	c, err := s.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Do(args...)
}

// MustDo is Do that ends the test on an error.
func (s *Server) MustDo(t testing.TB, args ...string) any {
	t.Helper()
	v, err := s.Do(args...)
	if err != nil {
		t.Fatalf("redistest: %s: %v", strings.Join(args[:min(2, len(args))], " "), err) // values may be huge
	}
	return v
}

// MayDeny is for a test that wants User to be denied something.
func (s *Server) MayDeny() { s.mayDeny.Store(true) }

// checkDenials fails the test where the server, if it still runs, has denied User something.
func (s *Server) checkDenials() {
	if len(User) == 0 || s.mayDeny.Load() || !s.runs() {
		return
	}
	log, err := s.Do("ACL", "LOG")
	if err != nil {
		return // the test has taken the way in from us as well
	}
	for _, entry := range log.([]any) {
		if text := fmt.Sprint(entry); strings.Contains(text, "username "+User[0]+" ") && !strings.Contains(text, "reason auth ") {
			s.t.Errorf("redistest: %s was denied something: %s", User[0], text)
		}
	}
}

// FlushAll empties every database.
func (s *Server) FlushAll(t testing.TB) {
	t.Helper()
	s.MustDo(t, "FLUSHALL")
}

// Kill ends the server with SIGKILL and waits until it is gone. A stopped server
// dies without running the commands that its sockets still hold.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

// Restart kills the server where it still runs and starts it, empty, on the same
// port and with the same arguments. Trouble fails the test with Errorf, so that
// any goroutine may call Restart.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	s.kill()
	s.mu.Unlock()

	// The port was given back for a moment, so another process may hold it briefly.
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.start()
		if err == nil {
			if s.alone {
				s.awaitSlots()
			}
			return
		}
		if !errors.Is(err, errPortTaken) || time.Now().After(deadline) {
			s.t.Errorf("redistest: restart on port %d: %v\n%s", s.port, err, s.Log())
			return
		}
		time.Sleep(pollInterval)
	}
}

// Pause stops the server with SIGSTOP and returns once it no longer runs: its
// connections stay open, the kernel goes on accepting new ones, and nobody answers.
func (s *Server) Pause() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		s.t.Errorf("redistest: Pause: the server does not run")
		return
	}
	if err := s.proc.pause(); err != nil {
		s.t.Errorf("redistest: Pause: %v", err)
		return
	}
	s.paused = true
}

// Resume lets a paused server go on, with what arrived in the meantime.
func (s *Server) Resume() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		s.t.Errorf("redistest: Resume: the server does not run")
		return
	}
	if err := s.proc.resume(); err != nil {
		s.t.Errorf("redistest: Resume: %v", err)
		return
	}
	s.paused = false
}

// runs says whether the server can answer: its process runs, and is not paused.
func (s *Server) runs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil && !s.paused
}

// awaitSlots waits until a cluster of one node serves: not in its first two seconds (CLUSTER_WRITABLE_DELAY in Redis's cluster.c).
func (s *Server) awaitSlots() {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(pollInterval) {
		if info, err := s.info("CLUSTER", "INFO"); err != nil || info["cluster_state"] == "ok" {
			return // one that cannot be asked, still loading its data, say, is what a test wants it to be
		}
	}
	s.t.Errorf("redistest: no slots served after %v", startTimeout)
}

// kill wants mu.
func (s *Server) kill() {
	if s.proc != nil {
		s.proc.kill()
		s.proc, s.paused = nil, false
	}
}

// start runs one process and returns once it answers. After an error no process
// is left.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		return errors.New("already running")
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	before, err := log.Stat()
	if err != nil {
		return err
	}
	args := append([]string{"--port", strconv.Itoa(s.port)}, s.args...)
	if s.conf != "" {
		args = append([]string{s.conf, "--sentinel"}, args...)
	}
	cmd := exec.Command(s.bin, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if s.proc, err = startProcess(cmd); err != nil {
		return err
	}
	if err := s.awaitReady(); err != nil {
		s.kill()
		printed, _ := os.ReadFile(s.logPath())
		printed = printed[min(int(before.Size()), len(printed)):]
		if bytes.Contains(printed, []byte("in use")) {
			return errPortTaken
		}
		return err
	}
	return nil
}

// awaitReady polls until the process answers. It wants mu.
func (s *Server) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var last error
	for {
		ready, err := s.ready()
		if ready {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-s.proc.done:
			return fmt.Errorf("exited: %w", s.proc.err)
		case <-ctx.Done():
			return fmt.Errorf("no answer after %v: %w", startTimeout, last)
		case <-time.After(pollInterval):
		}
	}
}

// ready asks the server for its process id, not just for a PONG: between
// reservePort and the server's own bind another server may have taken the port,
// and that one would answer a PING as well.
func (s *Server) ready() (bool, error) {
	c, err := s.dial()
	if err != nil {
		return false, err
	}
	defer c.Close()
	info, err := c.Do("INFO")
	if refusal := Error(""); errors.As(err, &refusal) {
		return true, nil // an ACL that Start cannot know refuses us: alive, and that must do
	}
	if err != nil {
		return false, err
	}
	text, _ := info.(string)
	if !strings.Contains(text, "\r\nprocess_id:"+strconv.Itoa(s.proc.pid())+"\r\n") {
		return false, errors.New("another server answers on the port")
	}
	if s.conf == "" && !strings.Contains(text, "\r\nloading:0\r\n") {
		return false, errors.New("still loading its data")
	}
	return true, nil
}

func (s *Server) dial() (*Conn, error) {
	c, err := dial(s.Addr())
	if err != nil {
		return nil, err
	}
	if s.password != "" {
		if _, err := c.Do("AUTH", s.password); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "redis-server.log") }

// option returns the last value of a command line option, "" where it is absent.
func option(args []string, name string) string {
	value := ""
	for i := range args {
		if args[i] == name && i+1 < len(args) {
			value = args[i+1]
		}
	}
	return value
}

var versions sync.Map // path of a redis-server -> its major version

// majorVersion asks a redis-server for its version; an answer that it cannot read
// counts as a current one.
func majorVersion(bin string) int {
	if v, ok := versions.Load(bin); ok {
		return v.(int)
	}
	major := 7
	if out, err := exec.Command(bin, "--version").Output(); err == nil {
		if _, after, ok := strings.Cut(string(out), "v="); ok {
			number, _, _ := strings.Cut(after, ".")
			if n, err := strconv.Atoi(number); err == nil {
				major = n
			}
		}
	}
	versions.Store(bin, major)
	return major
}

// Ports come from below the ranges from which kernels take the ports of outgoing
// connections (from 32768 on Linux, 49152 elsewhere). Inside such a range somebody's
// outgoing connection could hold the port of a killed server, even a client's own
// that dials the dead port until it meets itself. 10000 more, the bus port of a
// cluster node, stays below the range too.
const (
	lowestPort  = 12000
	highestPort = 21999
)

var ports struct {
	mu    sync.Mutex
	taken map[int]io.Closer // by port, what keeps it from other test binaries
}

// FreePort returns a port of 127.0.0.1 on which nobody listens, and which no server
// of this test binary gets until the test ends: an address where Redis is down.
func FreePort(t testing.TB) int {
	t.Helper()
	port := reservePort(t)
	t.Cleanup(func() { releasePort(port) })
	return port
}

func reservePort(t testing.TB) int {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if ports.taken[port] != nil {
			continue
		}
		claim, err := claimPort(port)
		if err != nil {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
		}
		if err != nil || !refuses(addr) {
			claim.Close()
			continue
		}
		if ports.taken == nil {
			ports.taken = make(map[int]io.Closer)
		}
		ports.taken[port] = claim
		return port
	}
	t.Fatal("redistest: no free port")
	return 0
}

// refuses waits until addr refuses connections. A socket that we have closed goes on
// listening for as long as a child forked meanwhile, by another test, holds a copy of
// it: until that child's exec.
func refuses(addr string) bool {
	for range 200 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return true
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	return false
}

func releasePort(port int) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if claim := ports.taken[port]; claim != nil {
		claim.Close()
		delete(ports.taken, port)
	}
}

// claimPort keeps other test binaries, which run at the same time, from a port whose server is killed: a client that dials the dead port would get
// another test's server. On Linux the claim is an abstract socket, which ends with the process. Elsewhere there is none.
func claimPort(port int) (io.Closer, error) {
	if runtime.GOOS != "linux" {
		return io.NopCloser(nil), nil
	}
	return net.Listen("unix", "@aside-redistest-"+strconv.Itoa(port))
}

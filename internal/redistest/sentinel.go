package redistest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// StartSentinel runs a Redis Sentinel that watches a primary under a name, and kills it when the test ends. It takes it for down
// after a second of silence, and quorum of those that know each other must agree on it. Like any [Server] it can be killed, paused
// and resumed; one that is restarted knows what it has learnt.
func StartSentinel(t testing.TB, name string, primary *Server, quorum int) *Server {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server not found: skipping; `make test` installs it")
	}
	s := &Server{t: t, bin: bin, dir: t.TempDir()}
	s.conf = filepath.Join(s.dir, "sentinel.conf")
	s.args = []string{"--bind", "127.0.0.1", "--protected-mode", "no", "--dir", s.dir, "--daemonize", "no"}
	for range 20 {
		conf := fmt.Sprintf("sentinel monitor %[1]s 127.0.0.1 %[2]d %[3]d\nsentinel down-after-milliseconds %[1]s 1000\n"+
			"sentinel failover-timeout %[1]s 3000\n", name, primary.Port(), quorum)
		if err = os.WriteFile(s.conf, []byte(conf), 0o600); err != nil {
			break
		}
		s.port = reservePort(t)
		if err = s.start(); err == nil {
			t.Cleanup(func() { s.Kill(); releasePort(s.port) })
			return s
		}
		releasePort(s.port)
	}
	t.Fatalf("redistest: redis-server --sentinel: %v\n%s", err, s.Log())
	return nil
}

// AwaitSentinels waits until each of some Sentinels knows the others and as many replicas of the primary as there are.
func AwaitSentinels(t testing.TB, name string, replicas int, sentinels ...*Server) {
	t.Helper()
	deadline := time.Now().Add(clusterTimeout)
	for {
		ready := true
		for _, s := range sentinels {
			others, _ := s.Do("SENTINEL", "SENTINELS", name)
			copies, _ := s.Do("SENTINEL", "REPLICAS", name)
			a, _ := others.([]any)
			b, _ := copies.([]any)
			ready = ready && len(a) == len(sentinels)-1 && len(b) == replicas
		}
		if ready {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("redistest: %s Sentinels do not know each other after %v", strconv.Itoa(len(sentinels)), clusterTimeout)
		}
		time.Sleep(pollInterval)
	}
}

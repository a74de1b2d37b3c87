package redistest

import (
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"
)

// A test binary that is killed, or that ends itself in a panic, runs no Cleanup.
func TestServerDiesWithTheTestBinary(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("redis-server"); err != nil {
		Start(t)
	}
	p := Spawn(t, "serve", "SERVER_DIR="+t.TempDir())
	addr, err := p.Line()
	if err != nil {
		t.Fatal(err)
	}
	Raw(t, addr)
	p.Kill()
	deadline := time.Now().Add(Patience)
	for {
		c, err := dial(addr)
		if err != nil {
			return // refused
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("the server outlived the process that started it")
		}
		time.Sleep(pollInterval)
	}
}

// The kernel takes the end of the forking thread for the end of the parent, and Go
// ends a thread whose locked goroutine returns without unlocking it.
func TestServerOutlivesTheThreadThatAskedForIt(t *testing.T) {
	t.Parallel()
	var s *Server
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread()
		s = Start(t)
	})
	wg.Wait()
	if s == nil {
		t.SkipNow() // Start did
	}
	pid := s.Pid()
	for range 20 {
		equal(t, s.MustDo(t, "PING"), "PONG")
		time.Sleep(pollInterval)
	}
	equal(t, s.Pid(), pid)
}

// A signal takes effect when its target is scheduled next; a test that paused a
// server must not see one more answer.
func TestPauseReturnsWhenTheServerIsStopped(t *testing.T) {
	t.Parallel()
	s := Start(t)
	for range 50 {
		s.Pause()
		if !isStopped(s.Pid()) {
			t.Fatal("Pause returned while the server was running")
		}
		s.Resume()
		s.MustDo(t, "PING")
	}
}

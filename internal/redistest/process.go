package redistest

import (
	"fmt"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// Goroutine is the function of the one goroutine that each running process has in
// this one. A leak check while a server runs excludes it:
// goleak.IgnoreAnyFunction(redistest.Goroutine).
const Goroutine = "github.com/gatewayz/aside/internal/redistest.(*process).run"

// process is a child that is always reaped, and that the kernel kills with the
// test binary where it can (Linux), however the binary ends: a panic in a test or
// its time-out run no Cleanup.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the child is reaped
	err  error         // what Wait returned; read it after done
}

// startProcess starts cmd. Its standard streams must be files: Wait then waits for
// nothing but the child.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	dieWithParent(cmd)
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// A Program is a process that is neither a server nor a function of the test binary.
type Program struct{ proc *process }

// StartProgram starts a program, which is killed when the test ends or, on Linux, with
// the test binary. Its standard streams must be files, or nil.
func StartProgram(t testing.TB, cmd *exec.Cmd) *Program {
	t.Helper()
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatalf("redistest: StartProgram: %v", err)
	}
	t.Cleanup(p.kill)
	return &Program{p}
}

// Done is closed when the program has ended.
func (p *Program) Done() <-chan struct{} { return p.proc.done }

// run starts the child and waits for it on one locked thread. Linux sends the
// parent-death signal when the *thread* that forked ends, not the process
// (prctl(2), PR_SET_PDEATHSIG), so that thread has to last as long as the child.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the child, stopped or not, and returns once it is reaped.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // the only error is that it has ended by itself
	<-p.done
}

// pause returns once the child is stopped: the signal alone takes effect whenever
// the child is scheduled next.
func (p *process) pause() error {
	if err := p.cmd.Process.Signal(sigStop); err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for !isStopped(p.pid()) {
		select {
		case <-p.done:
			return fmt.Errorf("process %d has ended", p.pid())
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d runs on", p.pid())
		}
	}
	return nil
}

func (p *process) resume() error { return p.cmd.Process.Signal(sigCont) }

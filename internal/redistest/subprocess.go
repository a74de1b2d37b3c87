package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// subprocessEnv names the function that a re-executed test binary runs.
const subprocessEnv = "ASIDE_SUBPROCESS"

// subprocesses holds what this test binary can play; nil where its TestMain does not
// call MaybeSubprocess.
var subprocesses map[string]func()

// MaybeSubprocess makes functions available to [Spawn]. A package that wants a second
// operating-system process calls it first thing in its TestMain:
//
//	func TestMain(m *testing.M) {
//		redistest.MaybeSubprocess(map[string]func(){"reader": reader})
//		os.Exit(m.Run())
//	}
//
// In the test binary it returns at once. In a process started by Spawn it runs the
// function asked for and exits: with 0 when the function returns, as Go does when it
// panics.
func MaybeSubprocess(funcs map[string]func()) {
	name := os.Getenv(subprocessEnv)
	if name == "" {
		subprocesses = funcs
		return
	}
	os.Unsetenv(subprocessEnv) // it is meant for this process, not for its children
	run, ok := funcs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "redistest: %s=%s: no such function\n", subprocessEnv, name)
		os.Exit(2)
	}
	run()
	os.Exit(0)
}

// Subprocess is another operating-system process that runs a function of this test
// binary.
type Subprocess struct {
	// Stdin is the process's standard input: closing it is a way to ask it to end.
	Stdin io.WriteCloser

	t      testing.TB
	proc   *process
	stdout *os.File
	lines  *bufio.Reader
	mu     sync.Mutex // guards lines
}

// Spawn runs the named function in a process of its own, with env ("NAME=value")
// added to this one's environment. The process is killed when the test ends; its
// standard error is the test's.
func Spawn(t testing.TB, name string, env ...string) *Subprocess {
	t.Helper()
	// Without this check a TestMain that does not call MaybeSubprocess would run the
	// whole suite in the child, whose Spawn would do the same.
	if subprocesses[name] == nil {
		t.Fatalf("redistest: Spawn(%q): TestMain gave MaybeSubprocess only %v", name, slices.Sorted(maps.Keys(subprocesses)))
	}
	p, err := spawn(name, env, os.Stderr)
	if err != nil {
		t.Fatalf("redistest: Spawn(%q): %v", name, err)
	}
	p.t = t
	t.Cleanup(func() {
		p.Kill()
		p.Stdin.Close()
		p.stdout.Close()
	})
	return p
}

func spawn(name string, env []string, stderr io.Writer) (*Subprocess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Pipes of our own: Wait closes those of StdoutPipe as soon as the process ends,
	// and with them the lines that nobody has read yet.
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer inR.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		inW.Close()
		return nil, err
	}
	defer outW.Close()

	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), env...)
	cmd.Env = append(cmd.Env, subprocessEnv+"="+name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, stderr
	proc, err := startProcess(cmd)
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, err
	}
	return &Subprocess{Stdin: inW, proc: proc, stdout: outR, lines: bufio.NewReader(outR)}, nil
}

// Pid returns the process id.
func (p *Subprocess) Pid() int { return p.proc.pid() }

// Line returns the next line of the standard output without its newline, or io.EOF
// when the process has ended and all is read. A process that prints nothing for 30 s
// is os.ErrDeadlineExceeded, so that a test fails instead of hanging.
func (p *Subprocess) Line() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.stdout.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return "", err
	}
	line, err := p.lines.ReadString('\n')
	if err != nil && line == "" {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// Wait waits until the process has ended, and returns nil or the error of
// [exec.Cmd.Wait]. It does not read the standard output.
func (p *Subprocess) Wait() error {
	<-p.proc.done
	return p.proc.err
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Subprocess) Kill() { p.proc.kill() }

// Pause stops the process with SIGSTOP and returns once it no longer runs.
func (p *Subprocess) Pause() {
	p.t.Helper()
	if err := p.proc.pause(); err != nil {
		p.t.Errorf("redistest: Pause: %v", err)
	}
}

// Resume lets a paused process go on.
func (p *Subprocess) Resume() {
	p.t.Helper()
	if err := p.proc.resume(); err != nil {
		p.t.Errorf("redistest: Resume: %v", err)
	}
}

package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	MaybeSubprocess(map[string]func(){
		"echo":  echo,
		"panic": func() { panic("on purpose") },
		"serve": serve,
	})
	os.Exit(m.Run())
}

// childTB is what a process without a test of its own gives Start.
type childTB struct{ testing.TB }

func (childTB) Helper()           {}
func (childTB) Cleanup(func())    {}
func (childTB) TempDir() string   { return os.Getenv("SERVER_DIR") }
func (childTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
func (childTB) Fatalf(f string, args ...any) {
	panic(fmt.Sprintf(f, args...))
}

// serve starts a server and never ends by itself.
func serve() {
	fmt.Println(Start(childTB{}).Addr())
	select {}
}

// echo says who it is, then repeats its input in capitals.
func echo() {
	fmt.Println(os.Getpid(), os.Getenv("GREETING"), os.Getenv(subprocessEnv) == "")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(strings.ToUpper(in.Text()))
	}
}

func TestSpawn(t *testing.T) {
	t.Parallel()
	p := Spawn(t, "echo", "GREETING=hello")
	if p.Pid() == os.Getpid() {
		t.Error("not a process of its own")
	}
	equal(t, must(p.Line()), fmt.Sprint(p.Pid(), " hello true"))
	fmt.Fprintln(p.Stdin, "one")
	equal(t, must(p.Line()), "ONE")

	p.Pause()
	fmt.Fprintln(p.Stdin, "two")
	p.Resume()
	equal(t, must(p.Line()), "TWO")

	p.Stdin.Close()
	if err := p.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if _, err := p.Line(); !errors.Is(err, io.EOF) {
		t.Errorf("Line after the end: %v", err)
	}
}

func TestSpawnedProcessIsKilled(t *testing.T) {
	t.Parallel()
	p := Spawn(t, "echo")
	p.Kill()
	if failed := (*exec.ExitError)(nil); !errors.As(p.Wait(), &failed) || failed.Exited() {
		t.Errorf("Wait: %v, want the end by a signal", p.Wait())
	}
	p.Kill() // twice is once
}

func TestSpawnedProcessPanics(t *testing.T) {
	t.Parallel()
	p, err := spawn("panic", nil, nil) // its stack trace is of no interest
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stdin.Close()
	defer p.stdout.Close()
	if failed := (*exec.ExitError)(nil); !errors.As(p.Wait(), &failed) || failed.ExitCode() != 2 {
		t.Errorf("Wait: %v, want exit status 2", p.Wait())
	}
}

func TestSpawnOfAnUnknownFunction(t *testing.T) {
	t.Parallel()
	tb := &recorder{TB: t}
	tb.run(func() { Spawn(tb, "nobody") })
	if !strings.Contains(tb.fatal, "MaybeSubprocess") {
		t.Errorf("Spawn ended with %q", tb.fatal)
	}
}

func TestAProgramEndsWithItsTest(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var p *Program
	t.Run("a test", func(t *testing.T) {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		t.Cleanup(func() { out.Close() })
		cmd := exec.Command(self)
		cmd.Env, cmd.Stdin = append(os.Environ(), subprocessEnv+"=echo"), in
		p = StartProgram(t, cmd)
		select {
		case <-p.Done():
			t.Fatal("it has ended before its test")
		default:
		}
	})
	<-p.Done()
	r := &recorder{TB: t}
	r.run(func() { StartProgram(r, exec.Command(self+" that is not there")) })
	if !strings.Contains(r.fatal, "StartProgram") {
		t.Errorf("a program that is not there: %q", r.fatal)
	}
}

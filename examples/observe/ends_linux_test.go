package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// runsAlone names the environment variable that makes this test program the command, with a program in place of Prometheus.
const runsAlone = "ASIDE_OBSERVE_WITH"

func init() {
	if program := os.Getenv(runsAlone); program != "" {
		os.Exit(run(context.Background(), []string{"-addr", "127.0.0.1:0", "-prometheus", program, "-dir", filepath.Dir(program)}, os.Stdout, os.Stderr))
	}
}

// Where the command is killed, it can end nothing: the kernel ends Prometheus.
func TestPrometheusEndsWithAKilledCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, noted := filepath.Join(dir, "prometheus"), filepath.Join(dir, "pid")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho $$ > "+noted+".new\nmv "+noted+".new "+noted+"\nexec sleep 600\n"), 0o700))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), runsAlone+"="+program)
	require.NoError(t, cmd.Start())
	killed := false
	defer func() {
		if !killed {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	var pid int
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(noted)
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(text), &pid)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	killed = true
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(text), ") Z ") // nobody may have waited for it yet
	}, time.Minute, 10*time.Millisecond)
}

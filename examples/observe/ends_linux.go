package main

import (
	"os/exec"
	"runtime"
	"syscall"
)

// endsWithUs has the kernel end a command where this process is killed, which can then end nothing itself. Linux sends the signal when the thread ends that has
// started the command, so the caller's goroutine keeps its thread until release.
func endsWithUs(cmd *exec.Cmd) (release func()) {
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return runtime.UnlockOSThread
}

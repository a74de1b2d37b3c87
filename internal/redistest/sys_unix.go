//go:build unix && !linux

package redistest

import (
	"os"
	"os/exec"
	"syscall"
)

var (
	sigStop os.Signal = syscall.SIGSTOP
	sigCont os.Signal = syscall.SIGCONT
)

// dieWithParent can do nothing here: a child of a test binary that was killed
// stays behind.
func dieWithParent(*exec.Cmd) {}

// isStopped cannot know here: the stop takes effect a moment after Pause.
func isStopped(int) bool { return true }

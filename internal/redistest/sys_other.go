//go:build !unix

package redistest

import (
	"os"
	"os/exec"
)

// Systems without SIGSTOP can run these tests up to the first Pause, which fails:
// os.Process supports no signal but Kill there.
var (
	sigStop os.Signal = os.Interrupt
	sigCont os.Signal = os.Interrupt
)

func dieWithParent(*exec.Cmd) {}

func isStopped(int) bool { return true }

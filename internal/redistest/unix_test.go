//go:build unix

package redistest

import (
	"errors"
	"syscall"
	"testing"
)

func TestNoProcessOutlivesItsTest(t *testing.T) {
	t.Parallel()
	var pids []int
	t.Run("started", func(t *testing.T) {
		s := Start(t)
		pids = append(pids, s.Pid())
		s.Restart()
		pids = append(pids, s.Pid(), Spawn(t, "echo").Pid())
	})
	t.Run("paused", func(t *testing.T) {
		s := Start(t)
		s.Pause()
		p := Spawn(t, "echo")
		p.Pause()
		pids = append(pids, s.Pid(), p.Pid())
	})
	if len(pids) != 5 {
		t.Skip("the subtests did not start their servers")
	}
	for _, pid := range pids {
		// Signal 0 finds zombies too: this also shows that each one was reaped.
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Hazard 191. With GODEBUG=asynctimerchan=1, one of a million timers that fire just before they are given back sends its time later.
func TestATimerThatHasFiredIsNotUsedAgain(t *testing.T) {
	var p timers
	for range 1000 {
		fired := p.start(0)
		<-fired.C
		p.stop(fired)
		next := p.start(time.Hour)
		require.NotSame(t, fired, next)
		p.stop(next)
		require.Empty(t, next.C)
	}
}

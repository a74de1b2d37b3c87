package redisstore

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A mark that gets lost is sent again, and one that comes late wakes nobody.
func TestAMarkThatIsLostIsSentAgain(t *testing.T) {
	t.Parallel()
	var m marks
	first, came := m.begin()
	m.end(first)
	m.arrived(first)
	select {
	case <-came:
		t.Fatal("a mark has come that nobody waits for any more")
	default:
	}
	second, came := m.begin()
	require.NotEqual(t, first, second)
	m.arrived(first)
	m.arrived(second)
	m.arrived(second)
	<-came
	require.Empty(t, m.await)
	require.True(t, isMark(second))
	require.False(t, isMark("items:7"))
}

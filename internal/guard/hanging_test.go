package guard

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHangingCallsAreCountedByAddress(t *testing.T) {
	t.Parallel()
	var h Hanging
	for range mostHanging {
		require.False(t, h.Full("bad"))
		h.Note("bad", 1)
	}
	require.True(t, h.Full("bad"))
	require.False(t, h.Full("good"))
	h.Note("bad", -1)
	require.False(t, h.Full("bad"))
	for range mostHanging - 1 {
		h.Note("bad", -1)
	}
	require.Empty(t, h.calls, "an address without hanging calls is forgotten")
}

func TestWithoutHangingNothingIsCounted(t *testing.T) {
	t.Parallel()
	var h *Hanging
	h.Note("a", mostHanging)
	require.False(t, h.Full("a"))
}

package asideotel

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// A cache pauses tracking after a minute without calls, for which no test of the metrics waits.
func TestPausesAreNotLosses(t *testing.T) {
	t.Parallel()
	r := reading{Metrics: aside.Metrics{TrackingLost: 5, TrackingPaused: 2, Swept: 3}}
	values := map[string]int64{}
	for _, f := range ofCache {
		if f.by == "" {
			values[f.name] = f.read(&r, "")
		}
	}
	require.EqualValues(t, 5, values["aside.tracking.lost"])
	require.EqualValues(t, 2, values["aside.tracking.paused"])
	require.EqualValues(t, 3, values["aside.swept.entries"])
}

package asideprom

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// A cache pauses tracking after a minute without calls, for which no test of the collector waits.
func TestPausesAreNotLosses(t *testing.T) {
	t.Parallel()
	r := reading{Metrics: aside.Metrics{TrackingLost: 5, TrackingPaused: 2}}
	values := map[string]float64{}
	for _, m := range ofCache {
		if m.by == "" {
			values[m.name] = m.read(&r, "")
		}
	}
	require.EqualValues(t, 5, values["tracking_lost_total"])
	require.EqualValues(t, 2, values["tracking_paused_total"])
}

func TestTripsAreThoseOfTheirCause(t *testing.T) {
	t.Parallel()
	n := aside.Node{Trips: map[string]uint64{"slow": 3, "refused": 1}}
	for _, m := range ofNode {
		each(m.by, m.values, func(value string) { require.EqualValues(t, n.Trips[value], m.read(&n, value), m.name) })
	}
}

// An address is any text, such as the host name that a node of a cluster announces.
func TestServersThatAreShownAsOneAreCountedTogether(t *testing.T) {
	t.Parallel()
	all := nodes([]aside.Node{
		{Addr: "a\xff", Up: true, Trips: map[string]uint64{"slow": 1, "broken": 2}},
		{Addr: "a\xfe", Trips: map[string]uint64{"slow": 4}},
		{Addr: "b", Up: true},
	})
	require.Equal(t, map[string]aside.Node{
		"a\uFFFD": {Addr: "a\xfe", Trips: map[string]uint64{"slow": 5, "broken": 2}},
		"b":       {Addr: "b", Up: true},
	}, all)
}

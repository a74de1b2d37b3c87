package stats

import (
	"time"

	"github.com/gatewayz/aside/internal/histogram"
)

// A Trip is what a round trip to Redis is for.
type Trip uint8

// What round trips are for.
const (
	Other        Trip = iota // probes, scans and the like, which are not counted
	Reading                  // values, and generations of tags
	Leasing                  // to get, renew and release leases
	Filling                  // to store values
	Invalidating             // to remove values and leases, and to change generations
	Sweeping                 // to remove values that carry old generations

	Trips = iota // how many there are, with Other
)

// String returns the name.
func (t Trip) String() string { return tripNames[t] }

var tripNames = [Trips]string{"other", "read", "lease", "fill", "invalidate", "sweep"}

// RoundTrips counts the durations of round trips by what they are for. A nil one counts nothing.
type RoundTrips [Trips]histogram.Times

// Observe counts a round trip.
func (r *RoundTrips) Observe(of Trip, took time.Duration) {
	if r != nil && of != Other {
		r[of].Observe(took)
	}
}

package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The model knows what goes wrong without the strategies, and what does not with them.
func TestTheModelCountsLoadsAndWaits(t *testing.T) {
	t.Parallel()
	for n, want := range []struct {
		perExpiry int // loads, about
		wait      bool
	}{{1000, true}, {8, true}, {1, true}, {3, true}, {1, false}, {1, false}, {1, false}} {
		scheme := schemes(10 * time.Second)[n]
		s := simulation{scheme: scheme, random: rand.New(rand.NewPCG(1, 2)), processes: 8, rate: 1000, ttl: 10 * time.Second, load: time.Second}
		o := s.run(500 * time.Second)
		if mean := float64(o.loads) / float64(o.expiries); mean < 0.8*float64(want.perExpiry) || mean > 1.2*float64(want.perExpiry) {
			t.Errorf("%s: %v loads an expiry, not about %d", scheme.name, mean, want.perExpiry)
		}
		if (o.waited > 0) != want.wait {
			t.Errorf("%s: %d calls waited", scheme.name, o.waited)
		}
		if broken := s.broken(o); len(broken) > 0 {
			t.Errorf("%s: %v", scheme.name, broken)
		}
		s.windows.Ahead = 1 // any: what it has not
		if o.most, o.waited, o.oldest = 2, 1, int64(time.Hour); len(s.broken(o)) != 3 {
			t.Errorf("%s: what is broken is not found: %v", scheme.name, s.broken(o))
		}
	}
}

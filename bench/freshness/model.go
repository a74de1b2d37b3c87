package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"text/tabwriter"
	"time"

	"github.com/gatewayz/aside/internal/fleet"
	"github.com/gatewayz/aside/internal/freshness"
)

// A guard is what keeps callers from loading the same value at once.
type guard int

const (
	noGuard    guard = iota // each caller who finds no value loads it
	perProcess              // one caller in each process
	perFleet                // one caller in all processes, by a lease
)

// A scheme is a strategy in the model.
type scheme struct {
	name    string
	guard   guard
	xfetch  bool // each caller may load early, by a draw
	windows freshness.Windows
}

func schemes(ttl time.Duration) []scheme {
	return []scheme{
		{name: "no protection"},
		{name: "single flight a process", guard: perProcess},
		{name: "fleet lease", guard: perFleet},
		{name: "XFetch alone", xfetch: true},
		{name: "RefreshAhead, fleet lease", guard: perFleet, windows: freshness.Windows{Ahead: 0.1}},
		{name: "Stale, fleet lease", guard: perFleet, windows: freshness.Windows{Stale: ttl, OnError: ttl}},
		{name: "both, fleet lease", guard: perFleet, windows: freshness.Windows{Ahead: 0.1, Stale: ttl, OnError: ttl}},
	}
}

// A simulation is the virtual time of one scheme. Nothing in it takes time but loads: what one has loaded is in all processes at its end.
type simulation struct {
	scheme
	random    *rand.Rand
	processes int
	rate      int
	ttl, load time.Duration
	spread    float64 // of load times: their standard deviation by their mean

	now    int64
	value  *loaded     // the newest; nil before the first
	loads  []*underway // in the order in which they end
	serves []plan      // a process's own, of that value
	sum    outcome
}

type loaded struct {
	began, took int64
	replaced    int // how often a load of the next one began
}

type underway struct {
	began, end int64
	process    int
}

// A plan is what a process does about a value.
type plan struct {
	of      *loaded
	times   freshness.Times
	retryAt int64 // no load in the background begins before
}

type outcome struct {
	calls, loads, expiries int
	most                   int // loads for one expiry
	waited                 int
	slowest, oldest        int64
}

// retry is when a process asks again for the lease of a load in the background, after another one had it.
const retry = int64(time.Second)

// run has callers ask at random moments.
func (s *simulation) run(length time.Duration) outcome {
	s.serves = make([]plan, s.processes)
	for {
		s.now += int64(s.random.ExpFloat64() * float64(time.Second) / float64(s.rate))
		if s.now >= int64(length) {
			break
		}
		for len(s.loads) > 0 && s.loads[0].end <= s.now {
			s.end(s.loads[0])
			s.loads = s.loads[1:]
		}
		first := s.value == nil
		until := s.ask(s.random.IntN(s.processes))
		if first {
			continue
		}
		s.sum.calls++
		if until > s.now {
			s.sum.waited++
			s.sum.slowest = max(s.sum.slowest, until-s.now)
		} else {
			s.sum.oldest = max(s.sum.oldest, s.now-s.value.began)
		}
	}
	return s.sum
}

// end makes what a load has given the value, unless there is a newer one.
func (s *simulation) end(l *underway) {
	if s.value == nil || l.began > s.value.began {
		s.value = &loaded{began: l.began, took: l.end - l.began}
	}
}

// ask is one call in a process. It returns until when the call waits.
func (s *simulation) ask(process int) (until int64) {
	if s.value == nil {
		return s.wait(process)
	}
	if s.xfetch {
		// Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015; beta is 1.
		early := -float64(s.value.took) * math.Log(1-s.random.Float64())
		if float64(s.now)+early >= float64(s.value.began+int64(s.ttl)) {
			return s.wait(process)
		}
		return s.now
	}
	p := &s.serves[process]
	if p.of != s.value {
		took := time.Duration(s.value.took)
		times := freshness.Plain(s.value.began + int64(s.ttl))
		if !s.windows.None() {
			times = s.windows.Times(s.value.began, s.value.began+int64(s.ttl), took, s.random.Float64())
		}
		*p = plan{s.value, times, s.value.began + 2*s.value.took}
	}
	switch p.times.At(s.now) {
	case freshness.Fresh:
		return s.now
	case freshness.Ageing, freshness.Stale:
		switch {
		case s.now < p.retryAt:
		case len(s.loads) > 0:
			p.retryAt = s.now + retry
		default:
			s.begin(process)
		}
		return s.now
	}
	return s.wait(process)
}

// wait joins a load, or begins one.
func (s *simulation) wait(process int) (until int64) {
	for _, l := range s.loads {
		if s.guard == perFleet || s.guard == perProcess && l.process == process {
			return l.end
		}
	}
	return s.begin(process).end
}

func (s *simulation) begin(process int) *underway {
	took := float64(s.load)
	if s.spread > 0 { // log-normal
		variance := math.Log(1 + s.spread*s.spread)
		took *= math.Exp(math.Sqrt(variance)*s.random.NormFloat64() - variance/2)
	}
	l := &underway{s.now, s.now + int64(took), process}
	at := len(s.loads)
	for at > 0 && s.loads[at-1].end > l.end {
		at--
	}
	s.loads = append(s.loads, nil)
	copy(s.loads[at+1:], s.loads[at:])
	s.loads[at] = l
	if v := s.value; v != nil {
		s.sum.loads++
		if v.replaced++; v.replaced == 1 {
			s.sum.expiries++
		}
		s.sum.most = max(s.sum.most, v.replaced)
	}
	return l
}

// simulate runs each scheme, with constant and with varying load times.
func simulate(c fleet.Config, length time.Duration) (broken []string) {
	for _, spread := range []float64{0, 0.5} {
		of := "load " + c.Load.String()
		if spread > 0 {
			of += fmt.Sprintf(" on the average, standard deviation %v (log-normal)", time.Duration(spread*float64(c.Load)))
		}
		fmt.Printf("\nmodel in virtual time: %d processes, together %d calls a second for one key, TTL %v, %s, for %v\n", c.Processes, c.Rate, c.TTL, of, length)
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "strategy\tloads\texpiries\tloads an expiry, mean\tmost\tcallers who waited\tslowest\toldest\tan expiry every\t")
		for _, scheme := range schemes(c.TTL) {
			s := simulation{scheme: scheme, random: rand.New(rand.NewPCG(1, 2)), processes: c.Processes, rate: c.Rate, ttl: c.TTL, load: c.Load, spread: spread}
			o := s.run(length)
			for _, b := range s.broken(o) {
				broken = append(broken, "model, "+scheme.name+": "+b)
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%.2f\t%d\t%.4f %%\t%v\t%v\t%v\t\n", scheme.name, o.loads, o.expiries, float64(o.loads)/float64(max(1, o.expiries)), o.most,
				100*float64(o.waited)/float64(max(1, o.calls)), rounded(o.slowest), rounded(o.oldest), rounded(int64(length)/int64(max(1, o.expiries))))
		}
		w.Flush()
	}
	return broken
}

func rounded(d int64) time.Duration { return time.Duration(d).Round(time.Millisecond) }

// broken says which promises a scheme has not kept. A load that is longer than was foreseen may be waited for, but not with Stale.
func (s *simulation) broken(o outcome) (list []string) {
	if s.windows.None() {
		return nil
	}
	if o.most != 1 || o.expiries == 0 {
		list = append(list, fmt.Sprintf("%d loads for one expiry, of %d", o.most, o.expiries))
	}
	if o.waited > 0 && (s.spread == 0 || s.windows.Stale > 0) {
		list = append(list, fmt.Sprintf("%d calls waited", o.waited))
	}
	if o.oldest > int64(s.ttl+s.windows.Rest()) {
		list = append(list, fmt.Sprintf("a value was served %v after its load began", rounded(o.oldest)))
	}
	return list
}

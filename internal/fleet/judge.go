package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// events are what the processes of a fleet have told.
type events struct {
	loads  []*load
	ended  int // of the loads
	calls  []call
	stalls []stall
}

type load struct {
	pid          int
	began, ended int64 // ended is 0 for one that did not end
	killed       bool
}

type call struct {
	pid         int
	began, took int64
	load        int64 // of its value: when it began
	fallback    bool
}

type stall struct {
	pid         int
	began, took int64
}

func (e *events) killed(pid int) bool {
	return slices.ContainsFunc(e.loads, func(l *load) bool { return l.pid == pid && l.killed })
}

const (
	defaultLeaseTTL = 5 * time.Second
	retry           = 1500 * time.Millisecond
)

// margin is for how long a call that does not wait may take to look: meanwhile a load may end.
const margin = int64(50 * time.Millisecond)

// long is what nobody is to wait.
const long = int64(100 * time.Millisecond)

// A Result is what came of a fleet.
type Result struct {
	Calls    int
	Loads    int // those at the beginning included
	Killed   int // of the loads, with their process
	Expiries int // values that were loaded anew once or more
	Most     int // loads for one expiry, where no process was killed
	MostKill int // loads for one expiry, where the process was killed that made the first one
	Early    int // loads whose time had not come yet

	// Of the calls that began after the first load.
	Waited   int           // took over 100 ms
	Stalled  int           // of these, those whose process did not run meanwhile: all but 100 ms of their time
	Missed   int           // got a value whose load ended when they had waited for over 50 ms, in which their process ran
	Slowest  time.Duration // of those that were not stalled
	Oldest   time.Duration // the age of the oldest value that was served, when its call began
	Fallback int           // loaded, or waited for a load, because Redis did not answer within OpTimeout
	Stall    time.Duration // the longest time for which a process did not run
}

// PerExpiry is the mean of loads per expiry.
func (r Result) PerExpiry() float64 {
	if r.Expiries == 0 {
		return 0
	}
	return float64(r.Loads-1) / float64(r.Expiries)
}

// judge makes a result of events. A load belongs to the expiry of the value that was the newest one when it began. So a second load is told from
// that of the next expiry without a word from the cache. That the next one was due is judged by the time.
func (e *events) judge(c Config) (r Result) {
	var values []*load // in the order in which they came about
	for _, l := range e.loads {
		if l.ended != 0 {
			values = append(values, l)
		}
	}
	slices.SortFunc(values, func(a, b *load) int { return cmp.Compare(a.ended, b.ended) })
	r.Calls, r.Loads = len(e.calls), len(e.loads)
	if len(values) == 0 {
		return r
	}

	due := c.TTL - c.TTL/10 // a value's time begins with its lease, and the loader a moment later
	if c.Strategy.RefreshAhead > 0 {
		due -= c.TTL / 2
	}
	byExpiry, killed := map[*load]int{}, map[*load]bool{}
	for _, l := range e.loads {
		n, _ := slices.BinarySearchFunc(values, l.began, func(v *load, began int64) int { return cmp.Compare(v.ended, began) })
		if l.killed {
			r.Killed++
		}
		if n == 0 {
			continue // at the beginning
		}
		value := values[n-1]
		byExpiry[value]++
		killed[value] = killed[value] || l.killed
		if l.began-value.began < int64(due) {
			r.Early++
		}
	}
	r.Expiries = len(byExpiry)
	for value, n := range byExpiry {
		if killed[value] {
			r.MostKill = max(r.MostKill, n)
		} else {
			r.Most = max(r.Most, n)
		}
	}

	ended := map[int64]int64{}
	for _, l := range values {
		ended[l.began] = l.ended
	}
	for _, s := range e.stalls {
		r.Stall = max(r.Stall, time.Duration(s.took))
	}
	for _, call := range e.calls {
		if call.began <= values[0].ended {
			continue
		}
		if call.fallback {
			r.Fallback++
		}
		r.Oldest = max(r.Oldest, time.Duration(call.began-call.load))
		if wait := ended[call.load] - call.began; wait > margin && wait-e.stood(call) > margin {
			r.Missed++
		}
		stalled := false
		if call.took > long {
			r.Waited++
			if stalled = call.took-e.stood(call) <= long; stalled {
				r.Stalled++
			}
		}
		if !stalled {
			r.Slowest = max(r.Slowest, time.Duration(call.took))
		}
	}
	return r
}

// stood is for how much of a call its process did not run.
func (e *events) stood(c call) (sum int64) {
	for _, s := range e.stalls {
		if s.pid == c.pid {
			sum += max(0, min(c.began+c.took, s.began+s.took)-max(c.began, s.began))
		}
	}
	return sum
}

// Broken says which promises were not kept. A policy without a strategy has made none but that of its TTL.
func (r Result) Broken(c Config) (list []string) {
	list = must(nil, r.Oldest <= c.TTL+c.Strategy.Stale, "a value was served %v after its load began, and TTL and Stale are %v", r.Oldest, c.TTL+c.Strategy.Stale)
	if c.Strategy.none() {
		return list
	}
	least := int(c.For/(c.TTL+c.Load)) - 1 - r.Killed
	list = must(list, r.Expiries >= max(1, least), "%d expiries in %v", r.Expiries, c.For)
	list = must(list, r.Most <= 1, "%d loads for one expiry", r.Most)
	list = must(list, r.MostKill <= 2, "%d loads for one expiry at which a process was killed", r.MostKill)
	list = must(list, r.Early == 0, "%d loads before their time", r.Early)
	return must(list, !c.staleLasts(r) || r.Missed == 0, "%d calls waited for a load after the first one", r.Missed)
}

// Slow says which promises were not kept that a machine that is too busy breaks.
func (r Result) Slow(c Config) (list []string) {
	if c.Strategy.none() || !c.staleLasts(r) && r.Killed > 0 {
		return nil
	}
	list = must(list, r.Missed == 0, "%d calls waited for a load after the first one", r.Missed)
	return must(list, r.Waited == r.Stalled, "%d calls took over 100 ms", r.Waited-r.Stalled)
}

func (s Strategy) none() bool { return s.Stale == 0 && s.RefreshAhead == 0 }

// staleLasts reports whether a value is served until there is the next one, though the load of that be killed: others ask for the lease each second.
func (c Config) staleLasts(r Result) bool {
	if r.Killed == 0 {
		return c.Strategy.Stale > 0
	}
	return c.Strategy.Stale >= cmp.Or(c.LeaseTTL, defaultLeaseTTL)+c.Load+retry
}

func must(list []string, ok bool, format string, args ...any) []string {
	if ok {
		return list
	}
	return append(list, fmt.Sprintf(format, args...))
}

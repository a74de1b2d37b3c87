package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A strength is how much is promised of a read.
type strength int

const (
	ownProcess strength = iota // what this process has invalidated: strict, confirmed or not
	byStrong                   // what any process has confirmed, for a Strong read: strict
	quiet                      // what another process has confirmed, while no fault was near: delta is measured
	answered                   // the same, near a fault that leaves connections and answers alone: likewise
	faulted                    // the same, near one that does not: delta is measured, and has a declared bound
	strengths
)

// measured is how many of them have a delta.
const measured = strengths - quiet

var strengthNames = []string{"own process", "Strong", "other processes, quiet", "other processes, gentle faults", "other processes, faults"}

func (s strength) String() string { return strengthNames[s] }

// settle is for how long after a fault times still count as near it: what a connection needs to be noticed as broken.
const settle = 3 * time.Second

// A floor says that from at on nobody may read a version below it.
type floor struct {
	at      int64
	version uint32        // the highest one of all until then
	by      *invalidation // that has raised it so far
}

// floors is a key's, ordered by time; versions grow with it.
type floors []floor

func makeFloors(h *history, key int, when func(i *invalidation) (at int64, ok bool)) (list floors) {
	for n := range h.invalidations {
		i := &h.invalidations[n]
		if !i.keys.has(key) {
			continue
		}
		if at, ok := when(i); ok {
			if v := h.floor(key, i); v > 0 {
				list = append(list, floor{at, v, i})
			}
		}
	}
	slices.SortFunc(list, func(a, b floor) int { return cmp.Compare(a.at, b.at) })
	rising := list[:0]
	for _, f := range list {
		if len(rising) == 0 || f.version > rising[len(rising)-1].version {
			rising = append(rising, f)
		}
	}
	return rising
}

// broken is the first floor that was above a version, if there is one.
func (list floors) broken(version uint32) (floor, bool) {
	n, _ := slices.BinarySearchFunc(list, version, func(f floor, v uint32) int {
		if f.version <= v {
			return -1
		}
		return 1
	})
	if n == len(list) {
		return floor{}, false
	}
	return list[n], true
}

// A finding is a read, with the invalidation that it had missed, and for how long that had been complete.
type finding struct {
	strength strength
	read     read
	by       *invalidation
	excess   time.Duration
	fromNow  bool // it has a version that did not exist when it returned
}

// A verdict is what the check of a history comes to.
type verdict struct {
	reads      [strengths]int    // which were held to what: one read can be held to two
	worst      [measured]finding // from quiet on: their excess is the smallest delta that passes
	violations []finding         // the first ones
	count      int               // of violations
}

const mostViolations = 20

func (v *verdict) delta(s strength) time.Duration { return v.worst[s-quiet].excess }

// judgeHistory checks every read of a history against the rule: see the package's documentation.
func judgeHistory(h *history) *verdict {
	v := new(verdict)
	stops := h.stoppages()
	near := h.surroundings()
	procs := map[uint16]bool{}
	byKey := make([][]read, keyCount)
	for _, r := range h.reads {
		procs[r.proc] = true
		byKey[r.key] = append(byKey[r.key], r)
	}
	for key, reads := range byKey {
		confirmed := makeFloors(h, key, func(i *invalidation) (int64, bool) { return i.confirmed, i.confirmed != 0 })
		own, others := map[uint16]floors{}, map[uint16]floors{}
		for p := range procs {
			own[p] = makeFloors(h, key, func(i *invalidation) (int64, bool) { return i.here(), i.proc == p })
			others[p] = makeFloors(h, key, func(i *invalidation) (int64, bool) { return i.confirmed, i.proc != p && i.confirmed != 0 })
		}
		for _, r := range reads {
			if u := h.updates[key]; int(r.version) > len(u) || r.version > 0 && u[r.version-1].began > r.ret {
				v.violated(finding{read: r, fromNow: true})
				continue
			}
			v.reads[ownProcess]++
			if f, ok := own[r.proc].broken(r.version); ok && f.at < r.call {
				v.violated(finding{strength: ownProcess, read: r, by: f.by, excess: time.Duration(r.call - f.at)})
				continue
			}
			if r.door.strong() {
				v.reads[byStrong]++
				if f, ok := confirmed.broken(r.version); ok && f.at < r.call {
					v.violated(finding{strength: byStrong, read: r, by: f.by, excess: time.Duration(r.call - f.at)})
				}
				continue
			}
			s := near.of(r)
			v.reads[s]++
			f, ok := others[r.proc].broken(r.version)
			if !ok {
				continue
			}
			own := stops[r.proc]
			found := finding{strength: s, read: r, by: f.by, excess: time.Duration(running(own, r.call) - running(own, f.at))}
			if found.excess > v.delta(s) {
				v.worst[s-quiet] = found
			}
			if found.excess > h.bound(s) {
				v.violated(found)
			}
		}
	}
	return v
}

func (v *verdict) violated(f finding) {
	if v.count++; len(v.violations) < mostViolations {
		v.violations = append(v.violations, f)
	}
}

// spans are times, in order, that do not overlap.
type spans []stoppage

// surroundings say what was going on around a read.
type surroundings struct {
	any, hard spans            // faults, and those of them that break or hold up connections; with the time that they need to settle
	outages   map[uint16]spans // when a process has said itself that Redis was not in use; likewise
}

func (h *history) surroundings() surroundings {
	var all, hard []stoppage
	for _, f := range h.faults {
		span := stoppage{f.began, f.end + int64(settle)}
		if all = append(all, span); !gentle[f.name] {
			hard = append(hard, span)
		}
	}
	s := surroundings{any: merged(all), hard: merged(hard), outages: map[uint16]spans{}}
	for proc, list := range h.outages {
		var own []stoppage
		for _, o := range list {
			own = append(own, stoppage{o.began, o.end + int64(settle)})
		}
		s.outages[proc] = merged(own)
	}
	return s
}

// of tells what another process's invalidations are held to, for a read that is not Strong.
func (s *surroundings) of(r read) strength {
	switch {
	case s.hard.has(r.call), s.outages[r.proc].has(r.call):
		return faulted
	case s.any.has(r.call):
		return answered
	}
	return quiet
}

func merged(all []stoppage) (list spans) {
	slices.SortFunc(all, func(a, b stoppage) int { return cmp.Compare(a.began, b.began) })
	for _, s := range all {
		if n := len(list); n > 0 && s.began <= list[n-1].end {
			list[n-1].end = max(list[n-1].end, s.end)
		} else {
			list = append(list, s)
		}
	}
	return list
}

func (list spans) has(t int64) bool {
	n, found := slices.BinarySearchFunc(list, t, func(s stoppage, t int64) int { return cmp.Compare(s.began, t) })
	return found || n > 0 && t <= list[n-1].end
}

// explain tells of a finding what happened, in times since the start of the history.
func (h *history) explain(f finding) string {
	start := h.start()
	at := func(t int64) string { return fmt.Sprintf("%.6fs", float64(t-start)/1e9) }
	r := f.read
	var b strings.Builder
	fmt.Fprintf(&b, "process %d read %s through %s from %s to %s", r.proc, keyName(int(r.key)), r.door, at(r.call), at(r.ret))
	if r.tier != 0 {
		fmt.Fprintf(&b, " (%s, %s)", tierNames[r.tier], statusNames[r.status])
	}
	fmt.Fprintf(&b, " and got version %d", r.version)
	if f.fromNow {
		b.WriteString(", which did not exist")
		return b.String()
	}
	if r.version > 0 {
		fmt.Fprintf(&b, ", current from %s to %s", at(h.updates[r.key][r.version-1].began), at(h.updates[r.key][r.version].done))
	}
	next := h.updates[r.key][r.version]
	fmt.Fprintf(&b, ".\n  Version %d was made by process %d at %s", r.version+1, next.proc, at(next.done))
	i := f.by
	fmt.Fprintf(&b, "; process %d called %s (%d keys) at %s, when version %d was current; it returned at %s", i.proc, i.door, i.keys.count(), at(i.call), h.floor(int(r.key), i), at(i.ret))
	switch i.confirmed {
	case 0:
		b.WriteString(", and was never confirmed")
	case i.ret:
		b.WriteString(", confirmed")
	default:
		fmt.Fprintf(&b, ", and was confirmed at %s", at(i.confirmed))
	}
	fmt.Fprintf(&b, ".\n  Held to %q: it was complete %v before the read began.", f.strength, f.excess)
	for _, x := range h.faults {
		if x.began <= r.call && x.end+int64(settle) >= i.call {
			fmt.Fprintf(&b, "\n  Near it: %s", x.name)
			if x.detail != "" {
				fmt.Fprintf(&b, " (%s)", x.detail)
			}
			if x.proc != 0 {
				fmt.Fprintf(&b, " (%d)", x.proc)
			}
			fmt.Fprintf(&b, " from %s to %s", at(x.began), at(x.end))
		}
	}
	return b.String()
}

// start is the time of what happened first.
func (h *history) start() int64 {
	first := int64(1<<63 - 1)
	for _, r := range h.reads {
		first = min(first, r.call)
	}
	for _, list := range h.updates {
		for _, u := range list {
			first = min(first, u.began)
		}
	}
	return first
}

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// A tally counts what happened.
type tally struct {
	// What workers count.
	Loads, FillsRejected, MemoryHits, RedisHits, StaleHits, Fallbacks, TrackingLost, InvalidationMessages uint64

	// Likewise, in schedules with windows.
	Refreshes, RefreshesSkipped, RefreshErrors, StaleOnError, SoftTimeouts, NotModified uint64
	Failed                                                                              uint64 // calls that failed as the source did
	Sets                                                                                uint64

	windowed                      uint64 // schedules with windows
	placed                        uint64 // schedules with places
	memoryAlone                   uint64 // hits on values that are in memory alone
	behind                        uint64 // loads in the background, as loaders see them
	overtaken                     [places]uint64
	overtakenSame                 [places]uint64 // of those, whose value was not modified
	Hasty, Left                   uint64         // calls with a deadline of some milliseconds; calls that ended at their deadline
	Batches, Ids                  uint64         // batches of more than a thousand ids, and those
	Pauses                        uint64         // in a codec, between the reply and what becomes of it
	unseen                        map[string]uint64
	restored                      uint64 // invalidations that were undone with their server
	reads, updates, invalidations uint64
	unconfirmed                   uint64 // of the invalidations, when they returned
	lost                          uint64 // of those, how many died with their process
	exempt                        uint64 // keys whose last version died likewise, before it was invalidated
	processes                     uint64
	doors                         [len(doorNames)]uint64
	faults                        map[string]uint64
}

func (a *tally) add(b tally) {
	a.Loads += b.Loads
	a.FillsRejected += b.FillsRejected
	a.MemoryHits += b.MemoryHits
	a.RedisHits += b.RedisHits
	a.StaleHits += b.StaleHits
	a.Fallbacks += b.Fallbacks
	a.TrackingLost += b.TrackingLost
	a.InvalidationMessages += b.InvalidationMessages
	a.reads += b.reads
	a.updates += b.updates
	a.invalidations += b.invalidations
	a.unconfirmed += b.unconfirmed
	a.lost += b.lost
	a.exempt += b.exempt
	a.processes += b.processes
	for i := range a.doors {
		a.doors[i] += b.doors[i]
	}
	if a.faults == nil {
		a.faults = map[string]uint64{}
	}
	for name, n := range b.faults {
		a.faults[name] += n
	}
	if a.unseen == nil {
		a.unseen = map[string]uint64{}
	}
	for name, n := range b.unseen {
		a.unseen[name] += n
	}
	a.Refreshes += b.Refreshes
	a.RefreshesSkipped += b.RefreshesSkipped
	a.RefreshErrors += b.RefreshErrors
	a.StaleOnError += b.StaleOnError
	a.SoftTimeouts += b.SoftTimeouts
	a.NotModified += b.NotModified
	a.Failed += b.Failed
	a.Sets += b.Sets
	a.windowed += b.windowed
	a.placed += b.placed
	a.memoryAlone += b.memoryAlone
	a.behind += b.behind
	for i := range a.overtaken {
		a.overtaken[i] += b.overtaken[i]
		a.overtakenSame[i] += b.overtakenSame[i]
	}
	a.Hasty += b.Hasty
	a.Left += b.Left
	a.Batches += b.Batches
	a.Ids += b.Ids
	a.Pauses += b.Pauses
	a.restored += b.restored
}

func (a *tally) operations() uint64 { return a.reads + a.updates + a.invalidations }

func countHistory(h *history) tally {
	sum := tally{
		reads: uint64(len(h.reads)), invalidations: uint64(len(h.invalidations)), unconfirmed: uint64(h.unconfirmed),
		lost: uint64(h.lost()), exempt: uint64(h.uncovered().count()), processes: uint64(len(h.processes)), faults: map[string]uint64{}, unseen: map[string]uint64{}, restored: uint64(h.restored),
		behind: uint64(len(h.refreshes)),
	}
	sum.overtaken, sum.overtakenSame = h.overtaken()
	if h.Windows != nil {
		sum.windowed = 1
	}
	if h.Placed {
		sum.placed = 1
		for _, r := range h.reads {
			if int(r.key)/groupSize == inMemoryAlone && tierNames[r.tier] == "memory" {
				sum.memoryAlone++
			}
		}
	}
	for _, u := range h.updates {
		sum.updates += uint64(len(u))
	}
	for _, r := range h.reads {
		sum.doors[r.door]++
	}
	for _, i := range h.invalidations {
		sum.doors[i.door]++
	}
	for _, f := range h.faults {
		sum.faults[f.name]++
		if f.seen == 0 {
			sum.unseen[f.name]++
		}
	}
	return sum
}

// missing says what should have occurred in a run of several schedules, and has not: what was checked would be worth less
// than it seems.
func (a *tally) missing() (list []string) {
	for name, n := range map[string]uint64{
		"rejected fills": a.FillsRejected, "loads": a.Loads, "hits in memory": a.MemoryHits, "hits in Redis": a.RedisHits,
		"fallbacks": a.Fallbacks, "tracking lost": a.TrackingLost, "invalidation messages": a.InvalidationMessages, "unconfirmed invalidations": a.unconfirmed,
		"calls in a hurry": a.Hasty, "calls that ended at their deadline": a.Left, "batches of more than a thousand": a.Batches,
		"pauses in a codec": a.Pauses, "refreshes": min(a.Refreshes, a.behind), "stale hits": a.StaleHits, "calls that failed as the source did": a.Failed,
		"values that are not modified": a.NotModified,
	} {
		if n == 0 {
			list = append(list, name)
		}
	}
	for name, n := range map[string]uint64{
		"refreshes left to others": a.RefreshesSkipped, "failed refreshes": a.RefreshErrors, "stale hits in place of a failed load": a.StaleOnError,
		placeNames[beforeSource]: a.overtaken[beforeSource], placeNames[afterSource]: a.overtaken[afterSource],
		"values that are not modified, of refreshes overtaken before they read the source": a.overtakenSame[beforeSource],
		"values that are not modified, of refreshes overtaken after they read the source":  a.overtakenSame[afterSource],
	} {
		if n == 0 && a.windowed >= fewSchedules {
			list = append(list, name)
		}
	}
	if a.memoryAlone == 0 && a.placed >= fewSchedules {
		list = append(list, "hits on values of memory alone")
	}
	for d, n := range a.doors {
		if n == 0 {
			list = append(list, door(d).String())
		}
	}
	for name, n := range a.unseen {
		if n == a.faults[name] && n >= fewSchedules { // one may have come while nobody asked, and is named anyway
			list = append(list, name+" (was tried, and had no effect)")
		}
	}
	slices.Sort(list)
	return list
}

func (a *tally) print(w io.Writer) {
	fmt.Fprintf(w, "operations %d: %d reads, %d updates, %d invalidations (%d not confirmed at once, %d of them lost with their process)\n",
		a.operations(), a.reads, a.updates, a.invalidations, a.unconfirmed, a.lost)
	fmt.Fprintf(w, "loads %d, rejected fills %d, hits in memory %d, in Redis %d, stale %d, fallbacks %d, invalidation messages %d, losses of tracking %d, processes %d, keys exempt at the end %d\n",
		a.Loads, a.FillsRejected, a.MemoryHits, a.RedisHits, a.StaleHits, a.Fallbacks, a.InvalidationMessages, a.TrackingLost, a.processes, a.exempt)
	var doors []string
	for d, n := range a.doors {
		doors = append(doors, fmt.Sprintf("%s %d", door(d), n))
	}
	fmt.Fprintf(w, "doors: %s\n", strings.Join(doors, ", "))
	fmt.Fprintf(w, "calls in a hurry %d, calls that ended at their deadline %d, batches of more than a thousand %d with %d ids, pauses in a codec %d\n",
		a.Hasty, a.Left, a.Batches, a.Ids, a.Pauses)
	fmt.Fprintf(w, "windows, in %d schedules: refreshes %d, left to others %d, failed %d; %s %d, %s %d; stale hits in place of a failed load %d, of a slow one %d; calls that failed as the source did %d\n",
		a.windowed, a.Refreshes, a.RefreshesSkipped, a.RefreshErrors, placeNames[beforeSource], a.overtaken[beforeSource], placeNames[afterSource], a.overtaken[afterSource],
		a.StaleOnError-a.SoftTimeouts, a.SoftTimeouts, a.Failed)
	fmt.Fprintf(w, "values that are not modified %d; of refreshes overtaken before they read the source %d, after it %d; previous values %d; Sets %d\n",
		a.NotModified, a.overtakenSame[beforeSource], a.overtakenSame[afterSource], a.doors[doorPrevious], a.Sets)
	fmt.Fprintf(w, "faults: %s\n", countsOf(a.faults))
	if len(a.unseen) > 0 {
		fmt.Fprintf(w, "of these, without an effect that was seen: %s\n", countsOf(a.unseen))
	}
	if a.restored > 0 {
		fmt.Fprintf(w, "invalidations undone with their server, and left out for 3 s: %d\n", a.restored)
	}
}

func countsOf(counts map[string]uint64) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Compare(a, b) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return strings.Join(names, ", ")
}

// A total is what a run of schedules comes to.
type total struct {
	tally
	began          time.Time
	seed           uint64
	schedules      int
	pieces, judged int                   // by porcupine: reads, in so many pieces
	unknown        int                   // of those reads, what it could not judge in time
	held           [2][strengths]int     // reads, in schedules without DegradedTTL and in those with one
	worst          [2][measured]struct { // of those, from quiet on
		delta time.Duration
		how   string // it came about
	}
}

func (t *total) addSchedule(h *history, counted tally, r result) {
	t.schedules++
	t.tally.add(counted)
	t.pieces += r.searched.pieces
	t.judged += r.searched.reads - r.searched.unknown
	t.unknown += r.searched.unknown
	with := 0
	if h.DegradedTTL > 0 {
		with = 1
	}
	for s, count := range r.verdict.reads {
		t.held[with][s] += count
	}
	for s, f := range r.verdict.worst {
		if w := &t.worst[with][s]; f.excess > w.delta {
			w.delta, w.how = f.excess, fmt.Sprintf("  Seed %d: %s", h.Seed, h.explain(f))
		}
	}
}

func (t *total) print(w io.Writer) {
	took := time.Since(t.began)
	fmt.Fprintf(w, "%d schedules from seed %d in %v, %.0f operations a second\n", t.schedules, t.seed, took.Round(time.Second), float64(t.operations())/took.Seconds())
	t.tally.print(w)
	fmt.Fprintf(w, "reads held to %q: %d\n", ownProcess, t.held[0][ownProcess]+t.held[1][ownProcess])
	fmt.Fprintf(w, "reads held to %q: %d\n", byStrong, t.held[0][byStrong]+t.held[1][byStrong])
	for with, name := range []string{"without DegradedTTL", "with DegradedTTL"} {
		for s := quiet; s < strengths; s++ {
			if n := t.held[with][s]; n > 0 {
				worst := t.worst[with][s-quiet]
				fmt.Fprintf(w, "reads held to %q, %s: %d, smallest delta that passes %v\n", s, name, n, worst.delta)
				if worst.how != "" {
					fmt.Fprintln(w, worst.how)
				}
			}
		}
	}
	fmt.Fprintf(w, "porcupine: %d reads in %d pieces, and %d that it could not judge in %v\n", t.judged, t.pieces, t.unknown, readTimeout)
}

// A result is what checking one history came to.
type result struct {
	verdict  *verdict
	searched searched
	took     time.Duration
	problems []string
}

// check judges a history by the rule itself, and by porcupine with the delta that was found.
func check(h *history) result {
	began := time.Now()
	v := judgeHistory(h)
	var delta [measured]time.Duration
	for s := quiet; s < strengths; s++ {
		delta[s-quiet] = min(v.delta(s), h.bound(s))
	}
	r := result{verdict: v, searched: search(h, delta)}
	for _, f := range v.violations {
		r.problems = append(r.problems, h.explain(f))
	}
	if n := v.count - len(v.violations); n > 0 {
		r.problems = append(r.problems, fmt.Sprintf("and %d more", n))
	}
	for _, p := range r.searched.illegal {
		r.problems = append(r.problems, fmt.Sprintf("porcupine finds no place for version %d that process %d read of %s through %s, held to %q",
			p.reads[0].version, p.proc, keyName(p.key), p.reads[0].door, p.strength))
	}
	for _, w := range v.worst {
		if w.by == nil || v.count > 0 {
			continue
		}
		accepted, unknown := smaller(h, w)
		if accepted {
			r.problems = append(r.problems, fmt.Sprintf("porcupine accepts less than the delta of %v that was found", w.excess))
		}
		if unknown {
			r.searched.unknown++
		}
	}
	// An order that exists is found at once, as a rule; but to look for one can take for ever. One read in a million may go without.
	if n := r.searched.unknown; n > max(1, r.searched.reads/1_000_000) {
		r.problems = append(r.problems, fmt.Sprintf("porcupine could not judge %d reads in %v", n, readTimeout))
	}
	r.took = time.Since(began)
	return r
}

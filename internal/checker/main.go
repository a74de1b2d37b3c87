package main

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

func main() {
	redistest.MaybeSubprocess(map[string]func(){"worker": workerProcess})
	o := options{quiet: 1200 * time.Millisecond, longest: 1, readers: 96, writers: 10}
	flag.StringVar(&o.topology, "topology", "single", "what the caches are on")
	flag.IntVar(&o.schedules, "schedules", 10, "how many schedules there are at least")
	flag.IntVar(&o.operations, "ops", 0, "how many operations are checked at least")
	flag.Uint64Var(&o.seed, "seed", 0, "of the first schedule; the next ones count up. 0: a random one")
	flag.StringVar(&o.out, "out", ".", "the directory for the histories of schedules that fail")
	flag.StringVar(&o.broken, "broken", "", "a way in which the workers are broken on purpose: forgets, hoards, weak or keeps")
	only := flag.String("faults", "", "only these faults, separated by commas")
	forced := flag.String("nemesis", "", "these faults, separated by commas, for as long as they last at most, in every schedule, and with -faults those beside them")
	file := flag.String("check", "", "check a saved history, and do nothing else")
	flag.Parse()
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if *forced != "" {
		o.forced = strings.Split(*forced, ",")
	}
	if o.seed == 0 {
		o.seed = rand.Uint64() >> 32
	}
	ok := false
	if *file != "" {
		ok = checkFile(os.Stdout, *file)
	} else {
		ok = repeat(os.Stdout, o)
	}
	if !ok {
		os.Exit(1)
	}
}

type options struct {
	topology   string
	schedules  int
	operations int
	seed       uint64
	out        string
	broken     string
	only       []string
	forced     []string
	quiet      time.Duration // see plan
	longest    float64       // likewise
	readers    int           // likewise
	writers    int           // likewise
}

// fewSchedules is how many may leave out an interleaving that should occur.
const fewSchedules = 3

// repeat carries out schedules and checks them, until there are enough or one fails. It reports whether all were right.
func repeat(w io.Writer, o options) (ok bool) {
	sum := total{began: time.Now(), seed: o.seed}
	for ok = true; ok && (sum.schedules < o.schedules || sum.operations() < uint64(o.operations)); {
		ok = once(w, o, &sum)
	}
	fmt.Fprintln(w)
	sum.print(w)
	if missing := sum.missing(); ok && sum.schedules >= fewSchedules && len(o.only) == 0 && len(o.forced) == 0 && len(missing) > 0 {
		fmt.Fprintf(w, "FAILED: what should have occurred has not: %s\n", strings.Join(missing, ", "))
		ok = false
	}
	return ok
}

// once carries out the next schedule and checks it.
func once(w io.Writer, o options, sum *total) (ok bool) {
	p := plan{
		topology: o.topology, seed: o.seed + uint64(sum.schedules), broken: o.broken, only: o.only, forced: o.forced,
		quiet: o.quiet, longest: o.longest, readers: o.readers, writers: o.writers,
	}
	var h *history
	var counted tally
	var failed error
	start := time.Now()
	if err := redistest.During(func(t testing.TB) { h, counted, failed = perform(t, p) }); err != nil && failed == nil {
		failed = err
	}
	ran := time.Since(start)
	if h == nil {
		fmt.Fprintf(w, "schedule %d, seed %d: %v\n", sum.schedules+1, p.seed, failed)
		return false
	}
	r := check(h)
	sum.addSchedule(h, counted, r)
	fmt.Fprintf(w, "schedule %d, seed %d: %v, checked in %v; %s\n",
		sum.schedules, p.seed, ran.Round(10*time.Millisecond), r.took.Round(10*time.Millisecond), summaryOf(h, counted, r.verdict))
	if failed != nil {
		r.problems = append(r.problems, failed.Error())
	}
	if len(r.problems) == 0 {
		return true
	}
	path := filepath.Join(o.out, fmt.Sprintf("history-%s-%d.jsonl", o.topology, p.seed))
	err := os.MkdirAll(o.out, 0o755)
	if err == nil {
		err = h.save(path)
	}
	if err != nil {
		r.problems = append(r.problems, err.Error())
	}
	fmt.Fprintf(w, "FAILED, the history is in %s:\n%s\n", path, strings.Join(r.problems, "\n"))
	return false
}

// summaryOf is for one line.
func summaryOf(h *history, counted tally, v *verdict) string {
	text := fmt.Sprintf("%d operations, %d invalidations, %d of them not confirmed at once", counted.operations(), counted.invalidations, counted.unconfirmed)
	if counted.lost > 0 {
		text += fmt.Sprintf(" (%d lost)", counted.lost)
	}
	if h.excused > 0 {
		text += fmt.Sprintf(" (%d near a failover)", h.excused)
	}
	if counted.Loads > 0 { // a saved history has none of these
		text += fmt.Sprintf(", %d loads, %d rejected fills, %d losses of tracking", counted.Loads, counted.FillsRejected, counted.TrackingLost)
	}
	if h.restored > 0 {
		text += fmt.Sprintf(", %d invalidations undone with their server", h.restored)
	}
	if counted.Batches > 0 {
		text += fmt.Sprintf(", %d large batches, %d calls in a hurry, %d ended at their deadline", counted.Batches, counted.Hasty, counted.Left)
	}
	if w := h.Windows; w != nil {
		text += fmt.Sprintf(", TTL %v, Stale %v, StaleIfError %v, %d refreshes, %d of them overtaken, %d values not modified", w.TTL.Round(time.Millisecond), w.Stale.Round(time.Millisecond),
			w.StaleIfError.Round(time.Millisecond), counted.Refreshes, counted.overtaken[beforeSource]+counted.overtaken[afterSource], counted.NotModified)
	}
	if h.Placed {
		text += fmt.Sprintf(", places of values, %d hits on those of memory alone", counted.memoryAlone)
	}
	if h.Apart {
		text += ", keys changed by one process each"
	}
	text += fmt.Sprintf("; DegradedTTL %v; delta %v quiet, %v gentle faults, %v faults; %s",
		h.DegradedTTL, v.delta(quiet), v.delta(answered), v.delta(faulted), countsOf(counted.faults))
	if len(counted.unseen) > 0 {
		text += "; without an effect: " + countsOf(counted.unseen)
	}
	return text
}

// checkFile checks a saved history.
func checkFile(w io.Writer, path string) (ok bool) {
	h, err := load(path)
	if err != nil {
		fmt.Fprintln(w, err)
		return false
	}
	r := check(h)
	fmt.Fprintf(w, "%s: seed %d, %s\n", path, h.Seed, summaryOf(h, countHistory(h), r.verdict))
	if len(r.problems) > 0 {
		fmt.Fprintf(w, "FAILED:\n%s\n", strings.Join(r.problems, "\n"))
	}
	return len(r.problems) == 0
}

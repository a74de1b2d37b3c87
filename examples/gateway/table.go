package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatewayz/aside"
)

// table is the result of the report. It has a line for each area, and below it a line for each op of the area.
type table struct {
	lines   []line
	off, on *measured
}

type line struct {
	name     string
	part     bool // the line is an op of the area above
	requests int
	reads    int             // requests that are reads
	hits     int             // reads that were hits
	uncached []time.Duration // sorted
	onHit    []time.Duration // sorted
	calls    float64         // backend calls with the cache on
	without  float64         // estimated backend calls of the same requests with the cache off
	target   *target
}

func newTable(off, on *measured) *table {
	t := &table{off: off, on: on}
	overall := line{name: "all requests"}
	for i, kind := range mix {
		if i == 0 || kind.area != mix[i-1].area {
			t.lines = append(t.lines, t.area(kind.area)...)
		}
		overall.add(t.kind(op(i)))
	}
	overall.uncached, overall.onHit = nil, nil // a mean over catalogues and profiles has no meaning
	overall.target = &target{saved: overallSaved}
	t.lines = append(t.lines, overall)
	return t
}

// area returns the line of an area, and the lines of its ops.
func (t *table) area(name area) []line {
	lines := []line{{name: string(name)}}
	for i, kind := range mix {
		if kind.area == name {
			part := t.kind(op(i))
			lines[0].add(part)
			lines = append(lines, part)
		}
	}
	for i := range targets {
		if targets[i].area == name {
			lines[0].target = &targets[i]
		}
	}
	slices.Sort(lines[0].uncached)
	slices.Sort(lines[0].onHit)
	if len(lines) == 2 {
		return lines[:1] // the only op is the area itself
	}
	return lines
}

func (t *table) kind(o op) line {
	l := line{name: mix[o].name, part: true, calls: float64(t.on.calls[o])}
	for _, s := range t.on.samples[o] {
		if !good(s) {
			continue
		}
		l.requests++
		if o != opMessage {
			l.reads++
		}
		if s.outcome == fromCache {
			l.hits++
			l.onHit = append(l.onHit, s.took)
		}
	}
	uncached := 0
	for _, s := range t.off.samples[o] {
		if good(s) {
			uncached++
			l.uncached = append(l.uncached, s.took)
		}
	}
	if uncached > 0 {
		l.without = float64(l.requests) * float64(t.off.calls[o]) / float64(uncached)
	}
	slices.Sort(l.uncached)
	slices.Sort(l.onHit)
	return l
}

func good(s sample) bool { return s.status >= 200 && s.status < 300 }

func (l *line) add(part line) {
	l.requests += part.requests
	l.reads += part.reads
	l.hits += part.hits
	l.calls += part.calls
	l.without += part.without
	l.uncached = append(l.uncached, part.uncached...)
	l.onHit = append(l.onHit, part.onHit...)
}

func (l *line) hitRate() float64 { return ratio(float64(l.hits), float64(l.reads)) }

func (l *line) saved() float64 {
	if l.without == 0 {
		return 0
	}
	return 1 - l.calls/l.without
}

// met reports whether the line meets its target in every column.
func (l *line) met() bool {
	if l.target == nil {
		return true
	}
	slow := l.target.hitTime > 0 && (len(l.onHit) == 0 || percentile(l.onHit, 50) >= l.target.hitTime)
	return l.hitRate() >= l.target.hitRate && l.saved() >= l.target.saved && !slow
}

func (t *table) met() bool {
	return !slices.ContainsFunc(t.lines, func(l line) bool { return !l.met() })
}

func (t *table) print(out io.Writer, cfg config, b *backend, opts aside.Options) error {
	var text strings.Builder
	text.WriteString(t.header(cfg, b, opts))
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\t\t\t\tuncached\t\thit\t\t\tbackend calls\t\t\t")
	fmt.Fprintln(w, "area          \trequests\thit rate\ttarget\tp50\tp99\tp50\tp99\ttarget\tsaved\ttarget\t\t")
	for _, l := range t.lines {
		fmt.Fprintln(w, strings.Join(l.cells(), "\t")+"\t")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	text.WriteString(t.notes())
	text.WriteString(t.verdict())
	_, err := io.WriteString(out, text.String())
	return err
}

func (l *line) cells() []string {
	name := l.name
	if l.part {
		name = "  " + name
	}
	name = fmt.Sprintf("%-14s", name) // all other columns are aligned to the right
	cells := []string{name, strconv.Itoa(l.requests), percent(l.hitRate()), "",
		milliseconds(l.uncached, 50), milliseconds(l.uncached, 99), milliseconds(l.onHit, 50), milliseconds(l.onHit, 99), "",
		percent(l.saved()), "", ""}
	if l.reads == 0 {
		cells[2] = ""
	}
	if l.target == nil {
		return cells
	}
	if l.target.hitRate > 0 {
		cells[3] = percentTarget(l.target.hitRate) + "+"
	}
	if l.target.hitTime > 0 {
		cells[8] = "< " + l.target.hitTime.String()
	}
	cells[10] = percentTarget(l.target.saved) + "+"
	if l.target.savedTo > 0 {
		cells[10] = fmt.Sprintf("%.0f-%s+", 100*l.target.saved, percentTarget(l.target.savedTo))
	}
	cells[11] = "met"
	if !l.met() {
		cells[11] = "MISSED"
	}
	return cells
}

// header describes the run.
func (t *table) header(cfg config, b *backend, opts aside.Options) string {
	waiting := "not compressed"
	if cfg.speedup > 1 {
		waiting = fmt.Sprintf("compressed %g times to %v-%v", cfg.speedup, cfg.compressed(cfg.upstreamMin), cfg.compressed(cfg.upstreamMax))
	}
	uncached := 0
	for _, samples := range t.off.samples {
		uncached += len(samples)
	}
	return fmt.Sprintf(`
The cache is %s.
%d models of %d gateways, %.1f MB. Upstreams answer in %v-%v, %s.
%d requests of %d users with the cache on, %d concurrent, without pauses. Before that, %d requests with the cache off.
Times are in milliseconds at the server, from the request to the last byte of the answer.

`, place(opts), b.catalogue.count, len(b.catalogue.gateways), float64(b.catalogue.size)/1e6, cfg.upstreamMin, cfg.upstreamMax, waiting,
		t.overall().requests, len(b.store.users), cfg.callers, uncached)
}

func (t *table) overall() *line { return &t.lines[len(t.lines)-1] }

func (t *table) notes() string {
	all := t.overall()
	expiry := "no entry expires in"
	if t.on.took >= aside.TTL.SessionsList.TTL {
		expiry = "entries expire by their TTLs in"
	}
	return fmt.Sprintf(`
The cache begins cold, and %s the run of %v. A miss is a first visit, or follows
one of the %d new messages among %d reads. Each message invalidates its session and the user's lists, chat
stats and credits. A backend call is one database query, or one round of requests to one upstream or to all of
them concurrently. "Saved" compares with the backend calls of the same requests with the cache off. SQLite runs
in this process, without a network. If a query reads a few rows, a hit saves a call but no time.
`, expiry, t.on.took.Round(time.Second), all.requests-all.reads, all.reads)
}

func (t *table) verdict() string {
	var missed []string
	for _, l := range t.lines {
		if !l.met() {
			missed = append(missed, l.name)
		}
	}
	if len(missed) > 0 {
		return "\nTargets are MISSED for " + strings.Join(missed, ", ") + ".\n"
	}
	return "\nEvery target is met.\n"
}

// percentile returns a percentile of a sorted list, by nearest rank.
func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}

// milliseconds formats a percentile with about three significant digits.
func milliseconds(sorted []time.Duration, p float64) string {
	if len(sorted) == 0 {
		return ""
	}
	ms := float64(percentile(sorted, p)) / float64(time.Millisecond)
	digits := 2
	if ms >= 10 {
		digits = 1
	}
	if ms >= 100 {
		digits = 0
	}
	return strconv.FormatFloat(ms, 'f', digits, 64)
}

func percent(part float64) string { return fmt.Sprintf("%.1f%%", 100*part) }

func percentTarget(part float64) string { return fmt.Sprintf("%.0f%%", 100*part) }

func ratio(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

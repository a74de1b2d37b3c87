package history

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatewayz/aside"
)

// How much is kept.
const (
	Step       = 10 * time.Second // between two snapshots
	Span       = time.Hour
	MostLabels = 32 // with figures of their own; all others are one
	MostBars   = 60 // of a course

	nearSpan = 5 * time.Minute // for as long every snapshot is kept whole, and for the rest of the hour one in this time
)

// Others is the label of what more than MostLabels labels have counted. No label of a cache is empty.
const Others = ""

// A History has the snapshots of one cache. It has one timer, and no goroutine between two snapshots.
type History struct {
	read func() (aside.Metrics, bool)

	mu     sync.Mutex // guards all below
	timer  *time.Timer
	labels map[string]int // the number of each label with figures of its own
	points []point        // one a Step: the last hour
	whole  []snapshot     // the older, the fewer

	forgotten int // points that are older than an hour
}

// A point is what a course is drawn of: 16 bytes a label.
type point struct {
	at     time.Time
	tallys []tally // by the numbers of labels, that of Others last
}

type tally struct{ calls, hits uint64 }

// A snapshot is what figures of a period are made of.
type snapshot struct {
	at     time.Time
	labels map[string]Figures
	redis  map[string]aside.Histogram
}

// New begins a history with the counters that read returns now. It ends when read returns false.
func New(read func() (aside.Metrics, bool)) *History {
	h := &History{read: read, labels: make(map[string]int)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if m, ok := read(); ok {
		h.add(m)
		h.timer = time.AfterFunc(Step, h.tick)
	}
	return h
}

func (h *History) tick() {
	m, ok := h.read()
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(m)
	h.timer.Reset(Step)
}

// add keeps the counters of now, and forgets those that are too old. It is called with mu held.
func (h *History) add(m aside.Metrics) {
	now := h.snapshotOf(m)
	p := point{at: m.At, tallys: make([]tally, len(h.labels)+1)}
	for label, f := range now.labels {
		p.tallys[h.number(label, len(p.tallys))] = tally{f.Calls, f.Hits}
	}
	h.points = append(h.points, p)
	if over := len(h.points) - int(Span/Step) - 1; over > 0 {
		h.points = slices.Delete(h.points, 0, over)
		h.forgotten += over
	}
	h.whole = append(h.whole, now)
	h.thin(m.At)
}

// thin leaves, of the whole snapshots, those of the last minutes, and of the hour before one in so many minutes. It is called with mu held.
func (h *History) thin(now time.Time) {
	kept := h.whole[:0]
	for i, s := range h.whole {
		age := now.Sub(s.at)
		switch {
		case age <= nearSpan+Step:
		case i+1 < len(h.whole) && now.Sub(h.whole[i+1].at) >= Span: // the next one is old enough for a period of an hour
			continue
		case len(kept) > 0 && s.at.Sub(kept[len(kept)-1].at) < nearSpan:
			continue
		}
		kept = append(kept, s)
	}
	clear(h.whole[len(kept):])
	h.whole = kept
}

// number is the place of a label in a point of n places.
func (h *History) number(label string, n int) int {
	if i, own := h.labels[label]; own {
		return i
	}
	return n - 1
}

// snapshotOf groups counters by label. A label that is new gets figures of its own while there is room. It is called with mu held.
func (h *History) snapshotOf(m aside.Metrics) snapshot {
	s := snapshot{at: m.At, labels: make(map[string]Figures, len(h.labels)+1), redis: m.Redis}
	for _, label := range slices.Sorted(maps.Keys(m.Labels)) {
		if _, own := h.labels[label]; !own && len(h.labels) < MostLabels {
			h.labels[label] = len(h.labels)
		}
		f := figuresOf(m.Labels[label])
		if _, own := h.labels[label]; !own {
			label = Others
			f = s.labels[Others].plus(f)
		}
		s.labels[label] = f
	}
	return s
}

// A Period is what was counted in a part of the last hour, or since the start of the process.
type Period struct {
	Took   time.Duration // how long the period is; 0 for the whole life of the process, whose length is not known
	Labels map[string]Figures
	Total  Figures
	Redis  map[string]aside.Histogram // durations of round trips, in seconds
}

// Last returns what was counted from the time of within before now up to now, of which m has the counters. If nothing so old is kept, the period is
// shorter. With 0 it is the life of the process.
func (h *History) Last(within time.Duration, m aside.Metrics) Period {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.snapshotOf(m)
	p := Period{Labels: now.labels, Redis: now.redis}
	if from := h.at(m.At.Add(-within)); within > 0 && from != nil {
		p.Took = now.at.Sub(from.at)
		for label, f := range now.labels {
			p.Labels[label] = f.minus(from.labels[label])
		}
		p.Redis = make(map[string]aside.Histogram, len(now.redis))
		for of, times := range now.redis {
			p.Redis[of] = times.Minus(from.redis[of])
		}
	}
	for _, f := range p.Labels {
		p.Total = p.Total.plus(f)
	}
	return p
}

// at returns the newest snapshot that is not younger than t, the oldest one if there is none, and nil without snapshots. It is called with mu held.
func (h *History) at(t time.Time) *snapshot {
	for i := len(h.whole) - 1; i >= 0; i-- {
		if s := &h.whole[i]; i == 0 || !s.at.After(t) {
			return s
		}
	}
	return nil
}

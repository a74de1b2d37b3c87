package history

import "time"

// A Course is how calls and hits went in the last hour, in at most MostBars parts of one length. A part that has not ended is left out: it would look
// as if there were fewer calls.
type Course struct {
	From   time.Time
	Step   time.Duration
	Labels map[string]Bars
}

// Bars are the numbers of one label, one for each part.
type Bars struct {
	Calls []uint64 `json:"calls"`
	Hits  []uint64 `json:"hits"`
}

// Course returns the course of the last hour.
func (h *History) Course() Course {
	h.mu.Lock()
	defer h.mu.Unlock()
	steps := len(h.points) - 1
	c := Course{Labels: make(map[string]Bars, len(h.labels)+1)}
	if steps <= 0 {
		return c
	}
	each := (steps + MostBars - 1) / MostBars
	first := (each - h.forgotten%each) % each // so that a part has the same snapshots as long as it is in the course
	c.From, c.Step = h.points[first].at, time.Duration(each)*Step
	names := make([]string, len(h.labels)) // by number
	for label, i := range h.labels {
		names[i] = label
	}
	for i, label := range append(names, Others) {
		var b Bars
		for at := first; at+each <= steps; at += each {
			from, to := h.tally(at, i), h.tally(at+each, i)
			b.Calls, b.Hits = append(b.Calls, to.calls-from.calls), append(b.Hits, to.hits-from.hits)
		}
		if label != Others || h.tally(steps, i).calls > 0 {
			c.Labels[label] = b
		}
	}
	return c
}

// tally is what a label had counted at a point, where the label may not have been known. The number of Others is that of the labels. It is called
// with mu held.
func (h *History) tally(at, label int) tally {
	tallys := h.points[at].tallys
	own := len(tallys) - 1 // labels that were known at that point
	switch {
	case label == len(h.labels):
		return tallys[own]
	case label < own:
		return tallys[label]
	}
	return tally{}
}

package main

import (
	"math/rand/v2"
	"time"
)

// inspect has the source stand still from time to time, until the last version of every key was read in every process, through doors
// that memory may answer, or until somebody has read an older one for longer than is allowed. Otherwise the next write would mend what
// the last one has left behind.
func (r *run) inspect(random *rand.Rand, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(200*time.Millisecond + time.Duration(random.Int64N(int64(400*time.Millisecond)))):
			if !r.judge.source.slow.on() { // else the loads that it holds up are to be overtaken first
				r.look(over)
			}
		}
	}
}

// lookAfter is when those keys are read too that are read little: what is under way when the source comes to a stop is to end first.
const lookAfter = 700 * time.Millisecond

// mostStill is how long the source stands still at most.
func (r *run) mostStill() time.Duration {
	most := settle + 600*time.Millisecond
	if d := r.config.DegradedTTL; d > 0 && d <= time.Second {
		most += d
	}
	return most
}

// tellAll tells all workers something that has no answer.
func (r *run) tellAll(word string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.team {
		select {
		case <-e.joins:
			_ = e.tell(word) // who was killed just now needs to be told no more
		default:
		}
	}
}

func (r *run) look(over <-chan struct{}) {
	source := &r.judge.source
	source.still.Lock()
	defer source.still.Unlock()
	began := now()
	told := false
	var last [keyCount]uint32
	for k := range keyCount {
		last[k] = source.version(k)
	}
	r.judge.mu.Lock()
	from := len(r.judge.history.reads)
	r.judge.mu.Unlock()
	type place struct {
		proc uint16
		key  uint8
	}
	seen, heard := map[place]bool{}, map[uint16]int64{}
	for end := time.Now().Add(r.mostStill()); time.Now().Before(end); {
		select {
		case <-over:
			return
		case <-time.After(30 * time.Millisecond):
		}
		if !told && now()-began > int64(lookAfter) {
			told = true
			r.tellAll("look")
			defer r.tellAll("leave")
		}
		r.judge.mu.Lock()
		source.addTo(r.judge.history)
		open := r.judge.history.uncovered()
		for _, x := range r.judge.history.reads[from:] {
			if !x.door.strong() && x.door != doorRefresh && x.door != doorPrevious && x.call > began {
				seen[place{x.proc, x.key}] = x.version == last[x.key]
				heard[x.proc] = x.ret
			}
		}
		from = len(r.judge.history.reads)
		r.judge.mu.Unlock()
		done := true
		for proc, at := range heard {
			for k := range keyCount {
				done = done && (open.has(k) || seen[place{proc, uint8(k)}] || now()-at > int64(200*time.Millisecond))
			}
		}
		if done && len(heard) >= roles {
			return
		}
	}
}

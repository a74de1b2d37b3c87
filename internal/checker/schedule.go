package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// A plan says how one schedule is to be.
type plan struct {
	topology string
	seed     uint64
	broken   string        // see workerConfig
	only     []string      // faults by name; all where there is none
	quiet    time.Duration // before the first fault
	longest  float64       // how long faults last at most, as a share of their own limits
	readers  int           // of each worker
	writers  int
}

const roles = 4 // workers at a time

// A run is a schedule while it runs.
type run struct {
	plan
	t        testing.TB
	judge    *judge
	topology topology
	config   workerConfig

	mu   sync.Mutex
	team [roles]*employee // guarded by mu
}

// perform carries out a schedule, and returns its history. What it decides by chance, it decides by the seed.
func perform(t testing.TB, p plan) (*history, tally, error) {
	make, ok := topologies[p.topology]
	if !ok {
		return nil, tally{}, fmt.Errorf("there is no topology %q: there are %v", p.topology, slices.Sorted(maps.Keys(topologies)))
	}
	random := rand.New(rand.NewPCG(p.seed, 0))
	info := scheduleInfo{Topology: p.topology, Seed: p.seed, DegradedTTL: -1, Persistent: random.IntN(3) == 0}
	if random.IntN(4) == 0 {
		info.DegradedTTL = 100*time.Millisecond + time.Duration(random.Int64N(int64(900*time.Millisecond)))
	}
	r := &run{plan: p, t: t, judge: newJudge(t, info), topology: make(t, info.Persistent)}
	r.config = workerConfig{
		Seed: p.seed, Single: r.topology.single(), DegradedTTL: info.DegradedTTL, Readers: p.readers, Writers: p.writers, Broken: p.broken,
	}
	r.config.Connected = true
	for role := range roles {
		r.team[role] = r.hire(role)
	}
	if err := together(r.team[:], func(e *employee) error { return e.await("ready") }); err != nil {
		return nil, tally{}, err
	}
	if err := together(r.team[:], func(e *employee) error { return e.tell("start") }); err != nil {
		return nil, tally{}, err
	}
	r.config.Connected = false // who is started later finds what there is
	r.strike(random)
	err := r.settle()
	r.judge.source.addTo(r.judge.history)
	r.judge.mu.Lock()
	r.judge.history.excuse()
	r.judge.mu.Unlock()
	sum := r.sum()
	if err == nil {
		err = r.judge.troubled()
	}
	return r.judge.history, sum, err
}

func (r *run) hire(role int) *employee {
	c := r.config
	c.Redis, c.Detours = r.topology.addresses(role), r.topology.detours(role)
	return r.judge.hire(role, c)
}

// replace starts a worker in place of another one, and has it begin.
func (r *run) replace(old *employee) {
	e := r.hire(old.role)
	err := e.await("ready")
	if err == nil {
		err = e.tell("start")
	}
	if err != nil {
		r.t.Errorf("checker: %v", err)
	}
	r.mu.Lock()
	r.team[old.role] = e
	r.mu.Unlock()
}

func (r *run) someone(random *rand.Rand) *employee {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.team[random.IntN(roles)]
}

// upheavals are what can happen to a worker.
func (r *run) upheavals() []nemesis {
	return []nemesis{
		{"process killed", 200 * time.Millisecond, func(random *rand.Rand) func() {
			e := r.someone(random)
			r.judge.kill(e)
			return func() { r.replace(e) }
		}},
		{faultStopped, 4 * time.Second, nil}, // its times are those of the process: see stop
	}
}

// strike lets the workers run for a while, and then causes faults, 3 to 10 of different kinds: those of Redis one after the
// other, and at the same time those of workers and of the way to Redis.
func (r *run) strike(random *rand.Rand) {
	lanes := [2][]nemesis{r.topology.faults(), append(r.upheavals(), r.topology.ways()...)}
	for i := range lanes {
		if len(r.only) > 0 {
			lanes[i] = slices.DeleteFunc(lanes[i], func(n nemesis) bool { return !slices.Contains(r.only, n.name) })
		}
		random.Shuffle(len(lanes[i]), func(a, b int) { lanes[i][a], lanes[i][b] = lanes[i][b], lanes[i][a] })
	}
	of := 3 + random.IntN(8)
	first := min(len(lanes[0]), 1+random.IntN(of-1))
	lanes[0], lanes[1] = lanes[0][:first], lanes[1][:min(len(lanes[1]), of-first)]
	var wg sync.WaitGroup
	done := make(chan struct{})
	time.Sleep(r.quiet) // the load
	for _, lane := range lanes {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		wg.Go(func() {
			for _, n := range lane {
				time.Sleep(time.Duration(own.Int64N(int64(300 * time.Millisecond))))
				r.cause(n, own)
			}
			time.Sleep(200 * time.Millisecond)
		})
	}
	go func() { wg.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		case <-time.After(100 * time.Millisecond):
			r.topology.tidy()
		}
	}
}

// cause lets one fault last for its time: mostly a short one, now and then the longest.
func (r *run) cause(n nemesis, random *rand.Rand) {
	length := time.Duration(0)
	if n.most > 0 {
		share := random.Float64()
		length = time.Duration(r.longest * float64(n.most) * (0.05 + 0.95*share*share*share))
	}
	f := fault{name: n.name, began: now()}
	if n.name == faultStopped {
		f = r.stop(r.someone(random), length)
	} else {
		end := n.begin(random)
		time.Sleep(length)
		if end != nil {
			end()
		}
		f.end = now()
	}
	r.judge.faulted(f)
}

// stop stops a worker for some time. What it notes lies within the time for which the process did not run.
func (r *run) stop(e *employee, length time.Duration) fault {
	e.sub.Pause()
	f := fault{name: faultStopped, proc: e.proc, began: now()}
	time.Sleep(length)
	f.end = now()
	e.sub.Resume()
	return f
}

// settle ends the load, and has everything read once more.
func (r *run) settle() error {
	team := r.team[:]
	said := func(word string, tell ...any) error {
		return together(team, func(e *employee) error {
			if err := e.tell(tell...); err != nil {
				return err
			}
			return e.await(word)
		})
	}
	if err := said("stopped", "stop"); err != nil {
		return err
	}
	r.judge.mu.Lock()
	r.judge.source.addTo(r.judge.history)
	r.judge.history.excuse()
	exempt := r.judge.history.uncovered()
	r.judge.mu.Unlock()
	if err := said("final", "final", uint64(exempt)); err != nil {
		return err
	}
	return together(team, func(e *employee) error {
		if err := e.tell("exit"); err != nil {
			return err
		}
		<-e.gone
		return e.sub.Wait()
	})
}

// sum adds up what the workers have counted, and what the history shows.
func (r *run) sum() tally {
	r.judge.mu.Lock()
	defer r.judge.mu.Unlock()
	sum := countHistory(r.judge.history)
	for _, t := range r.judge.tallies {
		sum.add(t)
	}
	return sum
}

// A harness is what redistest needs where there is no test.
type harness struct {
	testing.TB
	mu       sync.Mutex
	cleanups []func()
	errs     []string
}

// A failed harness panics with it.
type harnessFailure string

func (*harness) Helper() {}

func (h *harness) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

func (h *harness) Errorf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errs = append(h.errs, fmt.Sprintf(format, args...))
}

func (h *harness) Fatal(args ...any) { panic(harnessFailure(fmt.Sprint(args...))) }
func (h *harness) Fatalf(format string, args ...any) {
	panic(harnessFailure(fmt.Sprintf(format, args...)))
}
func (h *harness) Skip(args ...any) { h.Fatal(args...) }

func (h *harness) TempDir() string {
	dir, err := os.MkdirTemp("", "checker")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// during runs do with a harness, and returns what has failed in it.
func during(do func(t testing.TB)) (err error) {
	h := new(harness)
	defer func() {
		if p := recover(); p != nil {
			failure, ok := p.(harnessFailure)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("%s", failure)
		}
		for len(h.cleanups) > 0 {
			last := h.cleanups[len(h.cleanups)-1]
			h.cleanups = h.cleanups[:len(h.cleanups)-1]
			last()
		}
		if err == nil && len(h.errs) > 0 {
			err = fmt.Errorf("%s", h.errs[0])
		}
	}()
	do(h)
	return nil
}

package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
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
	forced   []string      // faults that there must be, beside those
	quiet    time.Duration // before the first fault
	longest  float64       // how long faults last at most, as a share of their own limits
	readers  int           // of each worker
	writers  int
}

const (
	roles = 4 // workers at a time
	lanes = 3 // of what goes on at the same time: what is done to Redis; to workers and the way there; and by others
)

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
	switch random.IntN(8) {
	case 0, 1:
		info.DegradedTTL = 100*time.Millisecond + time.Duration(random.Int64N(int64(900*time.Millisecond)))
	case 2: // longer than what has to be noticed takes
		info.DegradedTTL = 5*time.Second + time.Duration(random.Int64N(int64(2*time.Second)))
	}
	info.Apart = random.IntN(2) == 0
	info.Windows, info.Placed = windowsOf(p.seed), p.seed%4 >= 2
	connections := 1 << (2 * random.IntN(2))
	r := &run{plan: p, t: t, judge: newJudge(t, info), topology: make(t, info.Persistent)}
	r.config = workerConfig{
		Seed: p.seed, Mode: r.topology.mode(), DegradedTTL: info.DegradedTTL, Readers: p.readers, Writers: p.writers, Broken: p.broken,
		Apart: info.Apart, Windows: info.Windows, Placed: info.Placed, User: r.topology.login(), Connections: connections,
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
	err := r.strike(random)
	if err == nil {
		err = r.settle()
	}
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
	c.Role, c.Redis, c.Detours = role, r.topology.addresses(role), r.topology.detours(role)
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
		{name: "process killed", most: 200 * time.Millisecond, begin: func(random *rand.Rand) func() {
			e := r.someone(random)
			r.judge.kill(e)
			return func() { r.replace(e) }
		}},
		{name: faultStopped, most: 4 * time.Second}, // its times are those of the process: see stop
		{name: faultPaused, most: 2 * time.Second},  // likewise: see pauses
	}
}

// strike lets the workers run for a while, and then causes faults, 3 to 10 of different kinds: those of Redis one after the
// other, and at the same time those of workers and of the way to Redis, and one to three of what others do.
func (r *run) strike(random *rand.Rand) error {
	all := [lanes][]nemesis{r.topology.faults(), append(r.upheavals(), r.topology.ways()...), r.topology.foreign(&r.judge.source, r.judge.faulted)}
	names := namesOf(all[:]...)
	for _, name := range append(slices.Clone(r.only), r.forced...) {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no fault %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	var forced [lanes][]nemesis
	for i := range all {
		for _, n := range all[i] {
			if slices.Contains(r.forced, n.name) {
				forced[i] = append(forced[i], n)
			}
		}
		all[i] = slices.DeleteFunc(all[i], func(n nemesis) bool {
			return len(r.only) > 0 && !slices.Contains(r.only, n.name) || slices.Contains(r.forced, n.name) || len(r.forced) > 0 && len(r.only) == 0
		})
		random.Shuffle(len(all[i]), func(a, b int) { all[i][a], all[i][b] = all[i][b], all[i][a] })
	}
	of := 3 + random.IntN(8)
	first := min(len(all[0]), 1+random.IntN(of-1))
	all[0], all[1], all[2] = all[0][:first], all[1][:min(len(all[1]), of-first)], all[2][:min(len(all[2]), 1+random.IntN(3))]
	var wg sync.WaitGroup
	done := make(chan struct{})
	time.Sleep(r.quiet) // the load
	for i, lane := range all {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		wg.Go(func() {
			for _, n := range forced[i] {
				r.cause(n, own, n.most)
			}
			for _, n := range lane {
				time.Sleep(time.Duration(own.Int64N(int64(300 * time.Millisecond))))
				// Mostly a short one, now and then the longest.
				share := own.Float64()
				length := time.Duration(r.longest * float64(n.most) * (0.05 + 0.95*share*share*share))
				r.cause(n, own, max(length, n.least))
			}
			time.Sleep(200 * time.Millisecond)
		})
	}
	looked := make(chan struct{})
	inspecting := rand.New(rand.NewPCG(random.Uint64(), 0))
	go func() { r.inspect(inspecting, done); close(looked) }()
	go func() { wg.Wait(); r.look(nil); close(done) }()
	for {
		select {
		case <-done:
			<-looked
			return nil
		case <-time.After(100 * time.Millisecond):
			r.topology.tidy()
		}
	}
}

// leastEffect is how long those last at least whose effect is counted.
const leastEffect = 300 * time.Millisecond

// cause lets one fault last for its time.
func (r *run) cause(n nemesis, random *rand.Rand, length time.Duration) {
	switch n.name {
	case faultStopped:
		r.judge.faulted(r.stop(r.someone(random), length))
		return
	case faultPaused:
		r.pauses(random, length)
		return
	}
	if n.turn != nil {
		n.turn.Lock()
		defer n.turn.Unlock()
	}
	if n.aim != nil {
		n.aim(random)
	}
	before := 0
	if n.effects != nil {
		before = n.effects()
		length = max(length, leastEffect)
	}
	f := fault{name: n.name, began: now(), seen: 1}
	end := n.begin(random)
	if slices.Contains(failovers, f.name) {
		f.keys = r.topology.hit()
	}
	if n.detail != nil {
		f.detail = n.detail()
	}
	time.Sleep(length)
	if end != nil {
		end()
	}
	f.end = now()
	if n.effects != nil {
		f.seen = n.effects() - before
	}
	r.judge.faulted(f)
}

// pauses stops workers for a moment each, several times.
func (r *run) pauses(random *rand.Rand, length time.Duration) {
	for end := time.Now().Add(length); ; {
		f := r.stop(r.someone(random), 50*time.Millisecond+time.Duration(random.Int64N(int64(450*time.Millisecond))))
		f.name = faultPaused
		r.judge.faulted(f)
		if time.Now().After(end) {
			return
		}
		time.Sleep(time.Duration(random.Int64N(int64(200 * time.Millisecond))))
	}
}

// stop stops a worker for some time. What it notes lies within the time for which the process did not run.
func (r *run) stop(e *employee, length time.Duration) fault {
	e.sub.Pause()
	f := fault{name: faultStopped, proc: e.proc, began: now(), seen: 1}
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

package fleet

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A Config says how a fleet is to be.
type Config struct {
	Strategy  Strategy
	Processes int
	Rate      int // calls a second, of all processes together
	TTL, Load time.Duration
	For       time.Duration
	// KillEvery kills the process that loads, as it loads, at each so many expiries, and starts another one. 0: never.
	KillEvery int

	LeaseTTL, OpTimeout time.Duration // 0: the defaults
	Addr                string
	Username, Password  string
	Cluster             bool
	Process             string // what MaybeSubprocess calls Member
}

// A run is a fleet while it runs.
type run struct {
	Config
	t      testing.TB
	member string
	reads  sync.WaitGroup

	mu       sync.Mutex
	members  []*redistest.Subprocess // that run; guarded by mu
	events   events                  // guarded by mu
	over     bool                    // guarded by mu
	trouble  []string                // guarded by mu
	killedAt map[int]bool            // expiries, by number; guarded by mu
}

// Run has a fleet ask for its time, and returns what came of it.
func Run(t testing.TB, c Config) Result {
	t.Helper()
	text, err := json.Marshal(member{
		Addr: c.Addr, Username: c.Username, Password: c.Password, Single: !c.Cluster, Strategy: c.Strategy, TTL: c.TTL, Load: c.Load,
		LeaseTTL: c.LeaseTTL, OpTimeout: c.OpTimeout, Every: time.Second * time.Duration(c.Processes) / time.Duration(c.Rate),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{Config: c, t: t, member: env + "=" + string(text), killedAt: map[int]bool{}}
	var starting []*redistest.Subprocess
	for range c.Processes {
		starting = append(starting, redistest.Spawn(t, c.Process, r.member))
	}
	for _, p := range starting {
		r.await(p)
	}
	for _, p := range starting {
		r.start(p)
	}
	time.Sleep(c.For)
	r.mu.Lock()
	r.over = true
	for _, p := range r.members {
		p.Stdin.Close()
	}
	r.mu.Unlock()
	r.reads.Wait()
	if len(r.trouble) > 0 {
		t.Fatalf("%d lines that nobody expects: %s", len(r.trouble), r.trouble[0])
	}
	return r.events.judge(c)
}

func (r *run) await(p *redistest.Subprocess) {
	if line, err := p.Line(); err != nil || line != "ready" {
		r.t.Errorf("a process says %q: %v", line, err)
	}
}

// start lets a process that is ready begin, and follows it.
func (r *run) start(p *redistest.Subprocess) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		p.Stdin.Close()
		return
	}
	r.members = append(r.members, p)
	r.reads.Go(func() { r.follow(p) })
	if _, err := p.Stdin.Write([]byte{'\n'}); err != nil {
		r.t.Errorf("a process does not take its start: %v", err)
	}
}

// follow takes down what a process tells until it has ended.
func (r *run) follow(p *redistest.Subprocess) {
	for {
		line, err := p.Line()
		if err != nil {
			return
		}
		if !r.take(p, line) {
			continue
		}
		p.Kill()
		r.reads.Go(func() {
			other := redistest.Spawn(r.t, r.Process, r.member)
			r.await(other)
			r.start(other)
		})
	}
}

// take takes down a line, and reports whether the process is to be killed.
func (r *run) take(p *redistest.Subprocess, line string) (kill bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	words := strings.Fields(line)
	number := func(i int) (n int64) {
		if i < len(words) {
			n, _ = strconv.ParseInt(words[i], 10, 64)
		}
		return n
	}
	e := &r.events
	switch what := words[0]; {
	case what == "load":
		e.loads = append(e.loads, &load{pid: p.Pid(), began: number(1)})
		expiry := e.ended // of the value that was loaded last, counted from 1
		if r.KillEvery > 0 && expiry > 0 && expiry%r.KillEvery == 0 && !r.killedAt[expiry] {
			r.killedAt[expiry] = true
			e.loads[len(e.loads)-1].killed = true
			return true
		}
	case what == "loaded":
		for _, l := range e.loads {
			if l.pid == p.Pid() && l.began == number(1) {
				l.ended = number(2)
				e.ended++
			}
		}
	case what == "call" && len(words) == 5:
		e.calls = append(e.calls, call{pid: p.Pid(), began: number(1), took: number(2), load: number(3), fallback: words[4] == string(aside.StatusFallback)})
	case what == "stall":
		e.stalls = append(e.stalls, stall{pid: p.Pid(), began: number(1), took: number(2)})
	case !e.killed(p.Pid()): // of one that was killed, the last line may be half of one
		r.trouble = append(r.trouble, fmt.Sprintf("process %d: %s", p.Pid(), line))
	}
	return false
}

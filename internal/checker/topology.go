package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// A topology is what of Redis the caches are on.
type topology interface {
	addresses(role int) []string        // for the worker in a role
	detours(role int) map[string]string // likewise: what it dials in place of an address
	mode() mode                         // what that is
	login() string                      // as whom workers log in, with that for a password; "" for nobody
	faults() []nemesis                  // what can be done to Redis: one at a time
	// foreign is what others who use the same Redis can do: likewise, beside the others. It notes faults that are parts of one.
	foreign(s *source, note func(fault)) []nemesis
	ways() []nemesis // and to the way between a worker and Redis: likewise, beside the others
	hit() keySet     // the keys at the node that the last fault was about
	tidy()           // is called every now and then
}

// A mode is what workers take their Redis for.
type mode int

const (
	oneServer mode = iota
	inCluster
	bySentinels // which name it
)

// A nemesis is something that can be done, for some time.
type nemesis struct {
	name  string
	most  time.Duration                        // how long it lasts at most; 0 for what is over at once
	least time.Duration                        // and at least
	turn  sync.Locker                          // held for as long as it lasts; nil for what goes together with anything
	aim   func(random *rand.Rand)              // chooses what it is about, before it begins; may be nil
	begin func(random *rand.Rand) (end func()) // end is nil for what is over at once
	// effects, unless nil, counts what shows that it really happens: those before it began are taken off.
	effects func() int
	detail  func() string // which of its kinds it is this time; may be nil
}

// topologies make one each.
var topologies = map[string]func(t testing.TB, persistent bool) topology{
	"single":   newSingle,
	"cluster":  newCluster,
	"sentinel": newSentinels,
}

// single is one server.
type single struct {
	servers
	server     *redistest.Server
	proxy      *redistest.Proxy // only before the first worker: what goes through it is slower
	dir        string
	persistent bool
	swaps      int // databases that were swapped
}

// distance is how far Redis is from the first worker, one way: what it reads and what it invalidates overlap for longer.
const distance = 2 * time.Millisecond

// asWorker has a server know the workers' user from its start on.
var asWorker = []string{"--user", workerUser, "on", ">" + workerUser, "~*", "&*", "+@all"}

func newSingle(t testing.TB, persistent bool) topology {
	s := &single{dir: t.TempDir(), persistent: persistent}
	args := append([]string{"--dir", s.dir}, asWorker...)
	if persistent {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	s.server = redistest.Start(t, args...)
	s.servers = servers{
		t: t, all: []*redistest.Server{s.server}, takeable: takeable, replicated: func() {},
		primaries: func() []*redistest.Server { return s.all },
		outage: func(*rand.Rand) outage {
			return outage{name: "killed", begin: s.server.Kill, end: s.restart, most: 800 * time.Millisecond}
		},
	}
	s.proxy = redistest.StartProxy(t, s.server.Addr())
	s.proxy.SetDelay(distance)
	return s
}

func (s *single) addresses(role int) []string {
	if role == 0 {
		return []string{s.proxy.Addr()}
	}
	return []string{s.server.Addr()}
}

func (s *single) login() string { return workerUser }

func (s *single) detours(int) map[string]string { return nil }

func (s *single) hit() keySet { return 0 } // there is nobody who could take over

func (s *single) mode() mode { return oneServer }

func (s *single) tidy() { s.proxy.ResetCounts() } // it remembers every command

// must has the server run a command.
func (s *single) must(args ...string) any { return s.ask(s.server, args...) }

func (s *single) faults() []nemesis {
	at := func(do func(random *rand.Rand)) func(random *rand.Rand) func() {
		return func(random *rand.Rand) func() { do(random); return nil }
	}
	list := []nemesis{
		{name: "clients killed", begin: at(func(*rand.Rand) { s.must("CLIENT", "KILL", "TYPE", "normal") })},
		{name: "one client killed", begin: at(s.killOne)},
		{name: "flushed", begin: at(func(*rand.Rand) { s.must("FLUSHALL") })},
		{name: "hung", most: 4 * time.Second, turn: &s.turn, begin: func(*rand.Rand) func() { s.server.Pause(); return s.server.Resume }},
		{name: "killed", most: time.Second, turn: &s.turn, begin: func(*rand.Rand) func() { s.server.Kill(); return s.restart }},
		{name: "evicting", most: time.Second, begin: s.evict},
		{name: "tracking table full", most: time.Second, begin: func(*rand.Rand) func() {
			s.must("CONFIG", "SET", "tracking-table-max-keys", "1")
			return func() { s.must("CONFIG", "SET", "tracking-table-max-keys", "1000000") }
		}},
		{name: "read-only", most: time.Second, begin: func(*rand.Rand) func() {
			s.must("REPLICAOF", "127.0.0.1", "1")
			return func() { s.must("REPLICAOF", "NO", "ONE") }
		}},
	}
	return append(append(list, s.shared()...), []nemesis{
		{name: faultSwapped, most: 2 * time.Second, begin: func(*rand.Rand) func() {
			s.swap()
			return nil
		}},
		// One that is undone sooner may not be noticed, which is declared.
		{name: faultRestored, least: 2500 * time.Millisecond, most: 4 * time.Second, begin: func(*rand.Rand) func() {
			n := s.swap()
			return func() { s.must("SWAPDB", "0", n) }
		}},
	}...)
}

func (s *single) ways() []nemesis {
	return []nemesis{
		{name: "partition", most: 4 * time.Second, begin: func(*rand.Rand) func() {
			s.proxy.Blackhole(true)
			return func() { s.proxy.Blackhole(false) }
		}},
		{name: "replies lost", most: 4 * time.Second, begin: func(*rand.Rand) func() {
			s.proxy.BlackholeReplies(true)
			return func() { s.proxy.BlackholeReplies(false) }
		}},
		{name: "slow", most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			s.proxy.SetDelay(time.Duration(1+random.Int64N(300)) * time.Millisecond)
			return func() { s.proxy.SetDelay(distance) }
		}},
		{name: "cut", begin: func(*rand.Rand) func() { s.proxy.CloseConnections(); return nil }},
		{name: faultHeldBack, most: 5 * time.Second, begin: func(random *rand.Rand) func() {
			most := 50
			if random.IntN(3) > 0 {
				most = 20 // else what takes several round trips is given up
			}
			s.proxy.SetJitter(0, time.Duration(5+random.IntN(most-5))*time.Millisecond)
			return func() { s.proxy.SetJitter(0, 0) }
		}, effects: s.proxy.Jittered},
		{name: faultReordered, most: 3 * time.Second, begin: func(random *rand.Rand) func() {
			s.proxy.SetJitter(time.Duration(2+random.IntN(20))*time.Millisecond, time.Duration(2+random.IntN(20))*time.Millisecond)
			return func() { s.proxy.SetJitter(0, 0) }
		}, effects: s.proxy.Jittered},
		{name: faultSplit, most: 3 * time.Second, begin: func(*rand.Rand) func() {
			s.proxy.SendApart(apart)
			return func() { s.proxy.SendApart(nil) }
		}, effects: s.proxy.Cuts},
	}
}

// restart starts the server again: one that is persistent, with all that it had confirmed.
func (s *single) restart() {
	if !s.persistent {
		// Nothing was saved; but nothing is to be found either.
		if err := os.RemoveAll(filepath.Join(s.dir, "appendonlydir")); err != nil {
			s.t.Errorf("checker: %v", err)
		}
	}
	s.server.Restart()
}

// proxied are servers before which the first worker, and no other one, has a proxy each.
type proxied struct {
	proxies []*redistest.Proxy
	via     map[string]string // by the address of the server
}

func (w *proxied) add(addr string, p *redistest.Proxy) {
	p.SetDelay(distance)
	w.proxies = append(w.proxies, p)
	if w.via == nil {
		w.via = map[string]string{}
	}
	w.via[addr] = p.Addr()
}

func (w *proxied) detours(role int) map[string]string {
	if role == 0 {
		return w.via
	}
	return nil
}

func (w *proxied) tidy() {
	for _, p := range w.proxies {
		p.ResetCounts() // it remembers every command
	}
}

func (w *proxied) ways() []nemesis {
	proxies := w.proxies
	each := func(do func(p *redistest.Proxy)) {
		for _, p := range proxies {
			do(p)
		}
	}
	sum := func(count func(p *redistest.Proxy) int) func() int {
		return func() (n int) {
			each(func(p *redistest.Proxy) { n += count(p) })
			return n
		}
	}
	return []nemesis{
		{name: "partition", most: 4 * time.Second, begin: func(*rand.Rand) func() {
			each(func(p *redistest.Proxy) { p.Blackhole(true) })
			return func() { each(func(p *redistest.Proxy) { p.Blackhole(false) }) }
		}},
		{name: "partition from one node", most: 4 * time.Second, begin: func(random *rand.Rand) func() {
			p := proxies[random.IntN(len(proxies))]
			p.Blackhole(true)
			return func() { p.Blackhole(false) }
		}},
		{name: "replies lost", most: 4 * time.Second, begin: func(*rand.Rand) func() {
			each(func(p *redistest.Proxy) { p.BlackholeReplies(true) })
			return func() { each(func(p *redistest.Proxy) { p.BlackholeReplies(false) }) }
		}},
		{name: "slow", most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			delay := time.Duration(1+random.Int64N(300)) * time.Millisecond
			each(func(p *redistest.Proxy) { p.SetDelay(delay) })
			return func() { each(func(p *redistest.Proxy) { p.SetDelay(distance) }) }
		}},
		{name: "cut", begin: func(*rand.Rand) func() { each((*redistest.Proxy).CloseConnections); return nil }},
		{name: faultHeldBack, most: 3 * time.Second, begin: func(random *rand.Rand) func() {
			by := time.Duration(5+random.IntN(45)) * time.Millisecond
			each(func(p *redistest.Proxy) { p.SetJitter(0, by) })
			return func() { each(func(p *redistest.Proxy) { p.SetJitter(0, 0) }) }
		}, effects: sum((*redistest.Proxy).Jittered)},
		{name: faultReordered, most: 3 * time.Second, begin: func(*rand.Rand) func() {
			each(func(p *redistest.Proxy) { p.SetJitter(20*time.Millisecond, 20*time.Millisecond) })
			return func() { each(func(p *redistest.Proxy) { p.SetJitter(0, 0) }) }
		}, effects: sum((*redistest.Proxy).Jittered)},
		{name: faultSplit, most: 3 * time.Second, begin: func(*rand.Rand) func() {
			each(func(p *redistest.Proxy) { p.SendApart(apart) })
			return func() { each(func(p *redistest.Proxy) { p.SendApart(nil) }) }
		}, effects: sum((*redistest.Proxy).Cuts)},
	}
}

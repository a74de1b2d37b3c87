package main

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// watched is the name by which the Sentinel knows the servers.
const watched = "caches"

// sentinels are two servers, of which a Sentinel names one as the primary. The other one is its replica.
type sentinels struct {
	servers
	proxied  // the Sentinel too
	sentinel *redistest.Server
	primary  atomic.Pointer[redistest.Server]
}

func newSentinels(t testing.TB, _ bool) topology {
	first := redistest.Start(t, asWorker...)
	second := redistest.Start(t, append([]string{"--replicaof", "127.0.0.1 " + strconv.Itoa(first.Port())}, asWorker...)...)
	s := &sentinels{sentinel: redistest.StartSentinel(t, watched, first, 1)}
	s.primary.Store(first)
	s.servers = servers{
		t: t, all: []*redistest.Server{first, second}, takeable: takeable,
		primaries:  func() []*redistest.Server { return []*redistest.Server{s.primary.Load()} },
		replicated: func() { s.ask(s.primary.Load(), "WAIT", "1", "10000") },
		outage: func(random *rand.Rand) outage {
			o := outage{name: faultReplacedDead, keys: everyKey, most: time.Second}
			if random.IntN(2) == 0 {
				o.name = faultReplacedHung
			}
			o.kind = o.name
			var repair func()
			s.awaitReplica()
			o.begin = func() { repair = s.strike(o.name) }
			o.end = func() {
				demote := s.rename(random)
				repair()
				demote()
			}
			return o
		},
	}
	redistest.AwaitSentinels(t, watched, 1, s.sentinel)
	// Only the checker has it name another primary: a busy machine is no reason.
	s.ask(s.sentinel, "SENTINEL", "SET", watched, "down-after-milliseconds", "600000")
	for _, at := range append([]*redistest.Server{s.sentinel}, s.all...) {
		s.add(at.Addr(), redistest.StartProxy(t, at.Addr()))
	}
	return s
}

func (s *sentinels) addresses(int) []string { return []string{s.sentinel.Addr()} }

func (s *sentinels) login() string { return workerUser }

func (s *sentinels) hit() keySet { return everyKey }

func (s *sentinels) mode() mode { return bySentinels }

// Faults in which the Sentinel names another primary. The old one goes on serving those who have not heard of that, until it is made a replica, and what
// it confirms in that time is lost.
const (
	faultReplaced      = "primary replaced"
	faultReplacedAgain = "primary replaced again"
	faultReplacedDead  = "primary killed and replaced"
	faultReplacedHung  = "primary hung and replaced"
)

// replace is one of these faults. It is over when the old primary is a replica.
func (s *sentinels) replace(random *rand.Rand, fault string) (end func()) {
	repair := s.strike(fault)
	demote := s.rename(random)
	return func() { repair(); demote() }
}

// strike does to the primary what a fault is.
func (s *sentinels) strike(fault string) (repair func()) {
	at := s.primary.Load()
	switch fault {
	case faultReplacedDead:
		at.Kill()
		return at.Restart
	case faultReplacedHung:
		at.Pause()
		return at.Resume
	}
	return func() {}
}

// rename has the Sentinel name the other server, and returns when it does.
func (s *sentinels) rename(random *rand.Rand) (demote func()) {
	old, other := s.primary.Load(), s.other()
	s.until("the Sentinel begins", func() bool { // it may be about to see that there is a replica
		_, err := s.sentinel.Do("SENTINEL", "FAILOVER", watched)
		return err == nil
	})
	s.until("the Sentinel names the other server", func() bool {
		v, _ := s.sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", watched)
		addr, _ := v.([]any)
		return len(addr) == 2 && addr[1] == strconv.Itoa(other.Port())
	})
	s.primary.Store(other)
	later := time.Duration(random.IntN(500)) * time.Millisecond
	return func() {
		time.Sleep(later) // the Sentinel would take eight seconds
		s.ask(old, "REPLICAOF", "127.0.0.1", strconv.Itoa(other.Port()))
	}
}

func (s *sentinels) other() *redistest.Server {
	if s.all[0] == s.primary.Load() {
		return s.all[1]
	}
	return s.all[0]
}

// awaitReplica returns when there is a replica that could take over.
func (s *sentinels) awaitReplica() {
	s.until("the replica follows", func() bool {
		v, _ := s.other().Do("INFO", "replication")
		info, _ := v.(string)
		return strings.Contains(info, "master_link_status:up") && strings.Contains(info, "master_port:"+strconv.Itoa(s.primary.Load().Port()))
	})
}

func (s *sentinels) until(what string, ok func() bool) {
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Errorf("checker: not within a minute: %s", what)
			return
		}
	}
}

func (s *sentinels) faults() []nemesis {
	at := func(do func(random *rand.Rand)) func(random *rand.Rand) func() {
		return func(random *rand.Rand) func() { do(random); return nil }
	}
	replaced := func(name string) nemesis {
		return nemesis{
			name: name, most: time.Second, aim: func(*rand.Rand) { s.awaitReplica() },
			begin: func(random *rand.Rand) func() { return s.replace(random, name) },
		}
	}
	list := []nemesis{
		{name: "clients killed", begin: at(func(*rand.Rand) { s.askEach(s.primaries(), "CLIENT", "KILL", "TYPE", "normal") })},
		{name: "one client killed", begin: at(s.killOne)},
		{name: "flushed", begin: at(func(*rand.Rand) { s.askEach(s.primaries(), "FLUSHALL") })},
		replaced(faultReplaced), replaced(faultReplacedAgain), replaced(faultReplacedDead), replaced(faultReplacedHung),
		{name: "Sentinel hung", most: 4 * time.Second, begin: func(*rand.Rand) func() { s.sentinel.Pause(); return s.sentinel.Resume }},
		{name: "Sentinel killed", most: 2 * time.Second, begin: func(*rand.Rand) func() { s.sentinel.Kill(); return s.sentinel.Restart }},
	}
	for i := range list {
		list[i].turn = &s.turn
	}
	return append(append(list, nemesis{name: "evicting", most: time.Second, begin: s.evict}), s.shared()...)
}

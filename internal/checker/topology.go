package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// A topology is what of Redis the caches are on.
type topology interface {
	addresses(role int) []string        // for the worker in a role
	detours(role int) map[string]string // likewise: what it dials in place of an address
	single() bool                       // whether that is one server, not a cluster
	faults() []nemesis                  // what can be done to Redis: one at a time
	ways() []nemesis                    // and to the way between a worker and Redis: likewise, beside the others
	tidy()                              // is called every now and then
}

// A nemesis is something that can be done, for some time.
type nemesis struct {
	name  string
	most  time.Duration                        // how long it lasts at most; 0 for what is over at once
	begin func(random *rand.Rand) (end func()) // end is nil for what is over at once
}

// topologies make one each.
var topologies = map[string]func(t testing.TB, persistent bool) topology{
	"single":  newSingle,
	"cluster": newCluster,
}

// single is one server.
type single struct {
	t          testing.TB
	server     *redistest.Server
	proxy      *redistest.Proxy // only before the first worker: what goes through it is slower
	dir        string
	persistent bool
}

// distance is how far Redis is from the first worker, one way: what it reads and what it invalidates overlap for longer.
const distance = 2 * time.Millisecond

func newSingle(t testing.TB, persistent bool) topology {
	s := &single{t: t, dir: t.TempDir(), persistent: persistent}
	args := []string{"--dir", s.dir}
	if persistent {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	s.server = redistest.Start(t, args...)
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

func (s *single) detours(int) map[string]string { return nil }

func (s *single) single() bool { return true }

func (s *single) tidy() { s.proxy.ResetCounts() } // it remembers every command

func (s *single) must(args ...string) any {
	v, err := s.server.Do(args...)
	if err != nil {
		s.t.Errorf("checker: %s: %v", strings.Join(args, " "), err)
	}
	return v
}

func (s *single) faults() []nemesis {
	at := func(do func(random *rand.Rand)) func(random *rand.Rand) func() {
		return func(random *rand.Rand) func() { do(random); return nil }
	}
	return []nemesis{
		{"clients killed", 0, at(func(*rand.Rand) { s.must("CLIENT", "KILL", "TYPE", "normal") })},
		{"one client killed", 0, at(s.killOne)},
		{"flushed", 0, at(func(*rand.Rand) { s.must("FLUSHALL") })},
		{"hung", 4 * time.Second, func(*rand.Rand) func() { s.server.Pause(); return s.server.Resume }},
		{"killed", time.Second, func(*rand.Rand) func() { s.server.Kill(); return s.restart }},
		{"evicting", time.Second, s.evict},
		{"tracking table full", time.Second, func(*rand.Rand) func() {
			s.must("CONFIG", "SET", "tracking-table-max-keys", "1")
			return func() { s.must("CONFIG", "SET", "tracking-table-max-keys", "1000000") }
		}},
		{"read-only", time.Second, func(*rand.Rand) func() {
			s.must("REPLICAOF", "127.0.0.1", "1")
			return func() { s.must("REPLICAOF", "NO", "ONE") }
		}},
	}
}

func (s *single) ways() []nemesis {
	return []nemesis{
		{"partition", 4 * time.Second, func(*rand.Rand) func() {
			s.proxy.Blackhole(true)
			return func() { s.proxy.Blackhole(false) }
		}},
		{"replies lost", 4 * time.Second, func(*rand.Rand) func() {
			s.proxy.BlackholeReplies(true)
			return func() { s.proxy.BlackholeReplies(false) }
		}},
		{"slow", 2 * time.Second, func(random *rand.Rand) func() {
			s.proxy.SetDelay(time.Duration(1+random.Int64N(300)) * time.Millisecond)
			return func() { s.proxy.SetDelay(distance) }
		}},
		{"cut", 0, func(*rand.Rand) func() { s.proxy.CloseConnections(); return nil }},
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

// killOne closes one client's connection.
func (s *single) killOne(random *rand.Rand) {
	list, _ := s.must("CLIENT", "LIST", "TYPE", "normal").(string)
	var ids []string
	for line := range strings.Lines(list) {
		var id string
		if _, err := fmt.Sscanf(line, "id=%s", &id); err == nil {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		_, _ = s.server.Do("CLIENT", "KILL", "ID", ids[random.IntN(len(ids))]) // it may have ended by itself
	}
}

// evict leaves the server so little memory that it throws away some of what it has, or all, and then refuses to take more.
func (s *single) evict(random *rand.Rand) func() {
	limit := "1"
	if info, _ := s.must("INFO", "memory").(string); random.IntN(2) == 0 {
		for line := range strings.Lines(info) {
			if used, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
				limit = used
			}
		}
	}
	s.must("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
	s.must("CONFIG", "SET", "maxmemory", limit)
	return func() { s.must("CONFIG", "SET", "maxmemory", "0") }
}

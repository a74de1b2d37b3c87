package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// servers are what the caches are on, to those who run them or use them too: one server, or the nodes of a cluster.
type servers struct {
	t          testing.TB
	all        []*redistest.Server
	primaries  func() []*redistest.Server     // those that have keys now
	replicated func()                         // returns when other nodes have what was written until now
	outage     func(random *rand.Rand) outage // one that some loads are to outlive
	takeable   []string                       // what the workers' user can be forbidden while they run
	turn       sync.Mutex                     // is held by who changes which of them run, and which has what
	rule       string                         // that was taken from the workers' user last
	last       string                         // of which kind the last outage was
}

// An outage is one of some servers.
type outage struct {
	name       string // of the fault that it is
	kind       string
	keys       keySet // at these servers, where others may take over; else none
	begin, end func()
	most       time.Duration
}

// ask has a server run a command, and repeats one that it cannot run just now, since something else is done to it.
func (s *servers) ask(at *redistest.Server, args ...string) any {
	v, err := at.Do(args...)
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end) && passing(err); v, err = at.Do(args...) {
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		s.t.Errorf("checker: %s: %v", strings.Join(args, " "), err)
	}
	return v
}

// passing reports whether an error says nothing of what was asked for.
func passing(err error) bool {
	var refusal redistest.Error
	return !errors.As(err, &refusal) || strings.HasPrefix(err.Error(), "BUSY") || strings.HasPrefix(err.Error(), "LOADING")
}

// askEach has several servers run a command.
func (s *servers) askEach(several []*redistest.Server, args ...string) {
	for _, at := range several {
		s.ask(at, args...)
	}
}

// some are one primary, or all.
func (s *servers) some(random *rand.Rand) []*redistest.Server {
	list := s.primaries()
	if len(list) == 1 || random.IntN(2) == 0 {
		return list
	}
	return []*redistest.Server{oneOf(list, random)}
}

// oneOf draws nothing where there is no choice, so that a seed goes on to mean for one server what it has always meant.
func oneOf(list []*redistest.Server, random *rand.Rand) *redistest.Server {
	if len(list) == 1 {
		return list[0]
	}
	return list[random.IntN(len(list))]
}

// count adds up what each server has counted. One that is started again counts anew: the sum goes on.
func (s *servers) count(of func(at *redistest.Server) int) func() int {
	seen, sum := make([]int, len(s.all)), 0
	return func() int {
		for i, at := range s.all {
			n := of(at)
			if n < seen[i] {
				seen[i] = 0
			}
			sum += n - seen[i]
			seen[i] = n
		}
		return sum
	}
}

// number is what a line of INFO has behind a prefix.
func (s *servers) number(at *redistest.Server, section, prefix string) (n int) {
	info, _ := s.ask(at, "INFO", section).(string)
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
			n, _ = strconv.Atoi(text)
		}
	}
	return n
}

// errors returns what counts the errors of a kind that the servers have answered with.
func (s *servers) errors(code string) func() int {
	return s.count(func(at *redistest.Server) int { return s.number(at, "errorstats", "errorstat_"+code+":count=") })
}

// denials returns what counts that which the servers have not let workers do, by their logs of that.
func (s *servers) denials() func() int {
	return s.count(func(at *redistest.Server) (n int) {
		list, _ := s.ask(at, "ACL", "LOG", "128").([]any)
		for _, entry := range list {
			fields, _ := entry.([]any)
			count, by := int64(0), ""
			for i := 0; i+1 < len(fields); i += 2 {
				switch fields[i] {
				case "count":
					count, _ = fields[i+1].(int64)
				case "username":
					by, _ = fields[i+1].(string)
				}
			}
			if by == workerUser {
				n += int(count)
			}
		}
		return n
	})
}

// fill leaves some servers no memory: by a limit below what they have, or by so many values of others that they have reached one.
func (s *servers) fill(random *rand.Rand) func() {
	victims := s.some(random)
	s.askEach(victims, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	relieve := func() { s.askEach(victims, "CONFIG", "SET", "maxmemory", "0") }
	if random.IntN(2) == 0 {
		s.askEach(victims, "CONFIG", "SET", "maxmemory", "1")
		return relieve
	}
	var names []string
	for i, at := range victims {
		s.ask(at, "CONFIG", "SET", "maxmemory", strconv.Itoa(s.number(at, "memory", "used_memory:")+4<<20))
		names = append(names, fillers(at, fmt.Sprintf("filler:%d:", i), len(s.all))...)
	}
	return func() {
		f := s.foreigner()
		defer f.close()
		for _, name := range names {
			f.insist(name, "DEL", name)
		}
		relieve()
	}
}

// fillers are 64 values that a server has taken, or fewer where it takes no more. Other servers have some of the names that are tried.
func fillers(at *redistest.Server, prefix string, among int) (names []string) {
	value := strings.Repeat("f", 256<<10)
	for n := 0; len(names) < 64 && n < 64*among; n++ {
		name := prefix + strconv.Itoa(n)
		if _, err := at.Do("SET", name, value); err == nil {
			names = append(names, name)
		} else if !strings.HasPrefix(err.Error(), "MOVED") {
			break
		}
	}
	return names
}

// forbid takes a permission from the workers' user.
func (s *servers) forbid(random *rand.Rand) func() {
	s.rule = s.takeable[random.IntN(len(s.takeable))]
	if random.IntN(3) == 0 {
		s.rule = s.takeable[0] // which nobody is told of
	}
	s.askEach(s.all, append([]string{"ACL", "SETUSER", workerUser}, strings.Fields(s.rule)...)...)
	return func() { s.askEach(s.all, "ACL", "SETUSER", workerUser, "+@all") }
}

// killOne closes one client's connection.
func (s *servers) killOne(random *rand.Rand) {
	at := oneOf(s.primaries(), random)
	list, _ := s.ask(at, "CLIENT", "LIST", "TYPE", "normal").(string)
	var ids []string
	for line := range strings.Lines(list) {
		var id string
		if _, err := fmt.Sscanf(line, "id=%s", &id); err == nil {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		_, _ = at.Do("CLIENT", "KILL", "ID", ids[random.IntN(len(ids))]) // it may have ended by itself
	}
}

// evict leaves some servers so little memory that they throw away some of what they have, or all, and then refuse to take more.
func (s *servers) evict(random *rand.Rand) func() {
	victims := s.some(random)
	some := random.IntN(2) == 0
	for _, at := range victims {
		limit := 1
		if some {
			limit = s.number(at, "memory", "used_memory:")
		}
		s.ask(at, "CONFIG", "SET", "maxmemory-policy", "allkeys-random")
		s.ask(at, "CONFIG", "SET", "maxmemory", strconv.Itoa(limit))
	}
	return func() { s.askEach(victims, "CONFIG", "SET", "maxmemory", "0") }
}

// shared are faults of Redis that there are on any servers.
func (s *servers) shared() []nemesis {
	return []nemesis{
		{name: faultFull, most: 5 * time.Second, begin: s.fill, effects: s.errors("OOM")},
		{name: faultForbidden, most: time.Second, begin: s.forbid, effects: s.denials(), detail: func() string { return s.rule }},
	}
}

// calmly does something while every server runs, and no slot moves. It returns when no failover undoes it.
func (s *servers) calmly(do func()) {
	s.turn.Lock()
	defer s.turn.Unlock()
	do()
	s.replicated()
}

func (s *servers) foreigner() *foreigner {
	return &foreigner{servers: s, conns: map[string]*redistest.Conn{}, owners: map[int]string{}}
}

// A foreigner is a client of the same servers. It belongs to one goroutine, and its connections are made when they are needed.
type foreigner struct {
	servers *servers
	conns   map[string]*redistest.Conn // by address
	owners  map[int]string             // addresses by slot, as far as servers have told
}

// ask has one server run a command.
func (f *foreigner) ask(addr string, args ...string) (any, error) {
	conn := f.conns[addr]
	if conn == nil {
		var err error
		if conn, err = redistest.Dial(addr); err != nil {
			return nil, err
		}
		conn.Timeout = time.Second // one that hangs is one of several
		f.conns[addr] = conn
	}
	v, err := conn.Do(args...)
	var refusal redistest.Error
	if err != nil && !errors.As(err, &refusal) {
		conn.Close()
		delete(f.conns, addr)
	}
	return v, err
}

// do has the server run a command that has a name now.
func (f *foreigner) do(name string, args ...string) (v any, err error) {
	slot, asking := redistest.Slot(name), false
	addr := f.owners[slot]
	if addr == "" {
		addr = f.servers.all[rand.IntN(len(f.servers.all))].Addr()
	}
	for range 4 {
		if asking {
			_, _ = f.ask(addr, "ASKING")
		}
		if v, err = f.ask(addr, args...); err == nil {
			if !asking {
				f.owners[slot] = addr // which may have been a guess
			}
			return v, nil
		}
		var refusal redistest.Error
		if !errors.As(err, &refusal) {
			delete(f.owners, slot) // another one may have it, and somebody knows
			return nil, err
		}
		words := strings.Fields(string(refusal))
		switch {
		case len(words) == 3 && words[0] == "MOVED":
			addr, asking = words[2], false
			f.owners[slot] = addr
		case len(words) == 3 && words[0] == "ASK":
			addr, asking = words[2], true
		case words[0] == "READONLY" && len(f.servers.primaries()) == 1:
			addr = f.servers.primaries()[0].Addr() // another one than it was
		default:
			return nil, err
		}
	}
	return nil, err
}

// insist repeats a command until it was run.
func (f *foreigner) insist(name string, args ...string) {
	_, err := f.do(name, args...)
	for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); _, err = f.do(name, args...) {
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		f.servers.t.Errorf("checker: %s: %v", strings.Join(args, " "), err)
	}
}

func (f *foreigner) close() {
	for _, conn := range f.conns {
		conn.Close()
	}
}

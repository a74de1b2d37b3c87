package main

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// What others can do who use the same Redis, or run it; and sources.
const (
	faultFull        = "full"
	faultForbidden   = "permissions taken"
	faultSwapped     = "databases swapped"
	faultRestored    = "databases swapped back"
	faultHeldBack    = "replies held back"
	faultReordered   = "reordered"
	faultSplit       = "packets split"
	faultBusy        = "busy with scripts"
	faultLeases      = "leases lost"
	faultValues      = "foreign values"
	faultGenerations = "foreign generations"
	faultSlowSource  = "slow source"
	faultUnleased    = "slow loads lose their leases"
	faultOutlived    = "loads outlive an outage"
)

// gentle are the faults that leave connections as they are, and Redis answering.
var gentle = map[string]bool{
	"evicting": true, "tracking table full": true, "read-only": true, faultFull: true, faultForbidden: true, faultHeldBack: true,
	faultReordered: true, faultSplit: true, faultBusy: true, faultLeases: true, faultValues: true, faultGenerations: true,
	faultSlowSource: true, faultUnleased: true, faultSwapped: true, faultRestored: true,
}

// workerUser is as whom workers log in to a single server, and the password.
const workerUser = "worker"

// nextCut is when apart may pause again.
var nextCut atomic.Int64

// apart is for how long what follows a command waits for it: often between what makes the server remember a read and that read, now
// and then elsewhere, and never twice within a few milliseconds, for a batch is to be answered too.
func apart(args []string) time.Duration {
	optIn := len(args) > 1 && strings.EqualFold(args[0], "CLIENT") && strings.EqualFold(args[1], "CACHING")
	if !optIn && rand.IntN(20) > 0 {
		return 0
	}
	at, next := now(), nextCut.Load()
	if at < next || !nextCut.CompareAndSwap(next, at+int64(4*time.Millisecond)) {
		return 0
	}
	return rand.N(6 * time.Millisecond)
}

// errors returns what counts the errors of a kind that the server has answered with.
func (s *single) errors(code string) func() int {
	return func() (n int) {
		info, _ := s.must("INFO", "errorstats").(string)
		for line := range strings.Lines(info) {
			if count, ok := strings.CutPrefix(strings.TrimSpace(line), "errorstat_"+code+":count="); ok {
				n, _ = strconv.Atoi(count)
			}
		}
		return n
	}
}

// denials counts what the server has not let workers do, by its log of that.
func (s *single) denials() (n int) {
	list, _ := s.must("ACL", "LOG", "128").([]any)
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
}

// fill leaves the server no memory: by a limit below what it has, or by so many values of others that it has reached one.
func (s *single) fill(random *rand.Rand) func() {
	s.must("CONFIG", "SET", "maxmemory-policy", "noeviction")
	if random.IntN(2) == 0 {
		s.must("CONFIG", "SET", "maxmemory", "1")
		return func() { s.must("CONFIG", "SET", "maxmemory", "0") }
	}
	info, _ := s.must("INFO", "memory").(string)
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			used, _ := strconv.Atoi(text)
			s.must("CONFIG", "SET", "maxmemory", strconv.Itoa(used+4<<20))
		}
	}
	filler := strings.Repeat("f", 256<<10)
	n := 0
	for ; n < 64; n++ {
		if _, err := s.server.Do("SET", "filler:"+strconv.Itoa(n), filler); err != nil {
			break
		}
	}
	return func() {
		for i := range n {
			s.must("DEL", "filler:"+strconv.Itoa(i))
		}
		s.must("CONFIG", "SET", "maxmemory", "0")
	}
}

// takeable are what a user can be forbidden while its processes run.
var takeable = []string{
	"-client|caching", "-client", "-evalsha", "-eval -evalsha", "-unlink", "-get", "-getrange", "-get -getrange", "-set", "-pexpire",
	"-time", "-script", "-exists", "-rename", "-publish -subscribe",
}

// forbid takes a permission from the workers' user.
func (s *single) forbid(random *rand.Rand) func() {
	s.rule = takeable[random.IntN(len(takeable))]
	if random.IntN(3) == 0 {
		s.rule = takeable[0] // which nobody is told of
	}
	s.must(append([]string{"ACL", "SETUSER", workerUser}, strings.Fields(s.rule)...)...)
	return func() { s.must("ACL", "SETUSER", workerUser, "+@all") }
}

// swap has a database that nobody has used take the place of the one in use.
func (s *single) swap() (with string) {
	s.swaps++
	with = strconv.Itoa(s.swaps)
	s.must("SWAPDB", "0", with)
	return with
}

// excuseRestored accounts for what is undone when the databases are swapped back, as when a server is restored from an old backup: an
// invalidation that the other database was told of is complete, for its own process too, when that has had the time to notice and to
// send it again; if the process was killed before, never. This is declared: see docs/consistency.md. It may be called again.
func (h *history) excuseRestored() {
	killed := map[uint16]int64{}
	for _, p := range h.processes {
		killed[p.proc] = p.killed
	}
	for _, f := range h.faults {
		if f.name != faultRestored {
			continue
		}
		again := f.end + int64(settle)
		for n := range h.invalidations {
			i := &h.invalidations[n]
			// What was called before they were swapped back may have been done by then, though the answer came later.
			if i.ret >= f.began && i.call <= f.end && i.restored == 0 {
				i.restored = again
			}
			if i.confirmed < f.began || i.call > f.end || i.confirmed >= again {
				continue
			}
			h.restored++
			i.restored = again
			if i.confirmed = again; killed[i.proc] != 0 && killed[i.proc] <= again {
				i.confirmed = 0
			}
		}
	}
}

// foreign is what other clients do.
func (s *single) foreign(source *source) []nemesis {
	var leases, slow, values, generations atomic.Int64
	number := func(n *atomic.Int64) func() int { return func() int { return int(n.Load()) } }
	return []nemesis{
		{name: faultBusy, most: 2 * time.Second, begin: s.busy, effects: s.errors("BUSY")},
		{name: faultLeases, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			return s.repeat(time.Millisecond, func(c *redistest.Conn) {
				s.loseLease(c, random, random.IntN(keyCount), &leases)
			}, nil)
		}, effects: number(&leases)},
		{name: faultValues, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			return s.repeat(8*time.Millisecond, func(c *redistest.Conn) {
				if err := writeForeign(c, random, random.IntN(keyCount)); err == nil {
					values.Add(1)
				}
			}, func(c *redistest.Conn) {
				for k := range keyCount { // nobody would, but then a lease without an end is one
					_, _ = c.Do("DEL", leaseOf(k))
				}
			})
		}, effects: number(&values)},
		{name: faultGenerations, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			return s.repeat(40*time.Millisecond, func(c *redistest.Conn) {
				if err := writeGeneration(c, random); err == nil {
					generations.Add(1)
				}
			}, nil)
		}, effects: number(&generations)},
		slowSource(source),
		{name: faultUnleased, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			keys := source.slowDown(random)
			end := s.repeat(500*time.Microsecond, func(c *redistest.Conn) {
				keys.each(func(k int) { s.loseLease(c, random, k, &slow) })
			}, nil)
			return func() {
				source.slow.set(0, 0)
				time.Sleep(3 * time.Second) // the loads run on
				end()
			}
		}, effects: number(&slow)},
		{name: faultOutlived, most: 0, begin: func(random *rand.Rand) func() {
			source.slowDown(random)
			time.Sleep(100 * time.Millisecond)
			s.server.Kill()
			time.Sleep(200*time.Millisecond + time.Duration(random.IntN(800))*time.Millisecond)
			s.restart()
			time.Sleep(200 * time.Millisecond)
			source.slow.set(0, 0)
			return nil
		}, effects: func() int { return int(source.slow.held.Load()) }},
	}
}

// slowDown has some loads take longer than what is noticed within 3 s.
func (s *source) slowDown(random *rand.Rand) (keys keySet) {
	for range 4 {
		for k := random.IntN(keyCount); ; k = (k + 1) % keyCount {
			if shunned(k) {
				keys |= one(k)
				break
			}
		}
	}
	s.slow.set(keys, 6500*time.Millisecond)
	return keys
}

func slowSource(source *source) nemesis {
	return nemesis{name: faultSlowSource, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
		source.slowDown(random)
		return func() { source.slow.set(0, 0) }
	}, effects: func() int { return int(source.slow.held.Load()) }}
}

// repeat does something again and again on a connection, with pauses of up to twice a length, until it is told to end, and then
// something else.
func (s *single) repeat(pause time.Duration, do, atEnd func(c *redistest.Conn)) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		conn := &foreigner{addr: s.server.Addr()}
		defer conn.close()
		for {
			select {
			case <-stop:
				for range 3 {
					if atEnd != nil {
						conn.with(atEnd)
					}
				}
				return
			case <-time.After(rand.N(2 * pause)):
				conn.with(do)
			}
		}
	}()
	return func() { close(stop); <-done }
}

func leaseOf(key int) string { return "{" + keyName(key) + "}!l" }

// loseLease ends a lease, as eviction or a lack of time would.
func (s *single) loseLease(c *redistest.Conn, random *rand.Rand, key int, count *atomic.Int64) {
	args := []string{"DEL", leaseOf(key)}
	if random.IntN(3) == 0 {
		args = []string{"PEXPIRE", leaseOf(key), "1"}
	}
	if n, err := c.Do(args...); err == nil && n == int64(1) {
		count.Add(1)
	}
}

// writeForeign writes under a key, or its lease, what the cache would not.
func writeForeign(c *redistest.Conn, random *rand.Rand, key int) error {
	name := keyName(key)
	do := func(commands ...[]string) (err error) {
		for _, args := range commands {
			if _, failed := c.Do(args...); failed != nil {
				err = failed
			}
		}
		return err
	}
	switch random.IntN(16) {
	case 0, 1, 2:
		return do([]string{"SET", name, "garbage " + strconv.Itoa(random.Int()), "KEEPTTL"})
	case 3, 4:
		return do([]string{"DEL", name}, []string{"HSET", name, "field", "value"})
	case 5:
		return do([]string{"SET", name, strings.Repeat("h", (1+random.IntN(8))<<20)})
	case 6, 7, 8, 9:
		return do([]string{"COPY", keyName(random.IntN(keyCount)), name, "REPLACE"})
	case 10, 11:
		return do([]string{"SET", leaseOf(key), "somebody"})
	case 12:
		return do([]string{"SET", leaseOf(key), "somebody", "PX", "7200000"})
	case 13:
		return do([]string{"DEL", leaseOf(key)}, []string{"HSET", leaseOf(key), "field", "value"})
	case 14:
		return do([]string{"SETRANGE", name, strconv.Itoa(random.IntN(80)), "x"})
	default:
		return do([]string{"PERSIST", name})
	}
}

// foreignGenerations are none, for one reason or another.
var foreignGenerations = []string{
	"9007199254740992", "9007199254740993", "9999999999999999", "9223372036854775808", "18446744073709551615", "abc", "", "-1", "1e9",
}

// writeGeneration writes where the generation of a tag is.
func writeGeneration(c *redistest.Conn, random *rand.Rand) error {
	names := []string{"%all", "%c:items", "%c:things", "%t:red", "%t:blue", "%t:green", "%tags"}
	name := names[random.IntN(len(names))]
	var err error
	switch random.IntN(8) {
	case 0:
		_, err = c.Do("DEL", name)
	case 1:
		if _, err = c.Do("DEL", name); err == nil {
			_, err = c.Do("HSET", name, "field", "value")
		}
	default:
		_, err = c.Do("SET", name, foreignGenerations[random.IntN(len(foreignGenerations))])
	}
	return err
}

// untilScript runs for so many microseconds.
const untilScript = `
local function at()
	local time = redis.call('TIME')
	return time[1] * 1000000 + time[2]
end
local began = at()
while at() - began < tonumber(ARGV[1]) do end
`

// busy has a script run now and then for so long that others are refused meanwhile.
func (s *single) busy(random *rand.Rand) func() {
	s.must("CONFIG", "SET", "lua-time-limit", "1")
	// Long ones, after which nobody asks any more, and short ones, which end while somebody asks.
	end := s.repeat(20*time.Millisecond, func(c *redistest.Conn) {
		length := 3_000 + random.IntN(12_000)
		if random.IntN(6) == 0 {
			length = 50_000 + random.IntN(250_000)
		}
		_, _ = c.Do("EVAL", untilScript, "0", strconv.Itoa(length))
	}, nil)
	return func() {
		end()
		s.must("CONFIG", "SET", "lua-time-limit", "5000")
	}
}

// A foreigner is a connection that is made when it is needed.
type foreigner struct {
	addr string
	conn *redistest.Conn
}

func (f *foreigner) with(do func(c *redistest.Conn)) {
	if f.conn == nil {
		conn, err := redistest.Dial(f.addr)
		if err != nil {
			return
		}
		f.conn = conn
	}
	do(f.conn)
	if _, err := f.conn.Do("PING"); err != nil {
		f.close()
	}
}

func (f *foreigner) close() {
	if f.conn != nil {
		f.conn.Close()
		f.conn = nil
	}
}

// namesOf are those of nemeses.
func namesOf(lanes ...[]nemesis) (names []string) {
	for _, lane := range lanes {
		for _, n := range lane {
			names = append(names, n.name)
		}
	}
	slices.Sort(names)
	return names
}

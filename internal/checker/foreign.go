package main

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
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

// workerUser is as whom workers log in, and the password.
const workerUser = "worker"

// nextCut is when apart may pause again.
var nextCut atomic.Int64

// apart is for how long what follows a command waits for it: often between the ECHO that comes before a tracked read and that read, now
// and then elsewhere, and never twice within a few milliseconds, for a batch is to be answered too.
func apart(args []string) time.Duration {
	if echo := len(args) > 0 && strings.EqualFold(args[0], "ECHO"); !echo && rand.IntN(20) > 0 {
		return 0
	}
	at, next := now(), nextCut.Load()
	if at < next || !nextCut.CompareAndSwap(next, at+int64(4*time.Millisecond)) {
		return 0
	}
	return rand.N(6 * time.Millisecond)
}

// takeable are what a user can be forbidden while its processes run.
var takeable = []string{
	"-echo", "-client", "-evalsha", "-eval -evalsha", "-unlink", "-get", "-getrange", "-get -getrange", "-set", "-pexpire",
	"-time", "-script", "-exists", "-rename", "-publish -subscribe",
}

// takeableInCluster is what clients of a cluster need besides.
const takeableInCluster = "-cluster -asking"

// swap has a database that nobody has used take the place of the one in use.
func (s *single) swap() (with string) {
	s.swaps++
	with = strconv.Itoa(s.swaps)
	s.must("SWAPDB", "0", with)
	return with
}

// excuseRestored accounts for what is undone when the databases are swapped back, as when a server is restored from an old backup: an
// invalidation that the other database was told of is complete, for its own process too, when that has had the time to notice and to
// send it again; if the process was killed before, never. This is declared: see docs/limits.md. It may be called again.
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

// foreign is what other clients do. A fault that is part of another one is noted by itself.
func (s *servers) foreign(source *source, note func(fault)) []nemesis {
	var leases, slow, values, generations atomic.Int64
	number := func(n *atomic.Int64) func() int { return func() int { return int(n.Load()) } }
	return []nemesis{
		{name: faultBusy, most: 2 * time.Second, begin: s.busy, effects: s.errors("BUSY")},
		{name: faultLeases, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			return s.repeat(time.Millisecond, func(f *foreigner) {
				loseLease(f, random, random.IntN(keyCount), &leases)
			})
		}, effects: number(&leases)},
		{name: faultValues, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			end := s.repeat(8*time.Millisecond, func(f *foreigner) {
				if err := writeForeign(f, random, random.IntN(keyCount)); err == nil {
					values.Add(1)
				}
			})
			return func() { end(); s.calmly(s.removeLeases) }
		}, effects: number(&values)},
		{name: faultGenerations, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			return s.repeat(40*time.Millisecond, func(f *foreigner) {
				if err := writeGeneration(f, random); err == nil {
					generations.Add(1)
				}
			})
		}, effects: number(&generations)},
		slowSource(source),
		{name: faultUnleased, most: 2 * time.Second, begin: func(random *rand.Rand) func() {
			keys := source.slowDown(random)
			end := s.repeat(500*time.Microsecond, func(f *foreigner) {
				keys.each(func(k int) { loseLease(f, random, k, &slow) })
			})
			return func() {
				source.slow.set(0, 0)
				time.Sleep(3 * time.Second) // the loads run on
				end()
			}
		}, effects: number(&slow)},
		{name: faultOutlived, turn: &s.turn, begin: func(random *rand.Rand) func() {
			source.slowDown(random)
			time.Sleep(100 * time.Millisecond)
			o := s.outage(random)
			s.last = o.kind
			f := fault{name: o.name, keys: o.keys, seen: 1, detail: o.kind}
			o.begin()
			f.began = now() // what all of them have confirmed is before it
			time.Sleep(200*time.Millisecond + time.Duration(random.IntN(int(o.most.Milliseconds())))*time.Millisecond)
			o.end()
			if f.end = now(); f.keys != 0 {
				note(f) // a node may have taken over, and that is excused for as long as the outage only
			}
			time.Sleep(200 * time.Millisecond)
			source.slow.set(0, 0)
			return nil
		}, effects: func() int { return int(source.slow.held.Load()) }, detail: func() string { return s.last }},
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

// repeat does something again and again, with pauses of up to twice a length, until it is told to end.
func (s *servers) repeat(pause time.Duration, do func(f *foreigner)) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		f := s.foreigner()
		defer f.close()
		for {
			select {
			case <-stop:
				return
			case <-time.After(rand.N(2 * pause)):
				do(f)
			}
		}
	}()
	return func() { close(stop); <-done }
}

// removeLeases removes all that there are: nobody would, but then a lease without an end is one.
func (s *servers) removeLeases() {
	f := s.foreigner()
	defer f.close()
	for k := range keyCount {
		f.insist(leaseOf(k), "DEL", leaseOf(k))
	}
}

func leaseOf(key int) string { return "{" + keyName(key) + "}!l" }

// loseLease ends a lease, as eviction or a lack of time would.
func loseLease(f *foreigner, random *rand.Rand, key int, count *atomic.Int64) {
	args := []string{"DEL", leaseOf(key)}
	if random.IntN(3) == 0 {
		args = []string{"PEXPIRE", leaseOf(key), "1"}
	}
	if n, err := f.do(leaseOf(key), args...); err == nil && n == int64(1) {
		count.Add(1)
	}
}

// writeForeign writes under a key, or its lease, what the cache would not.
func writeForeign(f *foreigner, random *rand.Rand, key int) error {
	name := keyName(key)
	do := func(commands ...[]string) (err error) {
		for _, args := range commands {
			if _, failed := f.do(args[1], args...); failed != nil {
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
		return copyValue(f, keyName(random.IntN(keyCount)), name)
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

// copyValue puts the value of one key under another one, with its TTL.
func copyValue(f *foreigner, from, to string) error {
	if len(f.servers.all) == 1 {
		_, err := f.do(from, "COPY", from, to, "REPLACE")
		return err
	}
	// COPY does not go from one slot to another one.
	v, err := f.do(from, "GET", from)
	if err != nil {
		return err
	}
	value, ok := v.(string)
	if !ok {
		return errors.New("there is no value")
	}
	args := []string{"SET", to, value}
	if ttl, _ := f.do(from, "PTTL", from); ttl != nil && ttl.(int64) > 0 {
		args = append(args, "PX", strconv.FormatInt(ttl.(int64), 10))
	}
	_, err = f.do(to, args...)
	return err
}

// foreignGenerations are none, for one reason or another.
var foreignGenerations = []string{
	"9007199254740992", "9007199254740993", "9999999999999999", "9223372036854775808", "18446744073709551615", "abc", "", "-1", "1e9",
}

// writeGeneration writes where the generation of a tag is.
func writeGeneration(f *foreigner, random *rand.Rand) error {
	names := []string{"%all", "%c:items", "%c:things", "%t:red", "%t:blue", "%t:green", "%tags"}
	name := names[random.IntN(len(names))]
	var err error
	switch random.IntN(8) {
	case 0:
		_, err = f.do(name, "DEL", name)
	case 1:
		if _, err = f.do(name, "DEL", name); err == nil {
			_, err = f.do(name, "HSET", name, "field", "value")
		}
	default:
		_, err = f.do(name, "SET", name, foreignGenerations[random.IntN(len(foreignGenerations))])
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

// busy has a script run now and then, at one primary at a time, for so long that others are refused meanwhile.
func (s *servers) busy(random *rand.Rand) func() {
	s.askEach(s.all, "CONFIG", "SET", "lua-time-limit", "1")
	primaries := s.primaries()
	// Long ones, after which nobody asks any more, and short ones, which end while somebody asks.
	end := s.repeat(20*time.Millisecond, func(f *foreigner) {
		at := oneOf(primaries, random)
		length := 3_000 + random.IntN(12_000)
		if random.IntN(6) == 0 {
			length = 50_000 + random.IntN(250_000)
		}
		_, _ = f.ask(at.Addr(), "EVAL", untilScript, "0", strconv.Itoa(length))
	})
	return func() {
		end()
		s.askEach(s.all, "CONFIG", "SET", "lua-time-limit", "5000")
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

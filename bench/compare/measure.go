package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// A column is one figure of a scenario.
type column string

const (
	wall      column = "wall, µs"
	own       column = "own CPU, µs"
	redisCPU  column = "Redis CPU, µs"
	allocs    column = "allocations"
	allocated column = "allocated, B"
	sent      column = "Redis traffic, B"
	commands  column = "commands"
	loads     column = "loads"
	p50       column = "p50, µs"
	p99       column = "p99, µs"
	held      column = "held, B"
	cycle     column = "GC cycle, ms of CPU"
)

// A sample is what one round of one row has measured, for one operation.
type sample map[column]float64

// A bench measures on one machine and one Redis.
type bench struct {
	conn     *redistest.Conn // for INFO and the like
	addr     string
	rounds   int
	budget   time.Duration // about how long a round of a row takes
	quick    bool
	large    *catalogue
	products []*product
	opened   int // how many rows were opened
	version  string

	asked, askedBytes int // what do has sent, and received
}

func newBench(addr string) (*bench, error) {
	conn, err := redistest.Dial(addr)
	if err != nil {
		return nil, err
	}
	conn.Timeout = time.Minute
	b := &bench{conn: conn, addr: addr}
	size, err := b.do("DBSIZE")
	if err != nil {
		return nil, err
	}
	if size != int64(0) {
		return nil, errors.New("the Redis is not empty, and its keys would be removed")
	}
	info, err := b.info()
	b.version = info["redis_version"]
	return b, err
}

// do sends a command of the comparison itself, which is not counted.
func (b *bench) do(args ...string) (any, error) {
	reply, err := b.conn.Do(args...)
	b.asked++
	for _, a := range args {
		b.askedBytes += len(a) + len("$00\r\n\r\n")
	}
	if text, ok := reply.(string); ok {
		b.askedBytes += len(text)
	}
	return reply, err
}

// scaled is n, or a small part of it in a quick run.
func (b *bench) scaled(n, quick int) int {
	if b.quick {
		return quick
	}
	return n
}

func (b *bench) info() (map[string]string, error) {
	reply, err := b.do("INFO")
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for line := range strings.Lines(reply.(string)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		out[name] = value
	}
	return out, nil
}

// flush removes all keys, and resets what Redis remembers of clients that are gone.
func (b *bench) flush() error {
	_, err := b.do("FLUSHALL")
	return err
}

// A reading is the state of all counters.
type reading struct {
	at                       time.Time
	own                      time.Duration
	mallocs, mallocBytes     float64
	redis, commands, traffic float64
}

// server reads the counters of Redis. What the comparison has sent itself is taken out of them, but for its CPU.
func (b *bench) server(r *reading) error {
	asked, askedBytes := b.asked, b.askedBytes // the counters in a reply are from before its command
	info, err := b.info()
	if err != nil {
		return err
	}
	number := func(name string) float64 {
		f, problem := strconv.ParseFloat(info[name], 64)
		if problem != nil && err == nil {
			err = fmt.Errorf("INFO: %s: %w", name, problem)
		}
		return f
	}
	r.redis = (number("used_cpu_sys") + number("used_cpu_user")) * 1e6
	r.commands = number("total_commands_processed") - float64(asked)
	r.traffic = number("total_net_input_bytes") + number("total_net_output_bytes") - float64(askedBytes)
	return err
}

func (r *reading) process() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.mallocs, r.mallocBytes = float64(m.Mallocs), float64(m.TotalAlloc)
	r.own = ownCPU()
	r.at = time.Now()
}

// ownCPU is the processor time that this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs n operations, and returns what one of them has cost. do returns when its effects are complete.
func (b *bench) measure(n int, do func() error) (sample, error) {
	var before, after reading
	if err := b.server(&before); err != nil {
		return nil, err
	}
	runtime.GC()
	before.process()
	if err := do(); err != nil {
		return nil, err
	}
	elapsed := time.Since(before.at)
	after.process()
	if err := b.server(&after); err != nil {
		return nil, err
	}
	each := float64(n)
	return sample{
		wall: float64(elapsed.Nanoseconds()) / 1e3 / each, own: float64((after.own - before.own).Nanoseconds()) / 1e3 / each,
		redisCPU: (after.redis - before.redis) / each,
		allocs:   (after.mallocs - before.mallocs) / each, allocated: (after.mallocBytes - before.mallocBytes) / each,
		commands: (after.commands - before.commands) / each, sent: (after.traffic - before.traffic) / each,
	}, nil
}

// crowd makes n calls from callers goroutines, the i-th of them from goroutine i modulo callers, so that calls that are under way
// at the same time have neighbouring numbers. It returns the first error.
func crowd(callers, n int, call func(i int) error) error {
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	for first := range callers {
		wg.Go(func() {
			for i := first; i < n; i += callers {
				if err := call(i); err != nil {
					select {
					case failed <- err:
					default:
					}
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// await asks until a condition holds.
func await(what string, holds func() (bool, error)) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Microsecond) {
		ok, err := holds()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("after a minute it does not hold that " + what)
		}
	}
}

// stored waits until the values of ids are in Redis: some libraries store after their callers have the value.
func (b *bench) stored(ids []int, key func(id int) string) error {
	for chunk := range slices.Chunk(ids, 500) {
		command := []string{"EXISTS"}
		for _, id := range chunk {
			command = append(command, key(id))
		}
		err := await("values are in Redis, such as "+command[1], func() (bool, error) {
			there, err := b.do(command...)
			return there == int64(len(chunk)), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// calibrate returns how many operations take about b.budget, at most limit.
func (b *bench) calibrate(limit int, run func(n int) error) (int, error) {
	for n := 1; ; n = min(4*n, limit) {
		began := time.Now()
		if err := run(n); err != nil {
			return 0, err
		}
		if elapsed := time.Since(began); elapsed > b.budget/8 || n == limit {
			return max(1, min(limit, int(float64(n)*float64(b.budget)/float64(elapsed)))), nil
		}
	}
}

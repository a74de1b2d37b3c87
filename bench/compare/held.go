package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

func heldScenarios() []scenario {
	holdsValues := func(l library) bool {
		return l.tiers&inRedis == 0 && l.name != "go-redis/cache, local" || l.name == "aside"
	}
	return []scenario{{
		name: "held", title: "Memory of 1,000,000 entries", columns: []column{held, cycle}, most: 3,
		about: "Three rounds. Redis tracks any number of keys here: by default it forgets some where there are more than a million, and they then leave memory. What an entry takes beyond its value, with the text of its key (16 bytes) where there is one, and what the entries add to the CPU time of one garbage collection. Libraries whose memory holds encoded values are left out.",
		rows:  rowsOf(inMemory, holdsValues, openHeld),
	}}
}

func openHeld(b *bench, l library) (func() (sample, error), func(), error) {
	n := b.scaled(1_000_000, 5000)
	if l.tiers&inRedis != 0 {
		if _, err := b.do("CONFIG", "SET", "tracking-table-max-keys", "0"); err != nil {
			return nil, nil, err
		}
	}
	return func() (sample, error) {
		s := &source[*product]{values: make([]*product, n)}
		for i := range s.values {
			s.values[i] = &product{ID: i}
		}
		heapBefore, cycleBefore := collected()
		o, err := l.products(newEnv(b, s, n))
		if err != nil {
			return nil, err
		}
		defer o.close()
		if err := fill(b, s, o, n); err != nil {
			return nil, err
		}
		heap, cycleAfter := collected()
		runtime.KeepAlive(s)
		runtime.KeepAlive(o)
		return sample{
			held:  (heap - heapBefore) / float64(n),
			cycle: max(0, float64((cycleAfter-cycleBefore).Microseconds())/1e3),
		}, nil
	}, nil, nil
}

// fill gets all values, until at most one in a thousand is loaded or asked for in Redis: some libraries drop what is stored too fast.
func fill(b *bench, s *source[*product], o *opened[*product], n int) error {
	calls, goroutines := n, 4
	call := func(i int) error {
		v, err := o.get(context.Background(), i)
		return s.check(v, err, i)
	}
	if o.many != nil && n%batchSize == 0 {
		calls = n / batchSize
		call = func(i int) error { return getBatch(o, ids(i*batchSize, batchSize)) }
	}
	const passes = 100
	for range passes {
		var before, after reading
		loads := s.loads.Load()
		if err := errors.Join(b.server(&before), crowd(goroutines, calls, call), b.server(&after)); err != nil {
			return err
		}
		if s.loads.Load()-loads <= int64(n/1000) && after.commands-before.commands <= float64(n/1000+100) {
			return nil
		}
	}
	return fmt.Errorf("after %d passes, not all of %d values are in memory", passes, n)
}

// collected returns the bytes in the heap after a garbage collection, and the CPU time that one takes.
func collected() (heap float64, each time.Duration) {
	runtime.GC()
	const cycles = 3
	began := ownCPU()
	for range cycles {
		runtime.GC()
	}
	each = (ownCPU() - began) / cycles
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), each
}

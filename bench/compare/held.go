package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

func heldScenarios() []scenario {
	holdsValues := func(l library) bool {
		return l.tiers&inRedis == 0 && l.name != "go-redis/cache, local" || l.name == "aside"
	}
	return []scenario{{
		name: "held", title: "Memory of 1,000,000 entries", columns: []column{held, cycle},
		about: "What an entry takes beyond its value, with the text of its key (16 bytes) where there is one, and what the entries add to the CPU time of one garbage collection. Libraries whose memory holds encoded values are left out.",
		rows:  rowsOf(inMemory, holdsValues, openHeld),
	}}
}

func openHeld(b *bench, l library) (func() (sample, error), func(), error) {
	n := b.scaled(1_000_000, 5000)
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

// fill gets all values until at most one in a thousand is loaded: some libraries drop what is stored too fast.
func fill(b *bench, s *source[*product], o *opened[*product], n int) error {
	return await(fmt.Sprintf("%d values are in memory", n), func() (bool, error) {
		before := s.loads.Load()
		call := func(i int) error {
			v, err := o.get(context.Background(), i)
			return s.check(v, err, i)
		}
		calls, goroutines := n, 4
		if o.many != nil && n%batchSize == 0 {
			calls = n / batchSize
			call = func(i int) error { return getBatch(o, ids(i*batchSize, batchSize)) }
		}
		err := crowd(goroutines, calls, call)
		return s.loads.Load()-before <= int64(n/1000), err
	})
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

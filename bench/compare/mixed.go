package main

import (
	"context"
	"time"
)

func mixedScenarios() []scenario {
	return []scenario{{
		name: "mixed", title: "Reads, invalidations and expiries", columns: []column{wall, own, redisCPU, allocs, sent, commands, loads},
		about: "95% reads and 5% invalidations of 10,000 keys, skewed as Zipf's law has it, with a TTL of 1 s. 64 goroutines, 3 s a round. The loader takes no time.",
		rows:  rowsOf(inRedis|inMemory, nil, openMixed),
	}}
}

func openMixed(b *bench, l library) (func() (sample, error), func(), error) {
	ctx, s := context.Background(), b.source()
	walk := zipf(1<<14, len(s.values))
	e := newEnv(b, s, len(s.values))
	e.ttl = time.Second
	o, err := l.products(e)
	if err != nil {
		return nil, nil, err
	}
	call := func(i int) error {
		id := walk[i%len(walk)]
		if i%20 == 19 {
			return o.invalidate(ctx, id)
		}
		v, err := o.get(ctx, id)
		return s.check(v, err, id)
	}
	longer := *b
	if !b.quick {
		longer.budget = 3 * time.Second
	}
	n, err := longer.calibrate(50_000_000, func(n int) error { return crowd(64, n, call) })
	return func() (sample, error) {
		return withLoads(s, n, 1, func() (sample, error) {
			return b.measure(n, func() error { return crowd(64, n, call) })
		})
	}, o.close, err
}

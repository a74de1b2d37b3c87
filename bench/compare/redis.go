package main

import (
	"context"
)

// callers is how many calls are under way at the same time where a scenario does not say otherwise.
const callers = 128

var redisColumns = []column{wall, own, redisCPU, allocs, allocated, sent, commands}

// redisScenarios are calls for what is not in memory.
func redisScenarios() []scenario {
	return []scenario{
		{
			name: "redis-hit", title: "A first hit in Redis", about: "The value of 1.6 KB is in Redis, and was never read by this client. 128 callers.",
			columns: redisColumns, rows: rowsOf(inRedis|firstHit, nil, openRedisHit),
		},
		{
			name: "cold-miss", title: "A cold miss", about: "The value is cached nowhere, and the loader takes no time. 128 callers. The time ends when the last value is in Redis.",
			columns: redisColumns, rows: rowsOf(inRedis, nil, openColdMiss),
		},
		{
			name: "invalidate", title: "Invalidate a key", about: "128 callers. What has no Redis invalidates in one process alone.",
			columns: redisColumns, rows: rowsOf(inRedis|inMemory, nil, openInvalidate),
		},
	}
}

// A walk gives each round ids that no round before it had.
type walk struct{ next int }

func (w *walk) take(n int) []int {
	first := w.next
	w.next += n
	return ids(first, n)
}

// getAll has callers get ids.
func getAll[T any](callers int, s *source[T], o *opened[T], ids []int) error {
	return crowd(callers, len(ids), func(i int) error {
		v, err := o.get(context.Background(), ids[i])
		return s.check(v, err, ids[i])
	})
}

func openRedisHit(b *bench, l library) (func() (sample, error), func(), error) {
	s, w, n := b.source(), new(walk), b.scaled(4000, 300)
	e := newEnv(b, s, n*(b.rounds+1))
	filler, err := l.products(e)
	if err != nil {
		return nil, nil, err
	}
	reader, err := l.products(e)
	if err != nil {
		return nil, filler.close, err
	}
	round := func() (sample, error) {
		ids := w.take(n)
		if err := getAll(callers, s, filler, ids); err != nil {
			return nil, err
		}
		if err := b.stored(ids, filler.key); err != nil {
			return nil, err
		}
		return withLoads(s, n, 0, func() (sample, error) {
			return b.measure(n, func() error { return getAll(callers, s, reader, ids) })
		})
	}
	_, err = round() // warms
	return round, func() { filler.close(); reader.close() }, err
}

func openColdMiss(b *bench, l library) (func() (sample, error), func(), error) {
	s, w, n := b.source(), new(walk), b.scaled(4000, 300)
	o, err := l.products(newEnv(b, s, n*(b.rounds+1)))
	if err != nil {
		return nil, nil, err
	}
	round := func() (sample, error) {
		ids := w.take(n)
		return withLoads(s, n, 1, func() (sample, error) {
			return b.measure(n, func() error {
				if err := getAll(callers, s, o, ids); err != nil {
					return err
				}
				return b.stored(ids[n-2*callers:], o.key) // those that were asked for last
			})
		})
	}
	_, err = round() // warms
	return round, o.close, err
}

func openInvalidate(b *bench, l library) (func() (sample, error), func(), error) {
	ctx, s, w, n := context.Background(), b.source(), new(walk), b.scaled(4000, 300)
	o, err := l.products(newEnv(b, s, n*(b.rounds+1)))
	if err != nil {
		return nil, nil, err
	}
	round := func() (sample, error) {
		ids := w.take(n)
		if err := getAll(callers, s, o, ids); err != nil {
			return nil, err
		}
		if o.key != nil && l.name != "aside, memory mode" {
			if err := b.stored(ids, o.key); err != nil {
				return nil, err
			}
		}
		return b.measure(n, func() error {
			return crowd(callers, n, func(i int) error { return o.invalidate(ctx, ids[i]) })
		})
	}
	_, err = round() // warms
	return round, o.close, err
}

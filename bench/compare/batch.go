package main

import (
	"context"
	"fmt"
)

// batchSize is how many ids one call asks for.
const batchSize = 100

func batchScenarios() []scenario {
	return []scenario{
		{
			name: "batch-redis", title: "A batch of 100 from Redis", about: "No value was read by this client before. 4 goroutines. Figures for one batch.",
			columns: redisColumns, rows: rowsOf(inRedis, nil, openBatchRedis),
		},
		{
			name: "batch-near", title: "A batch of 100 in memory", about: "2 goroutines. Figures for one batch.",
			columns: hitColumns, rows: rowsOf(inMemory, nil, openBatchNear),
		},
	}
}

// getBatch gets the values of ids by one call.
func getBatch(o *opened[*product], ids []int) error {
	n, err := o.many(context.Background(), ids)
	if err == nil && n != len(ids) {
		err = fmt.Errorf("a batch of %d has %d values", len(ids), n)
	}
	return err
}

func openBatchRedis(b *bench, l library) (func() (sample, error), func(), error) {
	s, w, n := b.source(), new(walk), b.scaled(60, 4)
	e := newEnv(b, s, batchSize*n*(b.rounds+1))
	filler, err := l.products(e)
	if err != nil {
		return nil, nil, err
	}
	if filler.many == nil {
		return nil, filler.close, errNoCall
	}
	reader, err := l.products(e)
	if err != nil {
		return nil, filler.close, err
	}
	round := func() (sample, error) {
		ids := w.take(batchSize * n)
		part := func(i int) []int { return ids[i*batchSize : (i+1)*batchSize] }
		if err := crowd(4, n, func(i int) error { return getBatch(filler, part(i)) }); err != nil {
			return nil, err
		}
		if err := b.stored(ids, filler.key); err != nil {
			return nil, err
		}
		return withLoads(s, n, 0, func() (sample, error) {
			return b.measure(n, func() error {
				return crowd(4, n, func(i int) error { return getBatch(reader, part(i)) })
			})
		})
	}
	_, err = round() // warms
	return round, func() { filler.close(); reader.close() }, err
}

func openBatchNear(b *bench, l library) (func() (sample, error), func(), error) {
	s := b.source()
	o, err := l.products(newEnv(b, s, len(s.values)))
	if err != nil {
		return nil, nil, err
	}
	if o.many == nil {
		return nil, o.close, errNoCall
	}
	all := ids(0, len(s.values))
	parts := len(all) / batchSize
	call := func(i int) error { i %= parts; return getBatch(o, all[i*batchSize:(i+1)*batchSize]) }
	if err := warmed(b, s, func() error { return crowd(2, parts, call) }); err != nil {
		return nil, o.close, err
	}
	n, err := b.calibrate(1_000_000, func(n int) error { return crowd(2, n, call) })
	return func() (sample, error) {
		return withLoads(s, n, 0, func() (sample, error) {
			return b.measure(n, func() error { return crowd(2, n, call) })
		})
	}, o.close, err
}

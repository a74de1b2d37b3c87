package main

import (
	"context"
	"fmt"
)

var hitColumns = []column{wall, own, allocs, allocated}

// nearScenarios are hits in memory.
func nearScenarios() (out []scenario) {
	for _, keys := range []struct {
		name, title, about string
		one, ready         bool
		goroutines         []int
	}{
		{"near-one", "A hit in memory, one key", "Keys, loaders and closures are made before where a library can use them again.", true, true, []int{1, 2, 64}},
		{"near-zipf", "A hit in memory, 10,000 keys", "Keys are skewed as Zipf's law has it. Keys, loaders and closures are made before where a library can use them again.", false, true, []int{1, 2, 64}},
		{"near-readme", "A hit in memory, 10,000 keys, as in the READMEs", "Keys and closures are made at each call where the library's own examples do so.", false, false, []int{1, 2}},
	} {
		for _, goroutines := range keys.goroutines {
			out = append(out, scenario{
				name: fmt.Sprintf("%s-%d", keys.name, goroutines), title: fmt.Sprintf("%s, goroutines: %d", keys.title, goroutines), about: keys.about, columns: hitColumns,
				rows: rowsOf(inMemory, nil, func(b *bench, l library) (func() (sample, error), func(), error) {
					return openNear(b, l, keys.one, keys.ready, goroutines)
				}),
			})
		}
	}
	return out
}

func openNear(b *bench, l library, one, ready bool, goroutines int) (func() (sample, error), func(), error) {
	ctx, s := context.Background(), b.source()
	items := len(s.values)
	walk := zipf(1<<14, items)
	if one {
		items, walk = 1, make([]int, 1<<14)
	}
	o, err := l.products(newEnv(b, s, len(s.values)))
	if err != nil {
		return nil, nil, err
	}
	get := o.get
	if ready && o.ready != nil {
		get = o.ready(items)
	}
	call := func(i int) error {
		id := walk[i%len(walk)]
		v, err := get(ctx, id)
		if err != nil || v.ID != id {
			return s.check(v, err, id)
		}
		return nil
	}
	err = warmed(b, s, func() error {
		return crowd(64, items, func(i int) error {
			v, err := get(ctx, i)
			return s.check(v, err, i)
		})
	})
	if err != nil {
		return nil, o.close, err
	}
	n, err := b.calibrate(10_000_000, func(n int) error { return crowd(goroutines, n, call) })
	return func() (sample, error) {
		return withLoads(s, n, 0, func() (sample, error) {
			return b.measure(n, func() error { return crowd(goroutines, n, call) })
		})
	}, o.close, err
}

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatewayz/aside"
)

// largeBytes is the size of a large value.
const largeBytes = 20 << 20

func largeScenarios() []scenario {
	fromRedis := rowsOf(inRedis, func(l library) bool { return l.catalogue != nil }, func(b *bench, l library) (func() (sample, error), func(), error) {
		return openLarge(b, l.catalogue, withSmall(b.large, &catalogue{}), func(c *catalogue) int { return len(*c) })
	})
	for _, l := range libraries {
		if l.bytes == nil {
			continue
		}
		l.name += ", bytes"
		fromRedis = append(fromRedis, row{l, func(b *bench, l library) (func() (sample, error), func(), error) {
			return openLarge(b, l.bytes, withSmall(noise(b), []byte("small")), func(v []byte) int { return len(v) })
		}})
	}
	return []scenario{
		{
			name: "large-redis", title: "A catalogue of 20 MB from Redis", columns: []column{wall, own, redisCPU, allocs, allocated, sent, commands},
			about: "The first read of a client that is connected already, one at a time. A catalogue is a slice of structs. The rows with bytes have 20 MB that cannot be compressed.",
			rows:  fromRedis,
		},
		{
			name: "large-near", title: "A catalogue of 20 MB in memory", columns: hitColumns, about: "A hit, one goroutine.",
			rows: rowsOf(inMemory, func(l library) bool { return l.catalogue != nil }, openLargeNear),
		},
		{
			name: "beside", title: "Small reads beside large ones", columns: []column{p99, p50},
			about: "A value of 1.6 KB is read in Redis over and over, one read at a time, while another goroutine of the same client reads 20 MB there. All values are bytes.",
			rows:  besideRows(),
		},
	}
}

func noise(b *bench) []byte {
	out := make([]byte, b.scaled(largeBytes, largeBytes/20))
	_, _ = rand.Read(out)
	return out
}

// withSmall is a large value, and small ones that warm all connections of a client.
func withSmall[T any](large, small T) []T {
	return append([]T{large}, slices.Repeat([]T{small}, 16)...)
}

// openLarge reads the first of values by a new client in each round, after the others.
func openLarge[T any](b *bench, open func(env[T]) (*opened[T], error), values []T, size func(T) int) (func() (sample, error), func(), error) {
	ctx, s := context.Background(), &source[T]{values: values}
	e := newEnv(b, s, 1000)
	filler, err := open(e)
	if err != nil {
		return nil, nil, err
	}
	defer filler.close()
	for id := range values {
		if _, err := filler.get(ctx, id); err != nil {
			return nil, nil, err
		}
	}
	if err := b.stored(ids(0, len(values)), filler.key); err != nil {
		return nil, nil, err
	}
	return func() (sample, error) {
		reader, err := open(e)
		if err != nil {
			return nil, err
		}
		defer reader.close()
		for id := 1; id < len(values); id++ {
			if _, err := reader.get(ctx, id); err != nil {
				return nil, err
			}
		}
		return withLoads(s, 1, 0, func() (sample, error) {
			return b.measure(1, func() error {
				v, err := reader.get(ctx, 0)
				if err == nil && size(v) != size(values[0]) {
					err = fmt.Errorf("the value has size %d, not %d", size(v), size(values[0]))
				}
				return err
			})
		})
	}, nil, nil
}

func openLargeNear(b *bench, l library) (func() (sample, error), func(), error) {
	ctx, s := context.Background(), &source[*catalogue]{values: []*catalogue{b.large}}
	o, err := l.catalogue(newEnv(b, s, 1000))
	if err != nil {
		return nil, nil, err
	}
	call := func(int) error {
		v, err := o.get(ctx, 0)
		if err == nil && len(*v) != len(*b.large) {
			err = fmt.Errorf("the catalogue has %d models, not %d", len(*v), len(*b.large))
		}
		return err
	}
	if err := warmed(b, s, func() error { return call(0) }); err != nil {
		return nil, o.close, err
	}
	n, err := b.calibrate(1_000_000, func(n int) error { return crowd(1, n, call) })
	return func() (sample, error) {
		return withLoads(s, n, 0, func() (sample, error) {
			return b.measure(n, func() error { return crowd(1, n, call) })
		})
	}, o.close, err
}

// A bytesClient stores bytes, and reads them in Redis each time.
type bytesClient struct {
	set   func(ctx context.Context, id int, v []byte) error
	get   func(ctx context.Context, id int) ([]byte, error)
	close func()
}

func besideRows() []row {
	beside := func(name, module, form string, open func(b *bench) (bytesClient, error)) row {
		l := library{name: name, modules: []string{module}, form: form}
		return row{l, func(b *bench, _ library) (func() (sample, error), func(), error) { return openBeside(b, open, true) }}
	}
	plain := func(b *bench) (bytesClient, error) {
		o, err := openPlain(newEnv(b, &source[[]byte]{}, 0))
		if err != nil {
			return bytesClient{}, err
		}
		return bytesClient{o.set, o.get, o.close}, nil
	}
	idle := beside("rueidis, no large reads", rueidisModule, "GET with nothing beside it: the floor", plain)
	idle.why = "Nothing is read beside it."
	idle.open = func(b *bench, _ library) (func() (sample, error), func(), error) { return openBeside(b, plain, false) }
	return []row{
		beside("aside, Strong", asideModule, "`GetOrLoad` with `Strong`", func(b *bench) (bytesClient, error) {
			e := newEnv(b, &source[[]byte]{}, 1000)
			o, err := openAside(e, asideOptions{redis: true, calls: []aside.CallOption{aside.Strong()}})
			if err != nil {
				return bytesClient{}, err
			}
			return bytesClient{o.set, o.get, o.close}, nil
		}),
		beside("rueidis", rueidisModule, "GET", plain),
		beside("go-redis", "github.com/redis/go-redis/v9", "GET, a pool of connections", func(b *bench) (bytesClient, error) {
			client, key := redis.NewClient(&redis.Options{Addr: b.addr}), numbered(newEnv(b, &source[[]byte]{}, 0).prefix)
			return bytesClient{
				set:   func(ctx context.Context, id int, v []byte) error { return client.Set(ctx, key(id), v, 0).Err() },
				get:   func(ctx context.Context, id int) ([]byte, error) { return client.Get(ctx, key(id)).Bytes() },
				close: func() { client.Close() },
			}, nil
		}),
		idle,
	}
}

func openBeside(b *bench, open func(*bench) (bytesClient, error), large bool) (func() (sample, error), func(), error) {
	c, err := open(b)
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	values := [...][]byte{noise(b)[:1600], noise(b)}
	read := func(id int) error {
		v, err := c.get(ctx, id)
		if err == nil && !bytes.Equal(v, values[id]) {
			err = fmt.Errorf("%d has other bytes", id)
		}
		return err
	}
	for id, v := range values {
		if err := c.set(ctx, id, v); err != nil {
			return nil, c.close, err
		}
		if err := read(id); err != nil {
			return nil, c.close, err
		}
	}
	return func() (sample, error) {
		ending := make(chan struct{})
		var failed error
		var others sync.WaitGroup
		others.Go(func() {
			for large && failed == nil {
				select {
				case <-ending:
					return
				default:
					failed = read(1)
				}
			}
		})
		var took []float64
		for end := time.Now().Add(4 * b.budget); len(took) < 100 || time.Now().Before(end); {
			began := time.Now()
			if err = read(0); err != nil {
				break
			}
			took = append(took, float64(time.Since(began).Nanoseconds())/1e3)
		}
		close(ending)
		others.Wait()
		if err == nil {
			err = failed
		}
		if err != nil {
			return nil, err
		}
		slices.Sort(took)
		return sample{p50: took[len(took)/2], p99: took[len(took)*99/100]}, nil
	}, c.close, nil
}

package main

import (
	"context"
	"sync"
	"time"
)

// clients is how many clients of one library stand for processes in a stampede.
const clients = 4

func stampedeScenarios() []scenario {
	return []scenario{{
		name: "stampede", title: "A stampede", columns: []column{loads, wall, own, redisCPU, commands},
		about: "128 callers ask for one cold key at once, through 4 clients as of 4 processes. A load takes 20 ms. Figures for one key.",
		rows:  rowsOf(inRedis|inMemory, nil, openStampede),
	}}
}

func openStampede(b *bench, l library) (func() (sample, error), func(), error) {
	ctx, s, w, n := context.Background(), b.source(), new(walk), b.scaled(20, 3)
	s.takes = 20 * time.Millisecond
	e := newEnv(b, s, 1000)
	var fleet []*opened[*product]
	closeAll := func() {
		for _, o := range fleet {
			o.close()
		}
	}
	for range clients {
		o, err := l.products(e)
		if err != nil {
			return nil, closeAll, err
		}
		fleet = append(fleet, o)
	}
	stampede := func(id int) error {
		var ready, done sync.WaitGroup
		start, failed := make(chan struct{}), make(chan error, callers)
		ready.Add(callers)
		for i := range callers {
			done.Go(func() {
				ready.Done()
				<-start
				v, err := fleet[i%clients].get(ctx, id)
				if err := s.check(v, err, id); err != nil {
					failed <- err
				}
			})
		}
		ready.Wait()
		close(start)
		done.Wait()
		close(failed)
		return <-failed
	}
	round := func() (sample, error) {
		return withLoads(s, n, callers, func() (sample, error) {
			return b.measure(n, func() error {
				for _, id := range w.take(n) {
					if err := stampede(id); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	return round, closeAll, stampede(w.take(1)[0])
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// A warming loads the values of one kind that are not cached. runServer starts it, and operators do with POST {"warm":"catalogues"}.
type warming struct {
	name  string // of the values in the plural, of the warmer, and in the fleet
	total int
	run   func(context.Context, warmingHooks) (aside.Warmed, error)
}

// warmingHooks learn how a warming goes. Each may be nil.
type warmingHooks struct {
	progress func(aside.Warmed)
	loaded   func(id string, err error) // from several goroutines
}

// warmAtOnce is how many upstreams a warming asks at the same time. It leaves most places for loads to the requests that come in meanwhile.
const warmAtOnce = 8

// newWarmings returns the warmings of the values that all users share. Those of single users are too many, and most of them are not asked for before
// they expire.
func newWarmings(b *backend, cache *aside.Cache, keys *policySet) []warming {
	rankings := map[string]struct {
		key  aside.Key
		load func(context.Context) (ranking, error)
	}{
		"models": {keys.rankModelsKey(), b.store.rankModels},
		"apps":   {keys.rankAppsKey(), b.store.rankApps},
	}
	// The catalogue of all gateways is last: it takes as long as the slowest upstream.
	catalogues := append(slices.Clone(b.catalogue.gateways), "all")
	return []warming{
		newWarming(cache, "catalogues", catalogues, keys.modelsKey, func(ctx context.Context, name string) (asidehttp.Body, error) {
			return loadVersion(ctx, catalogueOf(b.models, name))
		}),
		newWarming(cache, "rankings", slices.Sorted(maps.Keys(rankings)), func(of string) aside.Key { return rankings[of].key }, func(ctx context.Context, of string) (ranking, error) {
			return rankings[of].load(ctx)
		}),
	}
}

func newWarming[T any](cache *aside.Cache, name string, ids []string, key func(id string) aside.Key, load func(ctx context.Context, id string) (T, error)) warming {
	return warming{name, len(ids), func(ctx context.Context, hooks warmingHooks) (aside.Warmed, error) {
		return aside.Warm(ctx, cache, slices.Values(ids), key, func(ctx context.Context, batch []string) (map[string]T, error) {
			id := batch[0]
			value, err := load(ctx, id)
			if hooks.loaded != nil {
				failure := err
				if errors.Is(err, aside.ErrNotModified) {
					failure = nil // the cached value is still right
				}
				hooks.loaded(id, failure)
			}
			if err != nil {
				return nil, err
			}
			return map[string]T{id: value}, nil
		}, aside.Warming{
			Name: name, // of the processes on one Redis, one warms
			// Without Every: a process that starts later finds the values fresh, which takes it one round trip for each.
			Batch:  1, // an upstream that is slow or fails holds up no other one
			AtOnce: warmAtOnce, Progress: hooks.progress,
		})
	}}
}

// warmers returns the warmings for asidehttp.Options.
func warmers(warmings []warming) map[string]func(context.Context) (aside.Warmed, error) {
	all := make(map[string]func(context.Context) (aside.Warmed, error))
	for _, w := range warmings {
		all[w.name] = func(ctx context.Context) (aside.Warmed, error) { return w.run(ctx, warmingHooks{}) }
	}
	return all
}

// warmUp runs the warmings one after the other until the context ends, and shows how they go. A failure is shown, and stops nothing: the first request
// for the value loads it.
func warmUp(ctx context.Context, warmings []warming, screen *console, log *slog.Logger) {
	for _, w := range warmings {
		if ctx.Err() != nil {
			return
		}
		w.show(ctx, screen, log)
	}
}

// show runs a warming. A terminal shows a bar meanwhile, and a summary in its place at the end. Other outputs get the summary as a log line.
func (w warming) show(ctx context.Context, screen *console, log *slog.Logger) {
	var latest atomic.Pointer[aside.Warmed]
	latest.Store(&aside.Warmed{})
	var mu sync.Mutex
	failed := make(map[string]error) // guarded by mu
	hooks := warmingHooks{
		progress: func(warmed aside.Warmed) { latest.Store(&warmed) },
		loaded: func(id string, err error) {
			mu.Lock()
			defer mu.Unlock()
			delete(failed, id) // a value that could not be stored is loaded again
			if err != nil {
				failed[id] = err
			}
		},
	}
	stop := func() {}
	if screen.width != nil {
		stop = every(time.Second/10, time.Now(), func(took time.Duration) {
			now := *latest.Load()
			now.Took = took // also while no value is ready
			screen.draw(bar(w.name, now, w.total, screen.width()))
		})
	}
	warmed, err := w.run(ctx, hooks)
	stop()
	end := summary(w.name, warmed, w.total, err)
	if screen.width != nil {
		screen.end(end)
	} else if (err != nil || warmed.Failed > 0) && ctx.Err() == nil {
		log.Warn(end)
	} else {
		log.Info(end)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(failed) > 0 && ctx.Err() == nil { // otherwise the end of the context has failed them
		first := slices.Sorted(maps.Keys(failed))[0]
		log.Warn("values are not warmed: their first requests load them", w.name, someOf(slices.Sorted(maps.Keys(failed))), "error", failed[first])
	}
}

// someOf names some ids of a list that may be long.
func someOf(ids []string) string {
	const most = 5
	if len(ids) <= most {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s, and %d more", strings.Join(ids[:most], ", "), len(ids)-most)
}

// every calls do now and at each interval, until the returned function is called.
func every(interval time.Duration, start time.Time, do func(time.Duration)) (stop func()) {
	end := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticks := time.NewTicker(interval)
		defer ticks.Stop()
		for {
			do(time.Since(start))
			select {
			case <-ticks.C:
			case <-end:
				return
			}
		}
	})
	return func() {
		close(end)
		running.Wait()
	}
}

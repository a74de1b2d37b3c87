package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside"
)

// runReport sends requests to the server with the cache off, then with the cache on, and prints the table. Then it sends requests while values expire:
// see expiring.go. It reports whether every target was met.
func runReport(ctx context.Context, cfg config, opts aside.Options, out, progress io.Writer, log *slog.Logger) (met bool, err error) {
	b, err := startBackend(ctx, cfg, log)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	// Each run has its own secret, so Redis has no values of this run's users yet.
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return false, err
	}
	opts.Secret = aside.NewSecret(secret)
	cache, err := aside.New(opts)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	if err := connected(ctx, cache); err != nil {
		return false, err
	}

	plan, err := planTraffic(ctx, b, cfg.requests, cfg.seed)
	if err != nil {
		return false, err
	}
	keys := newPolicies()
	srv := newServer(b, cache, keys, nil, log)
	run := reportRun{server: srv, callers: cfg.callers, progress: progress}
	srv.uncached = true
	off, err := run.phase(ctx, "cache off", firstVisits(plan, cfg.uncached()))
	if err != nil {
		return false, fmt.Errorf("with the cache off: %w", err)
	}

	// Public values have the same keys in every run. The run must begin with a cold cache, so they are invalidated.
	if err := invalidate(ctx, cache, publicKeys(keys, plan)); err != nil {
		return false, err
	}
	srv.uncached = false
	on, err := run.phase(ctx, "cache on", plan)
	// The report leaves no values in a shared Redis, even after an error.
	if err := errors.Join(err, invalidate(context.WithoutCancel(ctx), cache, on.keys())); err != nil {
		return false, fmt.Errorf("with the cache on: %w", err)
	}
	table := newTable(off, on)
	if err := table.print(out, cfg, b, opts); err != nil {
		return false, err
	}
	expiring, err := runExpiring(ctx, cfg, b, opts, progress, log)
	if err != nil {
		return false, fmt.Errorf("while values expire: %w", err)
	}
	return table.met(), expiring.print(out)
}

// connected waits until the cache uses Redis, if Redis is configured. While Redis is unavailable, the report would measure memory.
func connected(ctx context.Context, cache *aside.Cache) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		health := cache.Health()
		if health.State != aside.StateDegraded {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("redis is unavailable: %s", health.Reason)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// publicKeys returns the keys of the plan that belong to no user.
func publicKeys(of *policySet, plan []visit) []aside.Key {
	keys := []aside.Key{of.modelsKey("all"), of.rankModelsKey(), of.rankAppsKey()}
	for _, v := range plan {
		for _, c := range v {
			switch c.op {
			case opModelsGateway:
				keys = append(keys, of.modelsKey(c.name))
			case opModelDetail:
				keys = append(keys, of.modelKey(c.name))
			}
		}
	}
	return unique(keys)
}

func unique(keys []aside.Key) []aside.Key {
	seen := make(map[string]bool, len(keys))
	return slices.DeleteFunc(keys, func(key aside.Key) bool {
		text := key.String()
		again := seen[text] || text == ""
		seen[text] = true
		return again
	})
}

// firstVisits returns the visits with the first n requests.
func firstVisits(plan []visit, n int) []visit {
	for i, v := range plan {
		if n -= len(v); n <= 0 {
			return plan[:i+1]
		}
	}
	return plan
}

// invalidate invalidates keys in portions, so that no portion occupies Redis for long.
func invalidate(ctx context.Context, cache *aside.Cache, keys []aside.Key) error {
	for len(keys) > 0 {
		n := min(len(keys), 200)
		if _, err := cache.Invalidate(ctx, keys[:n]...); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// reportRun has the settings that both phases of a report share.
type reportRun struct {
	server   *server
	callers  int
	progress io.Writer
}

// measured has the measurements of a phase.
type measured struct {
	mu      sync.Mutex
	samples [numOps][]sample
	calls   [numOps]int64
	took    time.Duration
}

func (m *measured) observe(s sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples[s.op] = append(m.samples[s.op], s)
}

// reset drops what was measured so far, except the keys.
func (m *measured) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for o, samples := range m.samples {
		for i := range samples {
			samples[i] = sample{op: op(o), key: samples[i].key}
		}
	}
}

// keys returns all keys that the phase has used, without duplicates.
func (m *measured) keys() (keys []aside.Key) {
	for _, samples := range m.samples {
		for _, s := range samples {
			keys = append(keys, s.key)
		}
	}
	return unique(keys)
}

// phase starts the server on a separate port, sends the calls, and measures.
func (run reportRun) phase(ctx context.Context, name string, plan []visit) (*measured, error) {
	m := &measured{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return m, err
	}
	run.server.observe = m.observe
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- run.server.serve(serving, listener) }()

	var done atomic.Int64
	told := run.tell(name, &done, requests(plan))
	before, start := run.server.calls.snapshot(), time.Now()
	err = drive(ctx, "http://"+listener.Addr().String(), plan, run.callers, &done)
	m.took = time.Since(start)
	told()
	stop()
	err = errors.Join(err, <-served) // after this, no measurement changes
	for o, n := range run.server.calls.snapshot() {
		m.calls[o] = n - before[o]
	}
	return m, err
}

// tell prints the progress of a phase, until the returned function is called.
func (run reportRun) tell(name string, done *atomic.Int64, total int) (end func()) {
	start := time.Now()
	line := func() {
		n := done.Load()
		fmt.Fprintf(run.progress, "%-9s  %6d of %d requests  %3d%%  %s\n",
			name, n, total, 100*n/int64(total), time.Since(start).Round(100*time.Millisecond))
	}
	stop := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		ticks := time.NewTicker(2 * time.Second)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				line()
			case <-stop:
				line()
				return
			}
		}
	})
	return func() {
		close(stop)
		telling.Wait()
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideprom"
)

// The policies are listed in Options.Policies, so that all series are there from the first scrape.
var (
	models   = aside.Policy{Name: "models", Category: "models", TTL: 20 * time.Second, Stale: 20 * time.Second, StaleIfError: time.Minute}
	sessions = aside.Policy{Name: "sessions", Category: "sessions", TTL: time.Minute, NegativeTTL: 10 * time.Second}
)

// How many models and sessions there are. Memory has no room for all sessions.
const (
	numModels   = 200
	numSessions = 5000
	maxEntries  = 1000
)

// A site is a small model gateway. Its source is a function that takes its time, and sometimes fails.
type site struct {
	cache   *aside.Cache
	handler http.Handler
}

func newSite(opts aside.Options, page http.Handler) (*site, error) {
	opts.Policies = []aside.Policy{models, sessions}
	opts.MaxEntries = maxEntries
	opts.ConsistencyCheck = aside.ConsistencyCheck{SampleRate: 0.01}
	cache, err := aside.New(opts)
	if err != nil {
		return nil, err
	}
	collector, err := asideprom.New(cache, asideprom.Options{})
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	s := &site{cache: cache}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", page)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /models/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		answer(w, r, s.cache, models.Key(id), func(ctx context.Context) (string, error) { return loadModel(ctx, id) })
	})
	mux.HandleFunc("POST /models/{id}", s.changeModel)
	mux.HandleFunc("GET /sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		answer(w, r, s.cache, sessions.Key(id), func(ctx context.Context) (string, error) { return loadSession(ctx, id) })
	})
	s.handler = mux
	return s, nil
}

// answer serves a cached value.
func answer(w http.ResponseWriter, r *http.Request, c *aside.Cache, key aside.Key, load func(context.Context) (string, error)) {
	text, err := aside.GetOrLoad(r.Context(), c, key, load)
	switch {
	case errors.Is(err, aside.ErrNotFound):
		http.Error(w, "there is no such thing", http.StatusNotFound)
	case err != nil:
		http.Error(w, "the source has failed", http.StatusBadGateway)
	default:
		fmt.Fprintln(w, text)
	}
}

// changeModel stands for a change of a model in the source: it invalidates the model.
func (s *site) changeModel(w http.ResponseWriter, r *http.Request) {
	receipt, err := s.cache.Invalidate(r.Context(), models.Key(r.PathValue("id")))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "confirmed:", receipt.Confirmed)
}

var errSource = errors.New("the source is overloaded")

// loadModel takes 20 to 120 ms, and fails once in fifty times.
func loadModel(ctx context.Context, id string) (string, error) {
	if err := wait(ctx, 20*time.Millisecond, 120*time.Millisecond); err != nil {
		return "", err
	}
	switch n, err := strconv.Atoi(id); {
	case err != nil || n < 0 || n >= numModels:
		return "", aside.ErrNotFound
	case rand.IntN(50) == 0:
		return "", errSource
	default:
		return "model " + id + strings.Repeat(" description", 10*(1+n)), nil
	}
}

// loadSession takes 5 to 25 ms. One session in twenty is not there.
func loadSession(ctx context.Context, id string) (string, error) {
	if err := wait(ctx, 5*time.Millisecond, 25*time.Millisecond); err != nil {
		return "", err
	}
	if n, err := strconv.Atoi(id); err != nil || n < 0 || n >= numSessions || n%20 == 7 {
		return "", aside.ErrNotFound
	}
	return "session " + id + strings.Repeat(" message", 50), nil
}

// wait waits for a random time.
func wait(ctx context.Context, least, most time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(least + rand.N(most-least)):
		return nil
	}
}

// serve answers on the listener until the context ends. Requests in progress then have ten seconds to finish.
func (s *site) serve(ctx context.Context, listener net.Listener) error {
	web := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := web.Shutdown(patience)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

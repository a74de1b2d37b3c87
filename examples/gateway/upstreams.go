package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// upstreams are the gateways' own servers, one on a loopback port for each:
// what a backend like this one has to ask, over HTTP, for its models.
type upstreams struct {
	servers []*upstream
	running sync.WaitGroup
}

// upstream answers GET /models with all its models and GET /models/{id} with
// one of them, both after its answer time.
type upstream struct {
	gateway string
	url     string
	wait    time.Duration
	list    []byte
	models  map[string]model
	http    *http.Server
}

// startUpstreams starts one server for each gateway of the catalogue. Their
// answer times spread evenly over fastest..slowest, in an order that has
// nothing to do with their names and is the same at every start.
func startUpstreams(cat *catalogue, fastest, slowest time.Duration, log *slog.Logger) (_ *upstreams, err error) {
	ups := &upstreams{}
	defer func() {
		if err != nil {
			ups.close()
		}
	}()
	n := len(cat.gateways)
	order := rand.New(rand.NewPCG(uint64(n), 2)).Perm(n)
	for i, gateway := range cat.gateways {
		wait := fastest
		if n > 1 {
			wait += (slowest - fastest) * time.Duration(order[i]) / time.Duration(n-1)
		}
		up, err := newUpstream(gateway, cat.models[gateway], wait)
		if err != nil {
			return nil, err
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", gateway, err)
		}
		up.url = "http://" + listener.Addr().String()
		ups.servers = append(ups.servers, up)
		ups.running.Go(func() {
			if err := up.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				log.Error("upstream ended", "gateway", gateway, "error", err)
			}
		})
	}
	return ups, nil
}

func newUpstream(gateway string, models []model, wait time.Duration) (*upstream, error) {
	list, err := json.Marshal(map[string]any{"object": "list", "data": models})
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", gateway, err)
	}
	up := &upstream{gateway: gateway, wait: wait, list: list, models: make(map[string]model, len(models))}
	for _, m := range models {
		up.models[m.ID] = m
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /models", func(w http.ResponseWriter, r *http.Request) {
		if up.work(r.Context()) {
			writeJSON(w, http.StatusOK, up.list)
		}
	})
	mux.HandleFunc("GET /models/{id...}", func(w http.ResponseWriter, r *http.Request) {
		if !up.work(r.Context()) {
			return
		}
		m, ok := up.models[r.PathValue("id")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		body, err := json.Marshal(m)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, http.StatusOK, body)
	})
	up.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return up, nil
}

// work takes the upstream's answer time, and reports false if the client did
// not wait for it.
func (up *upstream) work(ctx context.Context) bool {
	timer := time.NewTimer(up.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// close ends all upstreams and returns when the last has ended.
func (ups *upstreams) close() {
	for _, up := range ups.servers {
		_ = up.http.Close() // closes a listener: nothing to save, nothing to lose
	}
	ups.running.Wait()
}

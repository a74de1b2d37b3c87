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

// upstreams has the servers of the gateways, one for each gateway, on loopback ports. The backend loads its models from them over HTTP.
type upstreams struct {
	servers []*upstream
	running sync.WaitGroup
}

// upstream is the server of one gateway. It answers GET /models with all its models, and GET /models/{id} with one model, each after its answer time.
type upstream struct {
	gateway string
	url     string
	wait    time.Duration
	list    []byte
	models  map[string]model
	http    *http.Server
}

// startUpstreams starts one server for each gateway of the catalogue. The answer times are evenly spread from fastest to slowest. Their order is
// independent of the names, and the same at every start.
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

// work waits for the upstream's answer time. It returns false if the client leaves earlier.
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

// close stops all upstreams, and waits until the last one has stopped.
func (ups *upstreams) close() {
	for _, up := range ups.servers {
		_ = up.http.Close() // an error of closing a listener has no consequence
	}
	ups.running.Wait()
}

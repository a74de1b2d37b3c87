package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// upstreams has the servers of the gateways, one for each gateway, on loopback ports. The backend loads its models from them over HTTP.
type upstreams struct {
	servers []*upstream
	running sync.WaitGroup
}

// upstream is the server of one gateway. It answers GET /models with all its models, and GET /models/{id} with one model, each after its answer time.
// Each answer has an ETag, and a client that has it already gets a 304 without a body.
type upstream struct {
	gateway string
	url     string
	wait    time.Duration
	carried atomic.Pointer[carried]
	http    *http.Server
}

// carried are the models that an upstream has.
type carried struct {
	list   version
	models map[string]model
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
	up := &upstream{gateway: gateway, wait: wait}
	if err := up.carry(models); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /models", func(w http.ResponseWriter, r *http.Request) {
		if up.work(r.Context()) {
			serveVersion(w, r, up.carried.Load().list)
		}
	})
	mux.HandleFunc("GET /models/{id...}", func(w http.ResponseWriter, r *http.Request) {
		if !up.work(r.Context()) {
			return
		}
		m, ok := up.carried.Load().models[r.PathValue("id")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		body, err := json.Marshal(m)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		serveVersion(w, r, version{body, etagOf(body)})
	})
	up.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return up, nil
}

// carry replaces the models of the upstream.
func (up *upstream) carry(models []model) error {
	list, err := json.Marshal(map[string]any{"object": "list", "data": models})
	if err != nil {
		return fmt.Errorf("upstream %s: %w", up.gateway, err)
	}
	c := &carried{version{list, etagOf(list)}, make(map[string]model, len(models))}
	for _, m := range models {
		c.models[m.ID] = m
	}
	up.carried.Store(c)
	return nil
}

// serveVersion answers with a version and its ETag, or with a 304 if the request has that ETag in If-None-Match.
func serveVersion(w http.ResponseWriter, r *http.Request, v version) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", v.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(v.body))
}

// etagOf makes an ETag of parts. Other parts, and parts in another order, have another ETag.
func etagOf(parts ...[]byte) string {
	hash := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(hash, "%d:", len(part))
		hash.Write(part)
	}
	return `"` + hex.EncodeToString(hash.Sum(nil)[:16]) + `"`
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

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gatewayz/aside"
)

// server answers API requests from the cache. On a miss, the cache loads from the backend.
type server struct {
	*backend
	cache *aside.Cache
	keys  *policySet
	log   *slog.Logger

	// uncached sends every request to the backend, for comparison.
	uncached bool

	// observe, unless nil, is called with the measurements of each request, from many goroutines.
	observe func(sample)

	handler http.Handler
}

// sample has the measurements of one request, from the start of the handler to the last byte of the answer.
type sample struct {
	op      op
	outcome outcome
	status  int
	began   time.Time
	took    time.Duration
	key     aside.Key // zero for a write, and for a refused request
}

// outcome is the origin of an answer.
type outcome string

// The outcomes. A write has none.
const (
	fromCache   outcome = "hit"
	fromOld     outcome = "old" // an old value that is served for another reason than that it is being refreshed, as after waiting for a load that failed
	fromLoad    outcome = "miss"
	fromBackend outcome = "uncached"
)

// request is an HTTP request with its user and its measurements.
type request struct {
	*http.Request
	user   int64  // 0 on public routes
	hash   string // a hash of the caller's API key, for cache keys
	sample sample
}

type handlerFunc func(w http.ResponseWriter, r *request) error

// newServer builds the routes. The handlers of admin, by path, check API keys of their own.
func newServer(b *backend, cache *aside.Cache, keys *policySet, admin map[string]http.Handler, log *slog.Logger) *server {
	srv := &server{backend: b, cache: cache, keys: keys, log: log}
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern string
		private bool // requires an API key
		handler handlerFunc
	}{
		{"GET /api/models", false, srv.getModels},
		{"GET /api/models/{id...}", false, srv.getModel},
		{"GET /api/ranking/models", false, srv.getRankModels},
		{"GET /api/ranking/apps", false, srv.getRankApps},
		{"GET /api/chat/sessions", true, srv.getSessions},
		{"GET /api/chat/sessions/{id}", true, srv.getSession},
		{"POST /api/chat/sessions/{id}/messages", true, srv.postMessage},
		{"GET /api/chat/stats", true, srv.getChatStats},
		{"GET /api/chat/search", true, srv.getSearch},
		{"GET /api/user/me", true, srv.getProfile},
		{"GET /api/user/credits", true, srv.getCredits},
		{"GET /api/user/activity/stats", true, srv.getActivity},
	} {
		mux.Handle(route.pattern, srv.handle(route.private, route.handler))
	}
	for path, handler := range admin {
		mux.Handle(path, handler)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		leaveBody(w, r)
		writeProblem(w, noRoute(mux, r))
	})
	srv.handler = mux
	return srv
}

// noRoute distinguishes a wrong method from a wrong path.
func noRoute(mux *http.ServeMux, r *http.Request) *problem {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "/" {
			return newProblem(http.StatusMethodNotAllowed, "use %s", method)
		}
	}
	return newProblem(http.StatusNotFound, "there is nothing here")
}

// handle identifies the caller by the API key, measures the request, and answers an error with a problem document.
func (srv *server) handle(private bool, next handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		start := time.Now()
		r := &request{Request: hr}
		var err error
		if private {
			err = srv.authenticate(r)
		}
		if err == nil {
			r.sample.status = http.StatusOK
			err = next(w, r)
		}
		switch {
		case err == nil:
		case hr.Context().Err() != nil:
			r.sample.status = 0 // the client has left, so no answer is written
		default:
			p := problemOf(err)
			if p.Status >= http.StatusInternalServerError {
				srv.log.Error("request failed", "method", hr.Method, "path", hr.URL.Path, "error", err)
			}
			r.sample.status = p.Status
			leaveBody(w, hr)
			writeProblem(w, p)
		}
		if srv.observe != nil {
			r.sample.began, r.sample.took = start, time.Since(start)
			srv.observe(r.sample)
		}
	})
}

// authenticate finds the user of the bearer API key. Only the hash of the API key becomes part of cache keys, since cache keys are visible in Redis.
func (srv *server) authenticate(r *request) error {
	const scheme = "Bearer "
	header := r.Header.Get("Authorization")
	if len(header) <= len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return newProblem(http.StatusUnauthorized, "send your API key: Authorization: Bearer KEY")
	}
	apiKey := header[len(scheme):]
	user, ok := srv.store.user(apiKey)
	if !ok {
		return newProblem(http.StatusUnauthorized, "this API key is not known")
	}
	r.user, r.hash = user, srv.cache.HashID(apiKey)
	return nil
}

// webServer limits the time of each step of a request. The write limit must be longer than the slowest load and the transfer of the largest answer.
// Without a write limit, clients that do not read their answers would keep these answers in memory.
func webServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// serve answers on the listener until the context ends. Requests in progress then have ten seconds to finish.
func (srv *server) serve(ctx context.Context, listener net.Listener) error {
	web := webServer(srv.handler, srv.log)
	done := make(chan error, 1)
	go func() { done <- web.Serve(listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := web.Shutdown(patience)
	if err != nil {
		err = errors.Join(err, web.Close())
	}
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

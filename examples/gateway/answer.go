package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// answer serves all reads but those of answerBody. It gets the value of the key from the cache, or loads it, and writes it as JSON.
func answer[T any](srv *server, w http.ResponseWriter, r *request, o op, key aside.Key, load func(context.Context) (T, error)) error {
	r.sample.op, r.sample.key = o, key
	value, err := lookup(srv, w, r, key, func(ctx context.Context) (T, error) {
		value, err := load(ctx)
		if errors.Is(err, errNoRow) {
			// ErrNotFound is cached, because clients repeat requests for missing rows.
			err = aside.ErrNotFound
		}
		return value, err
	})
	if err != nil {
		return err
	}
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

func lookup[T any](srv *server, w http.ResponseWriter, r *request, key aside.Key, load func(context.Context) (T, error)) (T, error) {
	if srv.uncached {
		r.sample.outcome = fromBackend
		return load(r.Context())
	}
	result, err := aside.Lookup(r.Context(), srv.cache, key, load)
	r.sample.outcome = outcomeOf(result)
	asidehttp.SetCacheStatus(w.Header(), result, "")
	return result.Value, err
}

func outcomeOf[T any](result aside.Result[T]) outcome {
	switch {
	case result.Status == aside.StatusHit, result.Status == aside.StatusStale && result.Reason == aside.ReasonStale:
		return fromCache
	case result.Status == aside.StatusStale:
		return fromOld
	}
	return fromLoad
}

// answerBody serves a read whose value is JSON of an upstream, which may be large. The cache holds it encoded, and a hit is written as it lies there.
func answerBody(srv *server, w http.ResponseWriter, r *request, o op, key aside.Key, load loadVersionFunc) error {
	r.sample.op, r.sample.key = o, key
	if srv.uncached {
		r.sample.outcome = fromBackend
		v, err := load(r.Context(), "")
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, v.body)
		return nil
	}
	result, err := aside.Lookup(r.Context(), srv.cache, key, func(ctx context.Context) (asidehttp.Body, error) { return loadVersion(ctx, load) })
	r.sample.outcome = outcomeOf(result)
	if err != nil {
		asidehttp.SetCacheStatus(w.Header(), result, "")
		return err
	}
	asidehttp.Serve(w, r.Request, result, asidehttp.ServeOptions{Public: true})
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gatewayz/aside"
)

// answer serves all reads. It gets the value of the key from the cache, or loads it, and writes it as JSON. A []byte is encoded already.
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
	body, encoded := any(value).([]byte)
	if !encoded {
		if body, err = json.Marshal(value); err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

// refreshed is the Result.Reason of an old value for which no caller waits.
const refreshed = "past its TTL, being refreshed"

func lookup[T any](srv *server, w http.ResponseWriter, r *request, key aside.Key, load func(context.Context) (T, error)) (T, error) {
	if srv.uncached {
		r.sample.outcome = fromBackend
		return load(r.Context())
	}
	result, err := aside.Lookup(r.Context(), srv.cache, key, load)
	r.sample.outcome = fromLoad
	status := fmt.Sprintf("aside; fwd=miss; detail=%q", result.Reason)
	if result.Tier == aside.TierMemory || result.Tier == aside.TierRedis {
		r.sample.outcome = fromCache
		status = fmt.Sprintf("aside; hit; ttl=%d; detail=%s", int64(result.TTL/time.Second), result.Tier)
		if result.Status == aside.StatusStale {
			status = fmt.Sprintf("aside; hit; ttl=0; detail=%q", result.Reason)
			if result.Reason != refreshed {
				r.sample.outcome = fromOld
			}
		}
	}
	w.Header().Set("Cache-Status", status) // RFC 9211
	return result.Value, err
}

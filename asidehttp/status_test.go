package asidehttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func statusErrors() []struct {
	name   string
	err    error
	status int
	after  time.Duration
} {
	backoff := &aside.Error{Code: aside.CodeBackoff, Key: "items:secret", RetryAfter: 90 * time.Second, Err: io.EOF}
	return []struct {
		name   string
		err    error
		status int
		after  time.Duration
	}{
		{"no error", nil, http.StatusOK, 0},
		{"not found", aside.ErrNotFound, http.StatusNotFound, 0},
		{"not found, wrapped", fmt.Errorf("user 7: %w", aside.ErrNotFound), http.StatusNotFound, 0},
		{"a miss", aside.ErrMiss, http.StatusNotFound, 0},
		{"not found among failures", errors.Join(aside.ErrNotFound, io.EOF), http.StatusInternalServerError, 0},
		{"backoff", backoff, http.StatusServiceUnavailable, 90 * time.Second},
		{"backoff of a source that was not found", &aside.Error{Code: aside.CodeBackoff, RetryAfter: time.Minute, Err: io.EOF}, http.StatusServiceUnavailable, time.Minute},
		{"overloaded", &aside.Error{Code: aside.CodeOverloaded}, http.StatusServiceUnavailable, time.Second},
		{"redis unavailable", &aside.Error{Code: aside.CodeUnavailable}, http.StatusServiceUnavailable, time.Second},
		{"closed", fmt.Errorf("profile: %w", aside.ErrClosed), http.StatusServiceUnavailable, time.Second},
		{"load timeout", &aside.Error{Code: aside.CodeLoadTimeout, Err: context.DeadlineExceeded}, http.StatusGatewayTimeout, 0},
		{"the caller's deadline", context.DeadlineExceeded, http.StatusGatewayTimeout, 0},
		{"the client has left", context.Canceled, asidehttp.StatusClientClosedRequest, 0},
		{"a panic", &aside.Error{Code: aside.CodeLoaderPanic}, http.StatusInternalServerError, 0},
		{"a wrong key", &aside.Error{Code: aside.CodeInvalidKey}, http.StatusInternalServerError, 0},
		{"the loader's error", io.EOF, http.StatusInternalServerError, 0},
		{"a batch", &aside.BatchError[int]{Errors: map[int]error{1: io.EOF, 2: backoff}}, http.StatusServiceUnavailable, 90 * time.Second},
	}
}

func TestStatusOfErrors(t *testing.T) {
	t.Parallel()
	for _, c := range statusErrors() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, after := asidehttp.Status(c.err)
			require.Equal(t, c.status, status)
			require.Equal(t, c.after, after)
		})
	}
}

// The body says nothing that the error's text does.
func TestErrorAnswersWithTheStatusAlone(t *testing.T) {
	t.Parallel()
	for _, c := range statusErrors()[1:] {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			for _, name := range []string{"Cache-Control", "ETag", "Content-Encoding", "Content-Length"} {
				w.Header().Set(name, "of the body that the handler had in mind")
			}
			asidehttp.Error(w, c.err)
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			for _, name := range []string{"ETag", "Content-Encoding", "Content-Length"} {
				require.Empty(t, w.Header().Get(name), name)
			}
			require.Equal(t, c.status, w.Code)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			wait := ""
			if c.after > 0 {
				wait = fmt.Sprint(int(c.after.Seconds()))
			}
			require.Equal(t, wait, w.Header().Get("Retry-After"))
			var body map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			require.EqualValues(t, c.status, body["status"])
			require.NotEmpty(t, body["title"])
			require.NotContains(t, w.Body.String(), "secret")
			require.NotContains(t, w.Body.String(), "EOF")
		})
	}
}

// What a cache returns has the right status: the errors above are made by hand.
func TestStatusOfWhatACacheReturns(t *testing.T) {
	t.Parallel()
	var missing = errors.New("no such row")
	p := aside.Policy{Category: "items", TTL: time.Minute, LoadTimeout: 20 * time.Millisecond, NotFound: []error{missing}}
	c, err := aside.New(aside.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	load := func(key string, err error) error {
		_, got := aside.GetOrLoad(t.Context(), c, p.Key(key), func(ctx context.Context) (int, error) {
			if errors.Is(err, context.DeadlineExceeded) {
				<-ctx.Done()
			}
			return 0, err
		})
		return got
	}
	for range 2 { // a load, and a hit
		got := load("absent", fmt.Errorf("item 7: %w", missing))
		require.ErrorIs(t, got, missing)
		status, _ := asidehttp.Status(got)
		require.Equal(t, http.StatusNotFound, status)
	}
	status, _ := asidehttp.Status(load("slow", context.DeadlineExceeded))
	require.Equal(t, http.StatusGatewayTimeout, status)
	require.Error(t, load("failing", io.EOF))
	require.Error(t, load("failing", io.EOF))
	status, after := asidehttp.Status(load("failing", io.EOF))
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Positive(t, after)
}

package asidehttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gatewayz/aside"
)

// StatusClientClosedRequest is the status for a request whose client has left. It is not in net/http, nor in a standard: nginx logs it, and nobody
// receives it.
const StatusClientClosedRequest = 499

// shortRetry is the Retry-After where the cache does not know when a retry will help.
const shortRetry = time.Second

// Status returns the HTTP status for the error of a call of a cache, and the time after which the client may ask again, 0 if a retry is not advised:
//
//	nil                                                200
//	ErrNotFound, ErrMiss                               404
//	ErrBackoff                                         503, after Error.RetryAfter
//	ErrOverloaded, ErrUnavailable, ErrClosed           503, after Error.RetryAfter, or after 1 s
//	ErrLoadTimeout, context.DeadlineExceeded           504
//	context.Canceled                                   499, the client has left
//	a panic, a wrong argument, a loader's own error    500
//
// A loader's own error is 500, also if the loader has called Load.RetryAfter: the calls after it fail with ErrBackoff. So is an error that a call of the
// database outside of a loader returns, such as the sql.ErrNoRows of a write. An error that wraps several, such as a BatchError, has the status of the failure among them that stands highest in this table, but not 404: a
// batch of which an id has failed is no "not found". Errors of your loaders that mean something else to your clients come before Status.
func Status(err error) (status int, retryAfter time.Duration) {
	var own *aside.Error
	errors.As(err, &own)
	switch {
	case err == nil:
		return http.StatusOK, 0
	case isPlainly(err, aside.ErrNotFound), isPlainly(err, aside.ErrMiss):
		return http.StatusNotFound, 0
	case errors.Is(err, aside.ErrBackoff), errors.Is(err, aside.ErrOverloaded), errors.Is(err, aside.ErrUnavailable), errors.Is(err, aside.ErrClosed):
		if own != nil && own.RetryAfter > 0 {
			return http.StatusServiceUnavailable, own.RetryAfter
		}
		return http.StatusServiceUnavailable, shortRetry
	case errors.Is(err, context.DeadlineExceeded): // ErrLoadTimeout too, which wraps it
		return http.StatusGatewayTimeout, 0
	case errors.Is(err, context.Canceled):
		return StatusClientClosedRequest, 0
	}
	return http.StatusInternalServerError, 0
}

// isPlainly reports whether err is target, plain or wrapped by errors that each wrap one error.
func isPlainly(err, target error) bool {
	for err != nil {
		if err == target {
			return true
		}
		if e, ok := err.(interface{ Is(error) bool }); ok && e.Is(target) {
			return true
		}
		err = errors.Unwrap(err)
	}
	return false
}

// Error answers a request with the [Status] of an error, Retry-After, and a body of type application/problem+json (RFC 9457). The body has the status
// alone: the text of the error may name keys, servers or what the loader knows. Log the error.
func Error(w http.ResponseWriter, err error) {
	status, after := Status(err)
	harden(w.Header())
	for _, of := range []string{"Content-Encoding", "Content-Length", "Etag"} { // of the body that the handler had in mind
		w.Header().Del(of)
	}
	(&problem{status: status, after: after}).write(w)
}

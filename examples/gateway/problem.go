package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gatewayz/aside"
)

// problem is an error for the client, as a problem document (RFC 9457).
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

func (p *problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Title, p.Detail) }

func newProblem(status int, format string, args ...any) *problem {
	return &problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return newProblem(http.StatusBadRequest, format, args...)
}

// problemOf returns the problem document for an error. It contains no text of drivers or upstreams. The log has these texts.
func problemOf(err error) *problem {
	var told *problem
	switch {
	case errors.As(err, &told):
		return told
	case errors.Is(err, aside.ErrNotFound), errors.Is(err, errNoRow):
		return newProblem(http.StatusNotFound, "there is no such thing, or it is not yours")
	case errors.Is(err, errUpstream):
		return newProblem(http.StatusBadGateway, "the gateway does not answer")
	case errors.Is(err, &aside.Error{Code: aside.CodeLoadTimeout}), errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusGatewayTimeout, "the answer took too long to load")
	case errors.Is(err, &aside.Error{Code: aside.CodeOverloaded}):
		return newProblem(http.StatusServiceUnavailable, "too much is asked for at once: try again in a moment")
	case errors.Is(err, aside.ErrClosed):
		return newProblem(http.StatusServiceUnavailable, "the server is stopping")
	default:
		return newProblem(http.StatusInternalServerError, "the answer could not be loaded")
	}
}

// leaveBody lets the server answer a refused request without reading its body. net/http would read the body first, and a client that sends slowly
// would hold the connection for the whole read limit.
func leaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.ProtoMajor > 1 {
		return
	}
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // best effort: the read limit also ends the connection
}

func writeProblem(w http.ResponseWriter, p *problem) {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // cannot happen: strings and a number always encode
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="gateway"`)
	}
	writeBody(w, p.Status, "application/problem+json", body)
}

// writeJSON answers with encoded JSON.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	writeBody(w, status, "application/json", body)
}

func writeBody(w http.ResponseWriter, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client has left
}

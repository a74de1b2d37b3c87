package asidehttp

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gatewayz/aside"
)

// A problem is a response that refuses a request, in the form of RFC 9457.
type problem struct {
	status   int
	detail   string        // what is wrong, and what to send instead
	bodyRead bool          // whether the body of the request was read to its end
	after    time.Duration // the time until a retry; 0 if a retry would not help
}

func newProblem(status int, format string, args ...any) *problem {
	return &problem{status: status, detail: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, format, args...)
}

// unacceptable is the problem of a well-formed request that cannot be carried out.
func unacceptable(format string, args ...any) *problem {
	return newProblem(http.StatusUnprocessableEntity, format, args...)
}

func notAllowed(w http.ResponseWriter, methods, detail string) *problem {
	w.Header().Set("Allow", methods)
	return newProblem(http.StatusMethodNotAllowed, "%s", detail)
}

func (p *problem) write(w http.ResponseWriter) {
	if p.after > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((p.after+time.Second-1)/time.Second), 10))
	}
	write(w, p.status, "application/problem+json", struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{"about:blank", titleOf(p.status), p.status, p.detail})
}

func titleOf(status int) string {
	if status == StatusClientClosedRequest {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// problemOf turns an error of the cache into a problem for the client.
func problemOf(err error) *problem {
	if own := (*aside.Error)(nil); errors.As(err, &own) {
		if own.Code == aside.CodeOverloaded {
			return noRoom(own)
		}
		return unacceptable("%s", own.Message)
	}
	return newProblem(http.StatusServiceUnavailable, "the cache is closed: this server is stopping, ask another one")
}

// message returns the text of an error for a client.
func message(err error) string {
	if own := (*aside.Error)(nil); errors.As(err, &own) {
		return own.Message
	}
	return err.Error()
}

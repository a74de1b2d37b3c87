package asidehttp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// A problem is an answer that refuses, in the form of RFC 9457.
type problem struct {
	status   int
	detail   string // what to send instead
	bodyRead bool   // to its end
}

func newProblem(status int, format string, args ...any) *problem {
	return &problem{status: status, detail: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, format, args...)
}

// unacceptable refuses what is understood and cannot be done.
func unacceptable(format string, args ...any) *problem {
	return newProblem(http.StatusUnprocessableEntity, format, args...)
}

func notAllowed(w http.ResponseWriter, methods, detail string) *problem {
	w.Header().Set("Allow", methods)
	return newProblem(http.StatusMethodNotAllowed, "%s", detail)
}

func (p *problem) write(w http.ResponseWriter) {
	write(w, p.status, "application/problem+json", struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(p.status), p.status, p.detail})
}

func write(w http.ResponseWriter, status int, kind string, body any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // it is not HTML, and says so
	_ = e.Encode(body)     // the client has gone: nobody is left to tell
}

// harden sets what every answer carries: it is for whoever asked, now, and nothing else than what it says it is.
func harden(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// goodbye is how long what a client goes on sending is thrown away for, when it has its answer already. A connection that is closed on
// a client that still sends would take the answer with it.
const goodbye = 500 * time.Millisecond

// leaveBody has an answer sent without waiting for the body of its request, which net/http would read first, to keep the connection:
// whoever sends it slowly would get no answer until the server's ReadTimeout, and would hold a connection that nobody has
// vouched for. The connection is closed afterwards. Over HTTP/2 the body is a stream of its own, which net/http ends by itself.
func leaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody || r.ProtoMajor > 1 {
		return
	}
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(goodbye)) // a recorder, or a writer of somebody's, may have none
}

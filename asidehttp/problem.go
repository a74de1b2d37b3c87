package asidehttp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// A problem is a response that refuses a request, in the form of RFC 9457.
type problem struct {
	status   int
	detail   string        // what to send instead
	bodyRead bool          // to its end
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
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(p.status), p.status, p.detail})
}

func write(w http.ResponseWriter, status int, kind string, body any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // it is not HTML, and says so
	_ = e.Encode(body)     // an error means that the client has gone
}

// harden sets the headers of every response: it must not be stored, and its type must not be guessed.
func harden(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// goodbye is how long further bytes of a client are discarded after its response. If the connection were closed while the client still sends, the
// response could be lost.
const goodbye = 500 * time.Millisecond

// leaveBody makes net/http send a response without reading the body of the request first, which it does to keep the connection. A client that
// sends the body slowly would otherwise get its response only at the server's ReadTimeout, and would hold a connection without a valid key.
// The connection is closed afterwards. Over HTTP/2 the body is a stream of its own, which net/http ends by itself.
func leaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody || r.ProtoMajor > 1 {
		return
	}
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(goodbye)) // a ResponseWriter of the program may have no deadline
}

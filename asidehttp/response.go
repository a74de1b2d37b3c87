package asidehttp

import (
	"encoding/json"
	"net/http"
	"time"
)

// write sends a response with a JSON body.
func write(w http.ResponseWriter, status int, kind string, body any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // Content-Type and nosniff say that it is not HTML
	_ = e.Encode(body)     // an error means that the client has closed the connection
}

// harden sets the headers of every response. They forbid storing it, and guessing its type.
func harden(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// goodbye is how long further bytes of a client are discarded after its response. The response could be lost if the connection were closed while
// the client still sends.
const goodbye = 500 * time.Millisecond

// leaveBody makes net/http send the response at once, and close the connection after it. By default net/http reads the body of the request before
// the response, to keep the connection. A client without a valid key could then hold a connection until the server's ReadTimeout, by sending its
// body slowly. Over HTTP/2 net/http ends the stream of the body by itself.
func leaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody || r.ProtoMajor > 1 {
		return
	}
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(goodbye)) // fails for a ResponseWriter of the program without deadlines
}

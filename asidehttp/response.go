package asidehttp

import (
	"encoding/json"
	"net/http"
	"time"
)

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

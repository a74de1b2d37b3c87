// Package page serves the files of the dashboard: a page, its style and its script, which hold nothing of a cache. They are served to anyone.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
)

//go:embed files
var files embed.FS

// policy is the Content-Security-Policy of all responses of a dashboard. Script and style are files of their own, and text becomes no markup: script
// cannot assign to innerHTML.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Harden sets the headers of every response of a dashboard, data included.
func Harden(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// A Server serves the files.
type Server struct{ byName map[string]file }

type file struct {
	body      []byte
	kind, tag string
}

var kinds = map[string]string{"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}

// New returns a Server. If session is set, the page sends the cookies of its own site with each request, and asks for a key only if that is refused.
func New(session bool) *Server {
	s := &Server{byName: make(map[string]file)}
	entries, err := files.ReadDir("files")
	for _, entry := range entries {
		var body []byte
		body, err = files.ReadFile("files/" + entry.Name())
		_, kind, _ := strings.Cut(entry.Name(), ".")
		if session && kind == "html" {
			body = bytes.Replace(body, []byte("<html "), []byte("<html data-session "), 1)
		}
		sum := sha256.Sum256(body)
		s.byName[entry.Name()] = file{body, kinds[kind], `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`}
	}
	if err != nil {
		panic(err) // the files are in the program
	}
	return s
}

// Name returns the end of a request's path, by which a dashboard knows what is asked for. So it works below any prefix, whether or not a mux or
// a proxy takes the prefix off. The name is empty for the page itself.
func Name(r *http.Request) string {
	path := pathOf(r)
	return path[strings.LastIndexByte(path, '/')+1:]
}

// pathOf is the path of a request, escaped. http.StripPrefix leaves nothing of a path that is the prefix: it is then the path that was sent.
func pathOf(r *http.Request) string {
	if r.URL.Path != "" {
		return r.URL.EscapedPath()
	}
	if sent, err := url.ParseRequestURI(r.RequestURI); err == nil {
		return sent.EscapedPath()
	}
	return "/"
}

// ServeHTTP answers a request for a file.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	Harden(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	name := Name(r)
	f, ok := s.byName[name]
	switch dest := r.Header.Get("Sec-Fetch-Dest"); {
	case name == "":
		f = s.byName["page.html"]
	case ok && name != "page.html":
	case dest != "" && dest != "document":
		http.Error(w, "there is no such file", http.StatusNotFound)
		return
	default: // the path of the page, without the slash that its relative URLs need
		w.Header().Set("Location", "./"+name+"/") // relative, since the path outside of a proxy is not known
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "no-cache") // with the ETag: a new version of the program has a new page at once
	w.Header().Set("ETag", f.tag)
	if r.Header.Get("If-None-Match") == f.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(f.body) // an error means that the client has closed the connection
}

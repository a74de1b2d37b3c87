package asidehttp

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatewayz/aside"
)

// ServeOptions configures [Serve]. The zero value is right for most responses: clients keep the body, and ask each time whether it is still right.
type ServeOptions struct {
	// MaxAge is until what age of the value clients and proxies use their copy without asking. The age counts from the start of the load, and not from
	// the response. If a value has been in the cache for longer than MaxAge, they ask each time: so set about the policy's TTL. An invalidation does
	// not reach their copies. For a value that the cache does not hold, or that Redis does not confirm (Result.TTL is 0), they ask each time. Default:
	// they ask each time (no-cache), which costs a request and a 304. Fractions of a second are cut off.
	MaxAge time.Duration

	// StaleWhileRevalidate is how long after MaxAge a client may use its copy while it asks for a newer one, and StaleIfError how long if it gets
	// none (RFC 5861). Default: not at all. Fractions of a second are cut off.
	StaleWhileRevalidate, StaleIfError time.Duration

	// Public allows proxies to keep the response too. Default: only the client itself keeps it (private).
	Public bool

	// Name is the cache's name in Cache-Status. Default: aside.
	Name string

	// Key is shown in Cache-Status, if it is set. Everyone who gets the response sees it.
	Key aside.Key
}

// Serve answers a request with a cached body, in the coding that the client prefers. It writes the bytes of the cache, and encodes nothing. For a
// client that takes no coding, Serve decodes the body while it writes. Serve sets Content-Type, Content-Encoding, Content-Length, Vary, ETag, Age and
// Cache-Control, and appends to Cache-Status ([SetCacheStatus]). It leaves other headers of the response as they are.
//
//	catalogue, err := aside.Lookup(ctx, c, Models.Key("all"), func(ctx context.Context) (asidehttp.Body, error) {
//		b, err := fetchAll(ctx)
//		return asidehttp.Pack("application/json", b), err // once, in the loader
//	})
//	if err != nil {
//		// answer with an error
//	}
//	asidehttp.Serve(w, r, catalogue, asidehttp.ServeOptions{MaxAge: time.Minute, Public: true})
//
// A GET or HEAD gets 304 if its If-None-Match has an ETag of the same content, in any coding. A client that excludes all available codings, and
// identity too, gets 406. If Pack has not made the Body, the response is 500. Serve does not answer with ranges, and looks at no other condition.
//
// Do not use compressing middleware on routes that Serve answers. A middleware that sets Content-Encoding before the handler, as gin-contrib/gzip
// does, encodes what the handler writes. Serve then writes the body without a coding, so that nothing is encoded twice.
func Serve(w http.ResponseWriter, r *http.Request, res aside.Result[Body], o ServeOptions) {
	h := w.Header()
	key := ""
	if o.Key != (aside.Key{}) {
		key = o.Key.String()
	}
	h.Add("Cache-Status", cacheStatus(statusOf(res), o.Name, key))
	p, err := res.Value.read()
	if err != nil {
		refuse(w, newProblem(http.StatusInternalServerError, "the cached value is %v", err))
		return
	}
	varyByCoding(h)
	outside := h.Get("Content-Encoding") // what a middleware encodes into
	coding := outside
	if outside == "" {
		coding = p.choose(r.Header)
	}
	if coding == "" {
		refuse(w, newProblem(http.StatusNotAcceptable, "accept %s, or no coding", p.names()))
		return
	}
	tag := p.tag(coding)
	if res.Status != "" && res.TTL <= 0 && res.Stale == 0 {
		// The value is not stored, was invalidated during its load, or Redis does not confirm it. A Result without a Status is not of a cache.
		o.MaxAge, o.StaleWhileRevalidate, o.StaleIfError = 0, 0, 0
	}
	h["Cache-Control"] = []string{o.cacheControl()}
	h["Age"] = []string{strconv.FormatInt(int64(max(0, res.Age)/time.Second), 10)}
	if reads(r) {
		if known, ok := p.known(r.Header, tag); ok {
			h["Etag"] = []string{known}
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	// A middleware ends its stream properly, and a client would take a part of the content for all of it. There is no length that it misses.
	if outside != "" && p.decodeTo(io.Discard) != nil {
		delete(h, "Age")
		refuse(w, newProblem(http.StatusInternalServerError, "the cached value does not decode"))
		return
	}
	h["Etag"] = []string{tag}
	h["Content-Type"] = []string{p.kind}
	v := p.find(coding)
	if outside != "" {
		v = nil
	}
	switch {
	case outside != "": // the middleware knows the length
	case v == nil:
		h["Content-Length"] = []string{strconv.FormatInt(p.size, 10)}
	default:
		if coding != identity {
			h["Content-Encoding"] = []string{coding}
		}
		h["Content-Length"] = []string{strconv.Itoa(len(v.data))}
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if v != nil {
		_, _ = w.Write(v.data) // an error means that the client has closed the connection
		return
	}
	_ = p.decodeTo(w)
}

// refuse answers with a problem, which no cache may keep.
func refuse(w http.ResponseWriter, p *problem) {
	harden(w.Header())
	p.write(w)
}

// varyByCoding adds Accept-Encoding to Vary, unless a middleware has done so.
func varyByCoding(h http.Header) {
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = trim(name); name == "*" || strings.EqualFold(name, "Accept-Encoding") {
				return
			}
		}
	}
	h.Add("Vary", "Accept-Encoding")
}

// names lists the codings, for a message.
func (p *packed) names() string {
	var names []string
	for _, v := range p.all() {
		if v.name != identity {
			names = append(names, v.name)
		}
	}
	if len(names) == 0 {
		return identity
	}
	return strings.Join(names, " or ")
}

func (o ServeOptions) cacheControl() string {
	b := make([]byte, 0, 96)
	if o.Public {
		b = append(b, "public, "...)
	} else {
		b = append(b, "private, "...)
	}
	if o.MaxAge <= 0 && o.StaleWhileRevalidate <= 0 && o.StaleIfError <= 0 {
		return string(append(b, "no-cache"...))
	}
	b = strconv.AppendInt(append(b, "max-age="...), int64(max(0, o.MaxAge)/time.Second), 10)
	if o.StaleWhileRevalidate > 0 {
		b = strconv.AppendInt(append(b, ", stale-while-revalidate="...), int64(o.StaleWhileRevalidate/time.Second), 10)
	}
	if o.StaleIfError > 0 {
		b = strconv.AppendInt(append(b, ", stale-if-error="...), int64(o.StaleIfError/time.Second), 10)
	}
	return string(b)
}

package asidehttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A poster sends targets to a front end. A Revalidator holds only its method, so that neither fmt nor reflection finds the secret or the URL in a
// Revalidator.
type poster struct {
	url     *url.URL
	query   bool
	header  string
	secret  string
	private []string // what no message may hold, the longest first
	client  *http.Client
}

func newPoster(o RevalidatorOptions, u *url.URL, client *http.Client) *poster {
	p := &poster{url: u, query: o.Query, header: o.SecretHeader, secret: o.Secret.Reveal(), client: client}
	p.private = append(p.private, p.secret, u.String(), u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery)
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		_, value, _ := strings.Cut(pair, "=")
		plain, _ := url.QueryUnescape(value)
		p.private = append(p.private, value, plain, url.QueryEscape(plain)) // the last is how it is sent beside a target
	}
	p.private = slices.DeleteFunc(p.private, func(text string) bool { return len(text) < 4 }) // those are in every message
	slices.SortFunc(p.private, func(a, b string) int { return len(b) - len(a) })
	return p
}

// notForSecrets are headers that HTTP, this package or intermediaries set: a secret in one of them would not arrive, or would be logged. A name
// that ends with a hyphen is a prefix.
var notForSecrets = []string{
	"Accept-Encoding", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Date", "Expect", "Host", "Keep-Alive",
	"Proxy-", "Range", "Referer", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent",
	// of proxies
	"Forwarded", "Forwarded-", "Via", "Client-Ip", "True-Client-Ip", "X-Forwarded-", "X-Original-", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip",
	// of those who trace requests
	"Baggage", "Traceparent", "Tracestate", "B3", "X-B3-", "X-Cloud-Trace-Context", "X-Correlation-Id", "X-Datadog-", "X-Request-Id", "X-Request-Start", "X-Trace-Id",
	// of clouds and delivery networks
	"Akamai-", "Cdn-Loop", "Cf-", "Fastly-", "Fly-", "X-Akamai-", "X-Amz-Cf-", "X-Amzn-", "X-Appengine-", "X-Arr-", "X-Azure-", "X-Envoy-", "X-Goog-Authenticated-", "X-Goog-Iap-", "X-Varnish",
}

func forSecrets(header string) bool {
	header = textproto.CanonicalMIMEHeaderKey(header)
	return !slices.ContainsFunc(notForSecrets, func(name string) bool {
		return header == name || strings.HasSuffix(name, "-") && strings.HasPrefix(header, name)
	})
}

// maxAnswerHead bounds the status line and the header of a response. Only the status is used.
const maxAnswerHead = 64 << 10

// ownTransport returns the transport of a Revalidator without a Client. If the program has replaced http.DefaultTransport, that is used.
func ownTransport() (transport http.RoundTripper, closeIdle func()) {
	shared, ok := http.DefaultTransport.(*http.Transport)
	if !ok || shared == nil {
		return http.DefaultTransport, func() {}
	}
	own := shared.Clone()
	if own.MaxResponseHeaderBytes == 0 {
		own.MaxResponseHeaderBytes = maxAnswerHead
	}
	return own, own.CloseIdleConnections
}

// post sends one target, and returns nil once it is acknowledged.
func (p *poster) post(ctx context.Context, target Target) *failure {
	name, value := "tag", target.Tag
	if target.Path != "" {
		name, value = "path", target.Path
	}
	to := *p.url
	var body []byte
	if p.query {
		query := to.Query()
		query.Set(name, value)
		to.RawQuery = query.Encode()
	} else {
		body, _ = json.Marshal(map[string]string{name: value}) // texts always encode
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return &failure{text: "the request cannot be made", final: true}
	}
	if !p.query {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "aside")
	req.Header.Set(p.header, p.secret)
	resp, err := p.client.Do(req)
	if err != nil {
		return &failure{text: p.cause(err)}
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) { // so that the connection can be used again
		return &failure{text: p.cause(err)}
	}
	answers := strings.TrimSpace("it answers " + strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)) // its own words may be anything
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code >= 500 || code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests:
		return &failure{text: answers, after: retryAfter(resp.Header.Get("Retry-After"))}
	case code < 400 || slices.Contains(unready, code):
		return &failure{text: answers, brief: true}
	default:
		return &failure{text: answers, final: true}
	}
}

// unready are the statuses of proxies, and of front ends without their configuration.
var unready = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest}

// maxCause bounds the text of an error, in bytes.
const maxCause = 256

// cause returns the text of a client's error, without the URL, which may contain a secret, and without data of the front end: net/http quotes it
// at any length, and it may contain the URL too.
func (p *poster) cause(err error) string {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	text, _, quotes := strings.Cut(err.Error(), `"`)
	if quotes {
		text = strings.TrimRight(text, " :=(") + " (…)"
	}
	for _, private := range p.private {
		text = strings.ReplaceAll(text, private, "…")
	}
	if len(text) > maxCause {
		text = fmt.Sprintf("%s…", strings.ToValidUTF8(text[:maxCause], ""))
	}
	return text
}

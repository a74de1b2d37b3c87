package asidehttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"
)

// A poster sends targets to a front end, one request each. A Revalidator holds only its method, so that neither fmt nor reflection finds the
// secret or the URL in a Revalidator.
type poster struct {
	url     *url.URL
	query   bool
	header  string
	secret  string
	timeout time.Duration
	client  *http.Client
	redact  redactor
}

// newPoster returns a poster, and a function that closes its idle connections.
func newPoster(o RevalidatorOptions, to *url.URL) (p *poster, closeIdle func()) {
	closeIdle = func() {}
	client := http.Client{}
	if o.Client != nil {
		client = *o.Client
	} else {
		client.Transport, closeIdle = ownTransport()
	}
	// net/http removes Authorization from a request that is redirected to another host, but not the header with the secret.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	secret := o.Secret.Reveal()
	return &poster{
		url: to, query: o.Query, header: o.SecretHeader, secret: secret,
		timeout: o.Timeout, client: &client, redact: newRedactor(secret, to),
	}, closeIdle
}

// maxAnswerHead bounds the status line and the header of a response. Only the status is used.
const maxAnswerHead = 64 << 10

// ownTransport returns the transport of a Revalidator without a Client. If the program has replaced
// http.DefaultTransport by a type of its own, it returns that one.
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

// heedWait is how long a Client may take to return after the end of its request.
const heedWait = 100 * time.Millisecond

// send is post with a timeout, which holds for a Client that ignores it too. A Client may also panic, or end its goroutine.
func (p *poster) send(ctx context.Context, target Target) *failure {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	done := make(chan *failure, 1)
	go func() {
		f := &failure{text: "the Client panicked, or ended its goroutine"}
		defer func() {
			_ = recover()
			done <- f
		}()
		f = p.post(ctx, target)
	}()
	select {
	case f := <-done:
		return f
	case <-ctx.Done():
	}
	t := time.NewTimer(heedWait)
	defer t.Stop()
	select {
	case f := <-done:
		return f
	case <-t.C:
		return &failure{text: "the Client ignores the end of its request"}
	}
}

// post sends one target, and returns nil once it is acknowledged.
func (p *poster) post(ctx context.Context, target Target) *failure {
	req, err := p.request(ctx, target)
	if err != nil {
		return &failure{text: "the request cannot be made", final: true}
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return &failure{text: p.redact.cause(err)}
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) { // a connection can be used again once its response is read
		return &failure{text: p.redact.cause(err)}
	}
	return failureOf(resp)
}

// request makes the request for a target.
func (p *poster) request(ctx context.Context, target Target) (*http.Request, error) {
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
		body, _ = json.Marshal(map[string]string{name: value}) // a map of strings has no encoding error
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if !p.query {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "aside")
	req.Header.Set(p.header, p.secret)
	return req, nil
}

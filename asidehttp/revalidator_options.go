package asidehttp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/logs"
)

// RevalidatorOptions configures a Revalidator. URL and Secret are required. Every other zero field stands for its default.
type RevalidatorOptions struct {
	// URL is the front end's revalidation endpoint. It may have a token in its query. Redirects are not followed: set the final URL.
	URL aside.Secret

	// Secret is sent with each request, in SecretHeader. Default for the header: X-Revalidate-Secret. Headers that HTTP, a proxy or a
	// delivery network sets by itself, such as Host, X-Forwarded-… and Cf-…, are refused.
	Secret       aside.Secret
	SecretHeader string

	// Query puts the target in the query, ?tag=… or ?path=…, with an empty body. Default: a JSON body, {"tag":…} or {"path":…}.
	Query bool

	// Map maps an invalidation to targets of the front end. Default: Tags.
	Map func(aside.Invalidation) []Target

	// Client sends the requests. Default: a client of its own, with a copy of http.DefaultTransport. Its CheckRedirect is not used.
	Client *http.Client

	// Timeout bounds one request, to the end of its response. Default: 5 s.
	Timeout time.Duration

	// Queue bounds the number of waiting targets, and the length of their names to 1 KiB for each place. If the queue is full, the Within tag
	// of a new target replaces all waiting targets within it. There are 256 more places for such tags, and for targets without Within. A target
	// without a place is lost, which is logged and counted. Default: 10,000.
	Queue int

	// Backoff is the pause after a failed request. It doubles with each consecutive failure, up to MaxBackoff. Each pause is shortened at
	// random, by up to a half. If a response has a longer Retry-After, that is the pause, up to MaxBackoff. Defaults: 500 ms and 30 s.
	Backoff, MaxBackoff time.Duration

	// GiveUpAfter is how long a target is retried after its last invalidation. A front end that is unavailable for less than that misses
	// nothing. Default: 15 min. After a redirect, 401, 403, 404, 405, 410 or 421, which another service may send during a deployment, a
	// target is retried for a minute. Other responses from 400 to 499 are final, except 408, 425 and 429.
	GiveUpAfter time.Duration

	// Logger gets a line at level Error when targets are lost, with their number and the first of them. It gets a line at level Warn when
	// requests to the front end begin to fail. Each is logged at most once in ten seconds. Default: slog.Default().
	Logger *slog.Logger
}

// Format writes neither the secret nor the URL's query, for any verb.
func (o RevalidatorOptions) Format(f fmt.State, _ rune) {
	host := ""
	if u, err := url.Parse(o.URL.Reveal()); err == nil {
		host = u.Host
	}
	fmt.Fprintf(f, "asidehttp.RevalidatorOptions{%s}", host)
}

// LogValue is Format for slog's handlers.
func (o RevalidatorOptions) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// MarshalText is Format for encoding/json.
func (o RevalidatorOptions) MarshalText() ([]byte, error) { return fmt.Append(nil, o), nil }

// complete returns the options with their defaults, and the parsed URL, or an error for each invalid option.
func (o RevalidatorOptions) complete() (RevalidatorOptions, *url.URL, error) {
	setDefault(&o.SecretHeader, "X-Revalidate-Secret")
	setDefault(&o.Timeout, 5*time.Second)
	setDefault(&o.Queue, 10_000)
	setDefault(&o.Backoff, 500*time.Millisecond)
	setDefault(&o.MaxBackoff, max(30*time.Second, o.Backoff))
	setDefault(&o.GiveUpAfter, 15*time.Minute)
	setDefault(&o.Logger, slog.Default())
	o.Logger = logs.Guard(o.Logger) // the loop and Send call it, and must not wait for its handler
	if o.Map == nil {
		o.Map = Tags
	}
	to, err := o.endpoint()
	if err := errors.Join(err, o.checkSecret(), o.checkLimits()); err != nil {
		return o, nil, err
	}
	return o, to, nil
}

// setDefault sets a field that is zero.
func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

func invalidOption(format string, args ...any) error {
	return fmt.Errorf("asidehttp: RevalidatorOptions."+format, args...)
}

// endpoint parses the URL. Its errors do not quote the URL, which may contain a secret.
func (o RevalidatorOptions) endpoint() (*url.URL, error) {
	u, err := url.Parse(o.URL.Reveal())
	var malformed, query error
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		malformed = invalidOption("URL is malformed: write https://host/path, without a user")
	}
	if err == nil && o.Query { // url.Query leaves out invalid parts, so that they would not be sent
		if _, err := url.ParseQuery(u.RawQuery); err != nil {
			query = invalidOption("URL has an invalid query: escape a semicolon as %%3B and a percent sign as %%25")
		}
	}
	return u, errors.Join(malformed, query)
}

// checkSecret returns an error if HTTP would change or drop the secret or its header.
func (o RevalidatorOptions) checkSecret() error {
	var bad [3]error
	if secret := o.Secret.Reveal(); secret != strings.TrimSpace(secret) {
		bad[0] = invalidOption("Secret begins or ends with white space, which HTTP removes: leave it out")
	} else if secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' && r != ' ' || r >= 0x7f }) {
		bad[0] = invalidOption("Secret is empty or has a character that a header cannot contain: use letters and digits")
	}
	if strings.ContainsFunc(o.SecretHeader, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) }) {
		bad[1] = invalidOption("SecretHeader %q is not the name of a header", o.SecretHeader)
	}
	if !forSecrets(o.SecretHeader) {
		bad[2] = invalidOption("SecretHeader %q is a header that HTTP, a proxy or this package sets by itself: the secret would not arrive; use one of your own, such as X-Revalidate-Secret", o.SecretHeader)
	}
	return errors.Join(bad[:]...)
}

// checkLimits returns an error for each duration or number that is out of range.
func (o RevalidatorOptions) checkLimits() error {
	var bad [3]error
	if o.Timeout < 0 || o.Backoff < 0 || o.GiveUpAfter < 0 {
		bad[0] = invalidOption("Timeout, Backoff or GiveUpAfter is negative: set a positive duration, or 0 for the default")
	}
	if o.Queue < 0 {
		bad[1] = invalidOption("Queue is %d: set a positive number, or 0 for the default", o.Queue)
	}
	if o.MaxBackoff < o.Backoff {
		bad[2] = invalidOption("MaxBackoff is %v: set at least Backoff, which is %v, or 0 for the default", o.MaxBackoff, o.Backoff)
	}
	return errors.Join(bad[:]...)
}

// notForSecrets are headers that HTTP, this package or an intermediary sets. A secret in one of them would not arrive, or would be logged. A name
// that ends with a hyphen is a prefix.
var notForSecrets = []string{
	"Accept-Encoding", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Date", "Expect", "Host", "Keep-Alive",
	"Proxy-", "Range", "Referer", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent",
	// of proxies
	"Forwarded", "Forwarded-", "Via", "Client-Ip", "True-Client-Ip", "X-Forwarded-", "X-Original-", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip",
	// of tracing
	"Baggage", "Traceparent", "Tracestate", "B3", "X-B3-", "X-Cloud-Trace-Context", "X-Correlation-Id", "X-Datadog-", "X-Request-Id", "X-Request-Start", "X-Trace-Id",
	// of clouds and delivery networks
	"Akamai-", "Cdn-Loop", "Cf-", "Fastly-", "Fly-", "X-Akamai-", "X-Amz-Cf-", "X-Amzn-", "X-Appengine-", "X-Arr-", "X-Azure-", "X-Envoy-", "X-Goog-Authenticated-", "X-Goog-Iap-", "X-Varnish",
}

// forSecrets reports whether a secret in such a header arrives.
func forSecrets(header string) bool {
	header = textproto.CanonicalMIMEHeaderKey(header)
	return !slices.ContainsFunc(notForSecrets, func(name string) bool {
		return header == name || strings.HasSuffix(name, "-") && strings.HasPrefix(header, name)
	})
}

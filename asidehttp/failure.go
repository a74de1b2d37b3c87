package asidehttp

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A failure says why a request to a front end was not acknowledged.
type failure struct {
	text  string
	final bool          // a retry would fail in the same way: the target is lost
	brief bool          // another service may have answered during a deployment: the target is retried for a minute
	after time.Duration // the response's Retry-After
}

// failureOf returns why a response does not acknowledge its target, or nil if it does. It uses the status alone, since the body may be anything.
func failureOf(resp *http.Response) *failure {
	answers := strings.TrimSpace("it answers " + strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode))
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

// unready are statuses that a proxy sends for a front end that is being deployed, or the front end without its configuration.
var unready = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest}

// retryAfter parses a Retry-After header, in seconds or as a date.
func retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(n, 0), 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return 0
}

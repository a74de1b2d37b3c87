package asidehttp

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A redactor removes secrets from the errors of a Client. It is the list of texts that no message may contain, the longest first.
type redactor []string

// newRedactor returns the redactor of a secret and of a URL. The URL may contain a token.
func newRedactor(secret string, u *url.URL) redactor {
	private := redactor{secret, u.String(), u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		_, value, _ := strings.Cut(pair, "=")
		plain, _ := url.QueryUnescape(value)
		private = append(private, value, plain, url.QueryEscape(plain)) // the last is the form in which a Revalidator with Query sends it
	}
	private = slices.DeleteFunc(private, func(text string) bool { return len(text) < 4 }) // so short a text occurs in any message
	slices.SortFunc(private, func(a, b string) int { return len(b) - len(a) })
	return private
}

// maxCause bounds the text of an error, in bytes.
const maxCause = 256

// cause returns the text of a Client's error. It leaves out the URL, which may contain a secret. It leaves out data of the front end too, which
// net/http quotes at any length, and which may contain the URL.
func (r redactor) cause(err error) string {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	text, _, quotes := strings.Cut(err.Error(), `"`)
	if quotes {
		text = strings.TrimRight(text, " :=(") + " (…)"
	}
	for _, private := range r {
		text = strings.ReplaceAll(text, private, "…")
	}
	if len(text) > maxCause {
		text = fmt.Sprintf("%s…", strings.ToValidUTF8(text[:maxCause], ""))
	}
	return text
}

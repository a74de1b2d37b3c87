package redisstore

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/redis/rueidis"
)

// A trouble is why a client could not be made, in words that were chosen where more was known than the error says: which server it came
// from, what the program has set, and which secrets must not be said.
type connectError struct {
	err    error
	reason string // what Describe says
	detail string // for the log alone; may be empty
}

func (t *connectError) Error() string { return t.err.Error() }
func (t *connectError) Unwrap() error { return t.err }

// untold is the error itself: the client library does not look into others.
func bareError(err error) error {
	if t, ok := err.(*connectError); ok {
		return t.err
	}
	return err
}

// Detail is what the log says of an error beside its description: a program's own function, or a server, has its own words for what went
// wrong. It is empty where the description says all. Nobody but the log is told.
func Detail(err error) string {
	if t, ok := err.(*connectError); ok {
		return t.detail
	}
	return ""
}

// mostSaid bounds, in bytes, what is said of the words of others.
const maxQuoted = 200

// A hookFailure is that of one of the program's functions.
type hookFailure struct {
	name   string
	err    error
	opaque bool // it has nothing to do with the connection, though it may be a time limit or a refused connection too
}

func (h *hookFailure) Error() string { return h.name + ": " + h.err.Error() }

func (h *hookFailure) Unwrap() error {
	if h.opaque {
		return nil
	}
	return h.err
}

func (h *hookFailure) describe() string { return h.name + " failed: the log has its error" }

// hooked is a dialer of the program's own, by its name.
func hooked(name string, dial dialFn) dialFn {
	return func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, dst, d, config)
		if err != nil {
			return nil, &hookFailure{name: name, err: err}
		}
		return conn, nil
	}
}

// errPrimary is that the server could not be reached that the Sentinels name.
type errPrimary struct{ err error }

func (e *errPrimary) Error() string { return "the primary: " + e.err.Error() }
func (e *errPrimary) Unwrap() error { return e.err }

func (e *errPrimary) describe() string {
	const primary = "the primary that the Sentinels name"
	text := describeFailure(e.err)
	if why, ok := strings.CutPrefix(text, connecting); ok {
		return primary + " cannot be reached: " + why
	}
	return primary + " cannot be reached: " + text
}

// An account is what is known of one attempt to make a client.
type account struct {
	replies firstReplies
	opt     rueidis.ClientOption
	hosts   []string
	mu      sync.Mutex
	secrets []string // guarded by mu
	alone   bool     // the credentials are a user name without a password; guarded by mu
}

func newAccount(opt rueidis.ClientOption) *account {
	a := &account{opt: opt, alone: opt.Username != "" && opt.Password == ""}
	a.secrets = append(a.secrets, opt.Username, opt.Password, opt.Sentinel.Username, opt.Sentinel.Password)
	for _, addr := range opt.InitAddress {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			addr = host
		}
		a.hosts = append(a.hosts, addr)
	}
	return a
}

// hide notes the credentials that the program's function has given. A client that renews them does so for as long as it lives.
func (a *account) hide(user, password string) {
	const most = 32
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alone = user != "" && password == ""
	for _, text := range []string{user, password} {
		if !slices.Contains(a.secrets, text) {
			a.secrets = append(a.secrets, text)
		}
	}
	if n := len(a.secrets); n > most {
		a.secrets = slices.Delete(a.secrets, 4, n-most+4) // those of the options stay
	}
}

// userAlone reports whether there is a user name without a password.
func (a *account) userAlone() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.alone
}

// credentials is the program's function for them. Whoever has set it sees to it that it returns, and does not panic.
func (a *account) credentials(fn func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error)) func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	return func(of rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		c, err := fn(of)
		a.hide(c.Username, c.Password)
		if err != nil {
			return rueidis.AuthCredentials{}, &hookFailure{name: "Options.Redis.AuthCredentialsFn", err: err, opaque: true}
		}
		return c, nil
	}
}

// tell finds the words for why a client could not be made.
func (a *account) explain(err error) error {
	if err == nil {
		return nil
	}
	err = a.replies.explain(err)
	if errors.As(err, new(*connectError)) {
		return err // of the attempt without tracking
	}
	c, reason, detail := code(err), Describe(err), ""
	var (
		handshake *errNoHandshake
		hook      *hookFailure
		refused   *refusal
	)
	switch {
	case errors.As(err, &refused):
	case (c == "NOAUTH" || c == "WRONGPASS") && a.replies.ofSentinel(c):
		reason = "a Sentinel answered " + c + ": "
		if c == "NOAUTH" {
			reason += "it asks for a password of its own: set Sentinel.Username and Sentinel.Password"
		} else {
			reason += "check Sentinel.Username and Sentinel.Password"
		}
	case c == "WRONGPASS" && a.userAlone():
		reason += ": there is a user name alone; a password without a user name is written redis://:password@host"
	case c != "" && reason == "redis answered "+c:
		// Whoever asks is shown the reason, and these words may name a user, a key or a host.
		if detail = a.quote(strings.TrimPrefix(serverMessage(err), c+" ")); detail != "" {
			reason += inTheLog
		}
	case c != "":
	case errors.As(err, &hook) && strings.HasSuffix(reason, hook.describe()):
		detail = a.quote(textOf(hook.err))
	case reason == unknownFailure || errors.As(err, &handshake) && reason == noAgreement:
		detail = a.quote(textOf(err))
	}
	return &connectError{err, reason, detail}
}

// textOf is that of an error of the program's, which may panic.
func textOf(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "the error has panicked"
		}
	}()
	return err.Error()
}

var (
	// What follows is what was sent, cut off somewhere: also in the middle of a password.
	quoted = regexp.MustCompile(`(?is)[,:]? *with args beginning with.*$`)
	ip     = regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?|\[?[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){3,7}\]?(?::\d+)?`)
)

const hidden = "[hidden]"

// inTheLog is what a reason says in place of words that the log alone may have.
const inTheLog = ": the log has its words"

// quote is a text of somebody else's as it may be said: without control characters, addresses, and what is secret; not too long.
func (a *account) quote(text string) string {
	text = quoted.ReplaceAllString(text[:min(len(text), 4096)], "")
	text = strings.ToValidUTF8(text, "")
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r) || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text)
	a.mu.Lock()
	for _, secret := range a.secrets {
		for _, form := range forms(secret) {
			text = redact(text, form, min(len(form), 4))
		}
	}
	a.mu.Unlock()
	for _, host := range a.hosts { // a health check names none
		text = redact(text, host, max(1, len(host)))
	}
	text = strings.TrimSpace(ip.ReplaceAllString(text, hidden))
	if len(text) > maxQuoted {
		text = strings.ToValidUTF8(text[:maxQuoted-len("…")], "") + "…"
	}
	return text
}

// forms are those in which somebody may quote what was sent.
func forms(secret string) []string {
	if secret == "" {
		return nil
	}
	q := strconv.Quote(secret)
	return []string{
		secret, q[1 : len(q)-1], url.QueryEscape(secret), url.PathEscape(secret),
		base64.RawStdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)),
	}
}

// redact hides a secret, and of what it begins with at least so many bytes: a server may quote a part. It compares without regard to
// case.
func redact(text, secret string, least int) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		n := 0
		for n < len(secret) && i+n < len(text) && lower(text[i+n]) == lower(secret[n]) {
			n++
		}
		if n >= least {
			b.WriteString(hidden)
			i += n
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	return b.String()
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

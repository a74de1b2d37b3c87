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

// A connectError is why a client could not be made. Its texts were chosen where more was known than the error says: which server
// it came from, what the program has set, and which secrets must not be shown.
type connectError struct {
	err    error
	reason string // the text of Describe
	detail string // for the log only; may be empty
}

func (t *connectError) Error() string { return t.err.Error() }
func (t *connectError) Unwrap() error { return t.err }

// bareError is the error without a connectError around it: rueidis does not unwrap errors.
func bareError(err error) error {
	if t, ok := err.(*connectError); ok {
		return t.err
	}
	return err
}

// Detail is what the log adds to the description of an error: the text of a program's own function, or of a server. It is empty
// where the description says all. It is for the log only.
func Detail(err error) string {
	if t, ok := err.(*connectError); ok {
		return t.detail
	}
	return ""
}

// maxQuoted bounds, in bytes, how much of the text of others is shown.
const maxQuoted = 200

// A hookFailure is the error of one of the program's functions.
type hookFailure struct {
	name   string
	err    error
	opaque bool // not about the connection, even if err is a time limit or a refused connection
}

func (h *hookFailure) Error() string { return h.name + ": " + h.err.Error() }

func (h *hookFailure) Unwrap() error {
	if h.opaque {
		return nil
	}
	return h.err
}

func (h *hookFailure) describe() string { return h.name + " failed: the log has its error" }

// hooked is a dial function of the program's own, with its name in errors.
func hooked(name string, dial dialFn) dialFn {
	return func(ctx context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, dst, d, config)
		if err != nil {
			return nil, &hookFailure{name: name, err: err}
		}
		return conn, nil
	}
}

// errPrimary means that the server that the Sentinels name could not be reached.
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

// hide notes the credentials that the program's function has returned. A client that renews them does so as long as it lives.
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

// credentials wraps the program's function for credentials. The program makes sure that it returns, and does not panic.
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

// explain makes a connectError of why a client could not be made.
func (a *account) explain(err error) error {
	if err == nil {
		return nil
	}
	err = a.replies.explain(err)
	if errors.As(err, new(*connectError)) {
		return err // from the attempt without tracking
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
		// The reason is public, and the server's text may name a user, a key or a host.
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

// textOf is the text of an error of the program's, whose Error may panic.
func textOf(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "the error has panicked"
		}
	}()
	return err.Error()
}

var (
	// What follows was sent by us, and may be cut anywhere, in the middle of a password too.
	quoted = regexp.MustCompile(`(?is)[,:]? *with args beginning with.*$`)
	ip     = regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?|\[?[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){3,7}\]?(?::\d+)?`)
)

const hidden = "[hidden]"

// inTheLog replaces text that only the log may have.
const inTheLog = ": the log has its words"

// quote makes the text of others fit to be shown: without control characters, addresses and secrets, and not too long.
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
	for _, host := range a.hosts { // a health check names no host
		text = redact(text, host, max(1, len(host)))
	}
	text = strings.TrimSpace(ip.ReplaceAllString(text, hidden))
	if len(text) > maxQuoted {
		text = strings.ToValidUTF8(text[:maxQuoted-len("…")], "") + "…"
	}
	return text
}

// forms are the forms in which a secret may be quoted.
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

// redact hides a secret, and beginnings of it from so many bytes on: a server may quote a part. It ignores case.
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

package aside

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/redis/rueidis"
)

// A Secret is a text that is not printed: a password, a key, a token, or a URL that contains one. It is kept in a function, so that neither fmt
// nor reflection shows it, even in an unexported field, where fmt does not call its methods. The zero Secret is an empty text.
type Secret struct {
	reveal func() string // the text is in the closure, not in a field
}

// NewSecret makes a Secret of a text, or of bytes, which it copies. An empty text makes the zero Secret.
func NewSecret[T ~string | ~[]byte](value T) Secret {
	if len(value) == 0 {
		return Secret{}
	}
	text := string(value)
	return Secret{func() string { return text }}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// String returns "[secret]", or "" for the zero Secret.
func (s Secret) String() string {
	if s.reveal == nil {
		return ""
	}
	return "[secret]"
}

// Format is String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is String for slog's handlers.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String for encoding/json.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Credentials returns a function for rueidis.ClientOption.AuthCredentialsFn, with a user name, which may be empty, and a password. Unlike the
// field Password, it shows no password where the options are printed as part of an unexported field. With Sentinels, rueidis uses the
// credentials for the Sentinels too.
func Credentials(user string, password Secret) func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	return func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		return rueidis.AuthCredentials{Username: user, Password: password.Reveal()}, nil
	}
}

// withoutCredentials returns the options as a cache keeps them. fmt prints the fields of a cache in an unexported field without calling its
// Format, for a verb such as %s that does not fit a pointer.
func withoutCredentials(o Options) Options {
	o.Redis.Username, o.Redis.Password = "", ""
	o.Redis.Sentinel.Username, o.Redis.Sentinel.Password = "", ""
	return o
}

// hidden moves the credentials to where they are not printed. Not with Sentinels, to which rueidis would send them too.
func hidden(r rueidis.ClientOption) rueidis.ClientOption {
	if r.Sentinel.MasterSet == "" && (r.Username != "" || r.Password != "") {
		r.AuthCredentialsFn = Credentials(r.Username, NewSecret(r.Password))
		r.Username, r.Password = "", ""
	}
	return r
}

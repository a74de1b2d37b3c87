package aside

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/redis/rueidis"
)

// A Secret is a text that is not to be printed: a password, a key, a token, or a URL that holds one. Whatever prints what it is a part
// of, it shows no secret: fmt does not ask values in unexported fields how they want to be printed, and neither does a
// program that goes through them by reflection; they find a function there. The zero Secret is an empty text.
type Secret struct {
	reveal func() string // what it returns lies in no field
}

// NewSecret makes a Secret of a text or of bytes, which it copies. An empty one is the zero Secret.
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

// String tells whether there is a secret, and not which.
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

// Credentials is a user's name, which may be empty, and a password, for rueidis.ClientOption.AuthCredentialsFn: a password in
// its field Password is a text that shows wherever a struct is printed that holds the options in an unexported field. With Sentinels,
// rueidis takes them for the Sentinels too.
func Credentials(user string, password Secret) func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	return func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		return rueidis.AuthCredentials{Username: user, Password: password.Reveal()}, nil
	}
}

// withoutCredentials returns the options as a cache keeps them: fmt goes through a cache in an unexported field, its own Format unasked,
// where a verb such as %s does not fit a pointer.
func withoutCredentials(o Options) Options {
	o.Redis.Username, o.Redis.Password = "", ""
	o.Redis.Sentinel.Username, o.Redis.Sentinel.Password = "", ""
	return o
}

// hidden returns the options with the password where nothing prints it. Sentinels would be sent it too, so with those it stays.
func hidden(r rueidis.ClientOption) rueidis.ClientOption {
	if r.Sentinel.MasterSet == "" && (r.Username != "" || r.Password != "") {
		r.AuthCredentialsFn = Credentials(r.Username, NewSecret(r.Password))
		r.Username, r.Password = "", ""
	}
	return r
}

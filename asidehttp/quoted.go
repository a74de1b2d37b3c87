package asidehttp

import (
	"encoding/json"
	"strings"

	"github.com/gatewayz/aside/internal/logs"
)

const (
	mostNamed  = 10  // names in a log line
	mostOfName = 128 // bytes of each name
)

// quoted is a list of names in a log line. Every slog handler writes it as a JSON list: the TextHandler would write [a b] for one name "a b" and
// for two names. Control characters are escaped, also those that encoding/json does not escape.
type quoted []string

// String is the list in JSON.
func (q quoted) String() string {
	text, _ := q.MarshalText()
	return string(text)
}

// MarshalText is String for slog's TextHandler.
func (q quoted) MarshalText() ([]byte, error) {
	text, err := json.Marshal([]string(q))
	return []byte(logs.Escape(string(text))), err
}

// MarshalJSON is for slog's JSONHandler, which would otherwise write MarshalText as a string.
func (q quoted) MarshalJSON() ([]byte, error) { return q.MarshalText() }

// shortened shortens a name for the log.
func shortened(name string) string {
	if len(name) > mostOfName {
		return strings.ToValidUTF8(name[:mostOfName], "") + "…"
	}
	return name
}

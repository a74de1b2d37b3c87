package asidehttp

import (
	"encoding/json"
	"strings"

	"github.com/gatewayz/aside/internal/logs"
)

const (
	mostNamed  = 10  // names in a line
	mostOfName = 128 // bytes of each
)

// quoted is a list of names in a log line: a JSON list with every handler. slog's TextHandler would write [a b] for one name and for two.
// Control characters are escaped, also those that encoding/json does not escape.
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

// MarshalJSON makes a JSONHandler write a list, and not a string.
func (q quoted) MarshalJSON() ([]byte, error) { return q.MarshalText() }

// shortened shortens a name for the log.
func shortened(name string) string {
	if len(name) > mostOfName {
		return strings.ToValidUTF8(name[:mostOfName], "") + "…"
	}
	return name
}

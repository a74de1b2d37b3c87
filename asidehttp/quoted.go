package asidehttp

import (
	"encoding/json"

	"github.com/gatewayz/aside/internal/logs"
)

// quoted is a list of names as it stands in a log line: as a list of JSON in every form of log. slog's TextHandler would write [a b] for
// one name and for two. Control characters are escaped in it, also those that encoding/json lets through.
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

// MarshalJSON has a JSONHandler write a list, not a text that holds one.
func (q quoted) MarshalJSON() ([]byte, error) { return q.MarshalText() }

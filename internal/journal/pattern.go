package journal

import (
	"github.com/gatewayz/aside/internal/glob"
	"github.com/gatewayz/aside/internal/keyspace"
)

// A Pattern is an entry for a pattern.
type Pattern struct {
	Name string // of the entry
	Text string
	Glob glob.Glob

	waiters []*Pending
}

// newPattern makes the pattern of an entry. The text was parsed before; a text that cannot be parsed matches no key.
func newPattern(name, text string) Pattern {
	g, _ := glob.Parse(text)
	return Pattern{Name: name, Text: text, Glob: g}
}

// Matches reports whether a key matches.
func (p Pattern) Matches(key string) bool { return p.Glob.Match(key) }

// Category is the category of all keys that match.
func (p Pattern) Category() string { return keyspace.CategoryOf(p.Glob.Prefix()) }

// Removed counts a value that was removed for the pattern.
func (p Pattern) Removed() {
	for _, w := range p.waiters {
		w.count.Removed.Add(1)
	}
}

// Failed releases callers that wait for the first scan.
func (p Pattern) Failed() {
	for _, w := range p.waiters {
		w.Fail()
	}
}

package aside

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/glob"
)

// A Pattern matches keys of one category. Policy.Match makes it from parts, as Policy.Key makes keys. ParsePattern parses text from users.
//
// The zero Pattern stands for all keys of all categories: Cache.Keys lists them, Cache.InvalidatePattern refuses it.
type Pattern struct {
	text string
	glob glob.Glob
	bad  string // why the pattern is invalid; empty for a valid one
}

type wildcard struct{}

// Wildcard is a part for Policy.Match that stands for any text, and like the asterisk of Redis' patterns for any number
// of further parts: Match("ABC", Wildcard) matches every key that begins with Key("ABC") and has at least one more part.
var Wildcard wildcard

const (
	maxPattern = 128 // bytes that ParsePattern takes
	maxStars   = 4   // Redis before 7.0.9 tries each asterisk at every position of a key
)

// String returns the pattern in Redis' syntax, such as "sessions:ABC:*", and "" for the zero Pattern and for an invalid one.
func (p Pattern) String() string { return p.text }

// Err returns nil for a valid pattern, otherwise an *Error with CodeInvalidPattern that says what is wrong.
func (p Pattern) Err() error {
	if p.bad == "" {
		return nil
	}
	return &Error{Code: CodeInvalidPattern, Message: p.bad}
}

func (p Pattern) all() bool { return p.text == "" && p.bad == "" }

// matches reports whether a key of a policy matches.
func (p Pattern) matches(key string) bool {
	if p.all() {
		return !strings.HasPrefix(key, "%")
	}
	return p.glob.Match(key)
}

// category is the category of all matching keys.
func (p Pattern) category() string {
	name, _, _ := strings.Cut(p.glob.Prefix(), ":")
	return name
}

// Match makes a pattern for keys of the policy's category. Each part is a string, an integer or Wildcard:
//
//	aside.TTL.SessionsList.Match(c.HashID(user), aside.Wildcard)   // sessions:…:*, everything about one user's sessions
//	aside.TTL.SessionsList.Match(aside.Wildcard)                   // sessions:*, like the category
//
// Parts are escaped as in keys, so that an asterisk in a string is no wildcard. A pattern can have up to four Wildcards.
// All policies of a category share its keys, so it does not matter on which of them Match is called.
func (p *Policy) Match(parts ...any) Pattern {
	if p == nil {
		return Pattern{bad: "a pattern of a nil Policy: declare one with a Category and a TTL"}
	}
	if p.Category == "" || !keyspace.Plain(p.Category) || p.Category == reservedCategory {
		return Pattern{bad: fmt.Sprintf("the Category of policy %q cannot be part of a key: see Policy.Category", p.name())}
	}
	text := []byte(p.Category)
	for i, part := range parts {
		text = append(text, ':')
		switch v := part.(type) {
		case wildcard:
			text = append(text, '*')
		case string:
			text = keyspace.AppendEscaped(text, v)
		default:
			ok := false
			if text, ok = appendReflected(text, part); !ok {
				return Pattern{bad: fmt.Sprintf("part %d of a pattern of policy %s is a %s: use a string, an integer or Wildcard", i+1, p.name(), typeName(part))}
			}
		}
	}
	return newPattern(string(text))
}

func newPattern(text string) Pattern {
	g, err := glob.Parse(text)
	if err != nil {
		return Pattern{bad: "invalid pattern: " + err.Error()}
	}
	if g.Stars() > maxStars {
		return Pattern{bad: "the pattern has more than " + strconv.Itoa(maxStars) + " wildcards: use fewer"}
	}
	return Pattern{text: text, glob: g}
}

// ParsePattern parses a Redis glob from user input, such as "sessions:ABC:*". An asterisk matches any text, colons included, ?
// any one byte, and [abc], [a-c] and [^abc] one byte that is in a set of ASCII characters, or not in it.
//
// The pattern is matched against the text of keys, in which special characters are percent-escaped: the id a*b is a%2Ab, in keys and in
// patterns. A pattern must begin with a literal category and its colon. It has at most 128 bytes and four asterisks. A pattern that matches
// no key, such as one with an unescaped brace, is refused. The error, an *Error with CodeInvalidPattern, says what to write instead.
func ParsePattern(text string) (Pattern, error) {
	if bad := checkPattern(text); bad != "" {
		return Pattern{}, &Error{Code: CodeInvalidPattern, Message: bad}
	}
	p := newPattern(text)
	return p, p.Err()
}

// checkPattern returns what is wrong with a pattern from user input, in addition to the checks of glob.Parse, and "" for a valid one. It quotes at
// most one character of the text.
func checkPattern(text string) string {
	const form = "write the category, a colon, and what its keys have in common, as in sessions:ABC:*"
	switch {
	case text == "":
		return "the pattern is empty: " + form
	case len(text) > maxPattern:
		return fmt.Sprintf("the pattern has %d bytes, more than %d: give a shorter prefix and an asterisk", len(text), maxPattern)
	case !utf8.ValidString(text):
		return "the pattern is not valid UTF-8: escape other bytes as keys do, as in %FF"
	}
	category, _, ok := strings.Cut(text, ":")
	switch {
	case !ok && !strings.ContainsAny(text, "*?["):
		return "the pattern is a category alone: " + form
	case category == reservedCategory:
		return "the category " + reservedCategory + " is reserved for everything: " + form
	case category == "" || strings.ContainsAny(category, `*?[\`) || !ok:
		return "the pattern does not begin with a category: " + form
	case !keyspace.Plain(category):
		return "the category of the pattern has a character that is not allowed in categories: " + form
	}
	class := false
	for i, r := range text {
		switch {
		case r == '{' || r == '}' || r == ']' && !class || unicode.IsControl(r):
			return fmt.Sprintf("keys contain no %q: write %s, as keys do", r, string(keyspace.AppendEscaped(nil, string(r))))
		case r == '[':
			class = true
		case r == ']':
			class = false
		case r == '\\' && i+1 < len(text) && !class:
			if next, _ := utf8.DecodeRuneInString(text[i+1:]); next != ':' && keyspace.Special(next) {
				return fmt.Sprintf("keys contain no %q, so a backslash before it matches nothing: write %s, as keys do", next, string(keyspace.AppendEscaped(nil, string(next))))
			}
		case r == '%' && !class:
			if bad := checkEscape(text[i:]); bad != "" {
				return bad
			}
		}
	}
	return ""
}

// checkEscape returns what is wrong with the escape at the beginning of text, "" for a valid one.
func checkEscape(text string) string {
	const bad = "a percent sign begins an escape of two upper-case hexadecimal digits, as in %2A: write %25 for the sign itself"
	if len(text) < 3 {
		return bad
	}
	c, err := strconv.ParseUint(text[1:3], 16, 8)
	if err != nil || strings.ToUpper(text[1:3]) != text[1:3] {
		return bad
	}
	if c < utf8.RuneSelf && !keyspace.Special(rune(c)) {
		return fmt.Sprintf("keys do not escape %q: write it instead of %s", rune(c), text[:3])
	}
	return ""
}

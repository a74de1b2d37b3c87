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

// A Pattern names keys of one category. Code makes it with Policy.Match, from the same parts as keys; ParsePattern reads one
// that somebody has written.
//
// The zero Pattern stands for all keys of all categories: Cache.Keys lists them, Cache.InvalidatePattern refuses it.
type Pattern struct {
	text string
	glob glob.Glob
	bad  string // why the pattern is invalid; empty for a valid one
}

type wildcard struct{}

// Wildcard is a part for Policy.Match that stands for any text, and, as the asterisk of Redis' patterns does, for any number
// of further parts too: Match("ABC", Wildcard) matches every key that begins with Key("ABC") and has at least one part more.
var Wildcard wildcard

const (
	maxPattern = 128 // bytes that ParsePattern takes
	maxStars   = 4   // servers before Redis 7.0.9 try each of them at every place of a key
)

// String returns the pattern as Redis gets it, such as "sessions:ABC:*"; "" for the zero Pattern and for an invalid one.
func (p Pattern) String() string { return p.text }

// Err returns nil for a pattern that can be used, else an *Error with CodeInvalidPattern that says what is wrong with it.
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

// category is what all keys begin with that match.
func (p Pattern) category() string {
	name, _, _ := strings.Cut(p.glob.Prefix(), ":")
	return name
}

// Match makes the pattern of those keys of the policy's category that have these parts, each of them a string, an integer or
// Wildcard:
//
//	aside.TTL.SessionsList.Match(c.HashID(user), aside.Wildcard)   // sessions:…:*, all that is kept of one user's sessions
//	aside.TTL.SessionsList.Match(aside.Wildcard)                   // sessions:*, like the category
//
// Parts are escaped as in keys, so text of users is always itself and never a pattern. A pattern can have up to four Wildcards.
// All policies of a category share its keys: which of them Match is called on makes no difference.
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
		return Pattern{bad: "the pattern cannot be read: " + err.Error()}
	}
	if g.Stars() > maxStars {
		return Pattern{bad: "the pattern has more than " + strconv.Itoa(maxStars) + " wildcards: use fewer"}
	}
	return Pattern{text: text, glob: g}
}

// ParsePattern reads a pattern as Redis understands it, such as "sessions:ABC:*": an asterisk is any text, colons included, ?
// any one byte, [abc], [a-c] and [^abc] one byte of a set of ASCII characters or outside of it.
//
// It is matched against keys as they stand in Redis. There, whatever has a meaning in patterns is percent-escaped: the id a*b
// is written a%2Ab, and a pattern names it in the same way. A literal prefix is required, the category and its colon at least; so
// a pattern never reaches beyond a category, and a lone asterisk is refused. A pattern has at most 128 bytes and four asterisks.
// What can match no key, such as an unescaped brace, is refused too: the error, an *Error with CodeInvalidPattern, says what to
// write instead.
func ParsePattern(text string) (Pattern, error) {
	if bad := checkPattern(text); bad != "" {
		return Pattern{}, &Error{Code: CodeInvalidPattern, Message: bad}
	}
	p := newPattern(text)
	return p, p.Err()
}

// checkPattern says what is wrong with a pattern that somebody has written, beyond what glob.Parse sees; "" if nothing is. It
// repeats no more of the text than a character.
func checkPattern(text string) string {
	const form = "write the category, a colon, and what its keys have in common, as in sessions:ABC:*"
	switch {
	case text == "":
		return "the pattern is empty: " + form
	case len(text) > maxPattern:
		return fmt.Sprintf("the pattern has %d bytes, more than %d: give a shorter prefix and an asterisk", len(text), maxPattern)
	case !utf8.ValidString(text):
		return "the pattern is not valid UTF-8: write bytes that are none as they stand in keys, as in %FF"
	}
	category, _, ok := strings.Cut(text, ":")
	switch {
	case !ok && !strings.ContainsAny(text, "*?["):
		return "the pattern names no more than a category: " + form
	case category == reservedCategory:
		return "the category " + reservedCategory + " is reserved for everything: " + form
	case category == "" || strings.ContainsAny(category, `*?[\`) || !ok:
		return "the pattern does not begin with a category: " + form
	case !keyspace.Plain(category):
		return "the category of the pattern holds a character that no category has: " + form
	}
	class := false
	for i, r := range text {
		switch {
		case r == '{' || r == '}' || r == ']' && !class || unicode.IsControl(r):
			return fmt.Sprintf("keys hold no %q: write %s, as it stands in them", r, string(keyspace.AppendEscaped(nil, string(r))))
		case r == '[':
			class = true
		case r == ']':
			class = false
		case r == '\\' && i+1 < len(text) && !class:
			if next, _ := utf8.DecodeRuneInString(text[i+1:]); next != ':' && keyspace.Special(next) {
				return fmt.Sprintf("keys hold no %q, so a backslash before it matches nothing: write %s, as it stands in them", next, string(keyspace.AppendEscaped(nil, string(next))))
			}
		case r == '%' && !class:
			if bad := checkEscape(text[i:]); bad != "" {
				return bad
			}
		}
	}
	return ""
}

// checkEscape says what is wrong with the escape that text begins with.
func checkEscape(text string) string {
	const bad = "a percent sign begins an escape of two upper-case hexadecimal digits, as in %2A, and stands for itself as %25"
	if len(text) < 3 {
		return bad
	}
	c, err := strconv.ParseUint(text[1:3], 16, 8)
	if err != nil || strings.ToUpper(text[1:3]) != text[1:3] {
		return bad
	}
	if c < utf8.RuneSelf && !keyspace.Special(rune(c)) {
		return fmt.Sprintf("keys hold %q as it is, not as %s: write it so", rune(c), text[:3])
	}
	return ""
}

// Package glob matches keys against the patterns of Redis' SCAN, byte for byte as the server does: * is any number of bytes,
// ? any one, [a-z] one of a set and [^a-z] one of none, and a backslash takes the next byte as it is.
package glob

import (
	"errors"
	"strings"
)

// A Glob is a parsed pattern. The zero one matches the empty text alone.
type Glob struct {
	prefix string // literal, at the start
	tokens []token
}

type kind uint8

const (
	literal kind = iota
	one
	many
	set
)

type token struct {
	kind kind
	text string // of a literal
	set  *[256 / 64]uint64
}

// What Parse refuses. Redis takes these patterns too, but for something else than they look like.
var (
	ErrEscape = errors.New("it ends with a backslash")
	ErrClass  = errors.New("a [ has no ] after it")
	ErrEmpty  = errors.New("a class is empty")
	ErrRange  = errors.New("a class holds a byte beyond ASCII")
)

// Parse reads a pattern.
func Parse(text string) (Glob, error) {
	var tokens []token
	var run strings.Builder
	flush := func() {
		if run.Len() > 0 {
			tokens = append(tokens, token{kind: literal, text: run.String()})
			run.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '*':
			flush()
			if n := len(tokens); n == 0 || tokens[n-1].kind != many {
				tokens = append(tokens, token{kind: many})
			}
		case '?':
			flush()
			tokens = append(tokens, token{kind: one})
		case '[':
			flush()
			members, end, err := parseSet(text, i+1)
			if err != nil {
				return Glob{}, err
			}
			tokens = append(tokens, token{kind: set, set: members})
			i = end
		case '\\':
			if i++; i == len(text) {
				return Glob{}, ErrEscape
			}
			run.WriteByte(text[i])
		default:
			run.WriteByte(c)
		}
	}
	flush()
	g := Glob{tokens: tokens}
	if len(tokens) > 0 && tokens[0].kind == literal {
		g.prefix, g.tokens = tokens[0].text, tokens[1:]
	}
	return g, nil
}

// parseSet reads a class from behind its [ on, and returns where its ] is. The order of its cases is the server's: in [a-]
// the range is from a to ], and goes on.
func parseSet(text string, i int) (members *[4]uint64, end int, err error) {
	members = new([4]uint64)
	add := func(from, to byte) {
		if from > to {
			from, to = to, from
		}
		for c := int(from); c <= int(to); c++ {
			members[c>>6] |= 1 << (c & 63)
		}
	}
	not := i < len(text) && text[i] == '^'
	if not {
		i++
	}
	for first := i; ; i++ {
		switch {
		case i >= len(text):
			return nil, 0, ErrClass
		case text[i] >= 0x80:
			return nil, 0, ErrRange // whether it is negative there depends on the server's processor
		case text[i] == '\\' && i+1 < len(text):
			if i++; text[i] >= 0x80 {
				return nil, 0, ErrRange
			}
			add(text[i], text[i])
		case text[i] == ']':
			if i == first {
				return nil, 0, ErrEmpty
			}
			if not {
				for j := range members {
					members[j] = ^members[j]
				}
			}
			return members, i, nil
		case i+2 < len(text) && text[i+1] == '-':
			if text[i+2] >= 0x80 {
				return nil, 0, ErrRange
			}
			add(text[i], text[i+2])
			i += 2
		default:
			add(text[i], text[i])
		}
	}
}

// Prefix is what every text begins with that the pattern matches.
func (g Glob) Prefix() string { return g.prefix }

// Stars is how many runs of asterisks the pattern has. A server older than Redis 7.0.9 may try as many places as a power of
// that of the text's length.
func (g Glob) Stars() (n int) {
	for _, t := range g.tokens {
		if t.kind == many {
			n++
		}
	}
	return n
}

// Match reports whether the whole text matches. Its time is bounded by the product of the two lengths.
func (g Glob) Match(text string) bool {
	rest, ok := strings.CutPrefix(text, g.prefix)
	if !ok {
		return false
	}
	// Of the asterisks only the last one that was met needs another try: an earlier one that took more would leave less for
	// what has matched already.
	tokens := g.tokens
	var behind []token // the last asterisk, and the text that is left where it takes nothing more
	var left string
	tried := false
	for {
		if len(tokens) == 0 && rest == "" {
			return true
		}
		if len(tokens) > 0 {
			if t := tokens[0]; t.kind == many {
				if tokens = tokens[1:]; len(tokens) == 0 {
					return true
				}
				behind, left, tried = tokens, rest, true
				continue
			} else if n := t.match(rest); n > 0 {
				tokens, rest = tokens[1:], rest[n:]
				continue
			}
		}
		if !tried || left == "" {
			return false
		}
		left = left[1:]
		tokens, rest = behind, left
	}
}

// match returns how many bytes the token takes at the start of text, 0 where it does not match.
func (t token) match(text string) int {
	switch {
	case t.kind == literal:
		if strings.HasPrefix(text, t.text) {
			return len(t.text)
		}
	case text == "":
	case t.kind == one:
		return 1
	case t.set[text[0]>>6]&(1<<(text[0]&63)) != 0:
		return 1
	}
	return 0
}

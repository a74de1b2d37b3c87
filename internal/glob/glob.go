// Package glob matches keys against the patterns of Redis' SCAN, byte for byte as the server does. * stands for any number of bytes, and
// ? for any one byte. [a-z] stands for a byte of a set, and [^a-z] for a byte outside of it. A backslash takes the next byte literally.
package glob

import (
	"errors"
	"strings"
)

// A Glob is a parsed pattern. The zero Glob matches only the empty text.
type Glob struct {
	prefix string // the literal text at the start
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

// The errors of Parse. Redis accepts these patterns too, but they do not mean there what they look like.
var (
	ErrEscape = errors.New("it ends with a backslash")
	ErrClass  = errors.New("a [ has no ] after it")
	ErrEmpty  = errors.New("a class is empty")
	ErrRange  = errors.New("a class holds a byte beyond ASCII")
)

// Parse parses a pattern.
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

// parseSet parses a class. i is the position after its [, and end the position of its ]. The order of the cases is the server's: in [a-]
// the range is from a to ], and the class goes on after it.
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
			return nil, 0, ErrRange // the server's processor decides whether such a byte is negative there
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

// Prefix returns the text with which every match of the pattern begins.
func (g Glob) Prefix() string { return g.prefix }

// Stars returns how many runs of asterisks the pattern has. A server older than Redis 7.0.9 may try as many positions as the length of the
// text to the power of that number.
func (g Glob) Stars() (n int) {
	for _, t := range g.tokens {
		if t.kind == many {
			n++
		}
	}
	return n
}

// Match reports whether the whole text matches. Its time is bounded by the product of the lengths of pattern and text.
func (g Glob) Match(text string) bool {
	rest, ok := strings.CutPrefix(text, g.prefix)
	if !ok {
		return false
	}
	// Only the last asterisk so far needs another try. If an earlier asterisk took more, less text would be left for the tokens that have
	// matched already.
	tokens := g.tokens
	var behind []token // the tokens after the last asterisk; left is the text after the bytes that it takes
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

// match returns how many bytes at the start of text the token takes, or 0 if it does not match.
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

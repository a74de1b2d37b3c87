package aside

import (
	"maps"
	"slices"
	"strings"

	"github.com/gatewayz/aside/internal/keyspace"
)

// Policies returns what the cache knows by name: Options.Policies and those met in calls so far, rows of TTL included, as
// far as it keeps them in mind: see Policy. They are sorted by name, and copies. On a nil cache there are none.
func (c *Cache) Policies() []Policy {
	if c == nil || c.clock == nil {
		return nil
	}
	known := c.plans.all()
	list := make([]Policy, 0, len(known))
	for _, name := range slices.Sorted(maps.Keys(known)) {
		list = append(list, known[name].policy)
	}
	return list
}

// ParseKey is the way back from Key.String: it makes a key of the text of one, for tools that get keys as they stand in Redis.
// Code that has the parts uses Key. The text must be one that the policy's Key makes, to the byte: an escape too many or too few,
// or another category, is an *Error with CodeInvalidKey. Different texts therefore never make one key.
//
// Policies of one category share their keys' first part, so that a text may come from any of them. That is no matter to
// Cache.Invalidate; to load by a key, parse it with the policy that it was made by.
func (p *Policy) ParseKey(text string) (Key, error) {
	if p == nil {
		return Key{}, p.Key().Err()
	}
	bad := func(message string) (Key, error) { return Key{}, &Error{Code: CodeInvalidKey, Message: message} }
	category, rest, found := strings.Cut(text, ":")
	if category != p.Category {
		return bad("not a key of category " + p.Category + ": it would begin with " + p.Category + ":")
	}
	var parts []any
	for more := found; more; {
		var part string
		part, rest, more = strings.Cut(rest, ":")
		unescaped, ok := keyspace.Unescape(part)
		if !ok {
			return bad("a percent sign in a key begins an escape, such as %3A for a colon: write a percent sign of the text itself as %25")
		}
		parts = append(parts, unescaped)
	}
	// What is escaped again must be what came in.
	key := p.Key(parts...)
	if key.text != text {
		return bad("not as Policy.Key writes it: of a part, the bytes : * ? [ ] \\ { } %, control characters and what is not UTF-8 are percent-escaped in upper case, and nothing else is")
	}
	return key, nil
}

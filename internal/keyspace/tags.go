// Package keyspace is the grammar of the names in Redis: keys of policies, which begin with their category, and the names of tags, which
// begin with a percent sign that is no escape, so that no key of a policy is ever one of them.
package keyspace

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatewayz/aside/internal/wire"
)

// Everything that can be invalidated as a whole has a tag, and every tag has a generation in Redis, a number that never repeats. A tag
// is named by the key of its generation.
const (
	All            = "%all"  // the tag of every entry
	CategoryPrefix = "%c:"   // and a category: the tag of each of its entries
	NamedPrefix    = "%t:"   // and an escaped name that the program has given: see NamedTags
	Sequence       = "%tags" // is on no entry: it changes before any named tag does
	ErasurePrefix  = "%e:"   // and a category: is on no entry; each invalidation of the category by pattern changes it
	PatternPrefix  = "%p:"   // and a pattern: how the invalidation of that is called; it is no tag
)

// MaxTags is how many tags an entry can have beside those of its category and of everything.
const MaxTags = wire.MaxTags - 2

// CategoryTag is the tag of a category's entries.
func CategoryTag(category string) string { return CategoryPrefix + category }

// ErasureTag is what an invalidation of a category by pattern changes.
func ErasureTag(category string) string { return ErasurePrefix + category }

// IsTag reports whether a name is one that an entry can carry, or that changes with those. Only such a name is ever read as a tag: an
// entry may be forged, and name any key of the server.
func IsTag(name string) bool {
	return name == All || name == Sequence || strings.HasPrefix(name, CategoryPrefix) || strings.HasPrefix(name, ErasurePrefix) || IsNamed(name)
}

// OnlyTags reports whether all names that an entry carries as tags are names of tags. A forged entry may name any key of the server.
func OnlyTags(tags []wire.Tag) bool {
	return !slices.ContainsFunc(tags, func(t wire.Tag) bool { return !IsTag(t.Name) })
}

// IsNamed reports whether a name is that of a tag that the program has named.
func IsNamed(name string) bool { return strings.HasPrefix(name, NamedPrefix) }

// NamedTags makes tags of the names that the program gives them.
func NamedTags(names []string) ([]string, error) {
	tags := make([]string, 0, len(names))
	for _, name := range names {
		if name == "" {
			return nil, fmt.Errorf("empty tag: give each tag a name")
		}
		tag := string(AppendEscaped([]byte(NamedPrefix), name))
		if len(tag) > wire.MaxTagName {
			return nil, fmt.Errorf("the tag %s… is too long: with its special characters escaped, a tag has at most %d bytes",
				name[:20], wire.MaxTagName-len(NamedPrefix))
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

// GivenNames are the names that the program has given to those of the tags that it has named.
func GivenNames[T any](tags []T, tagOf func(T) string) (names []string) {
	for _, tag := range tags {
		if name, ok := strings.CutPrefix(tagOf(tag), NamedPrefix); ok {
			names = append(names, GivenName(name))
		}
	}
	return names
}

// GivenName is the name behind NamedPrefix as the program has given it. One that is malformed, which nobody but another program can have
// written, stays as it is.
func GivenName(escaped string) string {
	if name, ok := Unescape(escaped); ok {
		return name
	}
	return escaped
}

// CategoryOf is the category of a key.
func CategoryOf(key string) string {
	name, _, _ := strings.Cut(key, ":")
	return name
}

// InOneOf reports whether a name in Redis can be the key of a value in one of categories: leases and the like have braces.
func InOneOf(categories map[string]bool, name string) bool {
	return categories[CategoryOf(name)] && !strings.ContainsAny(name, "{}")
}

// ScanPattern is the pattern by which to have Redis show all keys of categories. Redis has to go through all of its keys for each pattern,
// so several categories are not asked for one by one.
func ScanPattern(categories map[string]bool) string {
	if len(categories) != 1 {
		return ""
	}
	for name := range maps.Keys(categories) {
		return name + "*"
	}
	return ""
}

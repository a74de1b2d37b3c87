package redisstore

import (
	"strconv"
	"strings"
)

// A namespace is what all names in Redis begin with, or what follows the brace of those that begin with one. An empty one
// changes nothing.
type namespace string

// name is what key is called in Redis.
func (n namespace) name(key string) string { return string(n) + key }

// own returns the key that is called name in Redis. It returns false for a name that is somebody else's.
func (n namespace) own(name string) (key string, ok bool) {
	if n == "" {
		return name, true
	}
	if inner, ok := strings.CutPrefix(name, "{"); ok {
		key, ok = strings.CutPrefix(inner, string(n))
		return "{" + key, ok
	}
	return strings.CutPrefix(name, string(n))
}

// ownOf are the keys of those names that are not somebody else's.
func (n namespace) ownOf(names []string) []string {
	if n == "" {
		return names
	}
	keys := names[:0]
	for _, name := range names {
		if key, ok := n.own(name); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// pattern is the one of Redis' for names whose keys match a pattern; an empty one matches all that begin as keys do. A
// namespace holds nothing that has a meaning in patterns.
func (n namespace) pattern(match string) string {
	switch {
	case n == "":
		return match
	case match == "":
		return string(n) + "*"
	case match[0] == '{':
		return "{" + string(n) + match[1:]
	}
	return string(n) + match
}

// isInternal reports whether a name is none of a key or a tag: that of a lease, of a chunk, or of what a process keeps for itself.
// The server tells of changes of those too, since scripts read them.
func (n namespace) isInternal(name string) bool {
	if name == "" {
		return true
	}
	if name[0] == '{' {
		return strings.HasSuffix(name, "}!l") || strings.Contains(name, "}!c:")
	}
	own, _ := strings.CutPrefix(name, string(n))
	return strings.HasPrefix(own, probeName) || strings.HasPrefix(own, watermarkName) || strings.HasPrefix(own, watchName) || strings.HasPrefix(own, "%{")
}

// pair is where key and its lease lie, as the scripts take them.
func (s *Store) pair(key string) []string {
	name := s.namespace.name(key)
	return []string{name, leaseKey(name)}
}

// named are what keys are called.
func (s *Store) names(keys []string) []string {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = s.namespace.name(key)
	}
	return names
}

// leaseKey is where the lease of key lies. An escaped key holds no braces, so the tag is the whole key.
func leaseKey(key string) string { return "{" + key + "}!l" }

// chunkKey is where a chunk lies, in the same slot of a cluster as its value.
func chunkKey(key, nonce string, i int) string {
	return "{" + key + "}!c:" + nonce + ":" + strconv.Itoa(i)
}

// KeyOfLease returns the key whose lease lies under name, if it is one.
func KeyOfLease(name string) (key string, ok bool) {
	const before, after = "{", "}!l"
	if len(name) < len(before)+len(after) || name[:1] != before || name[len(name)-len(after):] != after {
		return "", false
	}
	return name[len(before) : len(name)-len(after)], true
}

// LeasePattern is the pattern of the leases of the keys that match a pattern.
func LeasePattern(match string) string { return leaseKey(match) }

// What this process has written down at each server begins with these, and what it tries one with.
const (
	watermarkName = "%mark:"
	probeName     = "%probe:"
)

// watchName is what the names begin with of the keys that connections are tried with.
const watchName = "%watch:"

// ownName is a name of this process's that a node has: of a server that has everything the name itself, in a cluster the first of a row
// that falls into a slot of the node.
func ownName(owned *slotSet, name string) string {
	if owned == nil || owned.empty() {
		return name
	}
	for i := range mostNames {
		if n := name + ":" + strconv.Itoa(i); owned.has(slotOf(n)) {
			return n
		}
	}
	return name
}

// mostNames are tried: enough for a node with a single slot, but for one time in e^64.
const mostNames = 64 * slots

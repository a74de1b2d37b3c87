package redisstore

import (
	"strconv"
	"strings"
)

// A namespace is the prefix of all names in Redis. In a name with a leading brace it follows the brace. An empty namespace changes
// nothing.
type namespace string

// name is the name of key in Redis.
func (n namespace) name(key string) string { return string(n) + key }

// own returns the key with this name in Redis, and false for a name outside of the namespace.
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

// ownOf returns the keys of those names that are in the namespace.
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

// pattern is Redis' pattern of the names of the keys that match a pattern. An empty one matches all names that begin as keys do. A
// namespace contains no special characters of patterns.
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

// isInternal reports whether a name is that of a lease, of a chunk, or of a key that a process keeps for itself, and not of a key
// or a tag. The server pushes changes of those too, since scripts read them.
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

// pair is the names of key and of its lease, as the scripts take them.
func (s *Store) pair(key string) []string {
	name := s.namespace.name(key)
	return []string{name, leaseKey(name)}
}

// names are the names of keys in Redis.
func (s *Store) names(keys []string) []string {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = s.namespace.name(key)
	}
	return names
}

// leaseKey is the name of the lease of key. An escaped key contains no braces, so the hash tag is the whole key.
func leaseKey(key string) string { return "{" + key + "}!l" }

// chunkKey is the name of a chunk, in the same slot of a cluster as its value.
func chunkKey(key, nonce string, i int) string {
	return "{" + key + "}!c:" + nonce + ":" + strconv.Itoa(i)
}

// KeyOfLease returns the key whose lease has this name, if it is the name of a lease.
func KeyOfLease(name string) (key string, ok bool) {
	const before, after = "{", "}!l"
	if len(name) < len(before)+len(after) || name[:1] != before || name[len(name)-len(after):] != after {
		return "", false
	}
	return name[len(before) : len(name)-len(after)], true
}

// KeyOfChunk returns the key whose value has a chunk of this name, and the nonce of the fill that has stored the chunk, if it is the name of a
// chunk.
func KeyOfChunk(name string) (key, nonce string, ok bool) {
	inner, ok := strings.CutPrefix(name, "{")
	key, rest, found := strings.Cut(inner, "}!c:")
	nonce, _, numbered := strings.Cut(rest, ":")
	return key, nonce, ok && found && numbered
}

// LeasePattern is the pattern of the leases of the keys that match a pattern.
func LeasePattern(match string) string { return leaseKey(match) }

// Prefixes of keys of this process: of its watermark at each server, and of the key on which commands are tried.
const (
	watermarkName = "%mark:"
	probeName     = "%probe:"
)

// watchName is the prefix of the keys by which connections are probed.
const watchName = "%watch:"

// ownName makes a name of this process that a node has. For a server that has all slots it is the name itself, in a cluster the
// first of a row that falls into a slot of the node.
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

// mostNames bounds how many names are tried: enough for a node with a single slot, but for one time in e^64.
const mostNames = 64 * slots

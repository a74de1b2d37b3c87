package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// mostSampled is how many keys of a server are looked at.
const mostSampled = 1000

// A sample is what a part of a server's keys shows. Its keys are names without the namespace.
type sample struct {
	x          *examination
	categories map[string]bool // whether a name before a colon is a category
	values     int
	versions   map[byte]int
	foreign    []string // in a category, and no values
	endless    []string // leases that never end
	orphans    []string // chunks without their value
	denied     []string // what the user may not read
}

// keys looks at a sample of the keys.
func (x *examination) keys(ctx context.Context, node rueidis.Client) {
	s := sample{x: x, categories: map[string]bool{}, versions: map[byte]int{}}
	seen := map[string]bool{}
	match := x.prefix + "*"
	if x.prefix != "" {
		match = "*" + x.prefix + "*" // leases and chunks begin with a brace
	}
	for cursor, rounds := uint64(0), 0; rounds < mostSampled && len(seen) < mostSampled; rounds++ {
		page, err := doAt(ctx, node, "SCAN", fmt.Sprint(cursor), "MATCH", match, "COUNT", "250").AsScanEntry()
		if err != nil {
			x.unchecked("keys", err)
			return
		}
		for _, name := range page.Elements {
			if key, ok := x.keyOf(name); ok && !seen[key] && len(seen) < mostSampled {
				seen[key] = true
				if err := s.look(ctx, key); err != nil {
					x.unchecked("keys", err)
					return
				}
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			break
		}
	}
	s.report(len(seen))
}

// keyOf is the key with a name in Redis, and false for a name outside of the namespace.
func (x *examination) keyOf(name string) (string, bool) {
	if inner, ok := strings.CutPrefix(name, "{"); ok {
		key, ok := strings.CutPrefix(inner, x.prefix)
		return "{" + key, ok
	}
	return strings.CutPrefix(name, x.prefix)
}

// name is the name of a key in Redis.
func (s *sample) name(key string) string {
	if inner, ok := strings.CutPrefix(key, "{"); ok {
		return "{" + s.x.prefix + inner
	}
	return s.x.prefix + key
}

func (s *sample) look(ctx context.Context, key string) error {
	if of, ok := redisstore.KeyOfLease(key); ok {
		return s.lease(ctx, key, of)
	}
	if of, nonce, ok := redisstore.KeyOfChunk(key); ok {
		return s.chunk(ctx, key, of, nonce)
	}
	if strings.ContainsAny(key, "{}") || strings.HasPrefix(key, "%") {
		return nil
	}
	known, err := s.isCategory(ctx, keyspace.CategoryOf(key))
	if err != nil || !known {
		return err
	}
	return s.value(ctx, key)
}

// isCategory reports whether keys that begin so are those of a cache: a category has a generation from its first load on.
func (s *sample) isCategory(ctx context.Context, name string) (bool, error) {
	known, looked := s.categories[name]
	if looked {
		return known, nil
	}
	n, err := s.x.do(ctx, "EXISTS", s.x.prefix+keyspace.CategoryTag(name)).AsInt64()
	if err != nil {
		return false, err
	}
	s.categories[name] = n == 1
	return n == 1, nil
}

// head reads the beginning of a value. It is nil for what the user may not read.
func (s *sample) head(ctx context.Context, key string) ([]byte, error) {
	head, err := s.x.do(ctx, "GETRANGE", s.name(key), "0", fmt.Sprint(wire.PeekLen-1)).AsBytes()
	if _, denied := denial(err); denied {
		s.denied = append(s.denied, key)
		return nil, nil
	}
	if redisstore.IsWrongType(err) {
		s.foreign = append(s.foreign, key)
		return nil, nil
	}
	return head, err
}

func (s *sample) value(ctx context.Context, key string) error {
	head, err := s.head(ctx, key)
	if err != nil || len(head) == 0 {
		return err
	}
	_, _, _, err = wire.Peek(s.name(key), head)
	if errors.Is(err, wire.ErrForeign) || errors.Is(err, wire.ErrWrongKey) {
		s.foreign = append(s.foreign, key)
		return nil
	}
	s.values++
	if len(head) > len(wire.Magic) {
		s.versions[head[len(wire.Magic)]]++
	}
	return nil
}

func (s *sample) lease(ctx context.Context, key, of string) error {
	if known, err := s.isCategory(ctx, keyspace.CategoryOf(of)); err != nil || !known {
		return err
	}
	left, err := s.x.do(ctx, "PTTL", s.name(key)).AsInt64()
	if left == -1 {
		s.endless = append(s.endless, key)
	}
	return s.unlessDenied(key, err)
}

// uploading is how long, in ms, chunks live at most while there is no value with their manifest yet: see redisstore.
const uploading = 70_000

// chunk finds out whether the value of a chunk is there. A chunk of a value that was just removed, or is just being stored, does not live long.
func (s *sample) chunk(ctx context.Context, key, of, nonce string) error {
	if known, err := s.isCategory(ctx, keyspace.CategoryOf(of)); err != nil || !known {
		return err
	}
	left, err := s.x.do(ctx, "PTTL", s.name(key)).AsInt64()
	if err != nil || left >= 0 && left <= uploading {
		return s.unlessDenied(key, err)
	}
	value, err := s.x.do(ctx, "GETRANGE", s.name(of), "0", fmt.Sprint(wire.MaxOverhead+wire.ManifestLen+len(wire.Nonce{})-1)).AsBytes()
	if err != nil {
		return s.unlessDenied(of, err)
	}
	if h, _, need, err := wire.Peek(s.name(of), value); err != nil || need > len(value) || !wire.IsChunked(value) || h.Payload.String() != nonce {
		s.orphans = append(s.orphans, key)
	}
	return nil
}

func (s *sample) unlessDenied(key string, err error) error {
	if _, denied := denial(err); denied {
		s.denied = append(s.denied, key)
		return nil
	}
	return err
}

func (s *sample) report(seen int) {
	x := s.x
	x.add("keys", levelOK, "", "%d looked at, %d of them values", seen, s.values)
	some := func(check, advice, what string, keys []string) {
		if len(keys) > 0 {
			x.add(check, levelWarn, advice, "%s: %d, %s for example", what, len(keys), keys[0])
		} else {
			x.add(check, levelOK, "", "none")
		}
	}
	some("foreign values", "another program writes keys of a category: give the cache an Options.Namespace; a load replaces such a value", "keys of a category that hold no value of a cache", s.foreign)
	some("endless leases", "DEL them: until then, each process waits for a load that nobody makes, for LeaseTTL", "leases without an end, which no cache has written", s.endless)
	some("orphaned chunks", "their values were evicted, or removed by another program; chunks end with the TTL of their value. Give the server more memory (maxmemory)", "chunks of large values whose value is gone", s.orphans)
	if len(s.denied) > 0 {
		x.add("keys", levelWarn, "ACL SETUSER for the program's user: a pair of patterns for each category, ~products:* ~{products:*}!*", "its user may not read %d of them, %s for example", len(s.denied), s.denied[0])
	}
	versions := slices.Sorted(maps.Keys(s.versions))
	switch {
	case len(versions) > 1:
		x.add("versions", levelWarn, "two builds are in use: finish the deployment. Values of the newer build are loaded by processes of the older one, and not replaced",
			"values of the formats %s", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(versions)), ", "), "[]"))
	case len(versions) == 1 && versions[0] > wire.Version:
		x.add("versions", levelWarn, "use the command of the program's build", "values of the format %d, which this build does not know", versions[0])
	default:
		x.add("versions", levelOK, "", "one format of values")
	}
}

package scan

import (
	"context"
	"strings"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// sweep removes the values that carry an older generation of a tag than the current one, and calls removed with the number of values
// that it has removed for a tag. It scans all categories whose values can carry the tags.
func (s *Scanner) sweep(ctx context.Context, current map[string]uint64, removed func(tag string, n int64)) error {
	categories, named := make(map[string]bool), false
	for tag := range current {
		if name, ok := strings.CutPrefix(tag, keyspace.CategoryPrefix); ok {
			categories[name] = true
			continue
		}
		named = named || keyspace.IsNamed(tag)
		s.addKnown(categories)
	}
	return s.walk(ctx, keyspace.ScanPattern(categories), categories, func(keys []string) error {
		return s.sweepKeys(ctx, keys, current, named, removed)
	})
}

// sweepKeys is sweep for some keys. Only tags that the program has named are not known from the key: the header is read for them.
func (s *Scanner) sweepKeys(ctx context.Context, keys []string, current map[string]uint64, named bool, removed func(tag string, n int64)) error {
	var headers []*wire.Header
	if named {
		var err error
		if headers, _, err = s.headers(ctx, keys); err != nil {
			return err
		}
	}
	var list []redisstore.Outdated
	for i, key := range keys {
		o := redisstore.Outdated{Key: key}
		add := func(tag string) {
			if generation, ok := current[tag]; ok {
				o.Tags = append(o.Tags, redisstore.Current{Tag: tag, Value: generation})
			}
		}
		if !named {
			add(keyspace.CategoryTag(keyspace.CategoryOf(key)))
			add(keyspace.All)
		} else if headers[i] != nil {
			for _, tag := range headers[i].Tags {
				if tag.Generation < current[tag.Name] || !redisstore.IsGeneration(tag.Generation) {
					add(tag.Name)
				}
			}
		}
		if len(o.Tags) > 0 {
			list = append(list, o)
		}
	}
	which, err := s.o.Store.Sweep(ctx, list...)
	counts := make(map[string]int64)
	for i, n := range which {
		if n >= 0 {
			counts[list[i].Tags[n].Tag]++
		}
	}
	for tag, n := range counts {
		removed(tag, n)
	}
	return err
}

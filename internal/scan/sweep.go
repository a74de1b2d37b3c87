package scan

import (
	"cmp"
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
	var list []redisstore.Outdated
	sweep := func() error {
		counts, err := s.o.Store.Sweep(ctx, list...)
		list = list[:0]
		for tag, n := range counts {
			removed(tag, n)
		}
		return err
	}
	err := s.walk(ctx, keyspace.ScanPattern(categories), categories, func(keys []string) error {
		outdated, err := s.outdated(ctx, keys, current, named)
		list = append(list, outdated...)
		if err != nil || len(list) < s.o.Store.SweepTogether() {
			return err
		}
		return sweep()
	})
	// Also after a walk that has failed: while the slots of a cluster go on moving, each walk fails.
	return cmp.Or(err, sweep())
}

// outdated returns those of keys whose values may carry an older generation of a tag than the current one. Only tags that the program has
// named are not known from the key: the header is read for them.
func (s *Scanner) outdated(ctx context.Context, keys []string, current map[string]uint64, named bool) (list []redisstore.Outdated, err error) {
	var headers []*wire.Header
	if named {
		if headers, _, err = s.headers(ctx, keys); err != nil {
			return nil, err
		}
	}
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
	return list, nil
}

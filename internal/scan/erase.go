package scan

import (
	"context"
	"strings"

	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
)

// Erase removes the values and the leases whose keys match one of the patterns, which are all of one category. It scans the leases first, and
// the values in a second pass. One pass would miss a value:
//
//  1. The scan passes the place of a key, which has no value yet.
//  2. A load stores its value there and releases its lease.
//  3. The scan gets to the place of the lease, and finds nothing. The value stays.
//
// With two passes, a lease that exists at the beginning is either removed by the first pass, or it is released by a fill before that pass
// ends. Then the second pass finds the value.
//
// Before both, Erase raises the erasure tag of the category, and the sequence. Where Redis holds neither a value nor a lease, the scan finds nothing
// and no process is notified. What a process has loaded and could not store depends on the sequence instead, and what is for memory alone on the
// erasure tag.
func (s *Scanner) Erase(ctx context.Context, patterns []journal.Pattern) error {
	budget, cancel := s.o.Store.Budget(ctx, 0, 1)
	raised := s.o.Store.Bump(budget, redisstore.Tag{Key: keyspace.Sequence}, redisstore.Tag{Key: keyspace.ErasureTag(patterns[0].Category())})
	cancel()
	for _, g := range raised {
		if g.Err != nil {
			return g.Err
		}
	}
	var passes []string
	if match, one := together(patterns); one {
		// A key that is known needs no search: its value and its lease go at once.
		if err := s.erase(ctx, patterns, []string{match}); err != nil {
			return err
		}
	} else {
		passes = []string{redisstore.LeasePattern(match), match}
	}
	if err := s.o.Store.Scan(ctx, func(names []string) error { return s.erase(ctx, patterns, names) }, passes...); err != nil {
		return err
	}
	return s.o.Store.Writable(ctx)
}

// together returns a pattern that matches all keys that one of the patterns matches, and whether that is one key.
func together(patterns []journal.Pattern) (match string, one bool) {
	if len(patterns) == 1 {
		return patterns[0].Text, patterns[0].Glob.Prefix() == patterns[0].Text
	}
	match = patterns[0].Glob.Prefix()
	for _, p := range patterns[1:] {
		n, other := 0, p.Glob.Prefix()
		for n < min(len(match), len(other)) && match[n] == other[n] {
			n++
		}
		match = match[:n]
	}
	return match + "*", false
}

// erase removes those of names in Redis that one of the patterns matches. The names may be those of leases.
func (s *Scanner) erase(ctx context.Context, patterns []journal.Pattern, names []string) error {
	var keys []string
	var of [][]journal.Pattern
	for _, key := range names {
		if lease, ok := redisstore.KeyOfLease(key); ok {
			key = lease
		}
		var which []journal.Pattern
		for _, p := range patterns {
			if p.Matches(key) && !strings.ContainsAny(key, "{}") {
				which = append(which, p)
			}
		}
		if len(which) > 0 {
			keys, of = append(keys, key), append(of, which)
		}
	}
	removed, err := s.o.Store.Erase(ctx, keys...)
	for i, which := range of {
		if !removed[i] {
			continue
		}
		for _, p := range which {
			p.Removed()
		}
	}
	return err
}

// Package scan scans the values in Redis: to list them, to sweep invalidated ones, and to erase those whose keys match a pattern. Redis has no
// index of keys, so each of these scans all keys, in small portions.
package scan

import (
	"context"
	"log/slog"
	"slices"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/loglimit"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// Options are what a Scanner works with.
type Options struct {
	Store       *redisstore.Store
	Named       func(key string) string // returns the name that a key has in Redis, with the namespace
	Categories  func() []string         // returns the categories of all policies that the process knows
	Unconfirmed func(name string) bool  // reports whether a key or a tag is invalidated and Redis has not confirmed it yet
	Logger      *slog.Logger
	Now         func() int64 // the time in nanoseconds, of a clock that never jumps
}

// A Scanner is safe for concurrent use.
type Scanner struct {
	o      Options
	failed loglimit.Limiter
}

// New makes a Scanner.
func New(o Options) *Scanner { return &Scanner{o: o} }

// Failed logs that a scan has failed and will be retried, at most once in ten seconds.
func (s *Scanner) Failed(ctx context.Context, err error) {
	if ctx.Err() != nil || !s.o.Store.Up() {
		return
	}
	if suppressed, ok := s.failed.Allow(s.o.Now()); ok {
		s.o.Logger.LogAttrs(ctx, slog.LevelWarn, "aside: SCAN failed, will retry", slog.String("cause", redisstore.Describe(err)), loglimit.Suppressed(suppressed))
	}
}

// walk calls visit with the keys in Redis that match, a page at a time. It leaves out all names but those of values in the categories.
func (s *Scanner) walk(ctx context.Context, match string, categories map[string]bool, visit func(keys []string) error) error {
	return s.o.Store.Scan(ctx, func(keys []string) error {
		return visit(slices.DeleteFunc(keys, func(key string) bool { return !keyspace.InOneOf(categories, key) }))
	}, match)
}

// addKnown adds the categories that the process knows.
func (s *Scanner) addKnown(categories map[string]bool) {
	for _, name := range s.o.Categories() {
		categories[name] = true
	}
}

// headers reads the headers of values and the sizes of the values. A header is nil where there is no value that this build can read.
func (s *Scanner) headers(ctx context.Context, keys []string) (headers []*wire.Header, sizes []int64, err error) {
	heads, err := s.o.Store.Heads(ctx, wire.PeekLen, keys...)
	if err != nil {
		return nil, nil, err
	}
	headers, sizes = make([]*wire.Header, len(keys)), make([]int64, len(keys))
	for i, head := range heads {
		h, size, need, err := wire.Peek(s.o.Named(keys[i]), head)
		if err == nil && need > len(head) {
			again, failed := s.o.Store.Heads(ctx, need, keys[i])
			if failed != nil {
				return nil, nil, failed
			}
			h, size, need, err = wire.Peek(s.o.Named(keys[i]), again[0])
			if need > len(again[0]) {
				continue // the value was replaced in between, or is cut short
			}
		}
		if err == nil && keyspace.OnlyTags(h.Tags) {
			headers[i], sizes[i] = &h, size
		}
	}
	return headers, sizes, nil
}

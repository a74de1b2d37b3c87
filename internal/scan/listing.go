package scan

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// An Info describes one value in Redis.
type Info struct {
	Key      string
	Owner    uint64        // identifies its policy
	TTL      time.Duration // until the end of its TTL; negative after that
	KeptFor  time.Duration // until the end of its life
	Age      time.Duration // since the start of the load that made it
	Size     int64         // in bytes, as it is stored
	Codec    uint32        // the ID of the codec that has encoded it; nothing for a negative one
	Tags     []string      // as the program has named them
	Negative bool          // a cached "not found"
}

// A Selection names the keys to list.
type Selection struct {
	Category string                // of the keys; "" stands for all categories that the process knows
	Match    string                // the pattern for Redis; not used without a Category
	Matches  func(key string) bool // reports whether a key belongs to the selection
}

// errEnough ends a walk early.
var errEnough = errors.New("the consumer has enough")

// List calls yield with each value of the selection that may be served, until yield returns false. A value that is stored or removed during the
// listing may or may not be listed, and a key may be listed twice. The error is ctx's if ctx has ended, otherwise the store's.
func (s *Scanner) List(ctx context.Context, keys Selection, yield func(Info) bool) error {
	l := listing{Scanner: s, generations: make(map[string]string)}
	match, categories := keys.Match, make(map[string]bool)
	if keys.Category == "" {
		s.addKnown(categories)
		match = keyspace.ScanPattern(categories)
	} else {
		categories[keys.Category] = true
	}
	err := s.walk(ctx, match, categories, func(page []string) error {
		page = slices.DeleteFunc(page, func(key string) bool { return !keys.Matches(key) || s.o.Unconfirmed(key) })
		infos, err := l.read(ctx, page)
		if err != nil {
			return err
		}
		for _, info := range infos {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !yield(info) {
				return errEnough
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// A listing is one walk over the keys in Redis.
type listing struct {
	*Scanner
	generations map[string]string // the generations of the tags that the walk has met
}

// mostGenerations is how many generations a listing remembers. Then it forgets them all.
const mostGenerations = 10_000

// Infos returns the infos of those keys that have a value which may be served.
func (s *Scanner) Infos(ctx context.Context, keys []string) (map[string]Info, error) {
	l := listing{Scanner: s, generations: make(map[string]string)}
	keys = slices.DeleteFunc(slices.Clone(keys), s.o.Unconfirmed)
	infos, err := l.read(ctx, keys)
	if err != nil {
		return nil, err
	}
	byKey := make(map[string]Info, len(infos))
	for _, info := range infos {
		byKey[info.Key] = info
	}
	return byKey, nil
}

// read returns the infos of those keys that have a value which may be served.
func (l *listing) read(ctx context.Context, keys []string) ([]Info, error) {
	headers, sizes, err := l.headers(ctx, keys)
	if err != nil {
		return nil, err
	}
	if err := l.readGenerations(ctx, headers); err != nil {
		return nil, err
	}
	var infos []Info
	for i, h := range headers {
		if h == nil || !l.upToDate(h) {
			continue
		}
		now, _, _ := l.o.Store.Now(keys[i])
		ttl, kept := time.Duration(h.FreshUntil-now)*time.Microsecond, time.Duration(h.DeadUntil-now)*time.Microsecond
		if kept <= 0 {
			continue
		}
		infos = append(infos, Info{
			Key: keys[i], Owner: h.Policy, TTL: ttl, KeptFor: kept, Age: time.Duration(max(0, now-h.LoadStart)) * time.Microsecond,
			Size: sizes[i], Codec: h.Codec, Tags: keyspace.GivenNames(h.Tags, func(t wire.Tag) string { return t.Name }), Negative: h.Negative,
		})
	}
	return infos, nil
}

// readGenerations reads the generations of those tags in the headers that the walk has not met before.
func (l *listing) readGenerations(ctx context.Context, headers []*wire.Header) error {
	if len(l.generations) > mostGenerations {
		clear(l.generations)
	}
	var unknown []string
	for _, h := range headers {
		if h == nil {
			continue
		}
		for _, tag := range h.Tags {
			if _, ok := l.generations[tag.Name]; !ok {
				l.generations[tag.Name] = ""
				unknown = append(unknown, tag.Name)
			}
		}
	}
	values, err := l.o.Store.Values(ctx, unknown...)
	if err != nil {
		return err
	}
	for i, tag := range unknown {
		l.generations[tag] = values[i]
	}
	return nil
}

// upToDate reports whether no tag of a value was invalidated since its load, as far as the listing knows.
func (l *listing) upToDate(h *wire.Header) bool {
	for _, tag := range h.Tags {
		g, err := redisstore.ParseGeneration([]byte(l.generations[tag.Name]))
		if err != nil || g != tag.Generation || l.o.Unconfirmed(tag.Name) {
			return false
		}
	}
	return true
}

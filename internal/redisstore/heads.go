package redisstore

import (
	"context"

	"github.com/redis/rueidis"
)

// Heads reads the first bytes of values. Unlike Look it is not in a hurry, and nobody is told when they change. What is missing
// or no string, or what the user may not use, is empty.
func (s *Store) Heads(ctx context.Context, bytes int, keys ...string) ([][]byte, error) {
	heads := make([][]byte, len(keys))
	names := s.names(keys)
	for i, r := range s.inPortions(ctx, names, func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Getrange().Key(names[i]).Start(0).End(int64(bytes) - 1).Build()
	}) {
		var err error
		if heads[i], err = r.AsBytes(); err != nil && !IsWrongType(err) && !denied(err) {
			return nil, err
		}
	}
	return heads, nil
}

// Values reads what the keys of tags hold, as far as it takes to see whether that is a generation, without being told of
// changes. What is missing or no string is empty.
func (s *Store) Values(ctx context.Context, keys ...string) ([]string, error) {
	heads, err := s.Heads(ctx, GenerationLen, keys...)
	values := make([]string, len(heads))
	for i, head := range heads {
		values[i] = string(head)
	}
	return values, err
}

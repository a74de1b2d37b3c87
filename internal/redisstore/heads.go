package redisstore

import (
	"context"

	"github.com/redis/rueidis"
)

// Heads reads the first bytes of values. Unlike Get it works in portions, and without tracking. A head is empty where the key is
// missing, is no string, or may not be used by the user.
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

// Values reads the keys of tags, as far as it takes to see whether each holds a generation, without tracking. A value is empty
// where the key is missing or no string.
func (s *Store) Values(ctx context.Context, keys ...string) ([]string, error) {
	heads, err := s.Heads(ctx, GenerationLen, keys...)
	values := make([]string, len(heads))
	for i, head := range heads {
		values[i] = string(head)
	}
	return values, err
}

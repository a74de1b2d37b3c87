package redisstore

import (
	"context"

	"github.com/redis/rueidis"
)

// Touch uses keys, so that a server which evicts what is used least keeps them. It reads a byte of each, in no hurry, and it does not
// matter whether that succeeds. They were read by the first client, which needs no second one for that.
func (s *Store) Touch(ctx context.Context, keys ...string) {
	names := s.names(keys)
	s.each(ctx, batch{names: names, most: portionSize, inPortions: true, plain: func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Getrange().Key(names[i]).Start(0).End(0).Build()
	}})
}

package redisstore

import (
	"context"

	"github.com/redis/rueidis"
)

// Touch reads a byte of each key, in portions, so that a server that evicts the least recently used keys keeps these. Errors do
// not matter. The keys were read by the first client, so no second client is made for this.
func (s *Store) Touch(ctx context.Context, keys ...string) {
	names := s.names(keys)
	s.each(ctx, batch{most: portionSize, inPortions: true, content: content{names: names, plain: func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Getrange().Key(names[i]).Start(0).End(0).Build()
	}}})
}

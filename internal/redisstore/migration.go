package redisstore

import (
	"context"
	"strings"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// While a slot moves, a key may already be at one node and its lease still at the other, or missing. Then no script can take both:
// a node answers TRYAGAIN until the slot has moved, which may take minutes. A load can do without Redis for so long. An invalidation
// must be carried out.

// isSplit reports whether a script has failed since not all of its keys were at one node.
func isSplit(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && (e.IsTryAgain() || strings.Contains(e.Error(), "non local key"))
}

// IsMoving reports whether a command has failed since a slot of a cluster moves. What was read before may be at another node now.
func IsMoving(err error) bool { return isSplit(err) || isElsewhere(err) }

// removeSplit removes those keys whose results say that value and lease were not at one node: first the leases, each by itself,
// and then the values. Once its lease is removed, no load that began before stores its value, and a value that it has stored until
// then is removed by the second step. A lease that is removed without a value notifies nobody. Processes that wait for it poll.
func (s *Store) removeSplit(ctx context.Context, keys []string, results []rueidis.RedisResult) {
	var leases, values []string
	var of []int
	for i, r := range results {
		if isSplit(r.Error()) {
			pair := s.pair(keys[i])
			values, leases, of = append(values, pair[0]), append(leases, pair[1]), append(of, i)
		}
	}
	if len(of) == 0 {
		return
	}
	unlink := func(names []string) []rueidis.RedisResult {
		return s.each(ctx, batch{content: content{names: names, trip: stats.Invalidating, plain: func(c rueidis.Client, i int) rueidis.Completed {
			return c.B().Unlink().Key(names[i]).Build()
		}}})
	}
	without := unlink(leases)
	for j, r := range unlink(values) {
		if without[j].Error() != nil {
			r = without[j]
		}
		results[of[j]] = r
	}
}

// eraseSplit is removeSplit for Erase: what is not a value of the format stays.
func (s *Store) eraseSplit(ctx context.Context, keys []string, results []rueidis.RedisResult) {
	var ours []string
	var of []int
	for i, r := range results {
		if isSplit(r.Error()) {
			ours, of = append(ours, keys[i]), append(of, i)
		}
	}
	if len(of) == 0 {
		return
	}
	magic := s.format.args[0]
	heads, err := s.Heads(ctx, len(magic), ours...)
	if err != nil {
		return // the results stay as they are
	}
	for j, head := range heads {
		if len(head) > 0 && string(head) != magic {
			// The lease is removed all the same. EXISTS then answers 0, which counts as nothing removed.
			lease := []string{leaseKey(s.namespace.name(ours[j]))}
			results[of[j]] = s.each(ctx, batch{content: content{names: lease, trip: stats.Invalidating, plain: func(c rueidis.Client, _ int) rueidis.Completed {
				return c.B().Unlink().Key(lease[0]).Build()
			}}})[0]
			if results[of[j]].Error() == nil {
				results[of[j]] = s.each(ctx, batch{content: content{names: lease, trip: stats.Invalidating, plain: func(c rueidis.Client, _ int) rueidis.Completed {
					return c.B().Exists().Key(lease[0]).Build()
				}}})[0]
			}
			continue
		}
		s.removeSplit(ctx, ours[j:j+1], results[of[j]:of[j]+1])
	}
}

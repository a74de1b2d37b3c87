package redisstore

import (
	"context"
	"strings"

	"github.com/redis/rueidis"
)

// While a slot moves, a key of it may be at one node already and its lease still at the other, or be nowhere. No script can be
// given both then: one node answers TRYAGAIN, for as long as the slot takes, which may be minutes. A load can do without Redis for
// so long; an invalidation must be carried out.

// isApart reports whether a script has failed since not all of its keys were at one node.
func isSplit(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && (e.IsTryAgain() || strings.Contains(e.Error(), "non local key"))
}

// IsMoving reports whether a command has failed since a slot of a cluster changes hands: what was read before may be at another node now.
func IsMoving(err error) bool { return isSplit(err) || isElsewhere(err) }

// removeApart removes those of keys whose results say that they were not all at one node: first the leases, each by itself, and
// then the values. Once its lease is gone, no load that began before stores its value, and what it has stored until then goes with
// the second step. Nobody is told of a lease that goes where there is no value; those who wait for one poll.
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
		return s.each(ctx, batch{names: names, plain: func(c rueidis.Client, i int) rueidis.Completed {
			return c.B().Unlink().Key(names[i]).Build()
		}})
	}
	without := unlink(leases)
	for j, r := range unlink(values) {
		if without[j].Error() != nil {
			r = without[j]
		}
		results[of[j]] = r
	}
}

// eraseApart is removeApart for what Erase is about: what is not a value of the format stays.
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
		return // what it was before remains the answer
	}
	for j, head := range heads {
		if len(head) > 0 && string(head) != magic {
			// Its lease goes all the same; what is left of that then counts as what was removed: nothing.
			lease := []string{leaseKey(s.namespace.name(ours[j]))}
			results[of[j]] = s.each(ctx, batch{names: lease, plain: func(c rueidis.Client, _ int) rueidis.Completed {
				return c.B().Unlink().Key(lease[0]).Build()
			}})[0]
			if results[of[j]].Error() == nil {
				results[of[j]] = s.each(ctx, batch{names: lease, plain: func(c rueidis.Client, _ int) rueidis.Completed {
					return c.B().Exists().Key(lease[0]).Build()
				}})[0]
			}
			continue
		}
		s.removeSplit(ctx, ours[j:j+1], results[of[j]:of[j]+1])
	}
}

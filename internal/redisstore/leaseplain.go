package redisstore

import (
	"context"
	"errors"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// Most loads are of keys that were found missing. Their leases are asked for in plain commands, which take Redis a third of the time of the
// script acquire:
//
//  1. TIME comes first, so that a load is never taken for younger than it is.
//  2. SET NX takes the lease, if nobody holds it.
//  3. STRLEN comes after that. While the lease is held nobody stores a value, so a key that is empty then is empty until its fill.
//
// The reader may have been overtaken: by the time of step 3 the key has a value. Then the lease is released at once, and the value is read.
// If step 2 fails, the script looks at what is in the place of the lease.

var (
	askTime = plainly(func(b rueidis.Builder, _, _ []string) rueidis.Completed { return b.Time().Build() })
	setNew  = plainly(func(b rueidis.Builder, keys, args []string) rueidis.Completed {
		return b.Arbitrary("SET").Keys(keys[1]).Args(args[0], "NX", "PX", args[1]).Build()
	})
	lengthOf = plainly(func(b rueidis.Builder, keys, _ []string) rueidis.Completed { return b.Strlen().Key(keys[0]).Build() })
)

func plainly(command func(b rueidis.Builder, keys, args []string) rueidis.Completed) *script {
	return &script{trip: stats.Leasing, command: command}
}

// plainCalls is how many calls askPlainly adds.
const plainCalls = 3

// askPlainly adds to calls those that ask for the lease of a key that had no value.
func (s *Store) askPlainly(calls []call, r Request) []call {
	set := s.onPair(setNew, r.Key, r.Nonce, s.leaseLife.ms)
	return append(calls, call{askTime, set.keys, nil}, set, call{lengthOf, set.keys, nil})
}

// parsePlainly parses the replies to askPlainly. then makes the call that has yet to follow; it is nil if there is none.
func parsePlainly(replies []rueidis.RedisResult) (g Grant, then func(*Store, Request) call) {
	now, err := parseTime(replies[0])
	set := replies[1].Error()
	length, unknown := replies[2].AsInt64()
	granted := set == nil
	switch {
	case isElsewhere(set), !granted && isElsewhere(unknown):
		return Grant{}, (*Store).acquire // at another node, whose time is another too
	case classOf(set) == failure && !errors.Is(set, ErrUnavailable): // its reply was lost, so the lease may be held
		return Grant{Err: set}, nil
	case err == nil && length > 0 && granted:
		return Grant{Present: true, Now: now}, (*Store).release
	case err == nil && length > 0: // also where there is no memory for a lease
		return Grant{Present: true, Now: now}, nil
	case !granted && !rueidis.IsRedisNil(set):
		return Grant{Err: set}, nil
	case err != nil:
		return Grant{Err: err}, nil
	case unknown != nil && !IsWrongType(unknown):
		return Grant{Err: held(unknown)}, nil
	case !granted:
		return Grant{}, (*Store).acquire // which looks at what is in the place of the lease
	}
	return Grant{Granted: true, Empty: unknown == nil, Now: now}, nil
}

// errHeld is the error of a lease that was granted, and then could not be used or released.
var errHeld = errors.New("redis has become unavailable since it granted a lease")

// held is the error of a lease that may be held. It is never ErrUnavailable, by which the caller takes the lease for one that was not asked for:
//
//  1. SET NX takes the lease.
//  2. The server becomes unavailable here. What has to follow is not sent: the release, or STRLEN, which a large batch sends in a further
//     round trip.
//  3. If nobody released the lease when the server is back, others would wait for a load that does not run.
func held(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return errHeld
	}
	return err
}

// settle makes the calls that follow after asking plainly, for the grants with the indices of, in one round trip. A lease that is not known to be
// released is an error: its caller releases it again.
func (s *Store) settle(ctx context.Context, grants []Grant, calls []call, of []int) {
	if len(calls) == 0 {
		return
	}
	for j, r := range s.runAs(ctx, batch{content: content{calls: calls}, times: true}) {
		if calls[j].script == acquire {
			grants[of[j]] = parseGrant(r)
		} else {
			grants[of[j]].Err = held(r.Error())
		}
	}
}

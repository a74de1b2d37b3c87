package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// What goes over many keys is sent in small portions, with pauses between them, and on its own account: callers wait for one
// portion at most, the server is busy with it for less than half of its time, and a portion that fails or takes long says
// nothing to the breaker.
const (
	scanCount   = 500 // places of the server's table that one SCAN looks at
	portion     = 64  // commands in one round trip
	portionTime = 2 * time.Second
	shortest    = 200 * time.Microsecond // pause
)

// ErrMoved means that the server was lost, or another one has taken its place, while its keys were gone through: what was seen
// until then may not be all.
var ErrMoved = errors.New("redis was lost while its keys were gone through")

// erase removes a value of ours, and its lease whether or not there is one; whoever has read K is told. What is not a value of
// the format stays.
//
//	KEYS  K, L
//	ARGV  magic
//
// The reply is how many values were removed.
var erase = newScript(`
local removed = 0
local head = redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
if head == ARGV[1] then
	removed = redis.call('UNLINK', KEYS[1])
end
if redis.call('EXISTS', KEYS[2]) == 1 then
	if redis.call('EXISTS', KEYS[1]) == 0 then
		redis.call('RENAME', KEYS[2], KEYS[1])
		redis.call('DEL', KEYS[1])
	else
		redis.call('DEL', KEYS[2])
	end
end
return removed
`)

// Scan goes through the keys that match a pattern of the server's, all of them on each server, and gives them to visit, a
// page at a time. A key that is there from before until after is seen at least once; any may be seen several times.
func (s *Store) Scan(ctx context.Context, match string, visit func(keys []string) error) error {
	since := s.standing()
	session := s.session.Load()
	if session == nil || since.IsZero() {
		return ErrUnavailable
	}
	for _, node := range session.client.Nodes() {
		for cursor := uint64(0); ; {
			entry, err := s.page(ctx, node, cursor, match)
			if err != nil {
				return err
			}
			if s.standing() != since {
				return ErrMoved // a cursor means nothing to another server
			}
			if len(entry.Elements) > 0 {
				if err := visit(entry.Elements); err != nil {
					return err
				}
			}
			if cursor = entry.Cursor; cursor == 0 {
				break
			}
		}
	}
	return nil
}

// standing is since when the server has been in use without a break, zero if it is not.
func (s *Store) standing() time.Time {
	if state := s.State(); state.Up && s.Up() {
		return state.Since
	}
	return time.Time{}
}

func (s *Store) page(ctx context.Context, node rueidis.Client, cursor uint64, match string) (rueidis.ScanEntry, error) {
	limited, cancel := context.WithTimeout(ctx, portionTime)
	defer cancel()
	sent := time.Now()
	var cmd rueidis.Completed
	if match == "" {
		cmd = node.B().Scan().Cursor(cursor).Count(scanCount).Build()
	} else {
		cmd = node.B().Scan().Cursor(cursor).Match(match).Count(scanCount).Build()
	}
	entry, err := node.Do(limited, cmd).AsScanEntry()
	rest(ctx, time.Since(sent))
	return entry, err
}

// rest pauses after a portion for as long as that has taken.
func rest(ctx context.Context, took time.Duration) {
	t := time.NewTimer(max(took, shortest))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// slowly sends n commands in portions. Those that were not sent, since ctx has ended or there is no connection, have that as
// their error.
func (s *Store) slowly(ctx context.Context, n int, build func(rueidis.Client, int) rueidis.Completed) []rueidis.RedisResult {
	results := make([]rueidis.RedisResult, 0, n)
	for len(results) < n {
		session, err := s.session.Load(), ctx.Err()
		if err == nil && session == nil {
			err = ErrUnavailable
		}
		if err != nil {
			results = append(results, rueidis.NewErrorResult(err))
			continue
		}
		cmds := make(rueidis.Commands, min(portion, n-len(results)))
		for i := range cmds {
			cmds[i] = build(session.client, len(results)+i)
		}
		limited, cancel := context.WithTimeout(ctx, portionTime)
		sent := time.Now()
		results = append(results, session.client.DoMulti(limited, cmds...)...)
		cancel()
		rest(ctx, time.Since(sent))
	}
	return results
}

// runSlowly is run, in portions.
func (s *Store) runSlowly(ctx context.Context, calls []call) []rueidis.RedisResult {
	results := s.slowly(ctx, len(calls), func(c rueidis.Client, i int) rueidis.Completed {
		k := calls[i]
		return c.B().Evalsha().Sha1(k.script.sha1).Numkeys(int64(len(k.keys))).Key(k.keys...).Arg(k.args...).Build()
	})
	var unknown []int
	for i, r := range results {
		if e, ok := rueidis.IsRedisErr(r.Error()); ok && e.IsNoScript() {
			unknown = append(unknown, i)
		}
	}
	again := s.slowly(ctx, len(unknown), func(c rueidis.Client, j int) rueidis.Completed {
		k := calls[unknown[j]]
		return c.B().Eval().Script(k.script.text).Numkeys(int64(len(k.keys))).Key(k.keys...).Arg(k.args...).Build()
	})
	for j, r := range again {
		results[unknown[j]] = r
	}
	return results
}

// Erase removes those of keys that hold a value of the format, and the leases of all, and reports how many had one. Unlike
// Remove it is not in a hurry.
func (s *Store) Erase(ctx context.Context, keys ...string) (removed int64, err error) {
	calls := make([]call, len(keys))
	for i, key := range keys {
		calls[i] = call{erase, []string{key, leaseKey(key)}, s.format[:1]}
	}
	results := s.runSlowly(ctx, calls)
	s.announce(ctx, keys)
	for _, r := range results {
		n, e := r.AsInt64()
		if e != nil {
			err = e
		}
		removed += n
	}
	return removed, err
}

// A Glimpse is what Inspect finds of a key.
type Glimpse struct {
	Head []byte        // as many bytes as were asked for, or all; empty where there is no string
	Size int64         // bytes of the whole value
	TTL  time.Duration // left; negative for ever
}

// Inspect looks at the first bytes of values, how long they are and how long they live. Unlike Look it is not in a hurry, and
// nobody is told when they change.
func (s *Store) Inspect(ctx context.Context, bytes int, keys ...string) ([]Glimpse, error) {
	const each = 3
	results := s.slowly(ctx, each*len(keys), func(c rueidis.Client, i int) rueidis.Completed {
		switch key := keys[i/each]; i % each {
		case 0:
			return c.B().Getrange().Key(key).Start(0).End(int64(bytes) - 1).Build()
		case 1:
			return c.B().Strlen().Key(key).Build()
		default:
			return c.B().Pttl().Key(key).Build()
		}
	})
	glimpses := make([]Glimpse, len(keys))
	for i := range glimpses {
		g, of := &glimpses[i], results[each*i:each*(i+1)]
		head, err := of[0].AsBytes()
		if err == nil {
			g.Head = head
			if g.Size, err = of[1].AsInt64(); err == nil {
				var ms int64
				ms, err = of[2].AsInt64()
				g.TTL = time.Duration(ms) * time.Millisecond
			}
		}
		if err != nil && !IsWrongType(err) {
			return nil, err
		}
	}
	return glimpses, nil
}

// Values reads short values, such as generations, without being told of their changes. What is missing or no string is empty.
func (s *Store) Values(ctx context.Context, keys ...string) ([]string, error) {
	values := make([]string, len(keys))
	for i, r := range s.slowly(ctx, len(keys), func(c rueidis.Client, i int) rueidis.Completed { return c.B().Get().Key(keys[i]).Build() }) {
		var err error
		if values[i], err = r.ToString(); err != nil && !rueidis.IsRedisNil(err) && !IsWrongType(err) {
			return nil, err
		}
	}
	return values, nil
}

// KeyOfLease returns the key whose lease lies under name, if it is one.
func KeyOfLease(name string) (key string, ok bool) {
	const before, after = "{", "}!l"
	if len(name) < len(before)+len(after) || name[:1] != before || name[len(name)-len(after):] != after {
		return "", false
	}
	return name[len(before) : len(name)-len(after)], true
}

// LeasePattern is the pattern of the leases of the keys that match a pattern.
func LeasePattern(match string) string { return leaseKey(match) }

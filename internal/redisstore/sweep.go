package redisstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// What goes over many keys is sent in small portions, with pauses between them, and on its own account: callers wait for one
// portion at most, the server is busy with it for less than half of its time, however many go over keys at once, and a portion
// that fails or takes long says nothing to the breaker.
const (
	scanCount   = 500 // places of the server's table that one SCAN looks at
	portionSize = 64  // commands in one round trip
	portionTime = 2 * time.Second
	burst       = time.Millisecond // of portions without a pause between them
)

// ErrMoved means that the server was lost, or another one has taken its place, while its keys were gone through: what was seen
// until then may not be all.
var ErrMoved = errors.New("redis was lost while its keys were gone through")

// erase removes a value of ours, and its lease whether or not there is one; whoever has read K is told. What is not a value of
// the format stays.
//
//	KEYS  K, L
//	ARGV  the format
//
// The reply is how many values were removed.
var erase = newScript(formatFrom(1) + `
local removed = 0
if redis.pcall('GETRANGE', KEYS[1], 0, #magic - 1) == magic then
	removed = drop(KEYS[1])
end
if redis.call('EXISTS', KEYS[2]) == 1 then` + tellOfLease + `
end
return removed
`)

// sweep removes a value that carries an older generation of one of some tags. One that was stored since, by a load that began
// after the tags were invalidated, stays, and so does the lease: its holder's value is found to be out of date or not by its own
// generations.
//
//	KEYS  K
//	ARGV  the format, offset of the length of the tags, offset of the tags; then tag, generation, …
//
// The reply is the number of the tag that it was removed for, 0 where it stays: as it does where this build cannot read it.
var sweep = newScript(formatFrom(1) + `
local tags = tonumber(ARGV[8])
local head = redis.pcall('GETRANGE', KEYS[1], 0, tags - 1)
if type(head) ~= 'string' or #head < tags or string.sub(head, 1, #magic) ~= magic then
	return 0
end
local itsVersion, itsFlags = string.byte(head, #magic + 1, #magic + 2)
if itsVersion ~= version or itsFlags > flags then
	return 0
end
local function number(text, at, bytes)
	local n = 0
	for i = at + bytes - 1, at, -1 do
		n = n * 256 + string.byte(text, i)
	end
	return n
end
local length = number(head, tonumber(ARGV[7]) + 1, 4)
local section = redis.call('GETRANGE', KEYS[1], tags, tags + length - 1)
if #section < length or length < 2 then
	return 0
end
local at = 3
for _ = 1, number(section, 1, 2) do
	if at + 1 > length then
		return 0
	end
	local from = at + 2
	local to = from + number(section, at, 2) - 1
	if to + 8 > length then
		return 0
	end
	local name = string.sub(section, from, to)
	for i = 9, #ARGV, 2 do
		if ARGV[i] == name and number(section, to + 1, 8) < tonumber(ARGV[i + 1]) then
			drop(KEYS[1])
			return (i - 7) / 2
		end
	end
	at = to + 9
end
return 0
`)

// Scan goes through all keys of the server, once for each pattern of the server's, one pattern after the other, and gives those
// that match to visit, a page at a time. An empty pattern matches all. A key that is there throughout a pass is seen in it at least
// once. With a namespace, only what is in it is seen, by the names that it has there. An error means that it has not got to the end: that of visit, of the server, or ErrMoved.
func (s *Store) Scan(ctx context.Context, visit func(keys []string) error, patterns ...string) error {
	since, session := s.standing(), s.session.Load()
	if since.IsZero() || session == nil {
		return ErrUnavailable
	}
	for _, match := range patterns {
		match = s.namespace.pattern(match)
		// A replica's keys are those of its primary: to see them twice costs time alone.
		for _, node := range session.client.Nodes() {
			for cursor := uint64(0); ; {
				page, err := s.page(ctx, node, cursor, match)
				if err == nil {
					if keys := s.namespace.ownOf(page.Elements); len(keys) > 0 {
						err = visit(keys)
					}
				}
				if err == nil && !s.standing().Equal(since) {
					err = ErrMoved // where a cursor means something else
				}
				if err != nil {
					return err
				}
				if cursor = page.Cursor; cursor == 0 {
					break
				}
			}
		}
	}
	return nil
}

// Writable finds out whether the server takes writes: one that has become a replica has keys to go through too, but not all.
func (s *Store) Writable(ctx context.Context) error {
	return firstError(s.slowly(ctx, 1, func(c rueidis.Client, _ int) rueidis.Completed {
		return c.B().Set().Key(s.probeKey()).Value("").Px(probeLife).Build()
	}))
}

// standing is since when the server has been in use without a break, zero if it is not.
func (s *Store) standing() time.Time {
	if state := s.State(); state.Up && s.Up() {
		return state.Since
	}
	return time.Time{}
}

func (s *Store) page(ctx context.Context, node rueidis.Client, cursor uint64, match string) (rueidis.ScanEntry, error) {
	var entry rueidis.ScanEntry
	err := s.portion(ctx, func(ctx context.Context) (err error) {
		var cmd rueidis.Completed
		if match == "" {
			cmd = node.B().Scan().Cursor(cursor).Count(scanCount).Build()
		} else {
			cmd = node.B().Scan().Cursor(cursor).Match(match).Count(scanCount).Build()
		}
		entry, err = node.Do(ctx, cmd).AsScanEntry()
		return err
	})
	return entry, err
}

// portion sends one portion when it is its turn, and rests after some of them for as long as they have taken. The turn is given
// back after the rest: else many would have the server work while one of them rests.
func (s *Store) portion(ctx context.Context, send func(context.Context) error) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	limited, cancel := context.WithTimeout(ctx, portionTime)
	defer cancel()
	sent := time.Now()
	err := send(limited)
	if s.busy += time.Since(sent); s.busy < burst {
		return err
	}
	rest := s.busy
	s.busy = 0
	if err != nil || limited.Err() != nil {
		return err // who repeats it pauses before, and others need not wait for that
	}
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return err
}

// slowly sends n commands in portions. Those that were not sent, since ctx has ended or there is no connection, have that as
// their error.
func (s *Store) slowly(ctx context.Context, n int, build func(rueidis.Client, int) rueidis.Completed) []rueidis.RedisResult {
	results := make([]rueidis.RedisResult, 0, n)
	for len(results) < n {
		err := ctx.Err()
		if err == nil {
			err = s.portion(ctx, func(ctx context.Context) error {
				session := s.session.Load()
				if session == nil {
					return ErrUnavailable
				}
				cmds := make(rueidis.Commands, min(portionSize, n-len(results)))
				for i := range cmds {
					cmds[i] = build(session.client, len(results)+i)
				}
				results = append(results, session.client.DoMulti(ctx, cmds...)...)
				return nil
			})
		}
		for err != nil && len(results) < n {
			results = append(results, rueidis.NewErrorResult(err))
		}
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

// Erase removes those of keys that hold a value of the format, and the leases of all, and reports of each whether it had one.
// Unlike Remove it is not in a hurry. The error is that of any key.
func (s *Store) Erase(ctx context.Context, keys ...string) (removed []bool, err error) {
	calls := make([]call, len(keys))
	for i, key := range keys {
		calls[i] = call{erase, s.pair(key), s.format}
	}
	results := s.runSlowly(ctx, calls)
	s.announce(ctx, keys)
	removed = make([]bool, len(keys))
	for i, r := range results {
		n, e := r.AsInt64()
		if e != nil {
			err = e
		}
		removed[i] = n > 0
	}
	return removed, err
}

// An Outdated names a value that is to be removed if it carries an older generation of one of some tags.
type Outdated struct {
	Key  string
	Tags []Current
}

// A Current is the generation that a tag has now.
type Current struct {
	Tag   string
	Value uint64
}

// Sweep removes those values that carry an older generation of one of their Outdated's tags. Of each it returns the index of
// that tag, -1 where nothing was removed. It is not in a hurry. The error is that of any key, but for those that the user may not
// use.
func (s *Store) Sweep(ctx context.Context, list ...Outdated) (removed []int, err error) {
	calls := make([]call, len(list))
	for i, o := range list {
		args := slices.Concat(s.format, s.layout)
		for _, tag := range o.Tags {
			args = append(args, tag.Tag, strconv.FormatUint(tag.Value, 10))
		}
		calls[i] = call{sweep, []string{s.namespace.name(o.Key)}, args}
	}
	removed = make([]int, len(list))
	for i, r := range s.runSlowly(ctx, calls) {
		n, e := r.AsInt64()
		if e != nil {
			if n = 0; !denied(e) {
				err = e
			}
		}
		removed[i] = int(n) - 1
	}
	return removed, err
}

// Heads reads the first bytes of values. Unlike Look it is not in a hurry, and nobody is told when they change. What is missing
// or no string, or what the user may not use, is empty.
func (s *Store) Heads(ctx context.Context, bytes int, keys ...string) ([][]byte, error) {
	heads := make([][]byte, len(keys))
	for i, r := range s.slowly(ctx, len(keys), func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Getrange().Key(s.namespace.name(keys[i])).Start(0).End(int64(bytes) - 1).Build()
	}) {
		var err error
		if heads[i], err = r.AsBytes(); err != nil && !IsWrongType(err) && !denied(err) {
			return nil, err
		}
	}
	return heads, nil
}

// denied reports whether the user may not use a key: it is somebody else's then, whose keys begin as ours do.
func denied(err error) bool { return code(err) == "NOPERM" }

// Values reads short values, such as generations, without being told of their changes. What is missing or no string is empty.
func (s *Store) Values(ctx context.Context, keys ...string) ([]string, error) {
	values := make([]string, len(keys))
	for i, r := range s.slowly(ctx, len(keys), func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Get().Key(s.namespace.name(keys[i])).Build()
	}) {
		var err error
		if values[i], err = r.ToString(); err != nil && !rueidis.IsRedisNil(err) && !IsWrongType(err) {
			return nil, err
		}
	}
	return values, nil
}

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
// portion at most, a server is busy with it for less than half of its time, however many go over keys at once, and a portion
// that fails or takes long says nothing to the breaker.
const (
	scanCount   = 250 // places of the server's table that one SCAN looks at
	portionSize = 32  // commands in one round trip
	portionTime = 2 * time.Second
	burst       = time.Millisecond // of portions without a pause between them
	longestTags = 1 << 16          // bytes of the tags of a value that are looked at: more than any build writes
)

// ErrMoved means that the server was lost, or another one has taken its place, while its keys were gone through: what was seen
// until then may not be all.
var ErrMoved = errors.New("redis was lost during a scan")

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
// The reply is the number of the tag that it was removed for, 0 where it stays: as it does where this build cannot read it. A number
// that is no generation is older than any.
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
if length > ` + strconv.Itoa(longestTags) + ` then
	return 0
end
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
		if ARGV[i] == name then
			local carried = number(section, to + 1, 8)
			if carried < tonumber(ARGV[i + 1]) or carried >= 9007199254740992 then
				drop(KEYS[1])
				return (i - 7) / 2
			end
		end
	end
	at = to + 9
end
return 0
`)

// Scan goes through all keys of all servers, once for each pattern of the servers', one pattern after the other, and gives those
// that match to visit, a page at a time. An empty pattern matches all. A key that is there throughout a pass is seen in it at least
// once. With a namespace, only what is in it is seen, by the names that it has there. An error means that it has not got to the end:
// that of visit, of a server, or ErrMoved.
func (s *Store) Scan(ctx context.Context, visit func(keys []string) error, patterns ...string) error {
	w := walk{Store: s, visit: visit}
	err := w.begin()
	if err == nil && w.table.only() == nil { // one that is not up is not looked at first: that may take long
		if err = s.refresh(ctx); err == nil {
			err = w.begin()
		}
	}
	if err != nil {
		return err
	}
	for _, match := range patterns {
		match = s.namespace.pattern(match)
		if err := w.pass(ctx, match); err != nil {
			return err
		}
		if w.table.only() != nil {
			continue
		}
		// What has come to a server that was gone through before it did, from one that was not yet, has not been seen. The table
		// shows that if the slot has changed hands since the walk began. If it is still about to, the key is found where it has
		// gone when all servers are gone through once more: keys go one way.
		if err := s.refresh(ctx); err != nil {
			return err
		}
		now := s.table.Load()
		if !w.unmoved(now) {
			return ErrMoved
		}
		if w.table.moving || now.moving {
			if err := w.pass(ctx, match); err != nil {
				return err
			}
			if err := s.refresh(ctx); err != nil {
				return err
			}
			if !w.unmoved(s.table.Load()) {
				return ErrMoved
			}
		}
	}
	return nil
}

// A walk goes through the keys of all servers.
type walk struct {
	*Store
	table *table
	since []time.Time // when each server was in use without a break since
	visit func(keys []string) error
}

// begin notes what the walk begins with.
func (w *walk) begin() error {
	w.table, w.since = w.Store.table.Load(), nil
	for _, l := range w.table.nodes {
		w.since = append(w.since, l.standing())
	}
	if len(w.since) == 0 || slices.ContainsFunc(w.since, time.Time.IsZero) || !w.table.complete() {
		return ErrUnavailable
	}
	return nil
}

// unmoved reports whether all slots are where they were when the walk began.
func (w *walk) unmoved(now *table) bool {
	if now == w.table {
		return true
	}
	other := *now
	other.moving = w.table.moving
	return other.same(w.table)
}

// pass goes through the keys once. A replica's keys are those of its primary: to see them twice would cost time alone.
func (w *walk) pass(ctx context.Context, match string) error {
	for i, l := range w.table.nodes {
		for cursor := uint64(0); ; {
			page, err := l.page(ctx, cursor, match)
			if err == nil {
				if keys := w.namespace.ownOf(page.Elements); len(keys) > 0 {
					err = w.visit(keys)
				}
			}
			if err == nil && (!l.standing().Equal(w.since[i]) || !w.unmoved(w.Store.table.Load())) {
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
	return nil
}

// Writable finds out whether all servers take writes: one that has become a replica has keys to go through too, but not all.
func (s *Store) Writable(ctx context.Context) error {
	for _, err := range s.onEach(ctx, true, func(c rueidis.Client, l *link) rueidis.Completed {
		return c.B().Set().Key(l.ownName(probeName)).Value("").Px(probeLife).Build()
	}) {
		if err != nil && code(err) != "ASK" { // the slot of that name is on its way; a replica would not have said so
			return err
		}
	}
	return nil
}

// standing is since when the server has been in use without a break, zero if it is not.
func (l *link) standing() time.Time {
	if state := l.State(); state.Up && l.Up() {
		return state.Since
	}
	return time.Time{}
}

func (l *link) page(ctx context.Context, cursor uint64, match string) (rueidis.ScanEntry, error) {
	var entry rueidis.ScanEntry
	err := l.portion(ctx, func(ctx context.Context) (err error) {
		session := l.session.Load()
		if session == nil {
			return ErrUnavailable
		}
		var cmd rueidis.Completed
		if match == "" {
			cmd = session.client.B().Scan().Cursor(cursor).Count(scanCount).Build()
		} else {
			cmd = session.client.B().Scan().Cursor(cursor).Match(match).Count(scanCount).Build()
		}
		found, err := session.within(ctx, func(c rueidis.Client) []rueidis.RedisResult { return []rueidis.RedisResult{c.Do(ctx, cmd)} })
		if err == nil {
			entry, err = found[0].AsScanEntry()
		}
		if isUnusual(err) {
			l.scans.Store(true) // it is needed here, so whether it is carried out belongs to what is examined
			signal(session.suspect)
		}
		return err
	})
	return entry, err
}

// portion sends one portion when it is its turn, and rests after some of them for as long as they have taken. The turn is given
// back after the rest: else many would have the server work while one of them rests.
func (l *link) portion(ctx context.Context, send func(context.Context) error) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	limited, cancel := context.WithTimeout(ctx, portionTime)
	defer cancel()
	sent := time.Now()
	err := send(limited)
	if l.busy += time.Since(sent); l.busy < burst {
		return err
	}
	rest := l.busy
	l.busy = 0
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

// slowly sends a command for each name in portions.
func (s *Store) slowly(ctx context.Context, names []string, build func(rueidis.Client, int) rueidis.Completed) []rueidis.RedisResult {
	return s.each(ctx, batch{names: names, plain: build, most: portionSize, slow: true, bulk: true})
}

// runSlowly is run, in portions.
func (s *Store) runSlowly(ctx context.Context, calls []call) []rueidis.RedisResult {
	return s.runAs(ctx, calls, batch{most: portionSize, slow: true, bulk: true})
}

// named are what keys are called.
func (s *Store) named(keys []string) []string {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = s.namespace.name(key)
	}
	return names
}

// Erase removes those of keys that hold a value of the format, and the leases of all, and reports of each whether it had one.
// Unlike Remove it is not in a hurry. The error is that of any key.
func (s *Store) Erase(ctx context.Context, keys ...string) (removed []bool, err error) {
	calls := make([]call, len(keys))
	for i, key := range keys {
		calls[i] = call{erase, s.pair(key), s.format}
	}
	results := s.runSlowly(ctx, calls)
	s.eraseApart(ctx, keys, results)
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
	names := s.named(keys)
	for i, r := range s.slowly(ctx, names, func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Getrange().Key(names[i]).Start(0).End(int64(bytes) - 1).Build()
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

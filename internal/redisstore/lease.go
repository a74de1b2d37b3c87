package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// A Rejected identifies a value that its reader could not use, so that Acquire may replace that value. The zero value identifies
// none.
type Rejected struct {
	head   string
	length string // as the script acquire takes it
}

// Reject identifies a value by its head and by how many bytes of it were read. The head must be long enough to distinguish the
// value from any other. Where cut is true, the value is longer than what was read.
func Reject(head []byte, read int, cut bool) Rejected {
	how := "="
	if cut {
		how = ">"
	}
	return Rejected{string(head), how + strconv.Itoa(read)}
}

// A Request asks for the lease of one key.
type Request struct {
	Key      string
	Nonce    string
	Rejected Rejected
	Quiet    bool // of a release: clients that have read the key are not notified, since this process has the current value in memory
	// Behind is a load for which no caller waits: Acquire does not grant it a lease while the key is marked.
	Behind bool
	// Pause is how long Release marks a key that has a value: loads behind their callers' backs leave it alone for that time, in all processes.
	Pause time.Duration
}

func (r Request) behind() string {
	if r.Behind {
		return "behind"
	}
	return ""
}

// A Grant answers a Request. Neither Granted nor Present nor an error: another process holds the lease.
type Grant struct {
	Granted bool  // the lease is the caller's
	Holds   bool  // with Granted: the key still has the value that the caller has rejected
	Empty   bool  // with Granted: the key has no value; whoever stores one takes the lease away before
	Present bool  // no lease is needed: the key has a value, not rejected by the caller, which should be read
	Now     int64 // the server's time in µs, before the lease's holder loads anything
	Err     error // of this key alone
}

// A leaseLife is how long leases live, in ms, as the scripts take it.
type leaseLife struct {
	ms      string // of this process's leases, unless renewed
	longest string // of any lease of any process
}

func newLeaseLife(life time.Duration) leaseLife {
	ms := life.Milliseconds()
	return leaseLife{strconv.FormatInt(ms, 10), strconv.FormatInt(max(10*ms, (10*time.Minute).Milliseconds()), 10)}
}

// acquire grants the lease of K unless K has a value or another process holds the lease.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms, head of a value of K that the caller has rejected, its length ("" for none, else "=" or, where it was
//	      cut, ">" and the bytes that were read), the longest life in ms that a lease can have, "behind" for a load that no caller waits for
//
// The reply is {0, now} where K has a value to be read, {1, now} where the lease is granted, {3, now} where it is granted and K still has the
// value that the caller has rejected, or {2, now} where another process holds it. now is the server's time in µs. A rejected value, an empty
// one and a key that is no string count as absent: otherwise nobody could replace them before they expire.
//
// A lease without a time limit, or with a longer one than any process sets, was written by another program, or the server's clock
// was set back. No fill would come, and everybody would wait. So the lease is taken over. If it has a holder, that holder's fill
// is refused.
//
// A mark is in the place of a lease after a load has failed for which no caller waited: see release. Only loads of that kind heed it.
var acquire = newScript(stats.Leasing, `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local granted = 1
local length = redis.pcall('STRLEN', KEYS[1])
if type(length) == 'table' and string.sub(length.err, 1, 9) ~= 'WRONGTYPE' then
	redis.call('STRLEN', KEYS[1]) -- fails again, with an error that names the line
end
if type(length) == 'number' and length > 0 then
	local how, read = string.sub(ARGV[4], 1, 1), tonumber(string.sub(ARGV[4], 2))
	local rejected = read and #ARGV[3] > 0 and (how == '=' and length == read or how == '>' and length >= read) and
		redis.call('GETRANGE', KEYS[1], 0, #ARGV[3] - 1) == ARGV[3]
	if not rejected then
		return {0, now}
	end
	granted = 3
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
	return {granted, now}
end
local left = redis.call('PTTL', KEYS[2])
local marked = ARGV[6] ~= 'behind' and redis.pcall('GETRANGE', KEYS[2], 0, 0) == '-'
if left < 0 or left > tonumber(ARGV[5]) or marked then
	redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
	return {granted, now}
end
return {2, now}
`)

// seize takes the lease from any holder: a Set or a forced refresh supersedes every load in progress.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms
//
// The reply is {1, now}, as from acquire.
var seize = newScript(stats.Leasing, `
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
return {1, time[1] * 1000000 + time[2]}
`)

// renew restores the full life of the caller's lease. The reply is 0 where the lease is lost.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms
var renew = newScript(stats.Leasing, `
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
`)

// release gives up the caller's lease without a value, and notifies the processes that wait for one.
//
//	KEYS  K, L
//	ARGV  nonce, "quiet" to notify nobody: waiting processes poll, a little later; for how many ms K is marked, if it has a value, or 0
//
// A mark begins with "-", as no nonce does.
var release = newScript(stats.Leasing, `
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
if tonumber(ARGV[3]) > 0 and redis.call('EXISTS', KEYS[1]) == 1 then
	redis.call('SET', KEYS[2], '-' .. ARGV[1], 'PX', ARGV[3])
	return 1
end
if ARGV[2] == 'quiet' then
	return redis.call('DEL', KEYS[2])
end`+notifyLease+`
return 1
`)

// Acquire asks for leases and, before them, for the generations of tags, in one round trip. A tag without a generation gets one. The
// lease of a key that was found missing is asked for in plain commands: see askPlainly. Where others are after it, there may be a
// second round trip.
func (s *Store) Acquire(ctx context.Context, tags []Tag, reqs ...Request) ([]Grant, []Generation) {
	return s.lease(ctx, tags, reqs, func(calls []call, r Request) []call {
		if r.Rejected == (Rejected{}) {
			return s.askPlainly(calls, r)
		}
		return append(calls, s.acquire(r))
	})
}

func (s *Store) acquire(r Request) call {
	return call{acquire, s.pair(r.Key), []string{r.Nonce, s.leaseLife.ms, r.Rejected.head, r.Rejected.length, s.leaseLife.longest, r.behind()}}
}

// Seize is Acquire, but takes leases from their holders. The fills of those holders are refused from then on.
func (s *Store) Seize(ctx context.Context, tags []Tag, reqs ...Request) ([]Grant, []Generation) {
	return s.lease(ctx, tags, reqs, func(calls []call, r Request) []call {
		return append(calls, s.onPair(seize, r.Key, r.Nonce, s.leaseLife.ms))
	})
}

func (s *Store) lease(ctx context.Context, tags []Tag, reqs []Request, ask func([]call, Request) []call) ([]Grant, []Generation) {
	calls := slices.Grow(s.ofTags(ensure, tags), plainCalls*len(reqs))
	for _, r := range reqs {
		calls = ask(calls, r)
	}
	results := s.runAs(ctx, batch{content: content{calls: calls}, times: true})
	grants, from := make([]Grant, len(reqs)), len(tags)
	var more []call
	var of []int
	for i := range reqs {
		if calls[from].script.command == nil {
			grants[i] = parseGrant(results[from])
			from++
			continue
		}
		var next func(*Store, Request) call
		if grants[i], next = parsePlainly(results[from : from+plainCalls]); next != nil {
			more, of = append(more, next(s, reqs[i])), append(of, i)
		}
		from += plainCalls
	}
	s.settle(ctx, grants, more, of)
	return grants, generations(results[:len(tags)])
}

// noteTime notes the server's time from the reply to a call.
func noteTime(script *script, l *link, sent time.Time, r rueidis.RedisResult) {
	switch script {
	case acquire, seize:
		if g := parseGrant(r); g.Err == nil {
			l.clock.note(sent, g.Now)
		}
	case askTime:
		if now, err := parseTime(r); err == nil {
			l.clock.note(sent, now)
		}
	}
}

func parseGrant(r rueidis.RedisResult) (g Grant) {
	parts, err := r.ToArray()
	if err != nil {
		return Grant{Err: err}
	}
	if len(parts) < 2 {
		return Grant{Err: fmt.Errorf("lease script answered with %d parts", len(parts))}
	}
	status, err := parts[0].AsInt64()
	if err != nil {
		return Grant{Err: err}
	}
	if g.Now, err = parts[1].AsInt64(); err != nil {
		return Grant{Err: err}
	}
	switch {
	case status == 1 || status == 3:
		g.Granted, g.Holds = true, status == 3
	case status == 0:
		g.Present = true
	case status == 2:
		// Another process holds it.
	default:
		err = fmt.Errorf("lease script answered with status %d", status)
	}
	if err != nil {
		return Grant{Err: err}
	}
	return g
}

// Renew restores the full life of leases that the caller still holds, in one round trip. held[i] says whether the caller holds the
// lease, and counts where errs[i] is nil.
func (s *Store) Renew(ctx context.Context, reqs ...Request) (held []bool, errs []error) {
	calls := make([]call, len(reqs))
	for i, r := range reqs {
		calls[i] = s.onPair(renew, r.Key, r.Nonce, s.leaseLife.ms)
	}
	held, errs = make([]bool, len(reqs)), make([]error, len(reqs))
	for i, r := range s.run(ctx, calls) {
		var n int64
		n, errs[i] = r.AsInt64()
		held[i] = n == 1
	}
	return held, errs
}

// Release gives up leases, so that other processes may load at once, in one round trip. It returns the error of each, or nil if
// none failed.
func (s *Store) Release(ctx context.Context, reqs ...Request) (errs []error) {
	calls := make([]call, len(reqs))
	for i, r := range reqs {
		calls[i] = s.release(r)
	}
	return errorsOf(s.run(ctx, calls))
}

func (s *Store) release(r Request) call {
	how := ""
	if r.Quiet {
		how = "quiet"
	}
	return s.onPair(release, r.Key, r.Nonce, how, strconv.FormatInt(r.Pause.Milliseconds(), 10))
}

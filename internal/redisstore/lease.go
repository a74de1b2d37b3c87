package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// A Rejected names a value that its reader could not use, so that Acquire may replace it. The zero value names none.
type Rejected struct {
	head   string
	length string // as acquire takes it
}

// Reject names a value by its head, enough of it to hold what tells it from any other, and by how much of it was read: all, or,
// where it was cut, so many bytes of more.
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
	Quiet    bool // of a lease that is given back: whoever has read the key is not told, since it is in memory here, read as it is
}

// A Grant answers a Request: the lease, or neither that nor an error while another holds it.
type Grant struct {
	Granted bool  // the lease is the caller's
	Present bool  // there is no need of one: the key has a value that the caller has not rejected, and should read
	Now     int64 // the server's time in µs, before anything that the lease's holder loads
	Err     error // this key alone failed
}

// A leaseLife is how long leases live, in ms, as the scripts take it.
type leaseLife struct {
	ms      string // of a lease of this process that is not renewed
	longest string // of any process's lease
}

func newLeaseLife(life time.Duration) leaseLife {
	ms := life.Milliseconds()
	return leaseLife{strconv.FormatInt(ms, 10), strconv.FormatInt(max(10*ms, (10*time.Minute).Milliseconds()), 10)}
}

// acquire looks at K and answers with what the caller can do.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms, head of a value of K that the caller has rejected, its length ("" for none, else "=" or, where it was
//	      cut, ">" and the bytes that were read), the longest life in ms that a lease can have
//
// The reply is {0, now} while K has a value to be read, {1, now} with the lease granted, or {2, now} while another holds it;
// now is the server's time in µs. A value that the caller rejected, an empty one, or a key that holds no string, counts as absent:
// else nobody could replace it before it expires.
//
// A lease that lives for ever, or for longer than any, was written by somebody else, or the server's clock was set back: nobody
// would come to fill, and everybody would wait. It is taken over; should it have a holder, that one's fill is refused.
var acquire = newScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local length = redis.pcall('STRLEN', KEYS[1])
if type(length) == 'table' and string.sub(length.err, 1, 9) ~= 'WRONGTYPE' then
	redis.call('STRLEN', KEYS[1]) -- which fails with the words that say where
end
if type(length) == 'number' and length > 0 then
	local how, read = string.sub(ARGV[4], 1, 1), tonumber(string.sub(ARGV[4], 2))
	local rejected = read and #ARGV[3] > 0 and (how == '=' and length == read or how == '>' and length >= read) and
		redis.call('GETRANGE', KEYS[1], 0, #ARGV[3] - 1) == ARGV[3]
	if not rejected then
		return {0, now}
	end
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
	return {1, now}
end
local left = redis.call('PTTL', KEYS[2])
if left < 0 or left > tonumber(ARGV[5]) then
	redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
	return {1, now}
end
return {2, now}
`)

// seize takes the lease whoever holds it: a Set or a forced refresh supersedes every load under way.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms
//
// The reply is {1, now}, as from acquire.
var seize = newScript(`
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
return {1, time[1] * 1000000 + time[2]}
`)

// renew gives the caller's lease its full life again; the reply is 0 where it is lost.
//
//	KEYS  K, L
//	ARGV  nonce, lease in ms
var renew = newScript(`
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
`)

// release gives the caller's lease back without a value, and tells those who wait for one.
//
//	KEYS  K, L
//	ARGV  nonce, "quiet" to tell nobody: they look again by themselves, a little later
var release = newScript(`
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then
	return 0
end
if ARGV[2] == 'quiet' then
	return redis.call('DEL', KEYS[2])
end` + notifyLease + `
return 1
`)

// Acquire asks for the leases of reqs, and before that for the generations of tags, in one round trip. A tag that has no
// generation is given one.
func (s *Store) Acquire(ctx context.Context, tags []Tag, reqs ...Request) ([]Grant, []Generation) {
	return s.lease(ctx, tags, reqs, func(r Request) call {
		return call{acquire, s.pair(r.Key), []string{r.Nonce, s.leaseLife.ms, r.Rejected.head, r.Rejected.length, s.leaseLife.longest}}
	})
}

// Seize is Acquire, but takes the leases from whoever holds them, whose fills are refused from then on.
func (s *Store) Seize(ctx context.Context, tags []Tag, reqs ...Request) ([]Grant, []Generation) {
	return s.lease(ctx, tags, reqs, func(r Request) call {
		return call{seize, s.pair(r.Key), []string{r.Nonce, s.leaseLife.ms}}
	})
}

func (s *Store) lease(ctx context.Context, tags []Tag, reqs []Request, ask func(Request) call) ([]Grant, []Generation) {
	calls := s.ofTags(ensure, tags)
	for _, r := range reqs {
		calls = append(calls, ask(r))
	}
	grants := make([]Grant, len(reqs))
	results := s.runAs(ctx, calls, batch{answered: func(l *link, sent time.Time, i int, r rueidis.RedisResult) {
		if i -= len(tags); i < 0 {
			return
		}
		if grants[i] = parseGrant(r); grants[i].Err == nil {
			l.clock.note(sent, grants[i].Now)
		}
	}})
	for i, r := range results[len(tags):] {
		grants[i] = parseGrant(r)
	}
	return grants, generations(results[:len(tags)])
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
	case status == 1:
		g.Granted = true
	case status == 0:
		g.Present = true
	case status == 2:
		// Another's.
	default:
		err = fmt.Errorf("lease script answered with status %d", status)
	}
	if err != nil {
		return Grant{Err: err}
	}
	return g
}

// Renew gives leases their full life again, where the caller still holds them, in one round trip. It reports for each whether
// the caller holds it, which counts where there is no error.
func (s *Store) Renew(ctx context.Context, reqs ...Request) (held []bool, errs []error) {
	calls := make([]call, len(reqs))
	for i, r := range reqs {
		calls[i] = call{renew, s.pair(r.Key), []string{r.Nonce, s.leaseLife.ms}}
	}
	held, errs = make([]bool, len(reqs)), make([]error, len(reqs))
	for i, r := range s.run(ctx, calls) {
		var n int64
		n, errs[i] = r.AsInt64()
		held[i] = n == 1
	}
	return held, errs
}

// Release gives leases back, so that others may load at once, in one round trip. It returns the error of each, or nil if none
// failed.
func (s *Store) Release(ctx context.Context, reqs ...Request) (errs []error) {
	calls := make([]call, len(reqs))
	for i, r := range reqs {
		how := ""
		if r.Quiet {
			how = "quiet"
		}
		calls[i] = call{release, s.pair(r.Key), []string{r.Nonce, how}}
	}
	return errorsOf(s.run(ctx, calls))
}

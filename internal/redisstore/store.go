// Package redisstore keeps encoded values in Redis: reads, leases, compare-and-set fills and removals, each under a time
// limit of its own, through a connection that is made and mended in the background. It knows nothing of what the values
// mean.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// ErrUnavailable means that Redis was not asked, because it is not connected or has failed too often of late. It comes
// at once.
var ErrUnavailable = errors.New("redis is unavailable")

// ErrBudget is the cause of the end of a context whose Budget is spent. It tells a Redis that is too slow from a caller
// who was in too much of a hurry.
var ErrBudget = errors.New("redis did not answer within its budget")

// A Rejected names a value that its reader could not use, so that Acquire may replace it. The zero value names none.
type Rejected struct {
	head   string
	length int
	set    bool
}

// Reject names the value that has length bytes and begins with head: enough of it to hold what tells it from any other.
func Reject(head []byte, length int) Rejected {
	return Rejected{head: string(head), length: length, set: true}
}

// A Read is the answer for one key: its value, nil where there is none, or the error of this key alone.
type Read struct {
	Value []byte
	Err   error
}

// A Request asks for the lease of one key.
type Request struct {
	Key      string
	Nonce    string
	Rejected Rejected
}

// A Grant answers a Request: a value, or the lease, or neither while another holds the lease.
type Grant struct {
	Value   []byte // not nil: the key has a value that the caller has not rejected
	Granted bool   // the lease is the caller's
	Now     int64  // the server's time in µs, before anything that the lease's holder loads
	Err     error  // this key alone failed
}

// A Filling stores one value under its lease.
type Filling struct {
	Key   string
	Nonce string
	Value []byte
	Until int64 // end of life in µs of the server's time
}

// An Outcome tells what became of a Filling.
type Outcome int

// The outcomes.
const (
	// Refused: the lease was gone, because an invalidation, a Set or another fill came in between; or a newer build's
	// value was there, which has been removed.
	Refused Outcome = iota
	Stored
	Expired // its life had ended before it came
)

// A Format is as much of how values are laid out as the scripts must know: they begin with Magic, a byte for the version
// and one for flags. Without a Magic no value is recognized as one.
type Format struct {
	Magic     string
	Version   byte // the newest that this build knows
	Flags     byte // the largest value that this build knows
	LoadStart int  // where an int64, little endian, says when the load began, in µs of the server's time
}

// Options configures a Store.
type Options struct {
	Client    rueidis.ClientOption
	OpTimeout time.Duration // limit of one operation on small values
	Lease     time.Duration // life of a lease that is not renewed
	Format    Format
	OnState   func(State) // told each change of state, one at a time; it must not block
}

// A Store is safe for concurrent use. All its methods fail with ErrUnavailable, at once, while there is no connection.
type Store struct {
	link
	clock     serverClock
	opTimeout time.Duration
	leaseMS   string
	format    []string // as the scripts take it: magic, version, flags, offset of the load's start
}

// Open returns at once; the connection is made in the background.
func Open(o Options) *Store {
	s := &Store{
		opTimeout: o.OpTimeout,
		leaseMS:   strconv.FormatInt(o.Lease.Milliseconds(), 10),
		format: []string{
			o.Format.Magic, strconv.Itoa(int(o.Format.Version)), strconv.Itoa(int(o.Format.Flags)),
			strconv.Itoa(o.Format.LoadStart),
		},
	}
	s.link.open(o.Client, s.greet, o.OnState)
	return s
}

// greet is what a connection must answer before it is used: the time, which freshness is measured by.
func (s *Store) greet(ctx context.Context, c rueidis.Client) error {
	sent := time.Now()
	parts, err := c.Do(ctx, c.B().Time().Build()).AsIntSlice()
	if err == nil && len(parts) != 2 {
		err = errors.New("malformed reply to TIME")
	}
	if err == nil {
		s.clock.note(sent, parts[0]*1_000_000+parts[1])
	}
	return err
}

// Now estimates the server's time in µs, and how far off the estimate may be. It is known once there has been a
// connection.
func (s *Store) Now() (now, within int64, ok bool) { return s.clock.Now() }

// bytesPerSecond is the transfer rate that an operation on a large value is given time for, on top of its limit. It is
// a slow one on purpose: the limit exists to notice a server that hangs, not to race it.
const bytesPerSecond = 32 << 20

// bytesPerKey is what each further key of a batch counts for, on top of its value: its command and its script take time
// too, and what a read brings is not known before.
const bytesPerKey = 4 << 10

// Budget bounds ctx to what one call may spend on Redis: the operation limit, and more where size bytes or several keys
// are to be moved. Where it is what ends the context, the cause is ErrBudget.
func (s *Store) Budget(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc) {
	bytes := float64(max(size, 0)) + bytesPerKey*max(float64(keys)-1, 0)
	limit := time.Duration(math.MaxInt64)
	if d := float64(s.opTimeout) + bytes/bytesPerSecond*float64(time.Second); d < math.MaxInt64 {
		limit = time.Duration(d)
	}
	return context.WithTimeoutCause(ctx, limit, ErrBudget)
}

// CallersOwn reports whether ctx has ended, and not because its Budget was spent: what failed under it says nothing of
// Redis.
func CallersOwn(ctx context.Context) bool {
	// rueidis sets the deadline on the connection, where it can strike a moment before the context's own timer does. Only
	// the context knows whose deadline it was.
	if d, ok := ctx.Deadline(); ok && ctx.Done() != nil && !time.Now().Before(d) {
		<-ctx.Done()
	}
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrBudget)
}

// leaseKey is where the lease of key lies. An escaped key holds no braces, so the tag is the whole key.
func leaseKey(key string) string { return "{" + key + "}!l" }

// Read gets keys in one round trip.
func (s *Store) Read(ctx context.Context, keys ...string) []Read {
	out := make([]Read, len(keys))
	results := s.each(ctx, len(keys), func(c rueidis.Client, i int) rueidis.Completed {
		return c.B().Get().Key(keys[i]).Build()
	})
	for i, r := range results {
		out[i].Value, out[i].Err = r.AsBytes()
		if rueidis.IsRedisNil(out[i].Err) {
			out[i] = Read{}
		} else if out[i].Err == nil && out[i].Value == nil {
			out[i].Value = []byte{} // an empty value is there, and foreign
		}
	}
	return out
}

// Acquire asks for the leases of reqs in one round trip.
func (s *Store) Acquire(ctx context.Context, reqs ...Request) []Grant {
	return s.leases(time.Now(), s.run(ctx, acquire, len(reqs), func(i int) ([]string, []string) {
		r := reqs[i]
		length := -1
		if r.Rejected.set {
			length = r.Rejected.length
		}
		return []string{r.Key, leaseKey(r.Key)}, []string{r.Nonce, s.leaseMS, r.Rejected.head, strconv.Itoa(length)}
	}))
}

// Seize takes the leases of reqs from whoever holds them, and from then on refuses the fills of those.
func (s *Store) Seize(ctx context.Context, reqs ...Request) []Grant {
	return s.leases(time.Now(), s.run(ctx, seize, len(reqs), func(i int) ([]string, []string) {
		return []string{reqs[i].Key, leaseKey(reqs[i].Key)}, []string{reqs[i].Nonce, s.leaseMS}
	}))
}

func (s *Store) leases(sent time.Time, results []rueidis.RedisResult) []Grant {
	out := make([]Grant, len(results))
	for i, r := range results {
		out[i] = parseGrant(r)
	}
	if len(out) > 0 && out[0].Err == nil {
		s.clock.note(sent, out[0].Now)
	}
	return out
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
	case status == 0 && len(parts) == 3:
		if g.Value, err = parts[2].AsBytes(); err == nil && g.Value == nil {
			g.Value = []byte{}
		}
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

// Fill stores values under their leases, and gives those back, in one round trip. An outcome counts where there is no error.
func (s *Store) Fill(ctx context.Context, fills ...Filling) ([]Outcome, []error) {
	results := s.run(ctx, fill, len(fills), func(i int) ([]string, []string) {
		f := fills[i]
		args := []string{f.Nonce, rueidis.BinaryString(f.Value), strconv.FormatInt(f.Until, 10)}
		return []string{f.Key, leaseKey(f.Key)}, append(args, s.format[:3]...)
	})
	outcomes, errs := make([]Outcome, len(fills)), make([]error, len(fills))
	for i, r := range results {
		var n int64
		n, errs[i] = r.AsInt64()
		outcomes[i] = Outcome(n)
	}
	return outcomes, errs
}

// Renew gives leases their full life again, where the caller still holds them, in one round trip.
func (s *Store) Renew(ctx context.Context, reqs ...Request) error {
	return firstError(s.run(ctx, renew, len(reqs), func(i int) ([]string, []string) {
		return []string{reqs[i].Key, leaseKey(reqs[i].Key)}, []string{reqs[i].Nonce, s.leaseMS}
	}))
}

// Release gives leases back, so that others may load at once, in one round trip.
func (s *Store) Release(ctx context.Context, reqs ...Request) error {
	return firstError(s.run(ctx, release, len(reqs), func(i int) ([]string, []string) {
		return []string{reqs[i].Key, leaseKey(reqs[i].Key)}, []string{reqs[i].Nonce}
	}))
}

func firstError(results []rueidis.RedisResult) error {
	for _, r := range results {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

// Remove invalidates keys in one round trip: their values and their leases. It returns how many had a value, and an
// error if any key failed.
func (s *Store) Remove(ctx context.Context, keys ...string) (removed int64, err error) {
	results := s.run(ctx, remove, len(keys), func(i int) ([]string, []string) {
		return []string{keys[i], leaseKey(keys[i])}, nil
	})
	for _, r := range results {
		n, e := r.AsInt64()
		if e != nil {
			err = e
		}
		removed += n
	}
	return removed, err
}

// Discard removes the value of key, unless its load began at before, in µs of the server's time, or later. It is for a Set
// whose fill was refused: an older value must not survive it, and that of a Set which came after it must.
func (s *Store) Discard(ctx context.Context, key string, before int64) error {
	return firstError(s.run(ctx, discard, 1, func(int) ([]string, []string) {
		return []string{key}, append([]string{strconv.FormatInt(before, 10)}, s.format...)
	}))
}

// IsWrongType reports whether err means that the key holds something else than a string.
func IsWrongType(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), "WRONGTYPE")
}

// IsTimeout reports whether err means that Redis did not answer in time.
func IsTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// Describe says in a few words what went wrong with Redis, for a reader who wants to know why a value was loaded. Of a
// server's own error it gives the code alone: the text behind it may quote what was sent.
func Describe(err error) string {
	if e, ok := rueidis.IsRedisErr(err); ok {
		code, _, _ := strings.Cut(e.Error(), " ")
		switch {
		case strings.Contains(e.Error(), "user executing the script"):
			code = "NOPERM" // which scripts leave out
		case strings.ToUpper(code) != code:
			code = "ERR" // which rueidis leaves out
		}
		return "redis answered " + code
	}
	switch {
	case errors.Is(err, ErrUnavailable):
		return ErrUnavailable.Error()
	case IsTimeout(err):
		return "redis did not answer in time"
	}
	return "the connection to redis failed"
}

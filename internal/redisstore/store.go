// Package redisstore keeps encoded values in Redis: reads, leases, compare-and-set fills and removals, each under a time
// limit of its own, through a connection that is made and mended in the background. It knows nothing of what the values
// mean.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
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

// A Look asks what a key holds.
type Look struct {
	Key string
	// Fence is armed in the place of the reply among the messages of its connection. Without one, nobody vouches for what
	// was read.
	Fence *near.Fence
	// Head asks for so many bytes from the beginning, 0 for all.
	Head int
}

// A Read is the answer to one Look: a value, nil where there is none or an empty one, or the error of this key alone.
type Read struct {
	Value []byte
	// Cut is whether the value goes on behind what was read: it is longer than Format.Longest.
	Cut bool
	// Validity is good until the server can no longer be trusted to tell of a change of the key. Nil: it never could.
	Validity *near.Validity
	Err      error
}

// A Tag names what has a generation: a key, and how long Ensure has it live at least from now on. Zero is for ever. To Bump, the
// life is only whether there is one: what exists keeps the time that it has left, and what does not is not made.
type Tag struct {
	Key  string
	Life time.Duration
}

// A Generation is that of a tag, or the error of this tag alone.
type Generation struct {
	Value   uint64
	Err     error
	Missing bool // of Bump: the tag had no generation, and has none now
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

// A Filling stores one value under its lease.
type Filling struct {
	Key    string
	Nonce  string
	Value  []byte
	Chunks [][]byte // of a value whose payload is not in Value: stored first, under names made of the nonce
	Until  int64    // end of life in µs of the server's time
}

// Size is how many bytes are to be sent.
func (f Filling) Size() int64 {
	n := int64(len(f.Value))
	for _, c := range f.Chunks {
		n += int64(len(c))
	}
	return n
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
	Nonce     int  // where the 12 bytes of the nonce are, behind LoadStart
	Chunked   byte // the flag of values in chunks; the last 12 bytes of those are a manifest
	TagsLen   int  // where a uint32, likewise, says how many bytes the tags take
	Longest   int  // bytes that a value has at most, without those in chunks
	Tags      int  // where they begin: their number (2 bytes), then of each the length of its name (2), the name, its generation (8)
}

// Options configures a Store.
type Options struct {
	Client    rueidis.ClientOption
	Namespace string        // what all names in Redis begin with; nobody else sees it, and every key is given without it
	OpTimeout time.Duration // limit of one operation on small values
	Lease     time.Duration // life of a lease that is not renewed
	Format    Format
	Clock     *near.Clock      // what the losses of validities are dated by; a clock of the store's own unless set
	OnState   func(State)      // told each change of state, one at a time; it must not block
	Pushed    func(key string) // told each key that was read with a Fence and that somebody has changed; it must not block
	Gap       func()           // told when validities were withdrawn; it must not block
	Marked    func(uint64)     // told the last Mark that a server knows of, 0 for none, before it is used; it must not block
	Asked     func() uint64    // grows with each call of the users; nil: connections never rest
	RestAfter time.Duration    // without a call, until they do; a minute unless set
}

func (o *Options) now() func() int64 {
	if o.Clock != nil {
		return o.Clock.Now
	}
	began := time.Now()
	return func() int64 { return int64(time.Since(began)) }
}

// A Store is safe for concurrent use. All its methods fail with ErrUnavailable, at once, while there is no connection.
type Store struct {
	topology
	tracking
	namespace     namespace
	announcements announcements // where the server does no tracking
	opTimeout     time.Duration
	grace         grace
	changed       func(key string)
	marked        func(uint64)
	asked         func() uint64
	restAfter     time.Duration
	leaseMS       string
	longestLease  string // of any process, in ms
	mostStored    int
	format        []string // as the scripts take it: see formatFrom
	layout        []string // likewise: offsets of the length of the tags and of the tags
}

// Open returns at once; the connection is made in the background.
func Open(o Options) *Store {
	s := &Store{
		opTimeout:    o.OpTimeout,
		grace:        grace{limit: o.OpTimeout},
		asked:        o.Asked,
		restAfter:    orElse(o.RestAfter, restAfter),
		namespace:    namespace(o.Namespace),
		leaseMS:      strconv.FormatInt(o.Lease.Milliseconds(), 10),
		longestLease: strconv.FormatInt(max(10*o.Lease.Milliseconds(), (10*time.Minute).Milliseconds()), 10),
		format: []string{
			o.Format.Magic, strconv.Itoa(int(o.Format.Version)), strconv.Itoa(int(o.Format.Flags)),
			strconv.Itoa(o.Format.LoadStart), strconv.Itoa(o.Format.Nonce), strconv.Itoa(max(1, int(o.Format.Chunked))),
		},
		mostStored: orElse(o.Format.Longest, math.MaxInt32),
		layout:     []string{strconv.Itoa(o.Format.TagsLen), strconv.Itoa(o.Format.Tags)},
	}
	s.changed, s.tracking.gap, s.marked = func(string) {}, func() {}, func(uint64) {}
	if o.Marked != nil {
		s.marked = o.Marked
	}
	if o.Pushed != nil {
		s.changed = o.Pushed
	}
	s.tracking.pushed = func(name string) {
		if key, ok := s.namespace.own(name); ok && !s.namespace.isInternal(name) {
			s.changed(key)
		}
	}
	if o.Gap != nil {
		s.tracking.gap = o.Gap
	}
	s.announcements.self = newSelf()
	s.tracking.now, s.announcements.clock = o.now(), o.now()
	s.newLink = s.linkTo
	s.firsts.found = newFirst(o.OpTimeout)
	s.topology.open(o.Client, o.OnState)
	return s
}

// linkTo makes a link, not yet open, to a node that owns some slots, or to a server that has all.
func (s *Store) linkTo(owned *slotSet) *link {
	l := &link{opTimeout: s.opTimeout, grace: &s.grace, newWire: s.tracking.newWire, turn: make(chan struct{}, 1), first: newFirst(s.opTimeout), hanging: &s.topology.hanging}
	if owned != nil {
		l.owned.Store(owned)
	}
	if owned == nil || owned.full() {
		l.listen = s.hear // of several nodes none would vouch for what the others say
	}
	l.ownName = func(prefix string) string {
		return ownName(l.owned.Load(), s.namespace.name(prefix+s.announcements.self[:16]))
	}
	l.greet = func(ctx context.Context, c rueidis.Client) error { return s.prepare(ctx, l, c) }
	l.touch = func(ctx context.Context, c rueidis.Client) error {
		_, err := readTracked(ctx, c, l.probeNames())
		return err
	}
	l.recall = func(ctx context.Context, c rueidis.Client) error { return s.readMark(ctx, l, c) }
	l.watch = func(ctx context.Context, now *session) { s.watch(ctx, l, now) }
	l.sees = func(ctx context.Context, now *session) error { return s.seesChanges(ctx, l, now) }
	return l
}

// prepare is what a server must answer before it is used. It is given the scripts, so that the first callers need not wait
// for one more round trip, and it is tried whether it carries them out. A server that is out of memory still has values to
// read, and takes removals.
func (s *Store) prepare(ctx context.Context, l *link, c rueidis.Client) error {
	err := l.readClock(ctx, c)
	for more := 4; more > 0 && errors.Is(err, ErrSlow); more-- {
		err = l.readClock(ctx, c) // on a busy machine it may be this process that was slow
	}
	if err != nil {
		return err
	}
	for _, node := range c.Nodes() {
		loads := make(rueidis.Commands, len(scripts))
		for i, script := range scripts {
			loads[i] = node.B().ScriptLoad().Script(script.text).Build()
		}
		for _, r := range node.DoMulti(ctx, loads...) {
			// Some providers keep SCRIPT for themselves: the scripts then travel with their first run.
			if err := r.Error(); classOf(err) != answer && code(err) != "NOPERM" {
				return err
			}
		}
	}
	return s.carriesOut(ctx, l, c)
}

// readMark tells Marked what the server knows of.
func (s *Store) readMark(ctx context.Context, l *link, c rueidis.Client) error {
	if l.idle() || l.handed.Load() {
		return nil // it has nothing that it could have forgotten
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	r := c.Do(ctx, c.B().Get().Key(l.ownName(markName)).Build())
	if err := r.Error(); classOf(err) != answer {
		return err
	}
	mark, _ := r.AsUint64() // without one, or with something else in its place, it knows of nothing
	l.lastMark.Store(mark)
	s.marked(mark)
	return nil
}

// What this process has written down at each server begins with these, and what it tries one with.
const (
	markName  = "%mark:"
	probeName = "%probe:"
)

// markLife is how long that is kept after it was written last.
const markLife = 4 * time.Hour

// Mark has all servers know a number, which Marked is told when a connection to one is made. Numbers grow. A server that takes the
// place of another one knows what that has passed on to it: replication keeps the order of writes.
func (s *Store) Mark(ctx context.Context, mark uint64) error {
	t := s.table.Load()
	if len(t.nodes) == 0 {
		return ErrUnavailable
	}
	for _, l := range t.nodes {
		if l.idle() {
			continue
		}
		if err := s.markAt(ctx, l, mark); err != nil {
			return err
		}
	}
	return nil
}

// markAt writes a mark at one server, over the last one that was written or read there. Where there is another one, the server's data
// was exchanged for what it had been before: it does not know of the invalidations in between.
func (s *Store) markAt(ctx context.Context, l *link, mark uint64) error {
	last, next := l.lastMark.Load(), strconv.FormatUint(mark, 10)
	name := l.ownName(markName)
	args := []string{next, strconv.FormatUint(last, 10), strconv.FormatInt(markLife.Milliseconds(), 10), ""}
	if now := l.latest.Load(); now != nil && now.tracked { // else nobody finds out
		args[3] = "1"
	}
	there, err := s.run(ctx, []call{{writeMark, []string{name}, args}})[0].ToString()
	if err != nil {
		return err
	}
	if now := l.latest.Load(); now != nil {
		signal(now.wake)
	}
	if there == "" {
		l.markGone.Store(true)
		return errMarkGone
	}
	if found, err := strconv.ParseUint(there, 10, 64); err == nil && found < last {
		for _, w := range l.wires() {
			w.withdraw()
		}
		l.lastMark.Store(found)
		s.marked(found) // which has what it does not know sent again, and a mark written after that
		return nil
	}
	l.lastMark.Store(mark)
	return nil
}

// errMarkGone means that a mark was not written yet, since the one before is missing. It may have been evicted, or the data exchanged:
//
//  1. This process has written a mark.
//  2. The data is exchanged for what it was before, in which there is none.
//  3. Another mark is written. Whoever looks for the last one finds it, as if the data knew of all that was confirmed.
//
// So first the connection is tried, which finds out whether it is the same data: see watch.
var errMarkGone = errors.New("the mark that was written last is gone")

// writeMark writes a mark and answers with the one before.
//
//	KEYS  the mark's key
//	ARGV  the mark, the one that was written before it, its life in ms, whether it is left alone where that one is missing
//
// Where the server has an earlier one than that, it is left for now: whoever finds it has to send again what came later.
//
// The key is deleted first, which a server without memory allows, and after that it allows the SET: it stops no script that has written.
// So what is invalidated meanwhile does not have to be remembered until there is memory again.
var writeMark = newScript(`
local there = redis.call('GET', KEYS[1])
if there and tonumber(there) and tonumber(there) < tonumber(ARGV[2]) then
	return there
end
if not there and ARGV[4] == '1' and tonumber(ARGV[2]) > 0 then
	return ''
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return there or ARGV[2]
`)

// readClock asks for the time, which freshness is measured by.
func (l *link) readClock(ctx context.Context, c rueidis.Client) error {
	sent := time.Now()
	parts, err := c.Do(ctx, c.B().Time().Build()).AsIntSlice()
	if err == nil && len(parts) != 2 {
		err = errors.New("malformed reply to TIME")
	}
	if err != nil {
		return err
	}
	l.clock.note(sent, parts[0]*1_000_000+parts[1])
	if time.Since(sent) > l.grace.now() {
		return ErrSlow
	}
	return nil
}

// Now estimates the time in µs of the server that has key, and how far off the estimate may be. It is known once there has been
// a connection.
func (s *Store) Now(key string) (now, within int64, ok bool) {
	if l := s.table.Load().of(s.namespace.name(key)); l != nil {
		return l.clock.Now()
	}
	return 0, 0, false
}

// UpFor reports whether callers are sent to the server that has key.
func (s *Store) UpFor(key string) bool {
	l := s.table.Load().of(s.namespace.name(key))
	return l != nil && l.Up()
}

// AllUp reports whether callers are sent to every server.
func (s *Store) AllUp() bool {
	t := s.table.Load()
	return len(t.nodes) > 0 && !slices.ContainsFunc(t.nodes, func(l *link) bool { return !l.Up() }) && (t.slots == nil || t.complete())
}

// Contact reports how often the connection to the server that has key has come up, and whether it is up now. Where two answers
// have the same count and the second one says that it is down, it has not come up in between.
func (s *Store) Contact(key string) (ups uint64, up bool) {
	l := s.table.Load().of(s.namespace.name(key))
	if l == nil {
		return 0, false
	}
	up = l.Up()
	return l.ups.Load(), up
}

// Tracks reports whether the server that has key tells of its changes.
func (s *Store) Tracks(key string) bool {
	l := s.table.Load().of(s.namespace.name(key))
	return l == nil || l.Tracked()
}

// bytesPerSecond is the transfer rate that an operation on a large value is given time for, on top of its limit. It is
// a slow one on purpose: the limit exists to notice a server that hangs, not to race it.
const bytesPerSecond = 32 << 20

// bytesPerKey is what each further key of a batch counts for, on top of its value: its command and its script take time
// too, and what a read brings is not known before.
const bytesPerKey = 4 << 10

// Budget bounds ctx to what one call may spend on Redis: the operation limit, and more where size bytes or several keys
// are to be moved. Where it is what ends the context, the cause is ErrBudget.
func (s *Store) Budget(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc) {
	return budgetUntil(ctx, time.Now().Add(s.grace.now()+allowance(size, keys)), new(atomic.Int64))
}

// More adds to what ctx, which Budget has made, may spend: the time for further bytes in several keys, which turned out to be
// needed. What was added to one Budget before counts as well, so a call that reads several large values has the time for all of
// them, and with nothing to add, what comes after them is not cut off by the limit that was set before they were met.
func (s *Store) More(ctx context.Context, size int64, keys int) (context.Context, context.CancelFunc) {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	if !ok {
		return s.Budget(ctx, size, keys)
	}
	b.added.Add(int64(allowance(size, keys)))
	return budgetUntil(b.parent, b.until, b.added)
}

// A budget is a context that knows what it would be without its own deadline.
type budget struct {
	context.Context
	parent context.Context
	until  time.Time     // but for what was added
	added  *atomic.Int64 // nanoseconds
}

type budgetKey struct{}

func (b *budget) Value(key any) any {
	if key == (budgetKey{}) {
		return b
	}
	return b.Context.Value(key)
}

func budgetUntil(parent context.Context, until time.Time, added *atomic.Int64) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithDeadlineCause(parent, until.Add(time.Duration(added.Load())), ErrBudget)
	return &budget{ctx, parent, until, added}, cancel
}

// allowance is the time for size bytes and several keys, on top of the limit of an operation.
func allowance(size int64, keys int) time.Duration {
	bytes := float64(max(size, 0)) + bytesPerKey*max(float64(keys)-1, 0)
	if d := bytes / bytesPerSecond * float64(time.Second); d < math.MaxInt64/2 {
		return time.Duration(d)
	}
	return math.MaxInt64 / 2
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

// pair is where key and its lease lie, as the scripts take them.
func (s *Store) pair(key string) []string {
	name := s.namespace.name(key)
	return []string{name, leaseKey(name)}
}

// Look reads keys in one round trip.
func (s *Store) Look(ctx context.Context, looks ...Look) []Read {
	under, names := make([]*look, len(looks)), make([]string, len(looks))
	sole := s.table.Load().sole()
	tracked := sole == nil || sole.Tracked() // a new connection to another server may change it on the way
	for i, l := range looks {
		names[i] = s.namespace.name(l.Key)
		if tracked {
			under[i] = s.begin(l.Fence)
		}
	}
	if !tracked {
		s.announcements.armAll(looks)
	}
	by := make([]*link, len(looks))
	results := s.each(ctx, batch{
		names: names,
		plain: func(c rueidis.Client, i int) rueidis.Completed {
			s.untracked(under[i])
			return c.B().Getrange().Key(names[i]).Start(0).End(s.lastByte(looks[i])).Build()
		},
		cached: func(to *session, i int) rueidis.CacheableTTL {
			start := trackedStart(s.sending(under[i]))
			return rueidis.CT(to.client.B().Getrange().Key(names[i]).Start(start).End(s.lastByte(looks[i])).Cache().ToStaticTTL(), time.Hour)
		},
		answered: func(l *link, _ time.Time, i int, _ rueidis.RedisResult) { by[i] = l },
	})
	now := s.table.Load()
	out := make([]Read, len(looks))
	for i, r := range results {
		out[i].Value, out[i].Err = r.AsBytes()
		if len(out[i].Value) == 0 {
			out[i].Value = nil // GETRANGE answers so for a key that is missing
		}
		out[i].Cut = looks[i].Head == 0 && len(out[i].Value) > s.mostStored
		if tracked {
			out[i].Validity = s.end(under[i])
		} else if looks[i].Fence != nil {
			out[i].Validity = s.announcements.validity()
		}
		// Who does not have the key any more is not told of its changes: see apply.
		if out[i].Err != nil || by[i] != now.of(names[i]) || out[i].Value == nil && now.gives(names[i]) {
			out[i].Validity = nil
		}
	}
	return out
}

// lastByte is the place of the last byte to read. A value that is too long to be one of ours is read up to the byte that shows it.
func (s *Store) lastByte(l Look) int64 {
	if l.Head > 0 {
		return int64(l.Head) - 1
	}
	return int64(s.mostStored)
}

// Acquire asks for the leases of reqs, and before that for the generations of tags, in one round trip. A tag that has no
// generation is given one.
func (s *Store) Acquire(ctx context.Context, tags []Tag, reqs ...Request) ([]Grant, []Generation) {
	return s.lease(ctx, tags, reqs, func(r Request) call {
		return call{acquire, s.pair(r.Key), []string{r.Nonce, s.leaseMS, r.Rejected.head, r.Rejected.length, s.longestLease}}
	})
}

// Seize is Acquire, but takes the leases from whoever holds them, whose fills are refused from then on.
func (s *Store) Seize(ctx context.Context, tags []Tag, reqs ...Request) ([]Grant, []Generation) {
	return s.lease(ctx, tags, reqs, func(r Request) call {
		return call{seize, s.pair(r.Key), []string{r.Nonce, s.leaseMS}}
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

// Ensure asks for the generations of tags, the last of them after all others, wherever they are: in one round trip of a single
// server, or in two. A tag that has none is given one.
func (s *Store) Ensure(ctx context.Context, tags ...Tag) []Generation {
	calls := s.ofTags(ensure, tags)
	if last := len(calls) - 1; last > 0 && s.table.Load().only() == nil {
		return generations(append(s.run(ctx, calls[:last]), s.run(ctx, calls[last:])...))
	}
	return generations(s.run(ctx, calls))
}

// Bump gives tags their next generations, the first of them before all others, wherever they are: in one round trip of a single
// server, or in two. In a cluster the others are left alone where the first fails, whose error is then theirs.
func (s *Store) Bump(ctx context.Context, tags ...Tag) []Generation {
	calls := s.ofTags(bump, tags)
	var results []rueidis.RedisResult
	if len(calls) > 1 && s.table.Load().only() == nil {
		results = s.run(ctx, calls[:1])
		if err := results[0].Error(); err != nil {
			results = unsent(results, len(calls), err)
		} else {
			results = append(results, s.run(ctx, calls[1:])...)
		}
	} else {
		results = s.run(ctx, calls)
	}
	keys := make([]string, len(tags))
	for i, t := range tags {
		keys[i] = t.Key
	}
	s.announce(ctx, keys)
	return generations(results)
}

func (s *Store) ofTags(script *script, tags []Tag) []call {
	calls := make([]call, len(tags))
	for i, t := range tags {
		calls[i] = call{script, []string{s.namespace.name(t.Key)}, lifeArgs(script, t.Life)}
	}
	return calls
}

func generations(results []rueidis.RedisResult) []Generation {
	out := make([]Generation, len(results))
	for i, r := range results {
		text, err := r.ToString()
		if err == nil {
			text, out[i].Missing = strings.CutPrefix(text, "-")
			out[i].Value, err = ParseGeneration([]byte(text))
		}
		out[i].Err = err
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

// Fill stores values under their leases, and gives those back, in one round trip for those without chunks. An outcome counts where
// there is no error.
func (s *Store) Fill(ctx context.Context, fills ...Filling) ([]Outcome, []error) {
	outcomes, errs := make([]Outcome, len(fills)), make([]error, len(fills))
	var changed []string
	chunks := make(map[*Filling]int)            // of those fills that have any in Redis and no manifest
	for _, large := range []bool{false, true} { // those without chunks do not wait for those of others
		var calls []call
		var filling []int
		for i, f := range fills {
			if large != (len(f.Chunks) > 0) {
				continue
			}
			if large {
				var held bool
				var sent int
				if held, sent, errs[i] = s.putChunks(ctx, f); sent > 0 {
					chunks[&fills[i]] = sent
				}
				if !held {
					continue
				}
			}
			args := []string{f.Nonce, rueidis.BinaryString(f.Value), strconv.FormatInt(f.Until, 10), strconv.Itoa(len(f.Chunks))}
			calls = append(calls, call{fill, s.pair(f.Key), append(args, s.format...)})
			filling, changed = append(filling, i), append(changed, f.Key)
		}
		for j, r := range s.run(ctx, calls) {
			i := filling[j]
			var n int64
			n, errs[i] = r.AsInt64()
			if outcomes[i] = Outcome(n); errs[i] == nil && outcomes[i] == Stored {
				delete(chunks, &fills[i])
			}
		}
	}
	s.announce(ctx, changed) // a fill that is refused may have removed something too
	s.forgetChunks(ctx, chunks)
	return outcomes, errs
}

// Renew gives leases their full life again, where the caller still holds them, in one round trip. It reports for each whether
// the caller holds it, which counts where there is no error.
func (s *Store) Renew(ctx context.Context, reqs ...Request) (held []bool, errs []error) {
	calls := make([]call, len(reqs))
	for i, r := range reqs {
		calls[i] = call{renew, s.pair(r.Key), []string{r.Nonce, s.leaseMS}}
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

func firstError(results []rueidis.RedisResult) error {
	for _, r := range results {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

// errorsOf is the error of each result, or nil if none failed.
func errorsOf(results []rueidis.RedisResult) (errs []error) {
	for i, r := range results {
		if err := r.Error(); err != nil {
			if errs == nil {
				errs = make([]error, len(results))
			}
			errs[i] = err
		}
	}
	return errs
}

// Remove invalidates keys in one round trip: their values and their leases. It returns how many had a value, and the error of
// each key, or nil if none failed.
func (s *Store) Remove(ctx context.Context, keys ...string) (removed int64, errs []error) {
	calls := make([]call, len(keys))
	for i, key := range keys {
		calls[i] = call{remove, s.pair(key), s.format}
	}
	results := s.run(ctx, calls)
	s.removeApart(ctx, keys, results)
	s.announce(ctx, keys)
	for _, r := range results {
		n, _ := r.AsInt64()
		removed += n
	}
	return removed, errorsOf(results)
}

// Discard removes the value of key, unless its load began at before, in µs of the server's time, or later. It is for a Set
// whose fill was refused: an older value must not survive it, and that of a Set which came after it must.
func (s *Store) Discard(ctx context.Context, key string, before int64) error {
	err := firstError(s.run(ctx, []call{{discard, []string{s.namespace.name(key)}, append([]string{strconv.FormatInt(before, 10)}, s.format...)}}))
	s.announce(ctx, []string{key})
	return err
}

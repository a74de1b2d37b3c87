package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/redis/rueidis"
)

const (
	dialTimeout  = 3 * time.Second        // of one attempt to connect, or to reach a lost server again
	firstRetry   = 50 * time.Millisecond  // after a failed attempt; doubles up to
	slowestRetry = time.Second            // or, after a refusal that takes somebody to mend it, to
	slowRefused  = 5 * time.Second        //
	lookAgain    = 5 * time.Second        // how often a command that is refused has the server examined
	writeTimeout = 500 * time.Millisecond // what a connection may be silent while replies are due
	keepAlive    = 500 * time.Millisecond // how often an idle connection is tried
	tripAfter    = 3                      // failures in a row that stop the asking
	steady       = 10 * time.Second       // a session that was in use for so long has settled: see keep
	abandonAfter = time.Second            // how long Close waits for an attempt to connect that has been cut off
)

func orElse[T comparable](d, otherwise T) T {
	if d == *new(T) {
		return otherwise
	}
	return d
}

// Silence is how long a server can say nothing, at most, before a connection with these options is given up: an idle one is
// tried after one to two intervals, and then has so long to answer. It is negative where none is ever tried.
func Silence(opt rueidis.ClientOption) time.Duration {
	every := orElse(opt.Dialer.KeepAlive, keepAlive)
	if every < 0 {
		return -1
	}
	const ever = math.MaxInt64 / 4 // which no sum of these overflows
	return 2*min(every, ever) + min(orElse(opt.ConnWriteTimeout, writeTimeout), ever)
}

// State is how a link stands.
type State struct {
	Up    bool
	Since time.Time
	Cause error // why it is not up; nil before the first attempt has failed
	// Silent is that the server, which does not track, does not let this process announce what it changes: other processes follow
	// when what they have read is UntrackedLife old.
	Silent bool
}

// differs reports whether a state says something that the one before does not.
func (s State) differs(before State) bool {
	return s.Up != before.Up || s.Silent != before.Silent || s.Cause != nil &&
		(before.Cause == nil || classOf(s.Cause) != classOf(before.Cause) || isTLS(s.Cause) && !isTLS(before.Cause))
}

// link is the connection to Redis, and the breaker before it. A call never pays for a connect: rueidis dials in the context
// of whoever comes first, and a short deadline there would never get through. So clients are made in the background, and
// nobody is sent to Redis any more after a few failures in a row, after one that says enough, or when a connection has
// broken, until a background probe has come back. No caller is ever the probe.
type link struct {
	session   atomic.Pointer[session] // nil while down
	ups       atomic.Uint64           // how often it has come up
	lastMark  atomic.Uint64           // that was written, or read, at the server: see Mark
	markGone  atomic.Bool             // that mark was missing: see errMarkGone
	failed    atomic.Int32            // failures in a row
	blind     atomic.Bool             // the server does not tell of changes
	silent    atomic.Bool             // the server does not track, and does not let this process announce changes either
	scans     atomic.Bool             // to go through keys was refused: it is examined too
	clock     serverClock
	owned     atomic.Pointer[slotSet]    // what the node of a cluster has; nil for a server that has all
	ownName   func(prefix string) string // a name of this process's that the server has
	handed    atomic.Bool                // what the node has was handed over to it in full, and it has not been in use yet
	latest    atomic.Pointer[session]    // the one in use, or, while there is none, the last one that was
	opTimeout time.Duration
	grace     *grace // of the process
	options   rueidis.ClientOption
	addrs     []string       // of the one server, where it has several; empty: as the options say
	at        atomic.Int32   // the number of the one in use, or to be tried next, modulo their number
	unreached unreached      // Sentinels
	hanging   *guard.Hanging // dials, of all links
	greet     func(context.Context, rueidis.Client) error
	touch     func(context.Context, rueidis.Client) error       // makes a tracked read
	recall    func(context.Context, rueidis.Client) error       // finds out what the server remembers, before callers use it
	watch     func(context.Context, *session)                   // tries the connections of a session that is told of changes, until ctx ends
	sees      func(context.Context, *session) error             // finds out whether the server tells of changes
	newWire   func(of *session, broken func(cause error)) *wire // for each connection of a client that is told of changes
	listen    func(context.Context, rueidis.Client)             // runs on a client of its own where it is not, until ctx ends; may be nil
	onState   func(State)

	mu    sync.Mutex
	state State         // guarded by mu
	lost  chan struct{} // wakes the background goroutine, with room for one
	cause error         // why lost was signalled; guarded by mu

	first *first // attempt to connect

	turn chan struct{} // holds one, of whom sends a portion: see portion
	busy time.Duration // that portions have taken since the last rest; of whose turn it is

	stop       context.CancelFunc
	done       chan struct{} // closed when the background goroutine has ended
	background sync.WaitGroup
}

// A session is one client, and what was noticed about it.
type session struct {
	client  rueidis.Client
	primary string      // where its connections to the server go, which a Sentinel may have named; empty: they all do
	broken  atomic.Bool // one of them has gone
	tracked bool        // the server tells it of changes
	places  places
	suspect chan struct{} // wakes who examines whether the server still carries out what is needed, with room for one
	silence chan struct{} // likewise: whether it lets this process announce changes has changed
	bulk    bulk
	vigils  map[string]*vigil // of whoever tries it: when it is made, then watch
	wake    chan struct{}     // wakes that one from its rest, with room for one

	mu    sync.Mutex
	wires []*wire // guarded by mu
}

// idle reports whether it is to the node of a cluster that has no slots yet.
func (l *link) idle() bool {
	owned := l.owned.Load()
	return owned != nil && owned.empty()
}

// doubt ends what the connections have vouched for so far, though none has broken.
func (l *link) doubt() {
	for _, w := range l.wires() {
		w.doubt()
	}
}

// doubtAgain is doubt for what is found out again and again: nothing happens where nothing was vouched for since the last time.
func (l *link) doubtAgain() {
	for _, w := range l.wires() {
		if w.vouches() {
			w.doubt()
		}
	}
}

func (l *link) wires() []*wire {
	s := l.latest.Load()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wires)
}

func (l *link) open(opt rueidis.ClientOption, onState func(State)) {
	ctx, stop := context.WithCancel(context.Background())
	l.options, l.onState, l.stop = settled(opt), onState, stop
	l.state = State{Since: time.Now()}
	l.lost, l.done = make(chan struct{}, 1), make(chan struct{})
	go l.keep(ctx)
}

// settled is opt as every client here is made.
func settled(opt rueidis.ClientOption) rueidis.ClientOption {
	if !opt.DisableCache {
		opt.ClientTrackingOptions = []string{"OPTOUT"} // every read is tracked, and none opts out: see tracking
	}
	opt.DisableRetry = true // rueidis would retry until the context ends: one answer, or none
	if opt.ClientSetInfo == nil {
		opt.ClientSetInfo = rueidis.DisableClientSetInfo // one permission less to ask for
	}
	if opt.PipelineMultiplex == 0 {
		opt.PipelineMultiplex = -1 // one connection: all keys of a batch in one pipeline, and pushes in order with replies
	}
	opt.ConnWriteTimeout = orElse(opt.ConnWriteTimeout, writeTimeout)
	opt.Dialer.KeepAlive = orElse(opt.Dialer.KeepAlive, keepAlive)
	opt.Dialer.Timeout = orElse(opt.Dialer.Timeout, dialTimeout)
	// Sentinels are dialled with a Dialer of their own. Without KeepAlive, one that hangs would be waited for without end.
	opt.Sentinel.Dialer.KeepAlive = orElse(opt.Sentinel.Dialer.KeepAlive, keepAlive)
	opt.Sentinel.Dialer.Timeout = orElse(opt.Sentinel.Dialer.Timeout, dialTimeout)
	return opt
}

// isSentinel reports whether a client of Sentinels dials one, or else the server that they name. It uses a Dialer for each, and tells
// the function that dials nothing else.
func isSentinel(opt rueidis.ClientOption, d *net.Dialer) bool {
	return d.Timeout == opt.Sentinel.Dialer.Timeout
}

// keep connects, and connects anew when a session has come to its end.
func (l *link) keep(ctx context.Context) {
	defer close(l.done)
	defer l.background.Wait()
	defer l.first.end()
	listening := false
	pause := firstRetry
	for {
		s, ok := l.connect(ctx, l.options, true)
		if !ok {
			return
		}
		if !listening && !l.Tracked() && l.listen != nil {
			listening = true
			l.background.Go(func() {
				// Not every server takes commands on a connection that has subscribed to something.
				deaf := l.options
				deaf.DisableCache = true
				if own, ok := l.connect(ctx, deaf, false); ok {
					defer own.client.Close()
					l.listen(ctx, own.client)
				}
			})
		}
		began := time.Now()
		for s != nil {
			s = l.use(ctx, s)
		}
		l.at.Store(0) // so that a fleet comes together again
		// A session that was lost as soon as it was there may be lost again as soon.
		if time.Since(began) >= steady {
			pause = firstRetry
		}
		if !rest(ctx, pause) {
			return
		}
		pause = min(2*pause, slowestRetry)
	}
}

// rest waits for about as long as pause, and reports false when ctx ended first. It varies, so that a fleet that has lost its
// server together does not come back together.
func rest(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause/2 + rand.N(pause))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// use sends callers to a session, and after each loss waits for the server to answer again, until ctx ends or only another
// session can help. It returns the session that takes its place as planned, nil where it was lost.
func (l *link) use(ctx context.Context, s *session) (next *session) {
	inUse, over := context.WithCancel(ctx)
	l.background.Go(func() { l.keepBulk(inUse, &s.bulk) })
	if s.tracked && l.watch != nil {
		l.background.Go(func() { l.watch(inUse, s) })
	}
	l.background.Go(func() { l.clear(inUse, s) })
	l.background.Go(func() { l.examine(inUse, s) })
	renewal := newRenewal(l.options.ConnLifetime)
	defer renewal.Stop()
	defer func() {
		l.session.CompareAndSwap(s, next)
		if next == nil {
			over()
		}
		l.background.Go(func() {
			defer over()
			if next != nil {
				l.drain(ctx)
			}
			s.client.Close() // which waits for a server that hangs
		})
	}()
	for {
		l.failed.Store(0)
		select { // a failure that was still under way when the link went down
		case <-l.lost:
		default:
		}
		l.latest.Store(s)
		l.ups.Add(1) // first: who finds it down by this count knows that it has not been up in between
		l.session.Store(s)
		l.handed.Store(false)
		if s.broken.Load() { // since the probe
			l.trip(s, errBroken)
		} else {
			l.grace.begin()
			l.report(State{Up: true, Since: time.Now(), Silent: l.silent.Load()})
		}
		if next = l.lostOrRenewed(ctx, s, renewal); next != nil || ctx.Err() != nil {
			return next
		}
		l.mu.Lock()
		cause := l.cause
		l.mu.Unlock()
		l.report(State{Since: time.Now(), Cause: cause})
		// A client whose connection has broken makes no other one, and where the server did not tell of changes it is asked
		// anew whether it does.
		if classOf(cause) == refused || !s.tracked || s.broken.Load() {
			return nil
		}
		over := false
		ok := retry(ctx, l.down, func() error {
			err := l.probe(ctx, s.client)
			if err == nil {
				err = l.recall(ctx, s.client)
			}
			if over = classOf(err) == refused || s.broken.Load(); over {
				if err != nil {
					l.down(err)
				}
				return nil
			}
			return err
		})
		if !ok || over {
			return nil
		}
	}
}

// drain waits until nobody sends anything any more by a session that another one has replaced: a caller may have taken it just before,
// and have waited for a place since.
func (l *link) drain(ctx context.Context) {
	t := time.NewTimer(l.opTimeout + time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// errBroken is why a link is lost whose connection was closed.
var errBroken = errors.New("the connection has broken")

// trip sends nobody to s any more, from now on and until it is probed.
func (l *link) trip(s *session, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.session.CompareAndSwap(s, nil) {
		return
	}
	l.cause = cause
	select {
	case l.lost <- struct{}{}:
	default:
	}
}

// connect makes a client, the first one or a further one for some other purpose, and reports false when ctx ended before.
func (l *link) connect(ctx context.Context, opt rueidis.ClientOption, first bool) (s *session, ok bool) {
	failed := func(error) {}
	if first {
		failed = func(cause error) {
			l.at.Add(1)
			l.down(cause)
		}
	}
	ok = retry(ctx, failed, func() (err error) {
		s, err = l.try(ctx, opt, first)
		return err
	})
	return s, ok
}

// try makes a client, or fails, or is cut off when ctx ends.
func (l *link) try(ctx context.Context, opt rueidis.ClientOption, first bool) (*session, error) {
	type made struct {
		session *session
		err     error
	}
	result := make(chan made, 1)
	go func() {
		s, err := l.attempt(ctx, opt, first)
		result <- made{s, err}
	}()
	select {
	case r := <-result:
		return r.session, r.err
	case <-ctx.Done():
	}
	windUp := func(r made) {
		if r.err == nil {
			r.session.endVigils()
			r.session.client.Close()
		}
	}
	// Its connections are closed now, so the attempt ends at once, unless a function of the user's, such as DialFn,
	// holds it up: none of those has to know a context.
	select {
	case r := <-result:
		windUp(r)
	case <-time.After(abandonAfter):
		go func() { windUp(<-result) }()
	}
	return nil, ctx.Err()
}

// attempt makes a client, or fails. NewClient knows no context, and would wait long for a server that accepts and stays
// mute: so whatever it has dialed is closed when ctx ends before the client is made.
func (l *link) attempt(ctx context.Context, given rueidis.ClientOption, first bool) (s *session, err error) {
	opt := given
	trying, over := context.WithCancel(ctx)
	acc := newAccount(given)
	var made atomic.Bool // from then on, rueidis closes its connections, and lets commands under way finish
	defer func() {
		made.Store(err == nil)
		over() // in any case, or ctx would hold on to the connections of every client that there ever was
	}()
	own := &session{tracked: !opt.DisableCache, places: newPlaces(opt), bulk: newBulk()}
	own.suspect, own.silence, own.wake = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	s = own
	if opt.Sentinel.Dialer.Timeout == opt.Dialer.Timeout {
		opt.Sentinel.Dialer.Timeout++ // by which isSentinel knows it
	}
	if opt.AuthCredentialsFn != nil {
		opt.AuthCredentialsFn = acc.credentials(opt.AuthCredentialsFn)
	}
	dial := dialer(opt, l.hanging)
	opt.DialCtxFn = func(dialing context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		// What a client of Sentinels dials by itself, Sentinels and the server that they name next, has no deadline; nor has the
		// connection that subscribes where the protocol has one of its own for that.
		if _, inACall := dialing.Deadline(); made.Load() && (inACall || first && own.client.Mode() == rueidis.ClientModeStandalone) {
			return nil, errBroken // a caller has come upon a broken connection, and would wait for another one
		}
		dialing, cancel := context.WithTimeout(dialing, atLeast(d.Timeout))
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		sentinel := opt.Sentinel.MasterSet != "" && isSentinel(opt, d)
		conn, err := dial(dialing, dst, d, config)
		if c, ok := conn.(*guarded); ok && !made.Load() {
			c.words, c.sentinel = &acc.words, sentinel
		}
		if err != nil && opt.Sentinel.MasterSet != "" && !sentinel {
			err = &errPrimary{err}
		}
		if opt.Sentinel.MasterSet != "" {
			l.unreached.note(dst, err)
		}
		if err == nil && !made.Load() {
			l.first.step()
			context.AfterFunc(trying, func() {
				if !made.Load() {
					conn.Close()
				}
			})
		}
		return conn, err
	}
	// ShuffleInit sorts in place, which a client of an earlier attempt, not yet wound up, may be reading.
	opt.InitAddress = l.unreached.last(opt.InitAddress)
	if n := len(l.addrs); n > 0 {
		opt.InitAddress = []string{l.addrs[int(l.at.Load())%n]}
	}
	opt.ConnLifetime = 0 // see renewal.go
	if !own.tracked {
		// Nobody else tells that a connection has broken.
		opt.DialCtxFn = told(opt.DialCtxFn, func(dst string) {
			if made.Load() && (own.primary == "" || own.primary == dst) {
				own.lost(l, nil)
			}
		})
	} else {
		opt.NewCacheStoreFn = func(rueidis.CacheStoreOption) rueidis.CacheStore {
			w := l.newWire(own, func(cause error) { own.lost(l, cause) })
			own.mu.Lock()
			defer own.mu.Unlock()
			own.wires = append(own.wires, w)
			return &carrier{wire: w}
		}
	}
	s.client, err = rueidis.NewClient(opt)
	if err == nil && s.client.Mode() == rueidis.ClientModeSentinel {
		for s.primary = range s.client.Nodes() { // the one that they have named
			break
		}
	}
	if err == nil {
		l.first.step()
		err = l.probe(ctx, s.client)
		if err == nil && !opt.DisableCache {
			l.first.step()
			err = l.probeTracking(ctx, own)
		}
		if err == nil && first {
			l.first.step()
			err = l.recall(ctx, s.client)
		}
		if err != nil {
			own.endVigils()
			s.client.Close()
		}
	}
	if errors.Is(err, rueidis.ErrNoCache) && !opt.DisableCache {
		l.blind.Store(true)
		given.DisableCache = true
		return l.attempt(ctx, given, first)
	}
	if err == nil && !opt.DisableCache {
		l.blind.Store(false)
	}
	return s, acc.tell(err)
}

// lost is told that a connection has broken.
func (s *session) lost(l *link, cause error) {
	s.broken.Store(true)
	signal(s.bulk.gone) // where it is a second client
	l.trip(s, errors.Join(errBroken, cause))
}

// Tracked reports whether the server tells of changes of the keys that were read.
func (l *link) Tracked() bool { return !l.blind.Load() }

func (l *link) probeTracking(ctx context.Context, own *session) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return l.sees(ctx, own)
}

// probe asks the server to greet, with a deadline that leaves time for a dial, and on the connection that reads are tracked on
// too, where that is another one: no caller is to find out that it has to be made.
func (l *link) probe(ctx context.Context, c rueidis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := l.greet(ctx, c); err != nil || !l.Tracked() {
		return err
	}
	return l.touch(ctx, c)
}

// down notes why the link is down.
func (l *link) down(cause error) { l.report(State{Cause: cause}) }

// retry repeats try with growing pauses until it succeeds, and tells of each failure; it reports false when ctx ended first.
func retry(ctx context.Context, failed func(error), try func() error) bool {
	pause := firstRetry
	for {
		err := try()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		failed(err)
		slowest := slowestRetry
		if needsSomebody(err) {
			slowest = slowRefused
		}
		if !rest(ctx, pause) {
			return false
		}
		pause = min(2*pause, slowest)
	}
}

// report notes the state and tells it on where it is another one than before.
func (l *link) report(s State) {
	l.mu.Lock()
	changed := s.differs(l.state)
	if changed && s.Up == l.state.Up || s.Since.IsZero() {
		s.Since = l.state.Since // still down, since the same time
	}
	l.state = s
	l.mu.Unlock()
	if s.Up || s.Cause != nil {
		l.first.end()
	}
	if changed && l.onState != nil {
		l.onState(s)
	}
}

// State tells how the link stands now.
func (l *link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Close ends the connection and the background work. An attempt to connect is cut off, and waited for up to abandonAfter.
func (l *link) Close() {
	l.stop()
	<-l.done
}

// ErrSlow means that the server answers, but later than callers could wait.
var ErrSlow = errors.New("redis answers later than the limit of one operation")

// inBulk stands for the time of what has travelled on the second connection. That much takes long, or longer than its sender can
// wait, says something of the way there, and nothing of a server that answers everybody else. If it hangs, its connections break.
const inBulk time.Duration = -1

// note counts failures of the server, not the ends of callers' patience, and gives the link up after a few, or after one that
// says enough. Answers that have taken too long for the bytes that were sent and received count as failures.
func (l *link) note(ctx context.Context, s *session, took time.Duration, sent int64, results []rueidis.RedisResult) {
	ok := false
	for _, r := range results {
		err := r.Error()
		switch c := classOf(err); {
		case isUnusual(err):
			ok = true // it answers, and does not do that: whether it would for any key is found out without this one
			signal(s.suspect)
		case c == down || c == refused:
			l.trip(s, err)
			return
		case c == answer:
			ok = true
		case CallersOwn(ctx) || rueidis.IsParseErr(err) || took == inBulk:
			// The callers have left, or the reply was not of the expected kind: says nothing of the server.
		default:
			l.fail(s, err)
			return // one round trip is one failure
		}
	}
	limit := l.grace.now()
	switch {
	case took > limit && took > limit+allowance(sent+bytesOf(results), len(results)):
		l.fail(s, ErrSlow)
	case ok && took != inBulk && l.failed.Load() != 0:
		l.failed.Store(0)
	}
	if ok && took != inBulk {
		l.grace.answered(took)
	}
}

func (l *link) fail(s *session, err error) {
	if l.failed.Add(1) >= tripAfter {
		l.trip(s, err)
	}
}

func bytesOf(results []rueidis.RedisResult) (sum int64) {
	for _, r := range results {
		if text, err := r.ToString(); err == nil {
			sum += int64(len(text))
		}
	}
	return sum
}

// Up reports whether callers are sent to the server now.
func (l *link) Up() bool { return l.session.Load() != nil }

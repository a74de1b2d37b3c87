package asidehttp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/logs"
)

// A Target is what a web front end is asked to make anew: what carries a tag, or a path. One of the two is set.
type Target struct {
	Tag  string
	Path string

	// Within is a tag that whatever the target is about carries too, such as that of a category. Where the queue has no room for all
	// targets within it, it is told in their place. It may be empty: then a target is lost for which there is no room
	// left at all.
	Within string
}

// RevalidatorOptions configures a Revalidator. URL and Secret are needed; every other zero field stands for its default.
type RevalidatorOptions struct {
	// URL is the front end's revalidation endpoint. It may have a token in its query. Redirects are not followed: name where they lead.
	URL aside.Secret

	// Secret is sent with each request, in SecretHeader. Default for the header: X-Revalidate-Secret. Headers that HTTP, a proxy or a
	// delivery network sets by itself, such as Host, X-Forwarded-… and Cf-…, are refused.
	Secret       aside.Secret
	SecretHeader string

	// Query puts the target in the query, ?tag=… or ?path=…, with an empty body. Default: a JSON body, {"tag":…} or {"path":…}.
	Query bool

	// Map says what an invalidation is about in the front end's terms. Default: Tags.
	Map func(aside.Invalidation) []Target

	// Client sends the requests. Default: one of its own, made of http.DefaultTransport. Its CheckRedirect is not used.
	Client *http.Client

	// Timeout bounds one request, to the end of its answer. Default: 5 s.
	Timeout time.Duration

	// Queue bounds the targets that wait, and with 1 KiB for each the bytes of their names. Beyond that, the tag that a new one is Within
	// is told in place of all that wait within it. 256 places more are for such tags, and
	// for targets that are within none; what finds none of those either is lost, which is logged and counted. Default: 10,000.
	Queue int

	// Backoff is how long nothing is sent after a request has failed. It doubles with each failure in a row up to MaxBackoff,
	// and is shortened by a random part of up to a half; an answer's Retry-After counts where it is longer, up to MaxBackoff.
	// Defaults: 500 ms and 30 s.
	Backoff, MaxBackoff time.Duration

	// GiveUpAfter is how long a target is tried for, from its last invalidation on. A front end that is away for less misses
	// nothing. Default: 15 min. Where it answers with a redirect, 401, 403, 404, 405, 410 or 421, as something else may that stands in
	// its place while it is rolled out, it is tried for a minute. Other answers from 400 to 499 are final, but for 408, 425 and 429.
	GiveUpAfter time.Duration

	// Logger gets a line at level Error when targets are lost, with their number and the first of them, and one at level Warn when the
	// front end begins to fail. Each of them is written once in ten seconds at most. Default: slog.Default().
	Logger *slog.Logger
}

// Format does not write the secret, whatever the verb, nor the URL's query.
func (o RevalidatorOptions) Format(f fmt.State, _ rune) {
	host := ""
	if u, err := url.Parse(o.URL.Reveal()); err == nil {
		host = u.Host
	}
	fmt.Fprintf(f, "asidehttp.RevalidatorOptions{%s}", host)
}

// LogValue is Format for slog's handlers.
func (o RevalidatorOptions) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// MarshalText is Format for encoding/json.
func (o RevalidatorOptions) MarshalText() ([]byte, error) { return fmt.Append(nil, o), nil }

// maxSending is how many requests run at once, while the front end answers.
const maxSending = 4

// A Revalidator tells a web front end, which keeps pages of its own, what has been invalidated: by the convention of Next.js,
// whose route handler calls revalidateTag or revalidatePath.
//
//	r, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{URL: aside.NewSecret("https://www.example.com/api/revalidate"), Secret: secret})
//	c, err := aside.New(aside.Options{OnInvalidated: r.Notify})
//
// It delivers each target at least once after its last invalidation, or logs that it has not and counts it in Stats. Targets are
// not sent in order, and one that waits already is not queued twice. The queue is in memory: what is in it when the process dies
// is lost. Its methods may be used by many goroutines at once.
type Revalidator struct {
	o         RevalidatorOptions
	post      func(context.Context, Target) *failure
	closeIdle func()
	wake      chan struct{}
	ended     chan struct{} // closed when the loop has returned
	stop      context.CancelFunc

	mu        sync.Mutex
	closing   bool // no new targets; guarded by mu, as all below
	waiting   queue
	sending   int
	failures  int // in a row
	pause     time.Time
	succeeded time.Time // the last time that a target was delivered
	stats     RevalidatorStats
	news      news
}

// Format does not write the secret, whatever the verb.
func (r *Revalidator) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "asidehttp.Revalidator{%v}", r.o) }

// LogValue is Format for slog's handlers.
func (r *Revalidator) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(r)) }

// MarshalText is Format for encoding/json.
func (r *Revalidator) MarshalText() ([]byte, error) { return fmt.Append(nil, r), nil }

// A delivery is one target on its way.
type delivery struct {
	target   Target
	asked    time.Time // its last invalidation
	due      time.Time
	failed   time.Time // the last time
	attempts int
}

// RevalidatorStats counts targets since the Revalidator was made. Each that was asked for is in one of Delivered, Coalesced, Lost
// and Waiting.
type RevalidatorStats struct {
	Delivered uint64 // acknowledged with a 2xx
	Coalesced uint64 // the same target was waiting already
	Lost      uint64 // given up, refused by the front end, or without room in the queue
	Failed    uint64 // requests that failed, and were or will be repeated
	Waiting   int    // now, those being sent included
}

// NewRevalidator makes a Revalidator and starts it. Close ends it.
func NewRevalidator(o RevalidatorOptions) (*Revalidator, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("asidehttp: RevalidatorOptions."+format, args...))
	}
	u, err := url.Parse(o.URL.Reveal())
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		bad("URL is malformed: write https://host/path, without a user") // the cause would repeat it, secret and all
	}
	if err == nil && o.Query { // what cannot be read would be left out of the query that is sent
		if _, err := url.ParseQuery(u.RawQuery); err != nil {
			bad("URL has a query that cannot be read: escape a semicolon as %%3B and a percent sign as %%25")
		}
	}
	if secret := o.Secret.Reveal(); secret != strings.TrimSpace(secret) {
		bad("Secret begins or ends with white space, which does not arrive: leave it out")
	} else if secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' && r != ' ' || r >= 0x7f }) {
		bad("Secret is empty or holds a character that a header cannot: use letters and digits")
	}
	setDefault(&o.SecretHeader, "X-Revalidate-Secret")
	setDefault(&o.Timeout, 5*time.Second)
	setDefault(&o.Queue, 10_000)
	setDefault(&o.Backoff, 500*time.Millisecond)
	setDefault(&o.MaxBackoff, max(30*time.Second, o.Backoff))
	setDefault(&o.GiveUpAfter, 15*time.Minute)
	setDefault(&o.Logger, slog.Default())
	o.Logger = logs.Guard(o.Logger) // it is called on the sender's goroutine, under its lock
	if strings.ContainsFunc(o.SecretHeader, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) }) {
		bad("SecretHeader %q is not the name of a header", o.SecretHeader)
	}
	if !forSecrets(o.SecretHeader) {
		bad("SecretHeader %q is a header that HTTP, a proxy or this package sets by itself: the secret would not arrive; use one of your own, such as X-Revalidate-Secret", o.SecretHeader)
	}
	if o.Timeout < 0 || o.Backoff < 0 || o.GiveUpAfter < 0 {
		bad("Timeout, Backoff or GiveUpAfter is negative: set a positive duration, or 0 for the default")
	}
	if o.Queue < 0 {
		bad("Queue is %d: set a positive number, or 0 for the default", o.Queue)
	}
	if o.MaxBackoff < o.Backoff {
		bad("MaxBackoff is %v: set at least Backoff, which is %v, or 0 for the default", o.MaxBackoff, o.Backoff)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if o.Map == nil {
		o.Map = Tags
	}
	r := &Revalidator{
		o: o, closeIdle: func() {},
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
		waiting: newQueue(o.Queue),
	}
	client := http.Client{}
	if o.Client != nil {
		client = *o.Client
	} else {
		client.Transport, r.closeIdle = ownTransport()
	}
	// Go takes Authorization off a request that is redirected to another host, but no header of ours.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r.post = newPoster(o, u, &client).post
	r.o.Client = nil // its connections hold what they have sent
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go r.run(ctx)
	return r, nil
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// Notify queues what an invalidation is about. It does not wait: it is made for aside.Options.OnInvalidated.
func (r *Revalidator) Notify(invalidation aside.Invalidation) { r.Send(r.o.Map(invalidation)...) }

// Send queues targets. It does not wait.
func (r *Revalidator) Send(targets ...Target) {
	r.queueAll(targets)
	select {
	case <-r.ended: // nobody else is there to report it
		r.report(false)
	default:
		r.signal()
	}
}

func (r *Revalidator) queueAll(targets []Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, target := range targets {
		d := &delivery{target: target, asked: now, due: now}
		switch same := r.waiting.find(target); {
		case (target.Tag == "") == (target.Path == ""):
			r.lose(d, errors.New("a target is either a tag or a path"))
		case r.closing:
			r.lose(d, errors.New("the revalidator is closed"))
		case same != nil:
			// One that is being sent does not count: the front end may have read its sources before this invalidation.
			same.asked = now
			r.stats.Coalesced++
		case r.waiting.full(target):
			r.crowd(d)
		default:
			r.waiting.push(d)
		}
	}
}

// crowd puts the tag that a new target is within in place of all that wait within it. It wants mu.
func (r *Revalidator) crowd(d *delivery) {
	if d.target.Within == "" { // it may stand for others itself, such as a category
		if r.waiting.fullBeyond(d.target) {
			r.lose(d, errors.New("the queue is full"))
			return
		}
		r.stats.Coalesced += uint64(r.waiting.takeWithin(d.target.Tag))
		r.waiting.push(d)
		return
	}
	whole := Target{Tag: d.target.Within}
	same := r.waiting.find(whole)
	if same == nil && r.waiting.len() >= r.o.Queue+mostWithin && !r.waiting.holdsWithin(whole.Tag) {
		r.lose(d, errors.New("the queue is full"))
		return
	}
	r.stats.Coalesced += uint64(r.waiting.takeWithin(whole.Tag))
	if same != nil {
		same.asked = d.asked
		r.stats.Coalesced++
		return
	}
	d.target = whole
	r.waiting.push(d)
}

// Stats returns the counts as they stand.
func (r *Revalidator) Stats() RevalidatorStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Waiting = r.waiting.len() + r.sending
	return s
}

// Close takes no new targets and waits until those that wait are delivered or lost, at most until ctx ends: what is left then is
// lost, and Close says so in its error. Close the cache first. It may be called more than once.
func (r *Revalidator) Close(ctx context.Context) error {
	r.mu.Lock()
	if !r.closing {
		r.closing = true
		// There may be little time: what waits after a failure is tried now.
		r.pause = time.Time{}
		for _, d := range r.waiting.failed {
			d.due = time.Time{}
		}
	}
	r.signal()
	r.mu.Unlock()
	var cut error
	select {
	case <-r.ended:
	case <-ctx.Done():
		cut = ctx.Err()
	}
	before := r.Stats().Lost
	r.stop()
	<-r.ended
	r.closeIdle()
	if lost := r.Stats().Lost - before; lost > 0 {
		return fmt.Errorf("asidehttp: the revalidator was closed before the front end took %d targets: %w", lost, cut)
	}
	return nil
}

// signal wakes the loop.
func (r *Revalidator) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// lose wants mu. What is lost is reported later: see report.
func (r *Revalidator) lose(d *delivery, cause error) {
	r.stats.Lost++
	r.news.lose(d, cause)
}

// run starts what is due until the Revalidator is closed and empty, or ctx ends.
func (r *Revalidator) run(ctx context.Context) {
	defer close(r.ended)
	defer r.report(true)
	var sends sync.WaitGroup
	defer sends.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, done := r.begin(ctx, &sends)
		if done {
			return
		}
		if later := r.report(false); later > 0 {
			next = min(next, later)
		}
		timer.Reset(next)
		select {
		case <-r.wake:
		case <-timer.C:
		case <-ctx.Done():
			sends.Wait() // they end with ctx, and put back what they had
			r.abandon(ctx.Err())
			return
		}
	}
}

// begin starts what is due now, and returns when to look again.
func (r *Revalidator) begin(ctx context.Context, sends *sync.WaitGroup) (next time.Duration, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for {
		if r.closing && r.waiting.len()+r.sending == 0 {
			return 0, true
		}
		room := maxSending
		if r.failures > 0 {
			room = 1 // a front end that fails is asked by one request at a time
		}
		if r.sending >= room || r.waiting.len() == 0 {
			return time.Hour, false // the end of a request wakes, and so does Send
		}
		if wait := max(r.pause.Sub(now), r.waiting.due().Sub(now)); wait > 0 {
			return wait, false
		}
		d := r.waiting.take(now, r.failures > 0)
		r.sending++
		sends.Go(func() { r.finish(d, r.try(ctx, d.target)) })
	}
}

// A failure is why a request was not acknowledged.
type failure struct {
	text  string
	final bool          // the same again would come to the same
	brief bool          // it may be what stands there while the front end starts: repeated for briefly alone
	after time.Duration // not to come back before, as the front end has said
}

// finish notes how a request went.
func (r *Revalidator) finish(d *delivery, f *failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.signal()
	r.sending--
	d.attempts++
	now := time.Now()
	switch {
	case f == nil:
		r.stats.Delivered++
		r.failures, r.pause, r.succeeded = 0, time.Time{}, now
		return
	case f.final:
		r.lose(d, errors.New(f.text))
		return
	}
	r.stats.Failed++
	if r.failures == 0 {
		r.news.failing = f.text
	}
	// One that fails again, though others were delivered since it has failed, says nothing of the front end.
	alone := d.attempts > 1 && r.succeeded.After(d.failed) && f.after == 0
	if !alone && !now.Before(r.pause) { // else begun before the failure that is paused for: no further one in a row
		r.failures++
		r.pause = now.Add(min(max(r.backoff(r.failures), f.after), r.o.MaxBackoff))
	}
	d.failed = now
	d.due = now.Add(r.backoff(d.attempts)) // of a front end that refuses this one alone
	same := r.waiting.find(d.target)
	switch {
	case same != nil: // asked for again meanwhile
		r.stats.Coalesced++
	case now.Sub(d.asked) >= r.patience(f):
		r.lose(d, fmt.Errorf("given up after %v: %s", r.patience(f), f.text))
	default:
		r.waiting.push(d)
	}
}

// briefly is how long a front end may redirect, or know neither the path nor the secret. While it is rolled out something else may
// answer in its place for some seconds.
const briefly = time.Minute

// patience is for how long a target is tried that fails like this.
func (r *Revalidator) patience(f *failure) time.Duration {
	if f.brief {
		return min(briefly, r.o.GiveUpAfter)
	}
	return r.o.GiveUpAfter
}

// backoff is how long to wait after n failures in a row. The random part keeps processes that failed together from coming back
// together.
func (r *Revalidator) backoff(n int) time.Duration {
	d := r.o.MaxBackoff
	if n < 32 && r.o.Backoff<<(n-1) > 0 {
		d = min(d, r.o.Backoff<<(n-1))
	}
	return d/2 + rand.N(d/2+1)
}

// abandon loses what waits.
func (r *Revalidator) abandon(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d := range r.waiting.all() {
		r.lose(d, fmt.Errorf("closed before the front end took it: %w", cause))
	}
	r.waiting = newQueue(r.o.Queue)
}

// try is post, whatever the client does: it may panic, end its goroutine, or not heed the end of its request.
func (r *Revalidator) try(ctx context.Context, target Target) *failure {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	done := make(chan *failure, 1)
	go func() {
		f := &failure{text: "the Client has panicked, or ended its goroutine"}
		defer func() {
			_ = recover()
			done <- f
		}()
		f = r.post(ctx, target)
	}()
	select {
	case f := <-done:
		return f
	case <-ctx.Done():
	}
	t := time.NewTimer(heedWait)
	defer t.Stop()
	select {
	case f := <-done:
		return f
	case <-t.C:
		return &failure{text: "the Client does not heed the end of its request"}
	}
}

// heedWait is how long a client may take to come back from a request whose time is up.
const heedWait = 100 * time.Millisecond

// retryAfter reads the header of this name, in its two forms.
func retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(n, 0), 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return 0
}

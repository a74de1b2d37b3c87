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

// RevalidatorOptions configures a Revalidator. URL and Secret are required. Every other zero field stands for its default.
type RevalidatorOptions struct {
	// URL is the front end's revalidation endpoint. It may have a token in its query. Redirects are not followed: set the final URL.
	URL aside.Secret

	// Secret is sent with each request, in SecretHeader. Default for the header: X-Revalidate-Secret. Headers that HTTP, a proxy or a
	// delivery network sets by itself, such as Host, X-Forwarded-… and Cf-…, are refused.
	Secret       aside.Secret
	SecretHeader string

	// Query puts the target in the query, ?tag=… or ?path=…, with an empty body. Default: a JSON body, {"tag":…} or {"path":…}.
	Query bool

	// Map maps an invalidation to targets of the front end. Default: Tags.
	Map func(aside.Invalidation) []Target

	// Client sends the requests. Default: a client of its own, with a copy of http.DefaultTransport. Its CheckRedirect is not used.
	Client *http.Client

	// Timeout bounds one request, to the end of its response. Default: 5 s.
	Timeout time.Duration

	// Queue bounds the number of waiting targets, and their names to 1 KiB for each. If the queue is full, the Within tag of a new target
	// replaces all waiting targets within it. There are 256 more places for such tags, and for targets without Within. A target that finds no
	// place is lost, which is logged and counted. Default: 10,000.
	Queue int

	// Backoff is the pause after a failed request. It doubles with each consecutive failure up to MaxBackoff, and is shortened by a random
	// part of up to a half. A longer Retry-After of a response counts instead, up to MaxBackoff. Defaults: 500 ms and 30 s.
	Backoff, MaxBackoff time.Duration

	// GiveUpAfter is how long a target is retried after its last invalidation. A front end that is unavailable for less than that misses
	// nothing. Default: 15 min. After a redirect, 401, 403, 404, 405, 410 or 421, which another service may send during a deployment, a
	// target is retried for a minute. Other responses from 400 to 499 are final, except 408, 425 and 429.
	GiveUpAfter time.Duration

	// Logger gets a line at level Error when targets are lost, with their number and the first of them, and a line at level Warn when the
	// front end begins to fail. Each is logged at most once in ten seconds. Default: slog.Default().
	Logger *slog.Logger
}

// Format writes neither the secret nor the URL's query, for any verb.
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

// A Revalidator sends invalidations to a web front end that caches pages: by the convention of Next.js, whose route handler calls
// revalidateTag or revalidatePath.
//
//	r, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{URL: aside.NewSecret("https://www.example.com/api/revalidate"), Secret: secret})
//	c, err := aside.New(aside.Options{OnInvalidated: r.Notify})
//
// It delivers each target at least once after its last invalidation, or logs the loss and counts it in Stats. Targets are not sent in order,
// and a target that waits already is not queued twice. The queue is in memory, and is lost when the process dies. The methods may be used by
// many goroutines at once.
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

// A delivery is a target that waits or is being sent.
type delivery struct {
	target   Target
	asked    time.Time // its last invalidation
	due      time.Time
	failed   time.Time // the last time
	attempts int
}

// RevalidatorStats counts targets since the Revalidator was made. Each target counts in one of Delivered, Coalesced, Lost and Waiting.
type RevalidatorStats struct {
	Delivered uint64 // acknowledged with a 2xx
	Coalesced uint64 // the same target, or one that covers it, was waiting
	Lost      uint64 // given up, refused by the front end, or without room in the queue
	Failed    uint64 // requests that failed and are retried
	Waiting   int    // waiting or being sent now
}

// NewRevalidator makes a Revalidator and starts it. Close ends it.
func NewRevalidator(o RevalidatorOptions) (*Revalidator, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("asidehttp: RevalidatorOptions."+format, args...))
	}
	u, err := url.Parse(o.URL.Reveal())
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		bad("URL is malformed: write https://host/path, without a user") // the parser's error would quote the URL, with its secret
	}
	if err == nil && o.Query { // invalid parts would be missing in the query that is sent
		if _, err := url.ParseQuery(u.RawQuery); err != nil {
			bad("URL has an invalid query: escape a semicolon as %%3B and a percent sign as %%25")
		}
	}
	if secret := o.Secret.Reveal(); secret != strings.TrimSpace(secret) {
		bad("Secret begins or ends with white space, which HTTP removes: leave it out")
	} else if secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' && r != ' ' || r >= 0x7f }) {
		bad("Secret is empty or has a character that a header cannot contain: use letters and digits")
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
	r.o.Client = nil // its connections hold sent requests, with the secret
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

// Notify queues the targets of an invalidation. It does not wait, and is made for aside.Options.OnInvalidated.
func (r *Revalidator) Notify(invalidation aside.Invalidation) { r.Send(r.o.Map(invalidation)...) }

// Send queues targets. It does not wait.
func (r *Revalidator) Send(targets ...Target) {
	r.queueAll(targets)
	select {
	case <-r.ended: // the loop, which reports losses, has ended
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
			// A target that is being sent is not found here: the front end may have read its sources before this invalidation.
			same.asked = now
			r.stats.Coalesced++
		case r.waiting.full(target):
			r.crowd(d)
		default:
			r.waiting.push(d)
		}
	}
}

// crowd replaces all waiting targets within the tag of a new target by that tag. It is called with mu held.
func (r *Revalidator) crowd(d *delivery) {
	if d.target.Within == "" { // it may cover other targets itself, as a category does
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

// Stats returns the current counts.
func (r *Revalidator) Stats() RevalidatorStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Waiting = r.waiting.len() + r.sending
	return s
}

// Close refuses new targets, and waits until the waiting ones are delivered or lost, or until ctx ends. Targets that are left then are lost, and
// Close returns an error. Close the cache first. Close may be called more than once.
func (r *Revalidator) Close(ctx context.Context) error {
	r.mu.Lock()
	if !r.closing {
		r.closing = true
		// There may be little time: targets that wait after a failure are retried now.
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
		return fmt.Errorf("asidehttp: Revalidator closed with %d undelivered targets: %w", lost, cut)
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

// lose counts a lost target. report logs it later. It is called with mu held.
func (r *Revalidator) lose(d *delivery, cause error) {
	r.stats.Lost++
	r.news.lose(d, cause)
}

// run sends targets until the Revalidator is closed and empty, or ctx ends.
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
			sends.Wait() // the sends end with ctx, and queue their targets again
			r.abandon(ctx.Err())
			return
		}
	}
}

// begin starts to send the targets that are due, and returns how long to wait for the next one.
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
			room = 1 // one request at a time to a front end that fails
		}
		if r.sending >= room || r.waiting.len() == 0 {
			return time.Hour, false // the end of a request wakes the loop, and so does Send
		}
		if wait := max(r.pause.Sub(now), r.waiting.due().Sub(now)); wait > 0 {
			return wait, false
		}
		d := r.waiting.take(now, r.failures > 0)
		r.sending++
		sends.Go(func() { r.finish(d, r.try(ctx, d.target)) })
	}
}

// A failure says why a request was not acknowledged.
type failure struct {
	text  string
	final bool          // a retry would fail in the same way
	brief bool          // another service may have answered during a deployment: retry for briefly
	after time.Duration // the response's Retry-After
}

// finish notes the result of a request.
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
	// If a target fails again, and others were delivered in between, the front end refuses this target alone.
	alone := d.attempts > 1 && r.succeeded.After(d.failed) && f.after == 0
	if !alone && !now.Before(r.pause) { // a request that began before the last failure is not a further failure
		r.failures++
		r.pause = now.Add(min(max(r.backoff(r.failures), f.after), r.o.MaxBackoff))
	}
	d.failed = now
	d.due = now.Add(r.backoff(d.attempts)) // for a target that is refused alone
	same := r.waiting.find(d.target)
	switch {
	case same != nil: // queued again in the meantime
		r.stats.Coalesced++
	case now.Sub(d.asked) >= r.patience(f):
		r.lose(d, fmt.Errorf("given up after %v: %s", r.patience(f), f.text))
	default:
		r.waiting.push(d)
	}
}

// briefly is how long a target is retried after responses that another service may send during a deployment of the front end.
const briefly = time.Minute

// patience is how long a target is retried after such a failure.
func (r *Revalidator) patience(f *failure) time.Duration {
	if f.brief {
		return min(briefly, r.o.GiveUpAfter)
	}
	return r.o.GiveUpAfter
}

// backoff is how long to wait after n consecutive failures. It is randomized, so that processes that failed together do not retry together.
func (r *Revalidator) backoff(n int) time.Duration {
	d := r.o.MaxBackoff
	if n < 32 && r.o.Backoff<<(n-1) > 0 {
		d = min(d, r.o.Backoff<<(n-1))
	}
	return d/2 + rand.N(d/2+1)
}

// abandon loses all waiting targets.
func (r *Revalidator) abandon(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d := range r.waiting.all() {
		r.lose(d, fmt.Errorf("closed before delivery: %w", cause))
	}
	r.waiting = newQueue(r.o.Queue)
}

// try is post for a Client that may panic, end its goroutine, or ignore the end of its request.
func (r *Revalidator) try(ctx context.Context, target Target) *failure {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	done := make(chan *failure, 1)
	go func() {
		f := &failure{text: "the Client panicked, or ended its goroutine"}
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
		return &failure{text: "the Client ignores the end of its request"}
	}
}

// heedWait is how long a Client may take to return after the end of its request.
const heedWait = 100 * time.Millisecond

// retryAfter parses a Retry-After header, in seconds or as a date.
func retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(n, 0), 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return 0
}

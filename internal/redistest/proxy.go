package redistest

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// maxLoggedArg is how much of an argument [Proxy.Log] keeps.
	maxLoggedArg = 200

	// A burst of frames goes on in one piece, up to these limits, so that a pipeline is not answered in part.
	readBuffer = 256 << 10
	maxBurst   = 16 << 20
)

// Patience is how long a test waits for what must happen, at a [Proxy] and elsewhere: a busy machine may stand still for seconds. Mutants, for
// which it never does, wait for less.
var Patience = func() time.Duration {
	if os.Getenv("ASIDE_TEST_BOUND") != "" {
		return 20 * time.Second
	}
	return time.Minute
}()

// Proxy is a TCP proxy in front of a Redis server that knows where one command, reply or push ends and the next begins:
// it counts round trips, and it can hold, drop, delay and cut off. It passes on every byte as it came, in order.
//
// What a Proxy keeps back it keeps in memory, without a bound. Its methods may be called from any goroutine, but not
// from the match functions given to it: these run one at a time and must return soon. A match function sees each
// command, reply or push once, when it arrives at the proxy, or when the match function is installed while the proxy
// still has it. A nil match function matches everything.
//
// CLIENT REPLY, MONITOR, and subscriptions within MULTI upset the pairing of replies with their requests.
type Proxy struct {
	t        testing.TB
	upstream string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex // guards what follows, and everything in a proxyConn that changes
	closed  bool
	conns   []*proxyConn // in the order in which they were accepted
	gates   []*Gate
	drops   []*drop
	changed chan struct{} // closed at the next change; nil while nobody waits for one

	trips   int
	log     [][]string
	dropped int

	delay            time.Duration
	jitter           [2]time.Duration             // to the server, to the client
	jittered         int                          // bursts that left later for it
	apart            func([]string) time.Duration // see SendApart; may be nil
	cuts             int                          // commands behind which it has paused
	blackhole        bool
	blackholeReplies bool
	refuse           bool
}

// StartProxy listens on a free port of 127.0.0.1, opens one connection to upstream for each that it accepts, and closes
// everything when the test ends. Without an upstream, a connection is accepted and closed.
func StartProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: proxy: %v", err)
	}
	p := &Proxy{t: t, upstream: upstream, listener: l}
	p.wg.Go(p.accept)
	t.Cleanup(p.Close)
	return p
}

// Addr returns host:port, where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close closes the listener and all connections, and returns when no goroutine of the proxy is left.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.listener.Close()
	p.CloseConnections()
	p.wg.Wait()
}

// Requests returns the number of round trips since the last [Proxy.ResetCounts], over all connections: of bursts of
// commands that went to the server with no reply in between. The first command of a connection begins a round trip,
// and so does every command before which the client was sent a reply since the last command. Pushes are no replies,
// and PING does not count: clients send it of their own accord to keep a connection alive. Neither do the probes of a
// cache's connections. A command that the proxy still holds is not counted yet.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trips
}

// Commands returns the names in capitals ("GET", "CLIENT") of the commands that went to the server since the last
// [Proxy.ResetCounts], in order, without PING.
func (p *Proxy) Commands() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, len(p.log))
	for i, args := range p.log {
		names[i] = strings.ToUpper(args[0])
	}
	return names
}

// Log returns the commands of [Proxy.Commands] with all their arguments, each cut after 200 bytes.
func (p *Proxy) Log() [][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

// DroppedPushes returns the number of pushes that [Proxy.DropPushes] has swallowed since the last [Proxy.ResetCounts].
func (p *Proxy) DroppedPushes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// ResetCounts forgets all that was counted. The next command of each connection begins a round trip.
func (p *Proxy) ResetCounts() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trips, p.log, p.dropped = 0, nil, 0
	for _, c := range p.conns {
		c.answered = true
	}
}

// Connections returns the number of current connections: accepted, and not yet closed at both ends.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// CloseConnections closes all current connections, at both ends and with everything that the proxy holds of them.
func (p *Proxy) CloseConnections() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range slices.Clone(p.conns) {
		c.end()
	}
}

// Refuse makes the proxy close new connections at once, as soon as they are accepted, until it is called with false.
func (p *Proxy) Refuse(on bool) { p.set(func() { p.refuse = on }) }

// Blackhole stops all forwarding, in both directions and on new connections too, until it is called with false:
// nothing is closed, not even where an end hangs up, and nothing is lost, it all goes on when the hole is closed. New
// connections are accepted. What is on its way out when Blackhole is called may still arrive.
func (p *Proxy) Blackhole(on bool) { p.set(func() { p.blackhole = on }) }

// BlackholeReplies is [Proxy.Blackhole] for one direction: what the server sends, pushes as well as replies.
func (p *Proxy) BlackholeReplies(on bool) { p.set(func() { p.blackholeReplies = on }) }

// SetDelay makes everything that arrives from now on, from either end, leave that much later. It adds to the latency,
// not to the time between one command and the next, and it changes no order.
func (p *Proxy) SetDelay(upDown time.Duration) { p.set(func() { p.delay = upDown }) }

// SetJitter makes each burst that arrives from now on leave later by chance: by up to toServer, or toClient. It adds to the
// delay. The order on one connection stays as it was, that between connections does not.
func (p *Proxy) SetJitter(toServer, toClient time.Duration) {
	p.set(func() { p.jitter = [2]time.Duration{toServer, toClient} })
}

// Jittered returns how many bursts have been kept back by [Proxy.SetJitter].
func (p *Proxy) Jittered() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.jittered
}

// SendApart has what is behind a command on its connection leave later than the command does, by what pause returns for it: the
// server gets the two in packets of their own, and may do other things in between. 0 leaves them together, and so does a nil
// pause everything.
func (p *Proxy) SendApart(pause func(args []string) time.Duration) { p.set(func() { p.apart = pause }) }

// Cuts returns behind how many commands [Proxy.SendApart] has paused.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// later is by how much a burst leaves later than it arrived. It wants mu.
func (p *Proxy) later(down bool) time.Duration {
	most := p.jitter[0]
	if down {
		most = p.jitter[1]
	}
	if most <= 0 {
		return p.delay
	}
	p.jittered++
	return p.delay + rand.N(most)
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.wakeAll()
}

// Await waits until a condition holds that depends on the proxy, such as "two commands are at the gate", and ends the
// test where that does not come about in a minute. It looks again whenever something passes or changes at the proxy.
func (p *Proxy) Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		p.mu.Lock()
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			commands := p.Commands()
			t.Fatalf("redistest: proxy: not in %v: %s; %d connections, last commands %q",
				Patience, what, p.Connections(), commands[max(0, len(commands)-20):])
		}
	}
}

// notify wants mu.
func (p *Proxy) notify() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// wakeAll makes every stream look whether something may pass now. It wants mu.
func (p *Proxy) wakeAll() {
	for _, c := range p.conns {
		c.up.wakeUp()
		c.down.wakeUp()
	}
	p.notify()
}

// Gate stops connections at certain commands, replies or pushes: in one direction, and everything behind such a one
// waits as well. It is per connection, others pass until they meet a match of their own.
type Gate struct {
	p     *Proxy
	kind  kind
	match func([]string) bool

	// Guarded by p.mu.
	held     int
	released bool
}

// HoldRequests stops each connection at its first command that matches, on the way to the server. match is given the
// command's arguments: "GET", "key".
func (p *Proxy) HoldRequests(match func(args []string) bool) *Gate { return p.hold(request, match) }

// HoldReplies stops each connection at its first reply to a command that matches, on the way to the client: the server
// has run the command. Confirmations of subscriptions are replies, one for each channel; other pushes are not, but
// wait behind the reply as all does. PING has replies too.
func (p *Proxy) HoldReplies(match func(requestArgs []string) bool) *Gate { return p.hold(reply, match) }

// HoldPushes stops each connection at its first push that matches, on the way to the client. match is given all that
// is in the push, in one list and without nulls: "invalidate", "key", "key", or just "invalidate" when all keys were
// flushed. Messages to a subscriber are pushes in RESP2 too.
func (p *Proxy) HoldPushes(match func(push []string) bool) *Gate { return p.hold(push, match) }

func (p *Proxy) hold(kind kind, match func([]string) bool) *Gate {
	g := &Gate{p: p, kind: kind, match: match}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gates = append(p.gates, g)
	for _, c := range p.conns {
		for _, it := range slices.Concat(c.up.queue, c.down.queue) {
			g.offer(it)
		}
	}
	p.notify()
	return g
}

// offer wants p.mu.
func (g *Gate) offer(it *item) {
	if it.matches(g.kind, g.match) {
		it.gates = append(it.gates, g)
		g.held++
	}
}

// Held returns the number of matching commands, replies or pushes that are at the proxy and do not leave it before
// [Gate.Release], those that wait behind another one included.
func (g *Gate) Held() int {
	g.p.mu.Lock()
	defer g.p.mu.Unlock()
	return g.held
}

// Wait waits until the gate holds something, and ends the test where nothing comes in a minute or the gate is released.
func (g *Gate) Wait(t testing.TB) {
	t.Helper()
	var held, released bool
	g.p.Await(t, "something is held at the gate for "+g.kind.String(), func() bool {
		g.p.mu.Lock()
		defer g.p.mu.Unlock()
		held, released = g.held > 0, g.released
		return held || released
	})
	if released {
		t.Fatalf("redistest: proxy: Wait at a gate that is released")
	}
}

// Release removes the gate and lets go what it holds; other gates may hold some of that still.
func (g *Gate) Release() {
	g.p.set(func() {
		g.released, g.held = true, 0
		g.p.gates = slices.DeleteFunc(g.p.gates, func(other *Gate) bool { return other == g })
	})
}

type drop struct{ match func(push []string) bool }

// DropPushes swallows pushes that match, as [Proxy.HoldPushes] sees them, until stop is called; among them such as a
// gate holds already.
func (p *Proxy) DropPushes(match func(push []string) bool) (stop func()) {
	d := &drop{match: match}
	p.set(func() {
		p.drops = append(p.drops, d)
		for _, c := range p.conns {
			c.down.queue = slices.DeleteFunc(c.down.queue, func(it *item) bool {
				swallowed := it.matches(push, match)
				if swallowed {
					p.dropped++
					it.leaveGates()
				}
				return swallowed
			})
		}
	})
	return func() {
		p.set(func() { p.drops = slices.DeleteFunc(p.drops, func(other *drop) bool { return other == d }) })
	}
}

// kind is what an item is to the gates.
type kind int

const (
	request kind = iota
	reply
	push
	fragment // the beginning of a frame: the rest never came
	end      // of what one end sends
)

func (k kind) String() string {
	return [...]string{"requests", "replies", "pushes", "fragments", "ends"}[k]
}

// item is what a stream passes on.
type item struct {
	kind  kind
	raw   []byte
	args  []string // of the request, of the request that a reply answers, or what is in a push; may be empty
	due   time.Time
	gates []*Gate // that stop it, and those that did
}

func (it *item) matches(kind kind, match func([]string) bool) bool {
	return it.kind == kind && len(it.args) > 0 && (match == nil || match(it.args))
}

func (it *item) held() bool {
	return slices.ContainsFunc(it.gates, func(g *Gate) bool { return !g.released })
}

// leaveGates takes the item, which nobody will get, off the counts. It wants mu.
func (it *item) leaveGates() {
	for _, g := range it.gates {
		if !g.released {
			g.held--
		}
	}
}

func (it *item) ping() bool { return len(it.args) > 0 && strings.EqualFold(it.args[0], "PING") }

// probe reports whether it is about a key by which a cache finds out, once a second, whether its connection still works.
func (it *item) probe() bool {
	return slices.ContainsFunc(it.args, func(arg string) bool { return strings.HasPrefix(arg, "%watch:") })
}

// proxyConn is one client's connection and the one that belongs to it at the server.
type proxyConn struct {
	p        *Proxy
	client   *net.TCPConn
	up, down stream // to the server, to the client
	ctx      context.Context
	cancel   context.CancelFunc

	// Guarded by p.mu.
	server     *net.TCPConn // nil until it is connected
	ended      bool
	answered   bool // the next command begins a round trip
	resp3      bool
	unanswered []*unanswered   // commands that the server has, in order
	channels   map[string]bool // "subscribe news", "psubscribe n*": what the server has confirmed
}

type unanswered struct {
	args []string
	left int // confirmations to come: known with the first one
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.t.Errorf("redistest: proxy: %v", err)
			}
			return
		}
		p.mu.Lock()
		if p.refuse || p.closed {
			hangUp(conn.(*net.TCPConn))
		} else {
			c := &proxyConn{p: p, client: conn.(*net.TCPConn), answered: true, channels: map[string]bool{}}
			c.ctx, c.cancel = context.WithCancel(context.Background())
			c.up = stream{c: c, wake: make(chan struct{}, 1)}
			c.down = stream{c: c, wake: make(chan struct{}, 1), down: true}
			p.conns = append(p.conns, c)
			p.notify()
			p.wg.Go(c.run)
		}
		p.mu.Unlock()
	}
}

// run serves the connection until both ends have closed it, or something else has ended it.
func (c *proxyConn) run() {
	defer func() {
		c.p.mu.Lock()
		defer c.p.mu.Unlock()
		c.end()
	}()
	var d net.Dialer
	conn, err := d.DialContext(c.ctx, "tcp", c.p.upstream)
	if err != nil {
		return
	}
	server := conn.(*net.TCPConn)
	c.p.mu.Lock()
	c.server = server
	if c.ended {
		hangUp(server)
	}
	c.p.mu.Unlock()

	var wg sync.WaitGroup
	wg.Go(func() { c.up.read(c.client, readRequest) })
	wg.Go(func() { c.up.write(server) })
	wg.Go(func() { c.down.read(server, readFrame) })
	wg.Go(func() { c.down.write(c.client) })
	wg.Wait()
}

// end closes both connections and forgets what has not been passed on. It wants mu.
func (c *proxyConn) end() {
	if c.ended {
		return
	}
	c.ended = true
	c.cancel()
	hangUp(c.client)
	if c.server != nil {
		hangUp(c.server)
	}
	for _, it := range slices.Concat(c.up.queue, c.down.queue) {
		it.leaveGates()
	}
	c.up.queue, c.down.queue = nil, nil
	c.p.conns = slices.DeleteFunc(c.p.conns, func(other *proxyConn) bool { return other == c })
	c.p.notify()
}

// hangUp tells the other end at once. Close alone tells it when the last copy of the socket is closed, and a child that
// another test has just forked holds one until its exec.
func hangUp(conn *net.TCPConn) {
	_ = conn.CloseWrite() // fails where the other end has gone
	conn.Close()
}

// classify finds out what the server has sent. It wants mu.
func (c *proxyConn) classify(f frame) (kind, []string) {
	var head *unanswered
	if len(c.unanswered) > 0 {
		head = c.unanswered[0]
	}
	// In RESP2 what a subscriber gets is in arrays.
	if f.kind == '>' || f.kind == '*' && !c.resp3 {
		name := f.field(0)
		channels, subscribing, isConfirmation := confirmation(name)
		switch {
		case isConfirmation && head != nil && strings.EqualFold(head.args[0], name):
			if head.left == 0 {
				head.left = c.confirmations(head.args, channels)
			}
			if head.left--; head.left == 0 {
				c.unanswered = c.unanswered[1:]
			}
			if subscribing {
				c.channels[channels+f.field(1)] = true
			} else {
				delete(c.channels, channels+f.field(1))
			}
			return reply, head.args
		case f.kind == '>', len(c.channels) > 0 && slices.Contains([]string{"message", "pmessage", "smessage"}, name):
			return push, f.fields()
		}
	}
	if head == nil {
		return reply, nil
	}
	c.unanswered = c.unanswered[1:]
	if f.kind != '-' {
		switch strings.ToUpper(head.args[0]) {
		case "HELLO":
			if len(head.args) > 1 {
				c.resp3 = head.args[1] == "3"
			}
		case "RESET":
			c.resp3 = false
			clear(c.channels)
		}
	}
	return reply, head.args
}

// confirmations returns how many a command gets: one for each channel that it names. One that ends all subscriptions of
// its sort names none, and gets at least one.
func (c *proxyConn) confirmations(args []string, channels string) int {
	if len(args) > 1 {
		return len(args) - 1
	}
	n := 0
	for channel := range c.channels {
		if strings.HasPrefix(channel, channels) {
			n++
		}
	}
	return max(1, n)
}

// confirmation tells the confirmations of subscriptions from other messages, and says under which prefix their channels
// are kept.
func confirmation(name string) (prefix string, subscribing, ok bool) {
	switch name {
	case "subscribe", "psubscribe", "ssubscribe":
		return name + " ", true, true
	case "unsubscribe", "punsubscribe", "sunsubscribe":
		return strings.Replace(name, "unsub", "sub", 1) + " ", false, true
	}
	return "", false, false
}

// passed counts what goes out now. It wants mu.
func (c *proxyConn) passed(it *item) {
	switch {
	case it.kind == request && len(it.args) > 0: // servers do not answer an empty command
		c.unanswered = append(c.unanswered, &unanswered{args: it.args})
		if it.ping() {
			return
		}
		if !it.probe() {
			if c.answered {
				c.p.trips++
			}
			c.answered = false
		}
		logged := make([]string, len(it.args))
		for i, arg := range it.args {
			logged[i] = strings.Clone(arg[:min(len(arg), maxLoggedArg)])
		}
		c.p.log = append(c.p.log, logged)
	case it.kind == reply && !it.ping() && !it.probe():
		c.answered = true
	}
}

// stream is one direction of a connection: one goroutine reads, one writes, and between them is what may not leave yet.
type stream struct {
	c    *proxyConn
	down bool          // to the client
	wake chan struct{} // holds one

	// Guarded by c.p.mu.
	queue []*item
	due   time.Time // of the last one that arrived
}

// wakeUp makes the writer look at the queue again.
func (s *stream) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// read queues what comes from src until that ends. It hands over whole bursts, up to where the input ends with a frame:
// the other end gets no chance to answer the first half of a pipeline before it has the second.
func (s *stream) read(src *net.TCPConn, next func(*bufio.Reader) (frame, error)) {
	r := bufio.NewReaderSize(src, readBuffer)
	for {
		var burst []frame
		var err error
		for size := 0; err == nil && (len(burst) == 0 || r.Buffered() > 0 && size < maxBurst); {
			var f frame
			if f, err = next(r); len(f.raw) > 0 {
				burst = append(burst, f)
				size += len(f.raw)
			}
		}
		s.arrived(burst, err)
		if err != nil {
			return
		}
	}
}

// arrived queues frames, and the end of the input where err is not nil.
func (s *stream) arrived(frames []frame, err error) {
	c, p := s.c, s.c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.ended {
		return
	}
	// An earlier, longer delay still counts: nothing overtakes.
	if due := time.Now().Add(p.later(s.down)); due.After(s.due) {
		s.due = due
	}
	for _, f := range frames {
		it := &item{raw: f.raw, due: s.due}
		switch {
		case f.kind == 0:
			it.kind = fragment
		case s.down:
			it.kind, it.args = c.classify(f)
		default:
			it.kind, it.args = request, f.args()
			if p.apart != nil && len(it.args) > 0 {
				if pause := p.apart(it.args); pause > 0 {
					s.due = s.due.Add(pause) // of what is behind it
					p.cuts++
				}
			}
		}
		if slices.ContainsFunc(p.drops, func(d *drop) bool { return it.matches(push, d.match) }) {
			p.dropped++
			continue
		}
		for _, g := range p.gates {
			g.offer(it)
		}
		s.queue = append(s.queue, it)
	}
	if errors.Is(err, errNotRESP) {
		p.t.Errorf("redistest: proxy: %v", err)
	}
	if err != nil { // a broken connection ends as a closed one: with what was sent before
		s.queue = append(s.queue, &item{kind: end, due: s.due})
	}
	s.wakeUp()
	p.notify()
}

// take removes from the queue what may leave now. Where that is nothing but will be something in a while, it says when.
func (s *stream) take() (items []*item, wait time.Duration) {
	p := s.c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blackhole || s.down && p.blackholeReplies {
		return nil, 0
	}
	now := time.Now()
	n := 0
	for ; n < len(s.queue); n++ {
		it := s.queue[n]
		if it.held() {
			break
		}
		if wait = it.due.Sub(now); wait > 0 {
			break
		}
		s.c.passed(it)
	}
	items = slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	if n > 0 {
		p.notify()
	}
	return items, wait
}

// write passes on what is in the queue until its end.
func (s *stream) write(dst *net.TCPConn) {
	for {
		items, wait := s.take()
		if len(items) == 0 {
			var due <-chan time.Time
			if wait > 0 {
				due = time.After(wait)
			}
			select {
			case <-s.wake:
			case <-due:
			case <-s.c.ctx.Done():
				return
			}
			continue
		}
		var out net.Buffers
		last := items[len(items)-1]
		for _, it := range items {
			out = append(out, it.raw)
		}
		_, err := out.WriteTo(dst)
		if err == nil && last.kind == end {
			_ = dst.CloseWrite() // fails where the other end has gone
			return
		}
		if err != nil {
			s.c.p.mu.Lock()
			defer s.c.p.mu.Unlock()
			s.c.end()
			return
		}
	}
}

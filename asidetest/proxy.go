package asidetest

import (
	"net"
	"sync"
	"time"
)

// A state is what a proxy does with its connections.
type state int

const (
	up      state = iota // passes on what comes
	hanging              // keeps it
	down                 // has no connections
)

// A proxy stands before a server, and passes on what comes from both sides, now or later.
type proxy struct {
	upstream string
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	state   state                 // guarded by mu
	delay   time.Duration         // of what the server sends; guarded by mu
	conns   map[net.Conn]struct{} // both ends of each connection; guarded by mu
	changed chan struct{}         // closed when state or delay changes; guarded by mu
	closed  bool                  // guarded by mu
}

func startProxy(upstream string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{upstream: upstream, listener: l, conns: make(map[net.Conn]struct{}), changed: make(chan struct{})}
	p.running.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// set changes the state. From then on nothing passes that the new state does not let pass.
func (p *proxy) set(s state, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.delay = s, delay
	close(p.changed)
	p.changed = make(chan struct{})
	if s == down {
		p.hangUp()
	}
}

// hangUp closes all connections. The lock is held.
func (p *proxy) hangUp() {
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

// close ends the proxy, and waits for its goroutines.
func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.hangUp()
	p.state = down
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	p.running.Wait()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(client) {
			continue
		}
		p.running.Go(func() {
			server, err := net.Dial("tcp", p.upstream)
			if err != nil {
				p.drop(client)
				return
			}
			if !p.keep(server) {
				p.drop(client)
				return
			}
			var both sync.WaitGroup
			both.Go(func() { p.pass(server, client, false) })
			both.Go(func() { p.pass(client, server, true) })
			both.Wait()
		})
	}
}

// keep notes a connection, or closes it during an outage.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == down || p.closed {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

// drop closes connections.
func (p *proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(p.conns, c)
	}
}

// A piece is what was read at once.
type piece struct {
	bytes []byte
	came  time.Time
}

// pass passes on what comes from one end of a connection to the other, until either is closed. It closes both then.
func (p *proxy) pass(to, from net.Conn, late bool) {
	pieces, over := make(chan piece, 256), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(pieces)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if n > 0 {
				select {
				case pieces <- piece{buf[:n], time.Now()}:
				case <-over:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for next := range pieces {
		if !p.await(next.came, late) {
			break
		}
		if _, err := to.Write(next.bytes); err != nil {
			break
		}
	}
	close(over)
	p.drop(to, from)
	reading.Wait()
}

// await waits until what came at a time may pass. It reports false if it may not, because the connection is closed.
func (p *proxy) await(came time.Time, late bool) bool {
	for {
		p.mu.Lock()
		s, delay, changed := p.state, p.delay, p.changed
		p.mu.Unlock()
		var due <-chan time.Time
		switch {
		case s == down:
			return false
		case s == hanging:
		case !late || delay <= 0:
			return true
		default:
			left := time.Until(came.Add(delay))
			if left <= 0 {
				return true
			}
			timer := time.NewTimer(left)
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-due:
		case <-changed:
		}
	}
}

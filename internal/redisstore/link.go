package redisstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// link is the connection to Redis, and the breaker before it. A call never pays for a connect: rueidis dials in the context
// of whoever comes first, and a short deadline there would never get through. So clients are made in the background, and
// nobody is sent to Redis any more after a few failures in a row, after one that says enough, or when a connection has
// broken, until a background probe has come back. No caller is ever the probe.
type link struct {
	breaker
	connector
	traits
	slotShare
	status
	hooks
	portions
	watermark watermark
	first     *first // attempt to connect

	stop       context.CancelFunc
	done       chan struct{} // closed when the background goroutine has ended
	background sync.WaitGroup
}

// hooks are what a link needs of its Store.
type hooks struct {
	ownName       func(prefix string) string                               // a name of this process's that the server has
	onConnect     func(context.Context, rueidis.Client) error              // what the server must answer before it is used
	trackAll      func(context.Context, rueidis.Client) error              // makes a tracked read on each connection
	readWatermark func(context.Context, rueidis.Client) error              // finds out what the server remembers, before callers use it
	watch         func(context.Context, *session)                          // probes the connections of a tracked session, until ctx ends
	probePush     func(context.Context, *session) error                    // finds out whether the server pushes changes
	newConn       func(of *session, broken func(cause error)) *trackedConn // for each connection of a tracked client
	subscribe     func(context.Context, rueidis.Client)                    // runs on a client of its own where the server does not track, until ctx ends; may be nil
}

// traits are what is known of the server.
type traits struct {
	untracked atomic.Bool // it does not push changes
	silent    atomic.Bool // it does not track, and does not let this process announce changes either
	scans     atomic.Bool // it has refused SCAN: SCAN is examined too
	clock     serverClock
}

// A slotShare is what a node of a cluster has.
type slotShare struct {
	owned      atomic.Pointer[slotSet] // nil for a server that has all slots
	handedOver atomic.Bool             // the node's slots were handed over to it in full, and it has not been in use yet
}

// idle reports whether it is to the node of a cluster that has no slots yet.
func (l *link) hasNoSlots() bool {
	owned := l.owned.Load()
	return owned != nil && owned.empty()
}

// doubt ends what the connections have vouched for so far, though none has broken.
func (l *link) lapse() {
	for _, w := range l.conns() {
		w.lapse()
	}
}

// doubtAgain is doubt for what is found out again and again: nothing happens where nothing was vouched for since the last time.
func (l *link) lapseInUse() {
	for _, w := range l.conns() {
		if w.inUse() {
			w.lapse()
		}
	}
}

func (l *link) conns() []*trackedConn {
	s := l.latest.Load()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.conns)
}

func (l *link) open(opt rueidis.ClientOption, onState func(State)) {
	ctx, stop := context.WithCancel(context.Background())
	l.options, l.onState, l.stop = withDefaults(opt), onState, stop
	l.state = State{Since: time.Now()}
	l.lost, l.done = make(chan struct{}, 1), make(chan struct{})
	go l.keep(ctx)
}

// Close ends the connection and the background work. An attempt to connect is cut off, and waited for up to abandonAfter.
func (l *link) Close() {
	l.stop()
	<-l.done
}

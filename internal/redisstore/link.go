package redisstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A link is the connection to one server, and the breaker before it. No call waits for a connect: rueidis dials in the context of
// the first caller, whose short deadline might never suffice. So clients are made in the background. After a few failures in a
// row, after one failure that says enough, or when a connection has broken, callers are not sent to the server until a background
// probe has succeeded. No caller is ever the probe.
type link struct {
	breaker
	connector
	traits
	slotShare
	status
	hooks
	portions
	watermark watermark
	first     *first // the first attempt to connect

	stop       context.CancelFunc
	done       chan struct{} // closed when the background goroutine has ended
	background sync.WaitGroup
}

// hooks are the functions of the Store that a link calls.
type hooks struct {
	ownName       func(prefix string) string                               // a name of this process that the server has
	onConnect     func(context.Context, rueidis.Client) error              // checks the server before it is used
	trackAll      func(context.Context, rueidis.Client) error              // makes a tracked read on each connection
	readWatermark func(context.Context, rueidis.Client) error              // reads the server's watermark, before callers use the server
	watch         func(context.Context, *session)                          // probes the connections of a tracked session, until ctx ends
	probePush     func(context.Context, *session) error                    // checks that the server pushes changes
	newConn       func(of *session, broken func(cause error)) *trackedConn // for each connection of a tracked client
	subscribe     func(context.Context, rueidis.Client)                    // receives announcements by a client of its own where the server does not track, until ctx ends; may be nil
}

// traits are what is known of the server.
type traits struct {
	untracked atomic.Bool // it does not push changes
	silent    atomic.Bool // it does not track, and does not let this process announce changes either
	noPXAT    atomic.Bool // it is older than Redis 6.2, and knows no SET with PXAT
	scans     atomic.Bool // it has refused SCAN, so SCAN is examined too
	slotted   atomic.Bool // it takes no command with keys of several slots: a cluster, or a part of one, that looks like one server
	clock     serverClock
}

// A slotShare is the slots of one cluster node.
type slotShare struct {
	owned      atomic.Pointer[slotSet] // nil for a server that has all slots
	handedOver atomic.Bool             // the node got its slots from others key by key, and has not been in use yet
}

// hasNoSlots reports whether the link is to a cluster node without slots yet.
func (l *link) hasNoSlots() bool {
	owned := l.owned.Load()
	return owned != nil && owned.empty()
}

// lapse ends all validities of the connections so far, though none has broken.
func (l *link) lapse() {
	for _, w := range l.conns() {
		w.lapse()
	}
}

// lapseInUse is lapse for a condition that is found again and again: a connection without new validities since is left alone.
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

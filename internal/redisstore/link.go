package redisstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/redis/rueidis"
)

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

// Close ends the connection and the background work. An attempt to connect is cut off, and waited for up to abandonAfter.
func (l *link) Close() {
	l.stop()
	<-l.done
}

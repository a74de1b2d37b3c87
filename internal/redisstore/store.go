// Package redisstore keeps encoded values in Redis: reads, leases, compare-and-set fills and removals, each under a time
// limit of its own, through a connection that is made and mended in the background. It knows nothing of what the values
// mean.
package redisstore

import (
	"cmp"
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
)

// Options configures a Store.
type Options struct {
	Client      rueidis.ClientOption
	Namespace   string        // what all names in Redis begin with; nobody else sees it, and every key is given without it
	OpTimeout   time.Duration // limit of one operation on small values
	Lease       time.Duration // life of a lease that is not renewed
	Format      Format
	Clock       *near.Clock      // what the losses of vouchers are dated by; a clock of the store's own unless set
	OnState     func(State)      // told each change of state, one at a time; it must not block
	Pushed      func(key string) // told each key that was read with a Fence and that somebody has changed; it must not block
	Gap         func()           // told when vouchers were withdrawn; it must not block
	OnWatermark func(uint64)     // told the last Mark that a server knows of, 0 for none, before it is used; it must not block
	Calls       func() uint64    // grows with each call of the users; nil: connections never rest
	IdleAfter   time.Duration    // without a call, until they do; a minute unless set
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
	onWatermark   func(uint64)
	idling        idling
	leaseLife     leaseLife
	format        scriptFormat
}

// Open returns at once; the connection is made in the background.
func Open(o Options) *Store {
	s := &Store{
		opTimeout: o.OpTimeout,
		grace:     grace{limit: o.OpTimeout},
		idling:    idling{o.Calls, cmp.Or(o.IdleAfter, idleAfter)},
		namespace: namespace(o.Namespace),
		leaseLife: newLeaseLife(o.Lease),
		format:    o.Format.forScripts(),
	}
	s.changed, s.tracking.gap, s.onWatermark = func(string) {}, func() {}, func(uint64) {}
	if o.OnWatermark != nil {
		s.onWatermark = o.OnWatermark
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
	l := &link{
		breaker:   breaker{opTimeout: s.opTimeout, grace: &s.grace},
		connector: connector{hanging: &s.topology.hanging},
		portions:  portions{turn: make(chan struct{}, 1)},
		first:     newFirst(s.opTimeout),
	}
	l.newConn = s.tracking.newConn
	if owned != nil {
		l.owned.Store(owned)
	}
	if owned == nil || owned.full() {
		l.subscribe = s.subscribe // of several nodes none would vouch for what the others say
	}
	l.ownName = func(prefix string) string {
		return ownName(l.owned.Load(), s.namespace.name(prefix+s.announcements.self[:16]))
	}
	l.onConnect = func(ctx context.Context, c rueidis.Client) error { return s.onConnect(ctx, l, c) }
	l.trackAll = func(ctx context.Context, c rueidis.Client) error {
		_, err := readTracked(ctx, c, l.probeNames())
		return err
	}
	l.readWatermark = func(ctx context.Context, c rueidis.Client) error { return s.readWatermark(ctx, l, c) }
	l.watch = func(ctx context.Context, now *session) { s.watch(ctx, l, now) }
	l.probePush = func(ctx context.Context, now *session) error { return s.probePush(ctx, l, now) }
	return l
}

// Package redisstore keeps encoded values in Redis: reads, leases, compare-and-set fills and removals. Each operation has a time limit
// of its own. Connections are made, probed and made again in the background. The package does not know what the values mean.
//
// Read store.go first, then an operation (read.go, lease.go, leaseplain.go, fill.go, readback.go, remove.go, generation.go), then how commands travel: send.go by
// way of table.go to a link, whose connect.go, keep.go and breaker.go make and mend the connection. What makes a value in memory
// valid is in tracking.go, watch.go and watermark.go; clusters are in topology.go, discover.go, follow.go and apply.go.
package redisstore

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/observe"
	"github.com/gatewayz/aside/internal/stats"
)

// Options configures a Store. None of its functions may block.
type Options struct {
	Client      rueidis.ClientOption
	Namespace   string        // prefix of all names in Redis; keys are given and returned without it
	OpTimeout   time.Duration // limit of one operation on small values
	Lease       time.Duration // life of a lease that is not renewed
	Format      Format
	Clock       *near.Clock      // dates lost validities; the store's own clock unless set
	OnState     func(State)      // called with each change of state, one call at a time
	OnNode      OnNode           // nil: none
	Pushed      func(key string) // called with each key that was read with a Fence and then changed by another client
	Gap         func()           // called when validities have ended
	OnWatermark func(uint64)     // called with the watermark that a server has, 0 for none, before the server is used
	Idling      Idling
	Trips       Trips
}

// Trips are told of round trips: of those that callers and background work make, not of those that keep connections.
type Trips struct {
	Counts   *stats.RoundTrips // counts them; nil: nowhere
	Observer *observe.Observer // nil: none
}

func (o *Options) now() func() int64 {
	if o.Clock != nil {
		return o.Clock.Now
	}
	began := time.Now()
	return func() int64 { return int64(time.Since(began)) }
}

// A Store is safe for concurrent use. While there is no connection, its methods fail with ErrUnavailable at once.
type Store struct {
	topology
	tracking
	namespace     namespace
	announcements announcements // where the server does no tracking
	limits
	ends        ends
	changed     func(key string)
	onWatermark func(uint64)
	idling      Idling
	leaseLife   leaseLife
	format      scriptFormat
	trips       Trips
}

// Open returns at once. The connection is made in the background.
func Open(o Options) *Store {
	s := &Store{
		limits:    limits{opTimeout: o.OpTimeout, grace: grace{limit: o.OpTimeout}},
		idling:    o.Idling.withDefaults(),
		namespace: namespace(o.Namespace),
		leaseLife: newLeaseLife(o.Lease),
		format:    o.Format.forScripts(),
		trips:     o.Trips,
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
	s.topology.onNode = o.OnNode
	s.topology.open(o.Client, o.OnState)
	return s
}

// linkTo makes a link, which is not open yet, to a cluster node that owns some slots or, with nil, to a server that has all.
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
		l.subscribe = s.subscribe // with several nodes, no connection proves that the announcements of all arrive
	}
	l.ownName = func(prefix string) string {
		return ownName(l.owned.Load(), s.namespace.name(prefix+s.announcements.self[:16]))
	}
	l.onConnect = func(ctx context.Context, c rueidis.Client) error { return s.onConnect(ctx, l, c) }
	l.trackAll = func(ctx context.Context, c rueidis.Client) error {
		var names []string
		for _, pair := range l.probeNames() {
			names = append(names, pair[0])
		}
		_, err := readTracked(ctx, c, names)
		return err
	}
	l.readWatermark = func(ctx context.Context, c rueidis.Client) error { return s.readWatermark(ctx, l, c) }
	l.watch = func(ctx context.Context, now *session) { s.watch(ctx, l, now) }
	l.probePush = func(ctx context.Context, now *session) error { return s.probePush(ctx, l, now) }
	return l
}

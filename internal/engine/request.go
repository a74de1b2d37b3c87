package engine

import (
	"cmp"
	"context"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/lease"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// A Status says how a call was answered. The root package has one with the same text for each.
type Status string

// The ways in which a call is answered.
const (
	StatusHit      Status = "hit"      // from the cache
	StatusStale    Status = "stale"    // from memory, while Redis cannot confirm that the value is current
	StatusMiss     Status = "miss"     // by a load
	StatusFallback Status = "fallback" // by a load, because Redis was unavailable or failed
)

// A Tier says where a value came from. The root package has one with the same text for each.
type Tier string

// Where values come from.
const (
	TierMemory Tier = "memory"
	TierRedis  Tier = "redis"
	TierOrigin Tier = "origin" // the loader
)

// A Request is what a caller asks for one key. It does not change, with one exception: see Engine.round.
type Request struct {
	Key     string
	Policy  *Policy
	Type    reflect.Type // of the value
	TTL     time.Duration
	Tags    []string // that it can be invalidated by, beside its key
	Strong  bool     // not answered from memory
	Replace bool     // a Set or a Refresh: no load in flight may be stored over it
	Limits  *Limits  // nil: none
	Windows *Windows // of the value that this request stores; nil: its policy's
	Place   Place    // where the value may be kept
	Bypass  bool     // the loader alone answers it: see bypass.go
}

// Limits are those of one caller. Callers with different limits share loads.
type Limits struct {
	MaxStale time.Duration // how long after its TTL a value may be served
}

// An attempt is a request on the load path, with the findings of each step.
type attempt struct {
	Request
	index int // its place among the requests that are answered together
	flying
	seen
	grant
	miss
	kept
	behind
	loading *loadRoom // see room
	out     Outcome   // the result of its callers
	self    [1]*attempt
	led     struct {
		attempts [1]*attempt
		calls    [1]*flight.Call[flightKey, Outcome]
	}
}

// alone returns the list of a, for its caller. The list takes no memory of its own.
func (a *attempt) alone() []*attempt {
	a.self[0] = a
	return a.self[:]
}

func newAttempt(r Request) *attempt {
	a := new(attempt)
	a.begin(r)
	return a
}

func (a *attempt) begin(r Request) { a.Request, a.ownTags, a.miss = r, r.Tags, notCached }

// again returns an attempt with the same request. The flight that a leads may still run, and add tags to a.
func (a *attempt) again() *attempt {
	next := newAttempt(Request{
		Key: a.Key, Policy: a.Policy, Type: a.Type, TTL: a.TTL, Tags: a.ownTags, Strong: a.Strong, Replace: a.Replace, Limits: a.Limits, Windows: a.Request.Windows, Bypass: a.Bypass, Place: a.Place,
	})
	next.index = a.index
	return next
}

// flying is the flight of an attempt.
type flying struct {
	call           *flight.Call[flightKey, Outcome]
	ownTags        []string                         // the tags of the request
	leader         bool                             // this attempt leads the flight, and has not joined it
	caller         context.Context                  // of the leader's caller; nil if the attempt has joined
	callerLeft     atomic.Int64                     // when the leader's caller found its context ended, on the cache's clock; 0 until then
	waiter         *flight.Call[flightKey, Outcome] // the load that waits for this one, where that is known
	ticket         flight.Ticket                    // when the call came, of a Strong call or a Refresh
	waitingSince   time.Time                        // when it began to wait for the end of another load; zero if it has not
	tagEvents      tags.Events                      // when the attempt joined its flight, or began it
	leadSeparately func([]*attempt)                 // leads other attempts of the batch on a goroutine of their own; nil outside of a batch
	joinables      *joinables                       // used by turns: see setJoinable; nil until they are needed, where there is no load
}

// seen is what an attempt has read.
type seen struct {
	fence       *near.Fence         // taken before anything is read
	notice      tags.Notice         // of its key, at its last read
	read        bool                // Redis was read, or is not to be read
	unanswered  bool                // Redis did not answer the read
	began       int64               // when its fence was taken, on the cache's clock
	captured    tags.Capture        // the generations of its tags, from before the load
	rejected    redisstore.Rejected // the value in Redis that cannot be used
	unfit       unfit               // its chunks were read, and were of no use
	outdated    bool                // the manifest in Redis carries an older generation of a tag
	quarantined bool                // Redis may still hold a value that this process has invalidated
	prior       *prior              // the cached value, from before the load; nil if there is none that could be kept
}

// A miss says why there is no hit, and what that means for the load.
type miss struct {
	status   Status // of a load: miss or fallback
	reason   string // why there is no hit
	storable bool   // whether a loaded value may be stored
	timedOut bool   // Redis did not answer in time
	skip     error  // why Redis is not asked: it has just failed to store a value of the key
}

// notCached is the miss that an attempt begins with.
var notCached = miss{status: StatusMiss, reason: ReasonNotCached, storable: true}

// A load behind the back of its callers refreshes a value that they have got from the cache.
type behind struct {
	old        *near.Entry   // the entry that is to be replaced; nil of any other load
	superseded bool          // Redis holds another value by now
	retryAfter time.Duration // after a failure: what its loader has said of the next load, 0 if nothing
	refused    error         // why the loaded value cannot be stored; nil if it can
	pause      time.Duration // after a failure: no load of this kind begins before, in any process
	tolerant   bool          // a value that is not dead will do
}

// A grant is the right to store a value.
type grant struct {
	nonce     wire.Nonce  // of the lease that was asked for; zero if none was
	nonceText string      // as Redis has it
	lease     lease.Lease // while it is renewed
	granted   int64       // the server's time when it was granted, µs; 0 without one
	empty     bool        // the key had no value when it was granted
	payload   wire.Nonce  // identifies the chunks of the value that was stored, if it has some
	lost      atomic.Bool // the lease is no longer held
	quiet     bool        // no notice to those who wait for the lease: it would remove the value from this process's memory
}

// A Loaded is what a loader has returned for one key. Its value and the entry for memory are one allocation, so that a hit touches one cache
// line and not two.
type Loaded struct {
	Value    any         // a pointer to the typed value
	Entry    *near.Entry // for the value, in the same allocation
	Err      error
	NotFound bool // there is no such thing; Err is then the loader's error, nil if that says no more than "not found"

	NotModified bool // the cached value is still right; Err is then the loader's error
}

// kept is the result of a load.
type kept struct {
	Loaded
	lateNames []string      // the tags that its loader has named
	ownTTL    bool          // its TTL is not the policy's
	etag      string        // what its source calls the value
	took      time.Duration // how long its loader took
	size      int64         // of its stored form, in bytes

	windows    freshness.Windows // with which it is stored: its policy's, its call's or its loader's
	ownWindows bool              // they are not its policy's
}

// leased reports whether a lease was granted.
func (a *attempt) leased() bool { return a.granted != 0 }

// newNonce gives a a nonce for the next lease that it asks for.
func (a *attempt) newNonce() {
	a.nonce = wire.NewNonce()
	a.nonceText = a.nonce.String()
}

// asked reports whether a lease may have been granted, even if the reply was lost.
func (a *attempt) asked() bool { return a.nonce != wire.Nonce{} }

// A flightKey has policy and type too: two callers that ask one key for different types, or by different policies, do not share a load. Nor do a
// caller that may be answered from the cache, and one that must not be.
type flightKey struct {
	key    string
	typ    reflect.Type
	policy *Policy
	bypass bool
}

func (a *attempt) flightKey() flightKey { return flightKey{a.Key, a.Type, a.Policy, a.Bypass} }

// An Outcome is the result of a request without an error.
type Outcome struct {
	Value      any   // a pointer to the typed value; nil for "not found"
	Absent     error // the loader's error for "not found", nil if that says no more
	Status     Status
	Tier       Tier
	Reason     string
	ETag       string // what the source calls the value
	LoadedAt   int64  // when the load began, on the cache's clock
	FreshUntil int64
	LoadTime   time.Duration // how long the load took; 0 if that is not known
	pastFresh
	lateTags
	old *near.Entry // the value is to be loaded anew behind its callers' back: what it is now; nil if it is not
}

// pastFresh are the times of a value that is not fresh, or that Redis does not confirm; 0 for others.
type pastFresh struct {
	ttlUntil   int64 // the end of its TTL, where FreshUntil is earlier
	staleUntil int64 // of a value in Redis: until when it may be served at once
	deadUntil  int64 // until when it may be served

	Overtaken bool // it was invalidated during its load, and is not cached
}

// lateTags are what is known of the tags of a value that its request does not name.
type lateTags struct {
	late      bool   // there are some
	tagEvents uint64 // when the flight began
	untracked bool   // Redis would not have notified this process of a change of those tags
}

// PastTTL returns for how long the value has been past its TTL; 0 if it is within, or if a load has just made it.
func (o *Outcome) PastTTL(now int64) time.Duration {
	if o.Status != StatusStale {
		return 0
	}
	return time.Duration(max(0, now-cmp.Or(o.ttlUntil, o.FreshUntil)))
}

// Shared reports whether the value is from a load that another call has started: its reason says so.
func (o *Outcome) Shared() bool { return strings.HasPrefix(o.Reason, ReasonSharedLoad) }

// setCached sets the outcome to a value in memory.
func (o *Outcome) setCached(value any) {
	if IsAbsent(value) {
		o.Absent = absentError(value)
		return
	}
	o.Value = value
}

// quarantine notes that Redis is not trusted for a.
func (a *attempt) quarantine() {
	a.status, a.storable, a.reason = StatusFallback, false, ReasonUnconfirmed
}

// restarted returns the attempt as it was before its flight read anything. The original stays with the batch.
func (a *attempt) restarted() *attempt {
	again := newAttempt(a.Request)
	again.index = a.index
	again.call, again.leader, again.tagEvents, again.skip = a.call, a.leader, a.tagEvents, a.skip
	return again
}

// A LoadFunc loads requests by their indexes, and calls found with the result of each.
type LoadFunc func(ctx context.Context, indexes []int, found func(index int, g Loaded))

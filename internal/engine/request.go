package engine

import (
	"context"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/flight"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// A Status tells how a call was answered. The package above has one with the same text for each.
type Status string

// The ways in which a call is answered.
const (
	StatusHit      Status = "hit"      // from the cache
	StatusStale    Status = "stale"    // from memory, without Redis' word that it is still right
	StatusMiss     Status = "miss"     // by a load
	StatusFallback Status = "fallback" // by a load, because Redis was away or failed
)

// A Tier tells where a value came from. The package above has one with the same text for each.
type Tier string

// Where values come from.
const (
	TierMemory Tier = "memory"
	TierRedis  Tier = "redis"
	TierOrigin Tier = "origin" // the loader
)

// A Request is what is asked of one key. It does not change, but that the second of two ids with one key shares what the first begins.
type Request struct {
	Key     string
	Policy  *Policy
	Type    reflect.Type // of the value
	TTL     time.Duration
	Tags    []string // what it can be invalidated by, beside its key
	Strong  bool     // nothing that memory holds is good enough
	Replace bool     // a Set or a Refresh: loads under way must not be stored over it
}

// An attempt is one key's way through the load path: a request, and what each step has found.
type attempt struct {
	Request
	index int // its place among the requests that are answered together
	flying
	seen
	grant
	miss
	kept
	out Outcome // what the callers got
}

func newAttempt(r Request) *attempt { return &attempt{Request: r, miss: notCached} }

// flying is the flight of an attempt.
type flying struct {
	call         *flight.Call[flightKey, Outcome]
	leader       bool                             // by this caller, not joined
	caller       context.Context                  // of who leads it; nil otherwise
	left         atomic.Int64                     // when that one found its context ended, on the cache's clock; 0 until then
	waiter       *flight.Call[flightKey, Outcome] // of the load that waits for it, where that is known
	ticket       flight.Ticket                    // when it came, of a Strong call and a Refresh
	waitingSince time.Time                        // when it began to wait for another one's end; zero where it has not
	tagEvents    tags.Events                      // when the attempt joined its flight, or began it
	perID        func([]*attempt)                 // leads other attempts of the batch on a goroutine of their own; nil outside of one
}

// seen is what an attempt has read.
type seen struct {
	fence       *near.Fence         // taken before anything is read
	notice      tags.Notice         // of its key, as it was read last
	read        bool                // Redis was asked what it holds, or is not to be asked
	unanswered  bool                // Redis did not say what it holds
	began       int64               // when its fence was taken, on the cache's clock
	captured    tags.Capture        // the generations of its tags, from before the load
	reject      redisstore.Rejected // the value in Redis that cannot be used
	outdated    bool                // what Redis has is out of date by its manifest
	quarantined bool                // Redis may still hold what this process has invalidated
}

// A miss is why there is no hit, and what that means for the load.
type miss struct {
	status   Status // what a load would be: a miss, or a fallback
	reason   string // why it is none of the better ones
	storable bool   // whether a loaded value may be stored
	timedOut bool   // Redis did not answer in time
	skip     error  // why Redis is not asked: it has just not taken what was to be stored
}

// notCached is a miss as an attempt begins with it.
var notCached = miss{status: StatusMiss, reason: "not cached", storable: true}

// A grant is the right to store a value.
type grant struct {
	nonce   wire.Nonce  // of the lease that was asked for; zero if none was
	granted int64       // the server's time when it was granted, µs; 0 without one
	lost    atomic.Bool // Redis has said that it is not held any more
	quiet   bool        // its value is in memory, which a word to those who wait for the lease would take away
}

// A Loaded is what a loader has come back with for one key. Its value and the entry in memory lie side by side, so that a hit waits for one
// line of memory and not for two.
type Loaded struct {
	Value    any         // a pointer to the typed value
	Entry    *near.Entry // for it, in the same allocation
	Err      error
	NotFound bool // there is no such thing; err is then what the loader has said of that, nil for no more than that
}

// kept is what has come of a load.
type kept struct {
	Loaded
	lateNames []string // the tags that its loader has named
	ownTTL    bool     // its TTL is not the policy's
}

func (a *attempt) leased() bool { return a.granted != 0 }

// asked reports whether a lease may have been granted, told or not.
func (a *attempt) asked() bool { return a.nonce != wire.Nonce{} }

// flights are told apart by policy and type too: of two callers that ask one key for different things each gets a right answer.
type flightKey struct {
	key  string
	typ  reflect.Type
	plan *Policy
}

func (a *attempt) flightKey() flightKey { return flightKey{a.Key, a.Type, a.Policy} }

// An Outcome is how one key's way through the load path ended well.
type Outcome struct {
	Value      any   // a pointer to the typed value; nil for "not found"
	Absent     error // what its loader has said of "not found", nil for no more than that
	Status     Status
	Tier       Tier
	Reason     string
	LoadedAt   int64 // when the load began, on the cache's clock
	FreshUntil int64
	late       bool   // it has tags that its callers have not named
	tagEvents  uint64 // that were known of when the flight began
	untracked  bool   // nobody would have told this process of a change of those tags
}

// found notes what memory holds.
func (o *Outcome) found(value any) {
	if IsAbsent(value) {
		o.Absent = absentError(value)
		return
	}
	o.Value = value
}

func (a *attempt) quarantine() {
	a.status, a.storable, a.reason = StatusFallback, false, "redis has not confirmed an invalidation yet"
}

// again is the attempt as it was before its flight looked anywhere. The other one stays with the batch.
func (a *attempt) restarted() *attempt {
	again := newAttempt(a.Request)
	again.index = a.index
	again.call, again.leader, again.tagEvents, again.skip = a.call, a.leader, a.tagEvents, a.skip
	return again
}

// A LoadFunc loads requests by their indexes, and gives the result of each.
type LoadFunc func(ctx context.Context, indexes []int, found func(index int, g Loaded))

package aside

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatewayz/aside/internal/closing"
	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/health"
	"github.com/gatewayz/aside/internal/recent"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/sampler"
)

func init() { closing.Of = func(c any) <-chan struct{} { return c.(*Cache).closes() } }

// closes returns a channel that is closed by Close, at once for a zero cache.
func (c *Cache) closes() <-chan struct{} {
	if c.engine != nil {
		return c.engine.Closing()
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// A State is the state of a cache's use of Redis.
type State string

// The states of a cache.
const (
	StateMemory    State = "memory"    // no Redis is configured
	StateConnected State = "connected" // Redis is in use
	StateDegraded  State = "degraded"  // Redis is configured and unavailable: L1 entries are served for DegradedTTL, the rest is loaded, one load of a key at a time
)

// Health is the state of a cache, since when, and why.
type Health struct {
	State  State     `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// Tracking says whether Redis pushes changes to this process. Without tracking, L1 keeps an entry for a second at most, or until the
	// process that changes it announces the change, and a process that waits for another one's load polls Redis.
	Tracking bool `json:"tracking"`
	// Bypassed are the categories whose calls bypass the cache, sorted; "all" stands for every call: see Cache.Bypass. The state is that of Redis all the same.
	Bypassed []string `json:"bypassed,omitempty"`
}

// Health returns the current state. A nil or closed cache is in StateDegraded, and Reason says so.
func (c *Cache) Health() Health {
	switch {
	case c == nil || c.engine == nil:
		return Health{State: StateDegraded, Reason: "the cache is nil or zero"}
	case c.closed.Load():
		return Health{State: StateDegraded, Reason: ErrClosed.Error()}
	case c.engine.Store == nil:
		return Health{State: StateMemory, Since: c.health.Began(), Bypassed: c.bypassed()}
	}
	s := c.engine.Store.State()
	if !s.Up {
		return Health{State: StateDegraded, Since: s.Since, Reason: health.Reason(s), Bypassed: c.bypassed()}
	}
	h := Health{State: StateConnected, Since: s.Since, Tracking: c.engine.Store.Tracked(), Bypassed: c.bypassed()}
	if !h.Tracking {
		h.Reason = health.Untracked(s)
	}
	return h
}

// A Node is a Redis server that this process uses. In a cluster these are the primaries that have slots, or are about to get some.
type Node struct {
	Addr     string    `json:"addr"`             // host:port, or the path of a socket; empty while Sentinels have not named the server
	Up       bool      `json:"up"`               // calls are sent to the server
	Since    time.Time `json:"since"`            // since when Up has been as it is
	Reason   string    `json:"reason,omitempty"` // why it is not up, or what is missing; as in Health
	Tracking bool      `json:"tracking"`         // the server is up, and pushes changes to this process
	// Trips counts how often this process had to stop sending calls to the server, by the cause: "broken" (the connection has broken), "timeout" (no
	// answer in time), "slow" (answers later than OpTimeout), "silent" (a change was not pushed), "unready" (the server loads its data, or has no
	// primary), "refused" (the server refuses the user, or all writes). It has all causes. A server that Sentinels name again begins anew.
	Trips map[string]uint64 `json:"trips"`
	// ClockOffset is how far the server's clock is before the clock of this process; negative: behind. No value's age depends on it: the times of
	// values are the server's. ClockWithin is how far off ClockOffset may be: half of a round trip. Both are 0 until the server's clock was read for
	// the first time. In the JSON they are clockOffsetSeconds and clockWithinSeconds.
	ClockOffset time.Duration `json:"-"`
	ClockWithin time.Duration `json:"-"`
}

// MarshalJSON adds ClockOffset and ClockWithin in seconds.
func (n Node) MarshalJSON() ([]byte, error) {
	type node Node
	return json.Marshal(struct {
		node
		ClockOffsetSeconds float64 `json:"clockOffsetSeconds"`
		ClockWithinSeconds float64 `json:"clockWithinSeconds"`
	}{node(n), n.ClockOffset.Seconds(), n.ClockWithin.Seconds()})
}

// Nodes returns the Redis servers that this process uses, by their addresses: one, or the primaries of a cluster. There are none in memory mode, on a
// nil or closed cache, and while nothing is known of the cluster: Health says why. Nodes asks no server. It may be called at any time, by many
// goroutines. It is for the operators of a program, and Health for everybody: Health has no address.
func (c *Cache) Nodes() []Node {
	if c == nil || c.engine == nil || c.engine.Store == nil || c.closed.Load() {
		return nil
	}
	all := c.engine.Store.Nodes()
	nodes := make([]Node, len(all))
	for i, n := range all {
		nodes[i] = Node{
			Addr: n.Addr, Up: n.State.Up, Since: n.State.Since, Tracking: n.State.Up && n.Tracked, ClockOffset: n.Offset, ClockWithin: n.Within,
			Trips: make(map[string]uint64, redisstore.TripCauses),
		}
		for cause, count := range n.Trips {
			nodes[i].Trips[redisstore.TripCause(cause).String()] = count
		}
		switch {
		case !n.State.Up:
			nodes[i].Reason = health.Reason(n.State)
		case !n.Tracked:
			nodes[i].Reason = health.Untracked(n.State)
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Addr, b.Addr) })
	return nodes
}

func (c *Cache) stateChanged(s redisstore.State, again int) {
	c.health.Changed(s, again)
	change := StateChange{At: time.Now(), State: StateConnected, Bypassed: c.bypassed()}
	switch {
	case !s.Up:
		change.State, change.Reason = StateDegraded, health.Reason(s)
	case s.Silent:
		change.Reason = health.Untracked(s)
	}
	c.recent.states.Add(change)
}

// Recent has the last events of a cache, at most 128 of each kind, the oldest first. Hits are not among them. Keys are as in the log: Key.String. A
// name or key longer than 512 bytes is shortened. Recent marshals to
//
//	{"states":[{"at":…,"state":"degraded","reason":…}],"invalidations":[…],"failedLoads":[…],"slowLoads":[…],"inconsistent":[…]}
//
// It is for the operators of a program. Names of keys and tags, and the texts of loaders' errors, are not for everybody.
type Recent struct {
	States        []StateChange        `json:"states"`
	Invalidations []RecentInvalidation `json:"invalidations"`
	FailedLoads   []FailedLoad         `json:"failedLoads"`
	SlowLoads     []SlowLoad           `json:"slowLoads"` // none without Options.SlowLoad
	Inconsistent  []InconsistentValue  `json:"inconsistent"`
}

// A StateChange is a change of Health. A switch by Cache.Bypass is one. A reason of another kind, such as a wrong password after a broken connection, is a change too.
type StateChange struct {
	At     time.Time `json:"at"`
	State  State     `json:"state"`            // from then on
	Reason string    `json:"reason,omitempty"` // as in Health
	// Bypassed is as in Health, from then on.
	Bypassed []string `json:"bypassed,omitempty"`
}

// A RecentInvalidation is an invalidation by this process, as its call returned.
type RecentInvalidation struct {
	At        time.Time     `json:"at"`              // when it returned
	Kind      string        `json:"kind"`            // "keys", "tags", "category", "pattern" or "all"
	Names     []string      `json:"names"`           // the first 10; none of "all"
	Count     int           `json:"count"`           // how many names there were
	Removed   int64         `json:"removed"`         // Receipt.Removed: 0 where a background cleanup removes the values
	Confirmed bool          `json:"confirmed"`       // Receipt.Confirmed
	Took      time.Duration `json:"-"`               // in the JSON tookSeconds
	Actor     string        `json:"actor,omitempty"` // who: see WithActor
}

// MarshalJSON adds Took in seconds.
func (r RecentInvalidation) MarshalJSON() ([]byte, error) {
	type event RecentInvalidation
	return json.Marshal(struct {
		event
		TookSeconds float64 `json:"tookSeconds"`
	}{event(r), r.Took.Seconds()})
}

// A FailedLoad is a loader call that has failed, with an error or a panic, or by its LoadTimeout. A batch is one loader call.
type FailedLoad struct {
	At      time.Time     `json:"at"` // when it failed
	Policy  string        `json:"policy"`
	Key     string        `json:"key"`     // of a batch the first id with this Outcome
	Count   int           `json:"count"`   // how many ids of a batch have this Outcome; else 1
	Outcome Outcome       `json:"outcome"` // OutcomeError, OutcomeTimeout or OutcomePanic
	Took    time.Duration `json:"-"`       // in the JSON tookSeconds
	Error   string        `json:"error"`   // the text of the loader's error, at most 1 KiB of it
}

// MarshalJSON adds Took in seconds.
func (f FailedLoad) MarshalJSON() ([]byte, error) {
	type event FailedLoad
	return json.Marshal(struct {
		event
		TookSeconds float64 `json:"tookSeconds"`
	}{event(f), f.Took.Seconds()})
}

// A SlowLoad is a loader call that has taken Options.SlowLoad or longer, whether or not it has failed. A batch is one loader call.
type SlowLoad struct {
	At      time.Time     `json:"at"` // when it ended, or its LoadTimeout was over
	Policy  string        `json:"policy"`
	Key     string        `json:"key"`     // of a batch the first id with this Outcome
	Count   int           `json:"count"`   // how many ids of a batch have this Outcome; else 1
	Outcome Outcome       `json:"outcome"` // any
	Took    time.Duration `json:"-"`       // in the JSON tookSeconds
}

// MarshalJSON adds Took in seconds.
func (s SlowLoad) MarshalJSON() ([]byte, error) {
	type event SlowLoad
	return json.Marshal(struct {
		event
		TookSeconds float64 `json:"tookSeconds"`
	}{event(s), s.Took.Seconds()})
}

// An InconsistentValue is a value that a ConsistencyCheck has found to be wrong.
type InconsistentValue struct {
	At     time.Time     `json:"at"` // when it was found
	Policy string        `json:"policy"`
	Key    string        `json:"key"`
	Age    time.Duration `json:"-"` // of the value then; in the JSON ageSeconds
}

// MarshalJSON adds Age in seconds.
func (v InconsistentValue) MarshalJSON() ([]byte, error) {
	type event InconsistentValue
	return json.Marshal(struct {
		event
		AgeSeconds float64 `json:"ageSeconds"`
	}{event(v), v.Age.Seconds()})
}

// Recent returns the last events. On a nil cache there are none. A closed cache keeps its events. Recent may be called at any time, by many goroutines.
func (c *Cache) Recent() Recent {
	if c == nil {
		c = new(Cache)
	}
	return Recent{c.recent.states.All(), c.recent.invalidations.All(), c.recent.failed.All(), c.recent.slow.All(), c.recent.inconsistent.All()}
}

// recentEvents are what Recent returns.
type recentEvents struct {
	states        recent.Ring[StateChange]
	invalidations recent.Ring[RecentInvalidation]
	failed        recent.Ring[FailedLoad]
	slow          recent.Ring[SlowLoad]
	inconsistent  recent.Ring[InconsistentValue]
}

// How many names an event has, and how many bytes each of them.
const (
	mostNames  = 10
	mostOfName = 512
)

func (r *recentEvents) failedLoad(f engine.FailedLoad) {
	r.failed.Add(FailedLoad{
		At: time.Now(), Policy: f.Policy, Key: recent.Text(f.Key, mostOfName), Count: f.Keys, Outcome: Outcome(f.How.String()), Took: f.Took,
		Error: recent.Text(f.Error, len(f.Error)),
	})
}

func (r *recentEvents) slowLoad(s engine.SlowLoad) {
	r.slow.Add(SlowLoad{time.Now(), s.Policy, recent.Text(s.Key, mostOfName), s.Keys, Outcome(s.How.String()), s.Took})
}

func (r *recentEvents) inconsistentValue(v sampler.Inconsistent) {
	r.inconsistent.Add(InconsistentValue{time.Now(), v.Policy, recent.Text(v.Key, mostOfName), v.Age})
}

// MemoryMetrics says how full the memory of a cache is. Entries and Bytes include expired values for some seconds.
type MemoryMetrics struct {
	Entries      int    `json:"entries"`
	Bytes        int64  `json:"bytes"` // of the values, as MaxBytes counts them
	MaxEntries   int    `json:"maxEntries"`
	MaxBytes     int64  `json:"maxBytes"`
	Evictions    uint64 `json:"evictions"` // values that made room for others, since New
	EvictedBytes uint64 `json:"evictedBytes"`
}

// LoadingMetrics says what loads a process makes at present.
type LoadingMetrics struct {
	Running          int `json:"running"`          // places of MaxLoads that are taken
	Queued           int `json:"queued"`           // loads that wait for a place
	Limit            int `json:"limit"`            // MaxLoads
	QueueLimit       int `json:"queueLimit"`       // MaxQueuedLoads
	LeasesHeld       int `json:"leasesHeld"`       // leases in Redis, from before the load until its value is stored
	LeasesUnreturned int `json:"leasesUnreturned"` // leases that Redis did not confirm to be released; they are released when it answers, or expire
}

// JournalMetrics says which invalidations of this process Redis has not confirmed. They are retried, and their keys are not read from Redis.
type JournalMetrics struct {
	Unconfirmed int           `json:"unconfirmed"` // keys, tags and patterns
	Patterns    int           `json:"patterns"`    // of these
	Oldest      time.Duration `json:"-"`           // how long the oldest one has waited; in the JSON oldestSeconds
}

// MarshalJSON adds Oldest in seconds.
func (m JournalMetrics) MarshalJSON() ([]byte, error) {
	type counts JournalMetrics
	return json.Marshal(struct {
		counts
		OldestSeconds float64 `json:"oldestSeconds"`
	}{counts(m), m.Oldest.Seconds()})
}

func (c *Cache) usage() (memory MemoryMetrics, loading LoadingMetrics, journal JournalMetrics, swept uint64) {
	u := c.engine.Usage()
	return MemoryMetrics{u.Memory.Entries, u.Memory.Bytes, u.Memory.MaxEntries, u.Memory.MaxBytes, u.Memory.Evictions, u.Memory.EvictedBytes},
		LoadingMetrics{u.Running, u.Queued, c.opts.MaxLoads, max(0, c.opts.MaxQueuedLoads), u.Held, u.Unreturned},
		JournalMetrics{u.Journal.Unconfirmed, u.Journal.Patterns, u.Journal.Oldest}, u.Memory.Swept + c.metrics.Swept.Load()
}

// process names this process for as long as it runs, and no other one.
var process = sync.OnceValue(func() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s/%d/%d", host, os.Getpid(), time.Now().UnixNano())
})

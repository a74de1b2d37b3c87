package aside

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/inspect"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/scan"
)

// A KeyInfo describes one cached value.
type KeyInfo struct {
	Key      string
	Tier     Tier          // where a call of this process would find the value now: memory or Redis
	TTL      time.Duration // until the end of its TTL; 0 after that
	Stale    bool          // its TTL is over; it is kept for Policy.Stale and Policy.StaleIfError
	KeptFor  time.Duration // until it is removed: after its TTL, and the times of Policy.Stale and Policy.StaleIfError
	Age      time.Duration // since the start of the load that made it
	Size     int64         // in Redis the stored bytes, in memory mode the estimated size of the value
	Codec    string        // name of the codec that encoded the value: "json", "cbor", "raw", or a Codec's Name; "" in memory mode
	Tags     []string      // for InvalidateTags
	Negative bool          // a cached "not found"
}

// Keys lists the cached keys that match a pattern. The zero Pattern stands for all keys of the categories that the cache has a policy for:
// those of Options.Policies, and those of policies that were used. In Redis mode Keys scans Redis in small portions, with pauses between them,
// and does not read the values: a listing of many keys takes its time. Invalidated entries are not listed, nor are keys of other programs.
//
// A key that is stored or removed during the listing may or may not be listed, and Redis may list a key twice. The sequence ends early if ctx
// ends or if Redis fails. Its last element is then an error: ctx's error, or an *Error with CodeUnavailable. It can be ranged over again, and
// by many goroutines.
func (c *Cache) Keys(ctx context.Context, pattern Pattern) iter.Seq2[KeyInfo, error] {
	return func(yield func(KeyInfo, error) bool) {
		err := c.usableWith(ctx)
		if err == nil {
			err = pattern.Err()
		}
		switch {
		case err != nil:
			yield(KeyInfo{}, err)
		case c.engine.Store == nil:
			c.listMemory(ctx, pattern, yield)
		default:
			c.listRedis(guard.Context(ctx), pattern, yield)
		}
	}
}

func (c *Cache) listMemory(ctx context.Context, pattern Pattern, yield func(KeyInfo, error) bool) {
	for key, e := range c.near.All() {
		if ctx.Err() != nil {
			yield(KeyInfo{}, ctx.Err())
			return
		}
		if !pattern.matches(key) {
			continue
		}
		if !yield(c.infoOf(key, e), nil) {
			return
		}
	}
}

func (c *Cache) infoOf(key string, e *near.Entry) KeyInfo {
	now, times := c.engine.Clock.Now(), e.Times()
	return KeyInfo{
		Key: key, Tier: TierMemory, TTL: time.Duration(max(0, times.FreshUntil-now)), Age: time.Duration(max(0, now-e.LoadedAt)),
		Stale: now >= times.FreshUntil, KeptFor: time.Duration(max(0, times.DeadUntil-now)),
		Size: e.Size, Tags: slices.Clone(e.Scope.Tags), Negative: engine.IsAbsent(e.Value),
	}
}

func (c *Cache) listRedis(ctx context.Context, pattern Pattern, yield func(KeyInfo, error) bool) {
	c.engine.AwaitServers(ctx)
	keys := scan.Selection{Category: pattern.category(), Match: pattern.text, Matches: pattern.matches}
	err := c.engine.Scanner.List(ctx, keys, func(i scan.Info) bool { return yield(c.infoOfStored(i), nil) })
	switch {
	case err == nil:
	case ctx.Err() != nil:
		yield(KeyInfo{}, ctx.Err())
	case c.closed.Load():
		yield(KeyInfo{}, ErrClosed)
	default:
		yield(KeyInfo{}, &Error{Code: CodeUnavailable, Message: "listing the keys in Redis failed: " + redisstore.Describe(err), Err: err})
	}
}

func (c *Cache) infoOfStored(i scan.Info) KeyInfo {
	info := KeyInfo{
		Key: i.Key, Tier: TierRedis, TTL: max(0, i.TTL), Age: i.Age, Stale: i.TTL <= 0, KeptFor: i.KeptFor, Size: i.Size, Tags: i.Tags, Negative: i.Negative,
	}
	if !i.Negative {
		info.Codec = c.policies.codecName(i.Codec)
	}
	if e, _ := c.near.Old(i.Key); e != nil && e.Scope.Valid() {
		info.Tier = TierMemory
	}
	return info
}

// An Entry is what a cache has for one key: see Cache.Inspect.
type Entry struct {
	// KeyInfo describes the value in Redis, in memory mode the value in memory. If nothing is cached, only Key is set.
	KeyInfo
	InRedis
	// Verdict is VerdictServed, or why a call would not get the value: one of the constants Verdict…, or ReasonNotCached, ReasonExpired,
	// ReasonInvalidated, ReasonUnusable, ReasonIncomplete, ReasonNewerBuild or ReasonUnconfirmed. In Redis mode it is about the value in Redis. A call
	// may refuse the value for more reasons, which depend on its policy and type: see Result.Reason.
	Verdict string
	Problem string // what exactly is wrong with a value that is unusable, incomplete or of a newer build, or that cannot be encoded for Payload

	Policy   string        // name of the policy that has stored the value, as far as this process knows it
	LoadTook time.Duration // how long the load took that made the value, in Redis in whole milliseconds; 0: not known, or less
	ETag     string        // the argument of Load.ETag in the loader
	Decoded  int64         // bytes of the encoded value, before compression; 0 if it cannot be read, and in memory mode without Payload

	// Payload is the beginning of the encoded value, decompressed. In memory mode it is the value as the policy's codec would encode it for Redis. It
	// is the caller's. JSON may have white space behind it. Payload may hold anything that a program, or anybody who can write to Redis, has stored.
	Payload []byte
	// InMemory is what this process has in memory for the key, nil if there is nothing.
	InMemory *InMemory
}

// InRedis is how Redis has a value. It is zero in memory mode.
type InRedis struct {
	Stored      int64           // bytes of the encoded value, after compression
	Compressed  bool            //
	Chunks      int             // keys that the value is divided into; 0 for a value in one piece
	Nonce       string          // identifies the fill that has stored the value among all fills: 24 hexadecimal digits
	Generations []TagGeneration // of the tags, of the category and of everything
}

// A TagGeneration is a tag of a value with its generation: before the load that made the value, and now. A generation is a number that changes with
// each invalidation, mostly the time of the last one, in microseconds since the Unix epoch.
type TagGeneration struct {
	Kind string // "tag", "category" or "all"; "unknown" for a name that no cache gives to a tag
	Name string // of the tag or category; empty for "all"
	Then uint64
	Now  uint64 // 0: it has none, as after a restart of Redis without its data
}

// Current reports whether the tag was not invalidated since the load.
func (g TagGeneration) Current() bool { return g.Now != 0 && g.Now == g.Then }

// InMemory is what the memory of a process has for one key.
type InMemory struct {
	Verdict  string        // VerdictServed, VerdictStale, VerdictUnconfirmed, VerdictReplaced or ReasonExpired
	Policy   string        // name of the policy that the value belongs to
	Type     string        // Go type of the value; empty for a cached "not found"
	TTL      time.Duration // as in KeyInfo
	KeptFor  time.Duration // as in KeyInfo
	Age      time.Duration // as in KeyInfo
	LoadTook time.Duration // how long its load took; 0: not known
	Size     int64         // the estimated size of the value
	Tags     []string      // as in KeyInfo
	Negative bool          // a cached "not found"
}

// The verdicts of Entry and InMemory, beside some of the constants Reason….
const (
	VerdictServed      = "served"                         // a call gets the value
	VerdictStale       = "past its TTL"                   // a call gets the value only by a policy with Stale or StaleIfError
	VerdictUnconfirmed = "redis cannot confirm the value" // in memory: it is served as stale for DegradedTTL, and only while Redis is unavailable
	VerdictReplaced    = "changed or invalidated"         // in memory: it is not served any more, and will be removed
)

// Inspect returns what is cached under a key, whether a call would get it, and if not, why. It is for an operator. It does not load, changes nothing,
// is no call in Metrics, and is no use of the value, which memory would keep for longer. most bounds Payload, in bytes: 0 for none. Redis is asked for
// the whole value all the same, up to MaxValueBytes of it, so do not call Inspect at each request of a user.
//
// The policy of key does not matter: a Key of any policy of its category will do, as Policy.ParseKey makes it of a text. Inspect does not check the value
// against that policy.
//
// It returns an error for an invalid key, a negative most and a nil or closed cache. If Redis cannot be read, the error is an *Error with
// CodeUnavailable, or ctx's if ctx has ended, and the Entry has Key and InMemory alone.
func (c *Cache) Inspect(ctx context.Context, key Key, most int) (Entry, error) {
	if err := key.Err(); err != nil {
		return Entry{}, err
	}
	if most < 0 {
		return Entry{}, invalidArgument(fmt.Sprintf("Inspect: most is %d: set how many bytes of the value to return, 0 for none", most))
	}
	if err := c.arrive(ctx); err != nil {
		return Entry{}, err
	}
	defer c.engine.Calls.Leave()
	held := c.engine.Held(key.String())
	e := Entry{KeyInfo: KeyInfo{Key: key.String()}, InMemory: c.inMemory(&held)}
	if c.engine.Store == nil {
		c.describeHeld(&e, &held, most)
		return e, nil
	}
	found, err := c.engine.Inspect(guard.Context(ctx), e.Key)
	switch {
	case err == nil:
		c.describeFound(&e, &found, most)
		return e, nil
	case ctx.Err() != nil:
		return e, ctx.Err()
	case c.closed.Load():
		return e, ErrClosed
	}
	return e, &Error{Code: CodeUnavailable, Key: e.Key, Message: "reading the value in Redis failed: " + redisstore.Describe(err), Err: err}
}

func (c *Cache) inMemory(h *engine.Held) *InMemory {
	if h.Entry == nil {
		return nil
	}
	i := c.infoOf("", h.Entry)
	return &InMemory{
		Verdict: string(h.Verdict), Policy: h.Policy.Name, Type: h.Type, TTL: i.TTL, KeptFor: i.KeptFor, Age: i.Age, LoadTook: h.Entry.LoadTime,
		Size: i.Size, Tags: i.Tags, Negative: i.Negative,
	}
}

// describeHeld fills in an Entry in memory mode.
func (c *Cache) describeHeld(e *Entry, h *engine.Held, most int) {
	if e.Verdict = string(h.Verdict); h.Entry == nil {
		return
	}
	e.KeyInfo, e.Policy, e.LoadTook, e.ETag = c.infoOf(e.Key, h.Entry), h.Policy.Name, h.Entry.LoadTime, h.Entry.ETag()
	if most == 0 {
		return
	}
	payload, err := h.Encode(c.engine)
	if err != nil {
		e.Problem = "the codec of the policy refuses the value: " + err.Error()
		return
	}
	e.Decoded, e.Payload = int64(len(payload)), bytes.Clone(payload[:min(most, len(payload))])
}

// describeFound fills in an Entry of what Redis has.
func (c *Cache) describeFound(e *Entry, found *inspect.Entry, most int) {
	if e.Verdict = string(found.Verdict); found.Problem != nil {
		e.Problem = found.Problem.Error()
	}
	if e.Size = found.Size; e.Size > 0 {
		e.Tier = TierRedis
	}
	if e.InMemory != nil && e.InMemory.Verdict == VerdictServed {
		e.Tier = TierMemory
	}
	h := &found.Header
	if h.LoadStart == 0 {
		return
	}
	micros := func(t int64) time.Duration { // anybody may have written the times
		return time.Duration(min(max(0, t), engine.Longest.Microseconds())) * time.Microsecond
	}
	e.TTL, e.KeptFor, e.Age = micros(h.FreshUntil-found.Now), micros(h.DeadUntil-found.Now), micros(found.Now-h.LoadStart)
	e.Stale, e.Negative, e.Policy = e.TTL == 0, h.Negative, c.policies.nameOfOwner(h.Policy, keyspace.CategoryOf(e.Key))
	if !h.Negative {
		e.Codec = c.policies.codecName(h.Codec)
	}
	e.LoadTook, e.ETag, e.Nonce = h.LoadDuration, h.ETag, h.Nonce.String()
	e.Stored, e.Decoded, e.Compressed, e.Chunks = found.Stored, int64(found.Decoded), found.Compressed(), found.Chunks
	for _, t := range found.Tags {
		g := generationOf(t)
		if g.Kind == kindTag {
			e.Tags = append(e.Tags, g.Name)
		}
		e.Generations = append(e.Generations, g)
	}
	if most > 0 {
		e.Payload = bytes.Clone(found.Payload[:min(most, len(found.Payload))])
	}
}

const kindTag = "tag"

// generationOf is a tag as the program calls it.
func generationOf(t inspect.Tag) TagGeneration {
	g := TagGeneration{Kind: "unknown", Name: t.Name, Then: t.Then, Now: t.Now}
	switch category, ok := strings.CutPrefix(t.Name, keyspace.CategoryPrefix); {
	case t.Name == keyspace.All:
		g.Kind, g.Name = "all", ""
	case ok:
		g.Kind, g.Name = "category", category
	case keyspace.IsNamed(t.Name):
		g.Kind, g.Name = kindTag, keyspace.GivenName(strings.TrimPrefix(t.Name, keyspace.NamedPrefix))
	}
	return g
}

// A HotKey is a key that is asked for often, with its share of the calls of this process in the last minutes: of those that Metrics counts as hits or
// misses.
type HotKey struct {
	Key    string  `json:"key"`    // as in Key.String; a key of more than 512 bytes is shortened, and is counted with others that begin with the same bytes
	Share  float64 `json:"share"`  // from 0 to 1
	Within float64 `json:"within"` // how far off Share may be: further in about one of three hundred cases
}

// HotKeys returns the keys that are asked for most, the largest share first: at most Options.HotKeys of them, and none without that option. Two keys whose
// shares differ by less than Within may be in the wrong order. A call counts for half after a minute, for a quarter after two, and so on. On a
// nil cache there are none; a closed cache counts no more. HotKeys may be called at any time, by many goroutines.
//
// The keys are for the operators of a program, and not for everybody.
func (c *Cache) HotKeys() []HotKey {
	if c == nil || c.hot == nil {
		return nil
	}
	top := c.hot.Top(c.engine.Clock.Now())
	list := make([]HotKey, len(top))
	for i, k := range top {
		list[i] = HotKey(k)
	}
	return list
}

// mostHotKeys is the largest Options.HotKeys. Their counts take about seven megabytes.
const mostHotKeys = 10_000

// countKey counts a call for HotKeys that was drawn.
func (c *Cache) countKey(key string) { c.hot.Add(key, c.engine.Clock.Now()) }

// Package inspect reads one value in Redis for an operator: its header, the generations of its tags when it was loaded and now, whether
// a process would serve it, and its payload. Unlike a read of the load path it keeps nothing, tracks nothing, and reports what is wrong.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// A Store is what is needed of a redisstore.Store.
type Store interface {
	Get(ctx context.Context, looks ...redisstore.Get) []redisstore.Read
	Chunks(ctx context.Context, key, nonce string, lengths []int) (chunks [][]byte, ok bool, err error)
	Values(ctx context.Context, keys ...string) ([]string, error)
	Now(key string) (now, within int64, ok bool)
}

// A Verdict says whether a process would serve a value, and otherwise why not. Except for Stale and Served it is the reason that a result has.
type Verdict string

// The verdicts.
const (
	Served      Verdict = "served"
	Stale       Verdict = "past its TTL"
	NotCached   Verdict = "not cached"
	Expired     Verdict = "expired"
	Invalidated Verdict = "invalidated by a tag or its category"
	Unusable    Verdict = "the stored value cannot be used"
	Incomplete  Verdict = "a part of the stored value is gone"
	NewerBuild  Verdict = "stored by a newer build"
)

// A Tag is a tag of an entry, with its generation before the load and now.
type Tag struct {
	Name      string // as in Redis
	Then, Now uint64 // Now is 0 if the tag has no generation
}

// Current reports whether the tag was not invalidated since the load.
func (t Tag) Current() bool { return t.Now != 0 && t.Now == t.Then }

// An Entry is what Redis has for a key.
type Entry struct {
	Key     string // without the namespace
	Name    string // in Redis
	Verdict Verdict
	Problem error // what is wrong with an entry that is Unusable, Incomplete or of a newer build

	Header wire.Header // as far as it can be read; zero if not at all
	Sizes
	Tags    []Tag         //
	Now     int64         // time of the server, in µs since the Unix epoch
	Within  time.Duration // how far off Now may be
	Payload []byte        // decompressed; nil if it cannot be read
}

// Sizes say how large an entry is.
type Sizes struct {
	Size    int64 // bytes of the value in Redis, with its chunks
	Stored  int64 // bytes of the payload in Redis
	Decoded int   // bytes of the payload; 0 if it cannot be read
	Chunks  int   // 0 for a value in one piece
}

// Compressed reports whether the payload was compressed.
func (e *Entry) Compressed() bool { return e.Payload != nil && int64(e.Decoded) != e.Stored }

// Read reads the value of a key. name is the key in Redis, with the namespace. Payloads above lim.MaxValue are not read. The error is the store's.
func Read(ctx context.Context, s Store, key, name string, lim wire.Limits) (Entry, error) {
	e := Entry{Key: key, Name: name, Verdict: NotCached}
	read := s.Get(ctx, redisstore.Get{Key: key})[0]
	if read.Err != nil && !redisstore.IsWrongType(read.Err) {
		return e, read.Err
	}
	now, within, _ := s.Now(key)
	e.Now, e.Within = now, time.Duration(within)*time.Microsecond
	switch {
	case read.Err != nil:
		e.Verdict, e.Problem = Unusable, fmt.Errorf("%w: it is no string", wire.ErrForeign)
		return e, nil
	case read.Value == nil:
		return e, nil
	}
	e.Size = int64(len(read.Value))
	if err := e.open(ctx, s, read, lim); err != nil {
		return e, err
	}
	if err := e.readTags(ctx, s); err != nil {
		return e, err
	}
	if e.Verdict = e.judge(); e.Verdict != Unusable && e.Verdict != NewerBuild && e.Verdict != Incomplete {
		e.Problem = nil
	}
	return e, nil
}

var errNoChunk = errors.New("a chunk is missing: it was evicted, or the value was replaced just now")

// open reads the header and the payload. What is wrong with them is in e.Problem.
func (e *Entry) open(ctx context.Context, s Store, read redisstore.Read, lim wire.Limits) error {
	// The header of a damaged value is shown too. Peek does not check it, but for its form.
	if h, size, need, err := wire.Peek(e.Name, read.Value); err == nil && need <= len(read.Value) {
		e.Header, e.Size, e.Stored = h, size, max(0, size-int64(need))
	}
	var (
		h       wire.Header
		payload []byte
		err     error
	)
	switch {
	case read.Cut:
		err = wire.ErrTooLarge
	case wire.IsChunked(read.Value):
		h, payload, err = e.join(ctx, s, read.Value, lim)
		var failed *storeError
		if errors.As(err, &failed) {
			return failed.err
		}
	default:
		h, payload, err = wire.Decode(e.Name, read.Value, lim)
	}
	if e.Problem = err; err == nil {
		e.Header, e.Payload, e.Decoded = h, payload, len(payload)
	}
	return nil
}

// A storeError is an error of the store, and says nothing about the value.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }

func (e *Entry) join(ctx context.Context, s Store, value []byte, lim wire.Limits) (wire.Header, []byte, error) {
	m, err := wire.ReadManifest(e.Name, value, lim)
	if err != nil {
		return wire.Header{}, nil, err
	}
	e.Chunks = m.Chunks
	chunks, ok, err := s.Chunks(ctx, e.Key, m.Header.Payload.String(), m.Lengths())
	switch {
	case err != nil:
		return wire.Header{}, nil, &storeError{err}
	case !ok:
		return wire.Header{}, nil, errNoChunk
	}
	return m.Join(e.Name, value, chunks, lim)
}

// readTags reads the generations of the tags. A forged entry may name any key of the server as a tag: only names of tags are read.
func (e *Entry) readTags(ctx context.Context, s Store) error {
	for _, t := range e.Header.Tags {
		e.Tags = append(e.Tags, Tag{Name: t.Name, Then: t.Generation})
	}
	if len(e.Tags) == 0 || !keyspace.OnlyTags(e.Header.Tags) {
		return nil
	}
	names := make([]string, len(e.Tags))
	for i, t := range e.Tags {
		names[i] = t.Name
	}
	values, err := s.Values(ctx, names...)
	if err != nil {
		return err
	}
	for i, v := range values {
		e.Tags[i].Now, _ = redisstore.ParseGeneration([]byte(v)) // no generation is 0
	}
	return nil
}

var (
	errForeignTag = errors.New("the value names a key as a tag that is not a tag")
	errNoTag      = errors.New("the value lacks the tag of its category or of everything")
)

// judge is what the load path would say. A policy can ask for more: a codec, a type, a version of its own.
func (e *Entry) judge() Verdict {
	switch {
	case errors.Is(e.Problem, wire.ErrNewer):
		return NewerBuild
	case errors.Is(e.Problem, errNoChunk):
		// Of an entry that is not served anyway, the chunks are not missed.
	case e.Problem != nil:
		return Unusable
	case !keyspace.OnlyTags(e.Header.Tags):
		e.Problem = errForeignTag
		return Unusable
	case !e.carries(keyspace.All) || !e.carries(keyspace.CategoryTag(keyspace.CategoryOf(e.Key))):
		e.Problem = errNoTag
		return Unusable
	}
	switch {
	case slices.ContainsFunc(e.Tags, func(t Tag) bool { return !t.Current() }):
		return Invalidated
	case e.Now >= e.Header.DeadUntil:
		return Expired
	case e.Problem != nil:
		return Incomplete
	case e.Now >= e.Header.FreshUntil:
		return Stale
	}
	return Served
}

func (e *Entry) carries(tag string) bool {
	return slices.ContainsFunc(e.Tags, func(t Tag) bool { return t.Name == tag })
}

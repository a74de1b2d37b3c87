package aside

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/keyspace"
)

// A CallOption changes one call: WithTTL, WithStale, WithTags, KeepIn, Refresh, Strong and MaxStale return one. Make an option that is used often once: a hit then
// allocates nothing for it. The zero CallOption changes nothing.
type CallOption struct {
	set *callOptions // a pointer, because hits copy it
}

// callOptions are the options of a call together.
type callOptions struct {
	ttl     time.Duration
	tags    []string
	err     error
	refresh bool
	strong  bool
	limits  *engine.Limits
	windows *engine.Windows
	place   *engine.Place
}

// WithTTL sets the TTL of the value that this call stores, instead of the policy's. It must be at least 1 ms. A load that is
// in flight already keeps the TTL that it began with, and ErrNotFound is still cached for the policy's NegativeTTL.
func WithTTL(d time.Duration) CallOption {
	if d < time.Millisecond {
		return CallOption{&callOptions{err: invalidArgument("WithTTL(" + d.String() + "): set a duration of at least 1ms")}}
	}
	return CallOption{&callOptions{ttl: d}}
}

// WithTags adds tags to the value that this call stores, for InvalidateTags. Use the same tags in every call for a key: a hit ignores them. A
// tag is any text of up to about 500 bytes. An entry takes up to 62 tags. With more, a call that misses fails with CodeInvalidArgument.
func WithTags(tags ...string) CallOption {
	names, err := tagNames(tags)
	return CallOption{&callOptions{tags: names, err: err}}
}

// Refresh loads even if the value is cached, and replaces the value. It joins no load that began before the call, and the result of such a
// load is not stored. While another Refresh of the key runs, a Refresh waits for its end, for a quarter of the LoadTimeout at most. Then it
// shares the next load with all calls that have arrived in the meantime.
func Refresh() CallOption { return CallOption{&callOptions{refresh: true}} }

// Strong reads Redis instead of memory, checks the versions of the value's tags there, and joins no load that began before the call. So the
// call returns no value that was invalidated before it began, if Redis had confirmed the invalidation, even if Redis' push has not arrived in
// this process yet. In memory mode Strong only prevents joining a load that is already running. While another Strong call of the key runs, a
// Strong call waits for its end and shares the next one, as with Refresh.
func Strong() CallOption { return CallOption{&callOptions{strong: true}} }

// MaxStale limits how long after its TTL a value may be served to this call: with 0 only fresh values are. A call that needs a newer value waits
// for a load. MaxStale does not extend Policy.Stale and Policy.StaleIfError. A negative duration is an error.
func MaxStale(d time.Duration) CallOption {
	if d < 0 {
		return CallOption{&callOptions{err: invalidArgument("MaxStale(" + d.String() + "): set 0 or a positive duration")}}
	}
	return CallOption{&callOptions{limits: &engine.Limits{MaxStale: min(d, engine.Longest)}}}
}

// WithStale sets how long after its TTL the value that this call stores is served. The duration stale replaces Policy.Stale, and ifError replaces
// Policy.StaleIfError. A stale of 0 is none, and an ifError of 0 is as long as stale. Other durations must be at least 1 ms, ifError at least as long
// as stale, and each with the TTL at most 100 years. The value keeps these times in all processes, whatever their policy says. A load that is in
// flight already keeps the times that it began with, and a loader can set others: see Load.Stale.
func WithStale(stale, ifError time.Duration) CallOption {
	err := cmp.Or(
		engine.CheckWindow(withStale[0], stale, 0), engine.CheckWindow(withStale[1], ifError, 0), engine.CheckOrder(withStale[0], stale, withStale[1], ifError),
	)
	if err != nil {
		return CallOption{&callOptions{err: callError(err, "")}}
	}
	return CallOption{&callOptions{windows: &engine.Windows{Stale: stale, OnError: ifError}}}
}

// KeepIn sets where the value that this call stores is kept, in place of Policy.Place. A value that is cached already answers the call, wherever it is, but for one in
// Redis with PlaceMemory. A load that is in flight already keeps the place that it began with. Use the same place in every call for a key.
func KeepIn(place Place) CallOption {
	if !place.valid() {
		return CallOption{&callOptions{err: invalidArgument("KeepIn(" + strconv.Itoa(int(place)) + "): give PlaceBoth, PlaceMemory or PlaceRedis")}}
	}
	in := engine.Place(place)
	return CallOption{&callOptions{place: &in}}
}

// withStale are the names of WithStale's arguments in errors.
var withStale = [2]string{"WithStale: stale", "WithStale: ifError"}

// windowsFit returns an error if the windows of a call are too long for the TTL of its value.
func (o *callOptions) windowsFit(ttl time.Duration) error {
	if o.windows == nil {
		return nil
	}
	return callError(cmp.Or(engine.CheckWindow(withStale[0], o.windows.Stale, ttl), engine.CheckWindow(withStale[1], o.windows.OnError, ttl)), "")
}

// passive reports whether opts change nothing about a hit.
func passive(opts []CallOption) bool {
	for _, opt := range opts {
		if o := opt.set; o != nil && (o.refresh || o.strong || o.err != nil) {
			return false
		}
	}
	return true
}

func gather(opts []CallOption) (callOptions, error) {
	var o callOptions
	for _, opt := range opts {
		if opt.set == nil {
			continue
		}
		if opt.set.err != nil {
			return o, opt.set.err
		}
		o.ttl = cmp.Or(opt.set.ttl, o.ttl)
		o.tags = append(o.tags, opt.set.tags...)
		o.refresh = o.refresh || opt.set.refresh
		o.strong = o.strong || opt.set.strong
		if opt.set.limits != nil {
			o.limits = opt.set.limits
		}
		if opt.set.place != nil {
			o.place = opt.set.place
		}
		if opt.set.windows != nil {
			o.windows = opt.set.windows
		}
	}
	slices.Sort(o.tags)
	if o.tags = slices.Compact(o.tags); len(o.tags) > keyspace.MaxTags {
		return o, invalidArgument("WithTags: " + strconv.Itoa(len(o.tags)) + " tags, at most " + strconv.Itoa(keyspace.MaxTags) + " allowed")
	}
	return o, nil
}

// tagNames turns the program's names of tags into tags.
func tagNames(names []string) ([]string, error) {
	tags, err := keyspace.NamedTags(names)
	if err != nil {
		return nil, invalidArgument(err.Error())
	}
	return tags, nil
}

// A Load is the load that a loader runs in: CurrentLoad returns it. A loader uses it to change how the loaded value is cached. On a nil Load
// all methods do nothing, so a loader can also be called directly. In a batch, a Load is that of all ids, and Of returns the Load of one id.
type Load struct {
	load *engine.Load // nil in the zero Load, whose methods do nothing either
}

// CurrentLoad returns the load that ctx belongs to, or nil outside of a load.
func CurrentLoad(ctx context.Context) *Load { return handleOf(engine.LoadOf(ctx)) }

// handleOf returns the same *Load for a load each time.
func handleOf(l *engine.Load) *Load {
	if l == nil {
		return nil
	}
	return l.Handle(newHandle).(*Load)
}

func newHandle(l *engine.Load) any { return &Load{l} }

// TTL sets the TTL of the loaded value, or of all values of a batch, instead of the policy's. It is counted from the start of the load. With
// zero or less, the values are not stored, whatever Stale says. TTL has no effect once the loader has returned.
func (l *Load) TTL(d time.Duration) {
	if l != nil && l.load != nil {
		l.load.TTL(d)
	}
}

// Stale sets for how long after their TTL the loaded values are served at once, instead of WithStale and Policy.Stale: see Policy. 0: not at all. The
// duration must be 0 or at least 1 ms, and with the TTL 100 years at most. Otherwise the load fails with an *Error with CodeInvalidArgument, and
// nothing is stored. The values keep their times in all processes. In a batch, Of(key).Stale sets it for one value. Use it for an HTTP response
// with stale-while-revalidate. Stale has no effect once the loader has returned.
func (l *Load) Stale(d time.Duration) {
	if l != nil && l.load != nil {
		l.load.Stale(d)
	}
}

// StaleIfError sets how long after their TTL the loaded values are served if the next load fails, instead of WithStale and Policy.StaleIfError. 0: as
// long as Stale. It is an error if the duration is shorter than the Stale of the value, which Load.Stale, WithStale or the policy has set. Use it for
// an HTTP response with stale-if-error. Otherwise the rules of Stale hold.
func (l *Load) StaleIfError(d time.Duration) {
	if l != nil && l.load != nil {
		l.load.StaleIfError(d)
	}
}

// NoStore keeps the loaded values from being stored. Waiting callers get the values, and later callers load again. NoStore has no effect once
// the loader has returned.
func (l *Load) NoStore() {
	if l != nil && l.load != nil {
		l.load.NoStore()
	}
}

// RetryAfter says when the source may be asked again, if this load fails: the next load of its keys begins after d at the earliest, 10 minutes at
// most. Until then calls get the older value, where the policy allows one, and otherwise fail with CodeBackoff. It takes the place of
// Options.Backoff for this failure, and counts for a first failure too. Use it for an HTTP response with Retry-After. It has no effect if
// the load succeeds, or once the loader has returned.
func (l *Load) RetryAfter(d time.Duration) {
	if l != nil && l.load != nil {
		l.load.RetryAfter(d)
	}
}

// ETag says what the source calls the loaded version, such as the ETag of an HTTP response. Result.ETag has it, and Previous gives it to the next
// load. At most 1 KiB, without control characters: otherwise the load fails with an *Error with CodeInvalidArgument. In a batch, use Of(key).ETag.
// ETag has no effect once the loader has returned. A value that is not modified keeps its ETag if the loader names no other.
func (l *Load) ETag(tag string) {
	if l != nil && l.load != nil {
		l.load.ETag(tag)
	}
}

// Tag adds tags to the loaded values, for InvalidateTags. It is for tags that are not known before the load. Prefer WithTags for tags that are
// known: with Tag, the cache does not know the tags during the load, so an invalidation of any tag during the load prevents that the values
// are stored. Tag costs one more round trip to Redis, for which no caller waits. In a batch, all values get the tags, and Of(key).Tag adds
// tags to one value. An entry takes up to 62 tags, including those of WithTags. With more tags, or with a tag that WithTags refuses, the load
// fails with an *Error with CodeInvalidArgument, and nothing is stored. Tag has no effect once the loader has returned.
func (l *Load) Tag(tags ...string) {
	if l != nil && l.load != nil {
		l.load.Tag(tags...)
	}
}

// Of returns the Load of one key in a batch, to change how that value alone is cached. If the batch does not load that key, Of returns nil.
// For a load of one key, Of returns that load.
func (l *Load) Of(key Key) *Load {
	if l == nil || l.load == nil || key.policy == nil {
		return nil
	}
	return handleOf(l.load.Of(key.String(), func(h engine.Holder) bool { return h.(*resolved).is(key.policy) }))
}

// A Prior is what is cached for a key whose value is loaded anew: see Previous.
type Prior[T any] struct {
	ETag     string    // what an earlier loader has given to Load.ETag, empty if it gave nothing
	LoadedAt time.Time // when the load of the value began, or the last one that found it to be not modified

	value any
}

// Value returns the value itself. Do not change it, unless the policy has CloneOnRead: then each call returns a copy. It reports false for the
// zero Prior, and if the value cannot be decoded.
func (p Prior[T]) Value() (value T, ok bool) {
	switch v := p.value.(type) {
	case nil:
		return value, false
	case *T:
		return *v, true
	default:
		err := engine.Copy(v, &value)
		return value, err == nil
	}
}

// Previous returns what is cached for the key that the loader with this ctx loads, so that the loader can ask its source whether that has changed:
// by If-None-Match with the ETag, for example. If it has not, the loader returns ErrNotModified. The cached value then gets new times, and is
// not stored again. It keeps its tags, and gets those of this load.
//
// There is a previous value while the old one may be served after its TTL: set Policy.Stale or StaleIfError, WithStale, Load.Stale or Load.StaleIfError,
// or Policy.RefreshAhead for values that are always in use. ETag is empty if the loader of the value has given none. Previous reports false if the value was invalidated, if Redis does not answer, in a Refresh, outside of a load, in a loader of
// several ids, and if T is not the type of the call that loads. Most loads hold the previous value in memory. Where memory does not hold it, as
// in a process that has just started, Previous reads it in Redis.
func Previous[T any](ctx context.Context) (Prior[T], bool) {
	return priorOf[T](ctx, engine.LoadOf(ctx))
}

// PreviousOf is Previous for one id of a batch loader, by the id's key. It reports false if the batch does not load that key.
func PreviousOf[T any](ctx context.Context, key Key) (Prior[T], bool) {
	l := CurrentLoad(ctx).Of(key)
	if l == nil {
		return Prior[T]{}, false
	}
	return priorOf[T](ctx, l.load)
}

func priorOf[T any](ctx context.Context, l *engine.Load) (Prior[T], bool) {
	p, ok := l.Previous(ctx, reflect.TypeFor[T]())
	if !ok {
		return Prior[T]{}, false
	}
	return Prior[T]{ETag: p.ETag, LoadedAt: time.Now().Add(-p.Age), value: p.Value}, true
}

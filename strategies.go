package aside

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/engine"
	"github.com/gatewayz/aside/internal/keyspace"
)

// A CallOption changes one call. Calls without one allocate nothing for it, and a hit allocates nothing for one that was
// made before. The zero CallOption changes nothing.
type CallOption struct{ set *callOptions } // a pointer, because hits copy it

// callOptions are what the options of a call come to.
type callOptions struct {
	ttl     time.Duration
	tags    []string
	err     error
	refresh bool
	strong  bool
}

// WithTTL sets the TTL of what this call stores, in place of the policy's. It must be at least 1 ms. A load that is
// already under way keeps the TTL that it began with, and ErrNotFound is cached for the policy's NegativeTTL all the same.
func WithTTL(d time.Duration) CallOption {
	if d < time.Millisecond {
		return CallOption{&callOptions{err: invalidArgument("WithTTL(" + d.String() + "): set a duration of at least 1ms")}}
	}
	return CallOption{&callOptions{ttl: d}}
}

// WithTags gives what this call stores tags, by which InvalidateTags finds it, beside its category. Use the same ones in
// every call for a key: a hit does not look at them. A tag is any text up to about 500 bytes; an entry takes 62 of them.
func WithTags(tags ...string) CallOption {
	names, err := tagNames(tags)
	return CallOption{&callOptions{tags: names, err: err}}
}

// Refresh loads even if the value is cached, and replaces it. It joins no load that began earlier; of those, none is
// stored any more. While another Refresh of the key runs, it waits for the end of that, for a quarter of the LoadTimeout at most,
// and shares the next load with all who have come meanwhile.
func Refresh() CallOption { return CallOption{&callOptions{refresh: true}} }

// Strong reads what Redis holds now, not what this process remembers, checks every tag of it there, and joins no load that
// began before the call. An invalidation that another process has confirmed before this call began is seen by it, whether or
// not Redis' message about it has come through. In memory mode it only keeps from joining a load. Calls that come while another
// Strong call of the key is under way wait for its end and share the next one, as with Refresh.
func Strong() CallOption { return CallOption{&callOptions{strong: true}} }

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
	}
	slices.Sort(o.tags)
	if o.tags = slices.Compact(o.tags); len(o.tags) > keyspace.MaxTags {
		return o, invalidArgument("WithTags: an entry takes at most " + strconv.Itoa(keyspace.MaxTags) + " tags")
	}
	return o, nil
}

// tagNames makes tags of what users call them.
func tagNames(names []string) ([]string, error) {
	tags, err := keyspace.NamedTags(names)
	if err != nil {
		return nil, invalidArgument(err.Error())
	}
	return tags, nil
}

// A Load is the load that a loader runs in; Loading finds it. A loader uses it to adapt how its value is cached. On a nil
// Load all methods do nothing, so a loader can also be called directly. In a batch it stands for all of its ids, and Of for one.
type Load engine.Load // not a struct with a pointer to one: one load is one *Load, and the zero Load is sound

// Loading returns the load that ctx belongs to, or nil outside of one.
func Loading(ctx context.Context) *Load { return (*Load)(engine.LoadOf(ctx)) }

// TTL sets how long the loaded values are served, counted from the start of the load, in place of the policy's TTL. Zero or
// less means that they are not stored. It has no effect once the loader has returned.
func (l *Load) TTL(d time.Duration) {
	if l != nil {
		(*engine.Load)(l).TTL(d)
	}
}

// NoStore keeps the loaded values from being stored: those who wait get them, and whoever comes later loads again. It has no
// effect once the loader has returned.
func (l *Load) NoStore() {
	if l != nil {
		(*engine.Load)(l).NoStore()
	}
}

// Tag gives the loaded values further tags, which the loader could not know before, for InvalidateTags. They cost a round trip
// more, though no caller waits for it. While the load runs, an invalidation of any tag keeps its values from being stored,
// because nobody knows yet which tags they will have: where tags are known before the load, WithTags is better. In a batch each of
// its values gets the tags: Of(key).Tag gives them to one. An entry takes 62 tags, those of WithTags included. Beyond that, and for a
// tag that WithTags refuses, the load fails with an *Error with CodeInvalidArgument, and nothing is stored. It has no effect once the
// loader has returned.
func (l *Load) Tag(tags ...string) {
	if l != nil {
		(*engine.Load)(l).Tag(tags...)
	}
}

// Of returns the share that key has in the load of a batch, for what a loader has to say of one id and not of the others. It is nil,
// and its methods do nothing, where the load is not of that key. A load of one key is its own share.
func (l *Load) Of(key Key) *Load {
	if l == nil || key.policy == nil {
		return nil
	}
	return (*Load)((*engine.Load)(l).Of(key.text, func(h engine.Holder) bool { return h.(*resolved).is(key.policy) }))
}

package tags

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
)

// Asked are the tags whose generations are asked for together with leases.
type Asked struct {
	Tags   []redisstore.Tag
	states []*State
}

// Asks returns the tags of a load whose generations are asked for together with its leases: unknown ones, those whose keys have to live as long
// as the value, and those that were not used in Redis recently. lives says how long each has to live. Tags that only a stored entry has named
// are not among them: they are read, and nothing is written for them.
func (s *Snapshot) Asks(lives map[string]time.Duration) Asked {
	var list []redisstore.Tag
	var states []*State
	if t := s.find(keyspace.Sequence); t != nil && s.asksFor(t) {
		t.watch()
		list, states = append(list, withLife(t.Tag, 0)), append(states, t)
	}
	for name, life := range lives {
		if t := s.State(name); s.asksFor(t) {
			t.watch()
			list, states = append(list, withLife(name, life)), append(states, t)
		}
	}
	return Asked{list, states}
}

// asksFor reports whether a load asks for the generation of one of its own tags.
func (s *Snapshot) asksFor(t *State) bool {
	switch {
	case t.quarantined:
		return false
	case !t.known:
		return true
	case keyspace.IsNamed(t.Tag):
		return true // its key may have to live longer
	}
	return s.registry.touches.due(t.Tag, s.registry.clock.Now())
}

// Given notes the answers to what Asks returned, before the load begins. A change of a tag's key ends the tracking of the known generation, even if
// only its TTL grew. So Given reads such a tag again. If it has another generation by then, that one counts:
//
//  1. A load asks for the generation of a tag, and for its lease. The server answers the first.
//  2. Another process invalidates the tag. Redis confirms that, and then grants the lease.
//  3. The tag is read again, and from here on Redis notifies of its next change.
//  4. A previous value of the generation of step 1 must not be kept as not modified. Callers that come now join the load.
func (s *Snapshot) Given(ctx context.Context, a Asked, generations []redisstore.Generation) {
	var changed []*State
	for i, t := range a.states {
		if generations[i].Err != nil || s.registry.inQuarantine(t.Tag) {
			continue
		}
		if t.known && t.value == generations[i].Value && t.Generation != nil && t.Generation.Valid() {
			continue
		}
		t.known, t.value, t.Generation = true, generations[i].Value, nil
		changed = append(changed, t)
	}
	if len(changed) == 0 {
		return
	}
	for i, now := range s.registry.track(ctx, changed) {
		if now.known {
			changed[i].value, changed[i].Generation = now.value, now.Generation
		}
	}
}

// track reads tags that a script has read or made, so that Redis notifies this process of their changes: Redis tracks only what a client has read
// itself. Without that, this process would not notice an invalidation of such a tag during a load, and callers would go on joining the load. It
// returns what was read.
func (r *Registry) track(ctx context.Context, made []*State) []State {
	looks := make([]redisstore.Get, len(made))
	for i, t := range made {
		looks[i] = t.look()
	}
	list := make([]State, len(made))
	for i, read := range r.redis.look(ctx, looks...) {
		list[i] = State{Tag: made[i].Tag, Fence: made[i].Fence}
		r.learn(&list[i], read)
		made[i].Notice.Validity = list[i].Notice.Validity
	}
	return list
}

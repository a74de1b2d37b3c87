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

// Given notes the answers to what Asks returned. A change of a tag's key ends the tracking of the known generation, even if only its TTL grew.
// So Given reads such a tag again.
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
	if len(changed) > 0 {
		s.registry.track(ctx, changed)
	}
}

// track reads tags that a script has read or made, so that Redis notifies this process of their changes: Redis tracks only what a client has read
// itself. Without that, this process would not notice an invalidation of such a tag during a load, and callers would go on joining the load.
func (r *Registry) track(ctx context.Context, made []*State) {
	looks := make([]redisstore.Get, len(made))
	for i, t := range made {
		looks[i] = t.look()
	}
	for i, read := range r.redis.look(ctx, looks...) {
		now := State{Tag: made[i].Tag, Fence: made[i].Fence}
		r.learn(&now, read)
		made[i].Notice.Validity = now.Notice.Validity
		if now.known && now.value == made[i].value {
			made[i].Generation = now.Generation
		}
	}
}

package tags

import (
	"context"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A Carried is one tag with the generation that an entry carries.
type Carried struct {
	Tag        string
	Value      uint64
	generation *near.Generation // nil if it is not tracked
}

func (t *State) carried() Carried { return Carried{t.Tag, t.value, t.Generation} }

// A Capture is what an entry carries of its tags.
type Capture struct {
	Tags     []Carried
	sequence uint64 // the generation of the sequence, from before the load
	partial  bool   // the generation of one of the tags was not known
}

// Capture notes in c the generations of tags. It comes before the load: an invalidation after it makes the loaded value out of date,
// whether or not the load has seen the change.
func (s *Snapshot) Capture(c *Capture, names []string) (complete bool) {
	if c.partial = true; cap(c.Tags) < len(names) {
		c.Tags = make([]Carried, 0, len(names))
	}
	c.Tags = c.Tags[:0]
	for _, name := range names {
		t := s.State(name)
		if !t.known {
			return false
		}
		c.Tags = append(c.Tags, t.carried())
	}
	if t := s.find(keyspace.Sequence); t != nil && t.known {
		c.sequence = t.value
	}
	c.partial = false
	return true
}

// Has reports whether the entry carries a generation of the tag.
func (c *Capture) Has(tag string) bool {
	for i := range c.Tags {
		if c.Tags[i].Tag == tag {
			return true
		}
	}
	return false
}

// Validities appends to list, which has the entry's own validity or is empty, those of the captured generations. An entry in memory rests on all of
// them. Validities reports false if a tag is not tracked, or was not captured: the entry would outlive the next invalidation of that tag.
func (c *Capture) Validities(list []*near.Validity) (_ []*near.Validity, ok bool) {
	if c.partial {
		return nil, false
	}
	for i := range c.Tags {
		if c.Tags[i].generation == nil {
			return nil, false
		}
		list = c.Tags[i].generation.Validities(list)
	}
	return list, true
}

// AddLate adds to c the tags that a loader has named, with their generations, which live for so long at least. It reports false if one of
// them may have been invalidated since the load began; began are the events before that.
//
// The generations are read after the load, so that alone they would hide an invalidation that came during it:
//
//  1. A load begins. It captures the sequence.
//  2. It reads its source.
//  3. A tag is invalidated, and its generation changes.
//  4. The loader names the tag. The generation that is read now is the new one, with an old value.
//
// An invalidation of a tag changes the sequence before the tag. So if the sequence has not changed since step 1, no invalidation had begun by
// step 3.
func (s *Snapshot) AddLate(ctx context.Context, c *Capture, names []string, began Events, life time.Duration) (unmoved bool, err error) {
	r := s.registry
	var late []*State
	for _, name := range names {
		t := s.State(name)
		t.watch()
		late = append(late, t)
	}
	if r.local() {
		s.Local()
		for _, t := range late {
			if !t.known {
				return false, nil
			}
			c.Tags = append(c.Tags, t.carried())
		}
		return r.ownEvents.Load() == began.Own, nil // the fences above were taken before this look
	}
	asked := make([]redisstore.Tag, 0, len(late)+1)
	for _, t := range late {
		asked = append(asked, withLife(t.Tag, life))
	}
	sequence := withLife(keyspace.Sequence, 0)
	generations := r.redis.ensure(ctx, append(asked, sequence)...)
	for i, t := range late {
		if err := generations[i].Err; err != nil {
			return false, err
		}
		if r.inQuarantine(t.Tag) {
			return false, nil
		}
		t.known, t.value, t.Generation = true, generations[i].Value, nil
	}
	for i, now := range r.track(ctx, late) {
		t := late[i]
		if now.known && now.value == t.value { // a generation from after the load would be on an old value
			t.Generation = now.Generation
		}
		c.Tags = append(c.Tags, t.carried())
	}
	last := generations[len(late)]
	// An invalidation by this process may not have reached Redis.
	return last.Value == c.sequence && r.ownEvents.Load() == began.Own, last.Err
}

// Outlive makes the generations of the named tags in c live at least for life from now on. It reports false if one of them has another
// generation by now. It is for a value whose loader has chosen a longer TTL than that of the request.
func (r *Registry) Outlive(c *Capture, life time.Duration) (unmoved bool, err error) {
	var asked []redisstore.Tag
	var carried []uint64
	for _, t := range c.Tags {
		if keyspace.IsNamed(t.Tag) {
			asked, carried = append(asked, withLife(t.Tag, life)), append(carried, t.Value)
		}
	}
	if len(asked) == 0 {
		return true, nil
	}
	ctx, cancel := r.redis.budget(context.Background(), 0, len(asked))
	defer cancel()
	for i, g := range r.redis.ensure(ctx, asked...) {
		if g.Err != nil || g.Value != carried[i] {
			return false, g.Err
		}
	}
	return true, nil
}

package tags

import (
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
)

// A State is what one flight, or one read, knows of a tag.
type State struct {
	Tag        string
	Fence      *near.Fence      // nil where none is needed: see begin
	Generation *near.Generation // nil unless it is known and tracked
	Notice     Notice

	registry    *Registry
	since       *near.Generation // was valid when the State was made; nil if there has been a fence for as long
	mark        uint64           // from before that: see near.Cache.Retired
	value       uint64           // the tag's generation, if it is known
	known       bool             // it was read after the fence was taken
	quarantined bool             // what Redis says of the tag is not trusted
	unanswered  error            // why Redis did not say what it holds
}

// Tracked reports whether this process is notified of changes of the tag: by its generation, or because the tag was read.
func (t *State) Tracked() bool {
	return t.Generation != nil && t.Generation.Valid() || t.Notice.Tracked()
}

// A Snapshot holds the states of the tags of a flight, or a read. All keys of a flight share it. It is for one goroutine at a time.
type Snapshot struct {
	registry *Registry
	list     []*State
	byTag    map[string]*State // of all in the list; nil while they are few
	few      [3]State          // room for the first ones
	first    [4]*State         // room for list
}

// many is from how many on the states are looked up in a map.
const many = 8

// begin notes the point from which on an invalidation of the tag by this process counts. A tag whose generation memory knows needs no fence:
// what retires the tag revokes the validity of each generation that memory has handed out. So the validity of since has ended wherever a fence
// would be broken.
func (s *Snapshot) begin(t *State) {
	t.mark = s.registry.near.Retired() // first
	if t.since = s.registry.near.Generation(t.Tag); t.since == nil {
		t.Fence = s.registry.near.Fence(t.Tag, nil)
	}
	t.quarantined = s.registry.inQuarantine(t.Tag) // last: what is entered later ends since, or breaks the fence
}

// watch takes the fence of a tag that is about to be read, or whose key is about to be written, if there is none. If the tag may have been retired
// before the fence was taken, since stays.
func (t *State) watch() {
	if t.Fence != nil {
		return
	}
	t.Fence = t.registry.near.Fence(t.Tag, nil)
	if t.since.Validity.Valid() || !t.registry.near.RetiredSince(t.Tag, t.mark) {
		t.since = nil
	}
	t.quarantined = t.registry.inQuarantine(t.Tag) // after the fence: what is entered later breaks it
}

// InvalidatedHere reports whether this process has invalidated the tag since the State was made. That the validity of since has ended is not
// enough:
//
//  1. A flight finds the generation of a tag in memory.
//  2. Another flight extends the life of the tag's key in Redis.
//  3. Redis pushes the change of the key. It revokes the generation, which is read again.
//  4. The first flight loads. Its fill must not be refused: nobody has invalidated the tag.
func (t *State) InvalidatedHere() bool {
	return t.since != nil && !t.since.Validity.Valid() && t.registry.near.RetiredSince(t.Tag, t.mark) || t.Fence != nil && t.Fence.BrokenHere()
}

// Changed reports whether the tag has changed since Redis has answered for it; before that, and where it is not asked, since the State was made. It
// is for a State without a generation, also for a copy:
//
//  1. A Strong flight finds the generation of a tag in memory, and does not trust it. Who may join the flight depends on a copy of the State.
//  2. The flight takes the fence of the tag, which the copy does not have, and reads the tag.
//  3. The reply arrives, and then the push that another process has invalidated the tag. The flight still reads the chunks of its value.
//  4. A caller comes. It must not join.
func (t *State) Changed() bool {
	if t.Fence == nil {
		return !t.since.Validity.Valid()
	}
	return t.Fence.Broken()
}

// Snapshot makes an empty one. Give it up with End.
func (r *Registry) Snapshot() *Snapshot { return r.SnapshotIn(new(Snapshot)) }

// SnapshotIn is Snapshot in memory of the caller's, which is zero.
func (r *Registry) SnapshotIn(s *Snapshot) *Snapshot {
	s.registry = r
	return s
}

// End ends the fences.
func (s *Snapshot) End() {
	for _, t := range s.list {
		t.Fence.End()
	}
}

// Add makes the states of tags that the snapshot does not have yet. Nothing of them is read.
func (s *Snapshot) Add(names ...string) {
	for _, name := range names {
		s.State(name)
	}
}

// find returns the state of a tag, nil if the snapshot does not have it.
func (s *Snapshot) find(tag string) *State {
	if s.byTag != nil {
		return s.byTag[tag]
	}
	for _, t := range s.list {
		if t.Tag == tag {
			return t
		}
	}
	return nil
}

// State returns the state of a tag, and makes it if the snapshot does not have it yet.
func (s *Snapshot) State(tag string) *State {
	t := s.find(tag)
	if t == nil {
		if n := len(s.list); n < len(s.few) {
			t = &s.few[n]
		} else {
			t = new(State)
		}
		*t = State{Tag: tag, registry: s.registry, Notice: s.registry.Notice(tag)}
		s.begin(t)
		s.add(t)
	}
	return t
}

func (s *Snapshot) add(t *State) {
	if s.list == nil {
		s.list = s.first[:0]
	}
	s.list = append(s.list, t)
	switch {
	case s.byTag != nil:
		s.byTag[t.Tag] = t
	case len(s.list) > many:
		s.byTag = make(map[string]*State, 2*many)
		for _, t := range s.list {
			s.byTag[t.Tag] = t
		}
	}
}

// Renew looks up in memory what is known now of each tag. Without trust, nothing is taken from memory but the sequence, which is on no entry: an
// old one only refuses values with tags that their loader has named.
func (s *Snapshot) Renew(trust bool) {
	for _, t := range s.list {
		if t.InvalidatedHere() {
			t.Fence.End()
			t.Fence = nil
			s.begin(t)
		} else {
			t.quarantined = s.registry.inQuarantine(t.Tag)
		}
		t.known, t.Generation, t.unanswered, t.Notice = false, nil, nil, s.registry.Notice(t.Tag)
		if trust || t.Tag == keyspace.Sequence {
			s.recall(t)
		}
	}
}

// recall takes the generation of a tag from memory. Not for a tag in quarantine: a journal that overflows, or that enters confirmed invalidations
// again, does not remove generations from memory.
func (s *Snapshot) recall(t *State) {
	if t.quarantined {
		return
	}
	if g := s.registry.near.Generation(t.Tag); g != nil {
		t.known, t.value, t.Generation = true, g.Value, g
	}
}

// Local gives each tag a generation in memory mode, where it has none.
func (s *Snapshot) Local() {
	for _, t := range s.list {
		if !t.unknown() {
			continue
		}
		t.watch()
		t.Generation = s.registry.near.LearnFirst(t.Fence, s.registry.generations.Add(1))
		if t.known = t.Generation != nil; t.known {
			t.value = t.Generation.Value
		}
	}
}

// unknown reports whether the tag's generation has to be asked for.
func (t *State) unknown() bool { return !t.known && !t.quarantined }

// Recheck looks up again which tags are in quarantine.
func (s *Snapshot) Recheck(names []string) {
	for _, name := range names {
		s.State(name).quarantined = s.registry.inQuarantine(name)
	}
}

// Quarantined reports whether one of the tags is in quarantine.
func (s *Snapshot) Quarantined(names []string) bool {
	for _, name := range names {
		if s.State(name).quarantined {
			return true
		}
	}
	return false
}

// InvalidatedHere reports whether that is so of one of the tags.
func (s *Snapshot) InvalidatedHere(names []string) bool {
	for _, name := range names {
		if s.State(name).InvalidatedHere() {
			return true
		}
	}
	return false
}

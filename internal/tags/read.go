package tags

import (
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// Unread is how many looks Looks adds.
func (s *Snapshot) Unread() (n int) {
	for _, t := range s.list {
		if !t.known {
			n++
		}
	}
	return n
}

// Looks appends to a read the tags whose generations are not known. A tag in quarantine is read too, so that Redis notifies this process of its
// changes; its generation is not used.
func (s *Snapshot) Looks(list []redisstore.Get) []redisstore.Get {
	for _, t := range s.list {
		if !t.known {
			t.watch()
			list = append(list, t.look())
		}
	}
	return list
}

func (t *State) look() redisstore.Get {
	return redisstore.Get{Key: t.Tag, Fence: t.Fence, Head: redisstore.GenerationLen}
}

// Learn notes the replies for the tags of Looks, as many as Unread returned. The snapshot must not be used in between.
func (s *Snapshot) Learn(reads []redisstore.Read) {
	for _, t := range s.list {
		if !t.known {
			s.registry.learn(t, reads[0])
			reads = reads[1:]
		}
	}
}

// learn notes a reply about a tag's generation. A tag that has none stays unknown, and so does one that was in quarantine when Redis
// was asked: the invalidation may have been confirmed between that and the reply.
func (r *Registry) learn(t *State, read redisstore.Read) {
	t.unanswered = read.Err
	t.Notice.Answer(read)
	value, err := redisstore.ParseGeneration(read.Value)
	if read.Err != nil || read.Value == nil || err != nil || t.quarantined || r.inQuarantine(t.Tag) {
		return
	}
	t.known, t.value, t.Generation = true, value, nil
	if read.Validity != nil {
		t.Generation = r.near.Learn(t.Fence, value, read.Validity)
	}
}

// AddStored adds the tags that a stored value carries. With trust, it takes unknown generations from memory.
func (s *Snapshot) AddStored(stored []wire.Tag, trust bool) {
	for _, tag := range stored {
		if t := s.State(tag.Name); !t.known && trust {
			s.recall(t)
		}
	}
}

// Lacks reports whether the generation of one of a stored value's tags has yet to be read.
func (s *Snapshot) Lacks(stored []wire.Tag) bool {
	for _, tag := range stored {
		if t := s.find(tag.Name); t != nil && t.unknown() {
			return true
		}
	}
	return false
}

// Unanswered returns why the generation of one of the tags could not be read, nil if all were.
func (s *Snapshot) Unanswered(names []string) error {
	for _, name := range names {
		if t := s.State(name); !t.known && t.unanswered != nil {
			return t.unanswered
		}
	}
	return nil
}

package tags

import (
	"time"

	"github.com/gatewayz/aside/internal/wire"
)

// A Standing says whether a stored value is current, by the generations of its tags.
type Standing int

// The standings. Lapsed and Unknown are for a value with a tag whose server is unavailable.
const (
	Outdated Standing = iota // one of its tags was invalidated since it was loaded
	Current                  // none was
	Lapsed                   // none was, as far as this process knows
	Unknown                  // a generation is not known
)

// Judge reports whether one of a stored value's tags was invalidated since it was loaded. A tag that has no generation
// counts as invalidated, and so does a value without the required tags, which all values of its policy have. A generation that cannot be
// read belongs to a tag whose server is unavailable: the generation that memory knew counts for as long as degraded says, unless the read is a
// strong one. Judge notes in c what an entry of the value carries, and returns why a generation could not be read.
func (s *Snapshot) Judge(c *Capture, stored []wire.Tag, required []string, strong bool, degraded time.Duration) (is Standing, why error) {
	list := c.Tags[:0]
	is, c.Tags = Current, nil
	for _, tag := range stored {
		t := s.State(tag.Name)
		switch {
		case t.known && t.value == tag.Generation:
			list = append(list, t.carried())
		case t.known || t.unanswered == nil:
			return Outdated, nil
		default:
			why = t.unanswered
			g := s.registry.near.Lapsed(t.Tag, degraded)
			switch {
			case g == nil || strong || t.InvalidatedHere():
				is = Unknown
			case g.Value != tag.Generation:
				return Outdated, nil
			case is == Current:
				is = Lapsed
			}
			list = append(list, Carried{t.Tag, tag.Generation, g})
		}
	}
	c.Tags = list
	for _, tag := range required {
		if !c.Has(tag) {
			c.Tags = nil
			return Outdated, nil
		}
	}
	return is, why
}

// Outdated reports whether a stored value carries another generation of a tag than the one that is known.
func (s *Snapshot) Outdated(stored []wire.Tag) bool {
	for _, tag := range stored {
		if t := s.find(tag.Name); t != nil && t.known && t.value != tag.Generation {
			return true
		}
	}
	return false
}

package aside

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// tagLife is how long the generations of s's tags have to live from now on: as long as what is stored with them, and until the
// load is over.
func (s *slot) tagLife() time.Duration {
	return tags.Life(max(s.ttl, s.plan.negativeTTL, s.plan.loadTimeout))
}

// loadedLife is tagLife for what was loaded, whose loader may have given it a longer TTL than it was asked for with.
func (s *slot) loadedLife() time.Duration {
	return max(s.tagLife(), tags.Life(time.Duration(s.out.freshUntil-s.out.loadedAt)))
}

// tagNames makes tags of what users call them.
func tagNames(names []string) ([]string, error) {
	tags, err := keyspace.NamedTags(names)
	if err != nil {
		return nil, invalidArgument(err.Error())
	}
	return tags, nil
}

// addLateTags adds the tags that the loader of s has named, with their generations. It reports false if one of them may have been
// invalidated during the load: see tags.Snapshot.AddLate.
func (c *Cache) addLateTags(ctx context.Context, m *tags.Snapshot, s *slot) (unmoved bool, err error) {
	names, err := tagNames(s.lateNames)
	if err != nil {
		return false, err
	}
	all := s.tags[:len(s.tags):len(s.tags)]
	for _, tag := range names {
		if !slices.Contains(all, tag) {
			all = append(all, tag)
		}
	}
	if len(all) > wire.MaxTags { // before anything is written for one of them
		return false, invalidArgument(strconv.Itoa(len(all)-2) + " tags, at most " + strconv.Itoa(keyspace.MaxTags) + " allowed")
	}
	late := all[len(s.tags):]
	s.tags = all
	return m.AddLate(ctx, &s.captured, late, s.tagEvents, s.loadedLife())
}

// outlive has the tags of s live as long as its value, where the loader has given that a longer TTL than it was asked for with. It
// reports false if one of them has another generation by now.
func (c *Cache) outlive(s *slot) (unmoved bool, err error) {
	life := s.loadedLife()
	if life <= s.tagLife() {
		return true, nil
	}
	return c.tags.Outlive(&s.captured, life)
}

func (s *slot) has(tag string) bool {
	for _, own := range s.tags {
		if own == tag {
			return true
		}
	}
	return false
}

package engine

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// tagLife is how long the generations of a's tags have to live from now on: as long as what is stored with them, and until the
// load is over.
func (a *attempt) tagLife() time.Duration {
	return tags.Life(max(a.TTL, a.Policy.NegativeTTL, a.Policy.LoadTimeout))
}

// loadedLife is tagLife for what was loaded, whose loader may have given it a longer TTL than it was asked for with.
func (a *attempt) loadedLife() time.Duration {
	return max(a.tagLife(), tags.Life(time.Duration(a.out.FreshUntil-a.out.LoadedAt)))
}

// tagNames makes tags of what users call them.
func tagNames(names []string) ([]string, error) {
	tags, err := keyspace.NamedTags(names)
	if err != nil {
		return nil, invalidArgument(err.Error())
	}
	return tags, nil
}

// addLateTags adds the tags that the loader of a has named, with their generations. It reports false if one of them may have been
// invalidated during the load: see tags.Snapshot.AddLate.
func (e *Engine) addLateTags(ctx context.Context, m *tags.Snapshot, a *attempt) (unmoved bool, err error) {
	names, err := tagNames(a.lateNames)
	if err != nil {
		return false, err
	}
	all := a.Tags[:len(a.Tags):len(a.Tags)]
	for _, tag := range names {
		if !slices.Contains(all, tag) {
			all = append(all, tag)
		}
	}
	if len(all) > wire.MaxTags { // before anything is written for one of them
		return false, invalidArgument(strconv.Itoa(len(all)-2) + " tags, at most " + strconv.Itoa(keyspace.MaxTags) + " allowed")
	}
	late := all[len(a.Tags):]
	a.Tags = all
	return m.AddLate(ctx, &a.captured, late, a.tagEvents, a.loadedLife())
}

// outlive has the tags of a live as long as its value, where the loader has given that a longer TTL than it was asked for with. It
// reports false if one of them has another generation by now.
func (e *Engine) outlive(a *attempt) (unmoved bool, err error) {
	life := a.loadedLife()
	if life <= a.tagLife() {
		return true, nil
	}
	return e.tags.Outlive(&a.captured, life)
}

func (a *attempt) has(tag string) bool {
	for _, own := range a.Tags {
		if own == tag {
			return true
		}
	}
	return false
}

// MayHave reports whether something may carry a tag: Redis has a generation of it, which it has from the first load on that could be
// stored, or does not say. In memory mode it reports false.
func (e *Engine) MayHave(ctx context.Context, tag string) bool {
	if e.Store == nil {
		return false
	}
	if e.journal.Contains(tag) || e.journal.Contains(keyspace.All) {
		return true
	}
	ctx, cancel := e.Store.Budget(context.WithoutCancel(ctx), 0, 1)
	defer cancel()
	values, err := e.Store.Values(ctx, tag)
	return err != nil || values[0] != ""
}

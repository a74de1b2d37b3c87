package engine

import (
	"context"
	"slices"
	"time"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/tags"
)

// tagLife is how long the generations of a's tags have to live from now on: as long as the value that carries them, and at least until the
// load is over.
func (a *attempt) tagLife() time.Duration {
	return tags.Life(max(Bounded(a.TTL)+a.askedWindows().Rest(), a.Policy.NegativeTTL, a.Policy.LoadTimeout))
}

// loadedLife is tagLife for a loaded value. Its loader may have chosen a longer TTL than that of the request, and longer windows.
func (a *attempt) loadedLife() time.Duration {
	return max(a.tagLife(), tags.Life(time.Duration(a.out.FreshUntil-a.out.LoadedAt)+a.windows.Rest()))
}

// tagNames turns the program's names of tags into tags.
func tagNames(names []string) ([]string, error) {
	tags, err := keyspace.NamedTags(names)
	if err != nil {
		return nil, invalidArgument(err.Error())
	}
	return tags, nil
}

// addLateTags adds the tags that the loader of a has named, with their generations. They are not too many: applyDecisions has counted them. It
// reports false if one of them may have been invalidated during the load: tags.Snapshot.AddLate says how it knows.
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
	late := all[len(a.Tags):]
	a.Tags = all
	return m.AddLate(ctx, &a.captured, late, a.tagEvents, a.loadedLife())
}

// extendTagLife makes the generations of a's tags live as long as its value, where the loader has chosen a longer life than that of the request.
// It reports false if one of them has another generation by now.
func (e *Engine) extendTagLife(a *attempt) (unmoved bool, err error) {
	life := a.loadedLife()
	if life <= a.tagLife() && !a.NotModified { // a value that is not modified has tags of its first load
		return true, nil
	}
	return e.tags.Outlive(&a.captured, life)
}

// has reports whether a carries a tag.
func (a *attempt) has(tag string) bool {
	for _, own := range a.Tags {
		if own == tag {
			return true
		}
	}
	return false
}

// MayHave reports whether a value in Redis may carry a tag: Redis has a generation of the tag, or did not answer. The first load of a value
// with the tag makes the generation. In memory mode MayHave reports false.
func (e *Engine) MayHave(ctx context.Context, tag string) bool {
	if e.Store == nil {
		return false
	}
	if e.journal.Contains(tag) || e.journal.Contains(keyspace.All) {
		return true
	}
	ctx, cancel := e.Store.Detached(ctx, 0, 1)
	defer cancel()
	values, err := e.Store.Values(ctx, tag)
	return err != nil || values[0] != ""
}

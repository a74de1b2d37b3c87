package asidehttp

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/gatewayz/aside"
)

// matched counts what a selection would invalidate, until ctx ends.
func (h *handler) matched(ctx context.Context, who visitor, s selection) (*count, *problem) {
	patterns := []aside.Pattern{s.pattern} // for tags and for everything: the zero pattern matches all keys
	counts := func(aside.KeyInfo) bool { return true }
	switch s.kind {
	case byCategory:
		patterns = []aside.Pattern{s.category.Match(aside.Wildcard), s.category.Match()} // the second matches the key without parts
	case byKeys:
		patterns = patterns[:0]
		var texts []string
		wanted := setOf(s.keys, aside.Key.String)
		for i, key := range s.keys {
			name, match := s.policies[i].Category, s.policies[i].Match(aside.Wildcard)
			if key.String() == name { // it has no parts
				match = s.policies[i].Match()
			}
			if !slices.Contains(texts, match.String()) {
				texts = append(texts, match.String())
				patterns = append(patterns, match)
			}
		}
		counts = func(info aside.KeyInfo) bool {
			found := wanted[info.Key]
			delete(wanted, info.Key) // SCAN may return a key twice
			return found
		}
	case byTags:
		wanted := setOf(s.tags, func(tag string) string { return tag })
		counts = func(info aside.KeyInfo) bool {
			return slices.ContainsFunc(info.Tags, func(tag string) bool { return wanted[tag] })
		}
	}
	var n int64
	for _, pattern := range patterns {
		err := h.count(ctx, ctx, who, pattern, counts, &n)
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, errTurnOver):
			return h.counted(n, false, nil), nil
		default:
			return nil, newProblem(http.StatusServiceUnavailable, "what there is cannot be counted now: %s", message(err))
		}
	}
	return h.counted(n, true, nil), nil
}

func setOf[T any](list []T, name func(T) string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, v := range list {
		set[name(v)] = true
	}
	return set
}

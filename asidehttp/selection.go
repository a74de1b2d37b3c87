package asidehttp

import (
	"context"
	"errors"
	"strings"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/nearby"
)

// everything is the category that stands for all categories.
const everything = "all"

// A selection is an order with the names resolved to the cache's types.
type selection struct {
	kind     string // everything, or a selector: it says which of the other fields is set
	category *aside.Policy
	pattern  aside.Pattern
	keys     []aside.Key
	policies []*aside.Policy // one for each of keys
	tags     []string
}

// resolve looks up the names of an order. A name that is unknown or invalid is a problem.
func (h *handler) resolve(o order) (s selection, p *problem) {
	known := policies(h.cache.Policies())
	_, unusable := h.cache.Invalidate(context.Background()) // without keys: reports only whether the cache is usable
	if unusable != nil && !errors.Is(unusable, aside.ErrClosed) {
		return s, problemOf(aside.ErrClosed) // a nil cache
	}
	defer func() {
		if p != nil && unusable != nil {
			p = problemOf(aside.ErrClosed) // a closed cache knows no names, so this is the real cause
		}
	}()
	s.kind = o.selector
	switch o.selector {
	case byCategory:
		if o.names[0] == everything {
			s.kind = everything
			return s, nil
		}
		s.category, p = known.of(o.names[0])
	case byPattern:
		s.pattern, p = known.pattern(o.names[0])
	case byKeys:
		for i, text := range o.names {
			category, _, _ := strings.Cut(text, ":")
			policy, p := known.of(category)
			if p != nil {
				return s, unacceptable("keys[%d] is not a key: %s", i, p.detail)
			}
			key, err := policy.ParseKey(text)
			if err != nil {
				return s, unacceptable("keys[%d]: %s", i, message(err))
			}
			s.keys, s.policies = append(s.keys, key), append(s.policies, policy)
		}
	case byTags:
		s.tags = o.names
	}
	return s, p
}

// policies are the policies that a cache knows.
type policies []aside.Policy

// of returns a policy of a category. An unknown category is a problem that names the known ones.
func (known policies) of(category string) (*aside.Policy, *problem) {
	var names []string
	for i := range known {
		if known[i].Category == category {
			return &known[i], nil
		}
		names = append(names, known[i].Category)
	}
	if len(names) == 0 {
		return nil, unacceptable("there is no category %s: this server has used none yet, and lists none in Options.Policies; %s is everything", quote(category), everything)
	}
	return nil, unacceptable("there is no category %s: the categories are %s, and %s for everything",
		quote(category), nearby.Names(category, names), everything)
}

// pattern parses a pattern. It must begin with a known category, since an unknown one is probably misspelt.
func (known policies) pattern(text string) (aside.Pattern, *problem) {
	pattern, err := aside.ParsePattern(text)
	if err != nil {
		return pattern, unacceptable("%s", message(err))
	}
	category, _, _ := strings.Cut(text, ":")
	_, p := known.of(category)
	return pattern, p
}

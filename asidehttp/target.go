package asidehttp

import (
	"strings"

	"github.com/gatewayz/aside"
)

// A Target is a tag or a path that a web front end revalidates. One of Tag and Path is set.
type Target struct {
	Tag  string
	Path string

	// Within is a tag that covers the target and others, such as the tag of its category: each page with the target has this tag too. If the
	// queue has no room for the targets within it, this tag is sent instead of them. It may be empty. Then the target is lost if the queue is full.
	Within string
}

// what is the identity of a target. Within is no part of it, since the front end does not get it.
func (t Target) what() Target { return Target{Tag: t.Tag, Path: t.Path} }

func (t Target) size() int { return len(t.Tag) + len(t.Path) + len(t.Within) }

// Tags is the default of RevalidatorOptions.Map. It maps an invalidation to tags of the front end, with a prefix for each kind:
// "category:models", "key:models:openrouter:all", "tag:supplier 3", and "all" for everything. A pattern is mapped to its category. So give
// a page that shows a gateway's models the tags "all", "category:models" and "key:models:openrouter:all". The target of a key is Within its
// category, and the target of a tag is Within "tags". So give a page that uses tags of the cache the tag "tags" too.
func Tags(i aside.Invalidation) []Target {
	var targets []Target
	for _, key := range i.Keys {
		category, _, _ := strings.Cut(key, ":")
		targets = append(targets, Target{Tag: "key:" + key, Within: "category:" + category})
	}
	for _, tag := range i.Tags {
		targets = append(targets, Target{Tag: "tag:" + tag, Within: "tags"})
	}
	category, _, _ := strings.Cut(i.Pattern, ":")
	for _, name := range []string{i.Category, category} {
		if name != "" {
			targets = append(targets, Target{Tag: "category:" + name})
		}
	}
	if i.All {
		targets = append(targets, Target{Tag: everything})
	}
	return targets
}

package asidehttp

import (
	"strings"

	"github.com/gatewayz/aside"
)

// A Target is a tag or a path that a web front end revalidates. One of Tag and Path is set.
type Target struct {
	Tag  string
	Path string

	// Within is a second tag of everything that the target covers, such as the tag of a category. If the queue has no room for the targets
	// within it, this tag is sent instead of them. It may be empty: the target is then lost if the queue is full.
	Within string
}

// what identifies a target: without its Within, which the front end does not see.
func (t Target) what() Target { return Target{Tag: t.Tag, Path: t.Path} }

func (t Target) size() int { return len(t.Tag) + len(t.Path) + len(t.Within) }

// Tags is the default of RevalidatorOptions.Map. It maps an invalidation to tags of the front end, with a prefix for each kind:
// "category:models", "key:models:openrouter:all", "tag:supplier 3", and "all" for everything. A pattern is mapped to its category. So give
// a page that shows a gateway's models the tags "all", "category:models" and "key:models:openrouter:all". Keys are Within their category, and
// tags Within "tags": a page with tags of the cache needs the tag "tags" too.
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

package aside

import (
	"context"
	"slices"
	"strconv"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/gatewayz/aside/internal/nearby"
)

// categories returns the categories of all policies that the cache knows.
func (c *Cache) categories() (names []string) {
	for _, pl := range c.plans.all() {
		names = append(names, pl.policy.Category)
	}
	return names
}

// knowsCategory reports whether there is something in a category, or may be: this process has a policy for it, or Redis has a
// generation of it, which it has from the first load on that could be stored. Where Redis does not say, there may be something.
func (c *Cache) knowsCategory(ctx context.Context, category string) bool {
	if slices.Contains(c.categories(), category) {
		return true
	}
	if c.store == nil {
		return false
	}
	tag := keyspace.CategoryTag(category)
	if c.journal.Contains(tag) || c.journal.Contains(keyspace.All) {
		return true
	}
	ctx, cancel := c.store.Budget(context.WithoutCancel(ctx), 0, 1)
	defer cancel()
	values, err := c.store.Values(ctx, tag)
	return err != nil || values[0] != ""
}

// unknownCategory is the error of a category that is nobody's.
func (c *Cache) unknownCategory(category string) error {
	known, what := c.categories(), "this cache has used none yet"
	if len(known) > 0 {
		what = "the categories are " + nearby.Names(category, known)
	}
	return invalidArgument("there is no category " + strconv.Quote(category[:min(len(category), 64)]) + ": " + what +
		"; list the Policy of another one in Options.Policies")
}

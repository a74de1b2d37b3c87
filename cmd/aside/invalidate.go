package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/keyspace"
)

var invalidateVerb = verb{
	name: "invalidate", arguments: "", does: "invalidates values in all processes; without -yes it counts them and changes nothing",
	details: `
Give one of -key, -tag, -category, -pattern and -all; -key and -tag can be given several times.
A load that is in flight in any process is not stored afterwards: redis-cli's UNLINK does not
prevent that, and does not reach the values of a tag. The sources are asked for what is
invalidated, so look at the number first.

With -api a running process does it, by its admin API. ASIDE_API_KEY has the key.`,
	where: onBoth,
	prepare: func(flags *flag.FlagSet) action {
		var s selection
		flags.Var(&s.keys, "key", "a `KEY`, such as products:7")
		flags.Var(&s.tags, "tag", "a `TAG`, as the program calls it")
		flags.StringVar(&s.category, "category", "", "a `CATEGORY`, such as products")
		flags.StringVar(&s.pattern, "pattern", "", "a `PATTERN` of keys, such as 'products:eu:*'")
		flags.BoolVar(&s.all, "all", false, "everything")
		api := flags.String("api", "", "`URL` of asidehttp.AdminHandler in a process; in place of Redis")
		yes := flags.Bool("yes", false, "invalidate, and not only count")
		wait := flags.Duration("wait", 30*time.Second, "wait for Redis and for the cleanup for a `DURATION`")
		return func(ctx context.Context, c *call) error {
			if err := s.parse(c); err != nil {
				return err
			}
			if *wait < 0 {
				return usage("-wait is negative")
			}
			if *api != "" {
				return s.order(ctx, c, *api, *yes, *wait)
			}
			return invalidate(ctx, c, s, *yes, *wait)
		}
	},
}

// names are the values of a flag that can be given several times.
type names []string

func (n *names) String() string { return strings.Join(*n, ", ") }

func (n *names) Set(name string) error {
	if name == "" {
		return errors.New("it is empty")
	}
	*n = append(*n, name)
	return nil
}

// A selection is what to invalidate.
type selection struct {
	keys, tags        names
	category, pattern string
	all               bool

	parsedKeys []aside.Key
	parsed     aside.Pattern
}

func (s *selection) parse(c *call) error {
	given := 0
	for _, is := range []bool{len(s.keys) > 0, len(s.tags) > 0, s.category != "", s.pattern != "", s.all} {
		if is {
			given++
		}
	}
	switch {
	case len(c.args) > 0:
		return usage("%q is no flag: give one of -key, -tag, -category, -pattern and -all", c.args[0])
	case given != 1:
		return usage("give one of -key, -tag, -category, -pattern and -all")
	case s.category != "" && (!keyspace.Plain(s.category) || s.category == "all"):
		return usage("there is no category %q: give the first part of a key, or -all", s.category)
	}
	for _, text := range s.keys {
		policy := policyOf(keyspace.CategoryOf(text))
		key, err := policy.ParseKey(text)
		if err != nil {
			return usage("-key %s: %v", oneLine(text), err)
		}
		s.parsedKeys = append(s.parsedKeys, key)
	}
	if _, err := keyspace.NamedTags(s.tags); err != nil {
		return usage("-tag: %v", err)
	}
	if s.pattern != "" {
		var err error
		if s.parsed, err = aside.ParsePattern(s.pattern); err != nil {
			return usage("%v", err)
		}
	}
	if s.category != "" {
		policy := policyOf(s.category)
		s.parsed = policy.Match(aside.Wildcard)
	}
	return nil
}

func invalidate(ctx context.Context, c *call, s selection, yes bool, wait time.Duration) error {
	// The cleanup that follows reaches the categories that the cache knows: all of them.
	known, err := c.categories(ctx)
	if err != nil {
		return err
	}
	if s.category != "" && !slices.Contains(known, s.category) {
		return fmt.Errorf("there is no category %s in Redis, which has %s: nothing was changed", s.category, cmp.Or(strings.Join(known, ", "), "none"))
	}
	cache, err := c.cache(ctx, known...)
	if err != nil {
		return err
	}
	defer cache.Close()
	if !yes {
		return s.count(ctx, c, cache)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	receipt, err := s.invalidate(ctx, cache)
	if err != nil {
		return err
	}
	began := time.Now()
	confirmed := receipt.Confirmed || receipt.Wait(ctx) == nil
	removed, err := receipt.WaitCleanup(ctx)
	return s.report(c, removed, confirmed, err == nil, time.Since(began))
}

func (s *selection) invalidate(ctx context.Context, cache *aside.Cache) (aside.Receipt, error) {
	switch {
	case len(s.keys) > 0:
		return cache.Invalidate(ctx, s.parsedKeys...)
	case len(s.tags) > 0:
		return cache.InvalidateTags(ctx, s.tags...)
	case s.category != "":
		return cache.InvalidateCategory(ctx, s.category)
	case s.pattern != "":
		return cache.InvalidatePattern(ctx, s.parsed)
	}
	return cache.InvalidateAll(ctx)
}

// counted is what an invalidation would reach.
type counted struct {
	DryRun bool  `json:"dry_run"`
	Values int   `json:"values"`
	Bytes  int64 `json:"bytes,omitempty"` // not known to the admin API
}

// count prints how many values would be invalidated.
func (s *selection) count(ctx context.Context, c *call, cache *aside.Cache) error {
	values, err := cached(ctx, cache, s.parsed)
	if err != nil {
		return err
	}
	var bytes int64
	n := 0
	for _, v := range values {
		if s.selects(v) {
			n, bytes = n+1, bytes+v.Size
		}
	}
	if c.json {
		return writeJSON(c, counted{true, n, bytes})
	}
	_, err = fmt.Fprintf(c.out, "would invalidate %s, %d bytes; nothing was changed: -yes does it\n", number(n), bytes)
	return err
}

func (s *selection) selects(v aside.KeyInfo) bool {
	switch {
	case len(s.keys) > 0:
		return slices.Contains(s.keys, v.Key)
	case len(s.tags) > 0:
		return slices.ContainsFunc(v.Tags, func(tag string) bool { return slices.Contains(s.tags, tag) })
	}
	return true // the listing was one of the pattern
}

func (s *selection) report(c *call, removed int64, confirmed, complete bool, took time.Duration) error {
	var err error
	if c.json {
		err = writeJSON(c, struct {
			Removed   int64   `json:"removed"`
			Confirmed bool    `json:"confirmed"`
			Complete  bool    `json:"complete"`
			TookMS    float64 `json:"took_ms"`
		}{removed, confirmed, complete, float64(took.Microseconds()) / 1000})
	} else {
		switch {
		case !confirmed:
			_, err = fmt.Fprintf(c.out, "not confirmed: Redis has not acknowledged the invalidation in time; run the command again\n")
		case !complete:
			_, err = fmt.Fprintf(c.out, "invalidated; %s removed so far, the rest expires\n", number(int(removed)))
		default:
			_, err = fmt.Fprintf(c.out, "invalidated and confirmed; %s removed\n", number(int(removed)))
		}
	}
	if err == nil && !confirmed {
		return errFinding
	}
	return err
}

// order sends the invalidation to a process, or without yes a dry run of it.
func (s *selection) order(ctx context.Context, c *call, url string, yes bool, wait time.Duration) error {
	if c.redis != "" || c.namespace != "" {
		return usage("-api takes neither -redis nor -namespace: the process has its own")
	}
	apis, err := c.apis(url)
	if err != nil {
		return err
	}
	apis[0].client.Timeout += wait
	type count struct {
		RedisEntries  int64   `json:"redis_entries"`
		MemoryEntries int64   `json:"memory_entries"` // in memory mode
		Complete      bool    `json:"complete"`
		Confirmed     *bool   `json:"confirmed"`
		TookMS        float64 `json:"took_ms"`
	}
	var answer struct{ Invalidated, Matched *count }
	category := s.category
	if s.all {
		category = "all"
	}
	order := struct {
		Keys     []string `json:"keys,omitempty"`
		Tags     []string `json:"tags,omitempty"`
		Category string   `json:"category,omitempty"`
		Pattern  string   `json:"pattern,omitempty"`
		DryRun   bool     `json:"dry_run,omitempty"`
		Wait     float64  `json:"wait"` // 0 too: without it the process chooses
	}{Keys: s.keys, Tags: s.tags, Category: category, Pattern: s.pattern, DryRun: !yes, Wait: wait.Seconds()}
	if err := apis[0].do(ctx, "POST", order, &answer); err != nil {
		return err
	}
	switch got := answer; {
	case yes && got.Invalidated != nil:
		n := got.Invalidated
		confirmed := n.Confirmed == nil || *n.Confirmed // in memory mode there is nothing to confirm
		return s.report(c, n.RedisEntries+n.MemoryEntries, confirmed, n.Complete, time.Duration(n.TookMS*float64(time.Millisecond)))
	case !yes && got.Matched != nil:
		n := int(got.Matched.RedisEntries + got.Matched.MemoryEntries)
		if c.json {
			return writeJSON(c, counted{DryRun: true, Values: n})
		}
		more := ""
		if !got.Matched.Complete {
			more = " or more"
		}
		_, err = fmt.Fprintf(c.out, "would invalidate %s%s; nothing was changed: -yes does it\n", number(n), more)
		return err
	}
	return fmt.Errorf("%s: the answer is none of asidehttp.AdminHandler: check the path", oneLine(url))
}

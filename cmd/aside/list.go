package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
)

var listVerb = verb{
	name: "list", arguments: "[PATTERN]", does: "the values in Redis, with size, age, TTL and tags",
	details: `
PATTERN is a category, a colon, and what the keys have in common: 'products:*',
'sessions:ABC:*'. Quote it, or the shell takes the asterisk. Without one, the values of every
category in Redis are listed. Invalidated values are left out. Redis has no index of keys: all
are scanned, in small portions.`,
	where: onRedis,
	prepare: func(flags *flag.FlagSet) action {
		var o listOptions
		flags.StringVar(&o.sort, "sort", "key", "`ORDER`: key, size (largest first), age (oldest first) or ttl (shortest first)")
		flags.IntVar(&o.most, "n", 100, "print at most `N` values; 0 for all")
		flags.BoolVar(&o.count, "count", false, "print the number of values and their bytes alone")
		return func(ctx context.Context, c *call) error { return list(ctx, c, o) }
	},
}

type listOptions struct {
	sort  string
	most  int
	count bool
}

// orders are the values of -sort.
var orders = map[string]func(a, b aside.KeyInfo) int{
	"key":  func(a, b aside.KeyInfo) int { return cmp.Compare(a.Key, b.Key) },
	"size": func(a, b aside.KeyInfo) int { return cmp.Compare(b.Size, a.Size) },
	"age":  func(a, b aside.KeyInfo) int { return cmp.Compare(b.Age, a.Age) },
	"ttl":  func(a, b aside.KeyInfo) int { return cmp.Compare(a.TTL, b.TTL) },
}

func list(ctx context.Context, c *call, o listOptions) error {
	order := orders[o.sort]
	switch {
	case len(c.args) > 1:
		return usage("give one pattern, in quotes: 'products:*'")
	case order == nil:
		return usage("-sort is %q: it is key, size, age or ttl", o.sort)
	case o.most < 0:
		return usage("-n is negative")
	}
	var pattern aside.Pattern
	if len(c.args) == 1 {
		var err error
		if pattern, err = aside.ParsePattern(c.args[0]); err != nil {
			return usage("%v", err)
		}
	}
	cache, err := c.open(ctx, pattern)
	if err != nil {
		return err
	}
	defer cache.Close()
	values, err := cached(ctx, cache, pattern)
	if err != nil {
		return err
	}
	slices.SortFunc(values, func(a, b aside.KeyInfo) int { return cmp.Or(order(a, b), cmp.Compare(a.Key, b.Key)) })
	return printList(c, values, o)
}

// open opens a cache that knows the categories of a pattern: of the zero Pattern, those that Redis has.
func (c *connection) open(ctx context.Context, pattern aside.Pattern) (*aside.Cache, error) {
	if category := keyspace.CategoryOf(pattern.String()); category != "" {
		return c.cache(ctx, category)
	}
	categories, err := c.categories(ctx)
	if err != nil {
		return nil, err
	}
	return c.cache(ctx, categories...)
}

// categories are those that have had values: a category has a generation from its first load on.
func (c *connection) categories(ctx context.Context) ([]string, error) {
	store, err := c.store(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	found := map[string]bool{}
	err = store.Scan(ctx, func(names []string) error {
		for _, name := range names {
			if category := strings.TrimPrefix(name, keyspace.CategoryPrefix); keyspace.Plain(category) && category != "" {
				found[category] = true
			}
		}
		return nil
	}, keyspace.CategoryPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("scanning the keys failed: %s", redisstore.Describe(err))
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// cached are the values in Redis that match, each once.
func cached(ctx context.Context, cache *aside.Cache, pattern aside.Pattern) (values []aside.KeyInfo, err error) {
	seen := map[string]bool{}
	for info, err := range cache.Keys(ctx, pattern) {
		if err != nil {
			return nil, err
		}
		if !seen[info.Key] { // Redis may list a key twice
			seen[info.Key] = true
			values = append(values, info)
		}
	}
	return values, nil
}

func printList(c *call, values []aside.KeyInfo, o listOptions) error {
	var bytes int64
	for _, v := range values {
		bytes += v.Size
	}
	shown := values
	switch {
	case o.count:
		shown = nil
	case o.most > 0:
		shown = values[:min(o.most, len(values))]
	}
	if c.json {
		return listJSON(c, values, shown, bytes)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	if len(shown) > 0 {
		fmt.Fprintln(w, "KEY\tSIZE\tAGE\tTTL\tTAGS")
	}
	for _, v := range shown {
		ttl := show(v.TTL)
		switch {
		case v.Stale:
			ttl = "stale"
		case v.Negative:
			ttl += " (not found)"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", oneLine(v.Key), v.Size, show(v.Age), ttl, oneLine(strings.Join(v.Tags, ", ")))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	more := ""
	if n := len(values) - len(shown); n > 0 && !o.count {
		more = fmt.Sprintf(", %d of them not shown: -n 0 shows all", n)
	}
	_, err := fmt.Fprintf(c.out, "%s, %d bytes%s\n", number(len(values)), bytes, more)
	return err
}

func number(values int) string {
	if values == 1 {
		return "1 value"
	}
	return fmt.Sprintf("%d values", values)
}

func listJSON(c *call, values, shown []aside.KeyInfo, bytes int64) error {
	type item struct {
		Key       string   `json:"key"`
		Size      int64    `json:"size"`
		AgeMS     int64    `json:"age_ms"`
		TTLMS     int64    `json:"ttl_ms"`
		KeptForMS int64    `json:"kept_for_ms"`
		Stale     bool     `json:"stale,omitempty"`
		Negative  bool     `json:"negative,omitempty"`
		Codec     string   `json:"codec,omitempty"`
		Tags      []string `json:"tags,omitempty"`
	}
	ms := time.Duration.Milliseconds
	items := []item{}
	for _, v := range shown {
		items = append(items, item{v.Key, v.Size, ms(v.Age), ms(v.TTL), ms(v.KeptFor), v.Stale, v.Negative, v.Codec, v.Tags})
	}
	return writeJSON(c, struct {
		Values int    `json:"values"`
		Bytes  int64  `json:"bytes"`
		Keys   []item `json:"keys"`
	}{len(values), bytes, items})
}

package asidetest

import (
	"context"
	"strconv"
	"time"

	"github.com/gatewayz/aside"
)

// Keyed is a policy for tests that are about keys, whose category says nothing.
var Keyed = aside.Policy{Name: "keyed", Category: "k", TTL: time.Hour}

// KeyCalls is every call that takes a key.
func KeyCalls(ctx context.Context, c *aside.Cache, key aside.Key) map[string]func() error {
	load := func(context.Context) (string, error) { return "v", nil }
	return map[string]func() error{
		"GetOrLoad":           func() error { _, err := aside.GetOrLoad(ctx, c, key, load); return err },
		"GetOrLoad, refresh":  func() error { _, err := aside.GetOrLoad(ctx, c, key, load, aside.Refresh()); return err },
		"GetOrLoad, with TTL": func() error { _, err := aside.GetOrLoad(ctx, c, key, load, aside.WithTTL(time.Second)); return err },
		"Lookup":              func() error { _, err := aside.Lookup(ctx, c, key, load); return err },
		"Get":                 func() error { _, err := aside.Get[string](ctx, c, key); return err },
		"Set":                 func() error { return aside.Set(ctx, c, key, "v") },
		"Invalidate":          func() error { _, err := c.Invalidate(ctx, key); return err },
		"GetOrLoadMany": func() error {
			_, err := aside.GetOrLoadMany(ctx, c, []int{1}, func(int) aside.Key { return key }, LoadManyNames)
			return err
		},
	}
}

func LoadManyNames(_ context.Context, ids []int) (map[int]string, error) {
	names := map[int]string{}
	for _, id := range ids {
		names[id] = strconv.Itoa(id)
	}
	return names, nil
}

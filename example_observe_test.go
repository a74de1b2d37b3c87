package aside_test

import (
	"context"
	"encoding/json"
	"expvar"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/gatewayz/aside"
)

// Quantiles of the last interval: the counters themselves are those since New.
func ExampleHistogram_Minus() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	models := aside.NewLoader(c, aside.TTL.ModelDetail, func(context.Context, string) (string, error) {
		time.Sleep(10 * time.Millisecond) // the source
		return "a model", nil
	})

	before := c.Metrics().Labels["models"].LoadTimes
	for _, id := range []string{"a", "b", "a"} {
		if _, err := models.Get(context.Background(), id); err != nil {
			panic(err)
		}
	}
	since := c.Metrics().Labels["models"].LoadTimes.Minus(before)
	fmt.Println(since.Count, since.Quantile(0.99) >= 0.010)
	// Output: 2 true
}

// Why calls were not answered from the cache, and how their loads ended.
func ExampleLabelMetrics_causes() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx, key := context.Background(), aside.TTL.UserProfile.Key("7")
	load := func(context.Context) (string, error) { return "", aside.ErrNotFound }
	_, _ = aside.GetOrLoad(ctx, c, key, load)
	_, _ = aside.GetOrLoad(ctx, c, key, load) // a hit: "not found" is cached
	_, _ = aside.GetOrLoad(ctx, c, key, load, aside.Refresh())

	m := c.Metrics().Labels["user_profile"]
	fmt.Println(m.Causes[aside.CauseAbsent], m.Causes[aside.CauseAsked], m.Outcomes[aside.OutcomeNotFound])
	// Output: 1 1 2
}

// Metrics as a variable of expvar, for /debug/vars.
func ExampleCache_Metrics_expvar() {
	c, err := aside.New(aside.Options{MaxEntries: 1000})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	expvar.Publish("cache", expvar.Func(func() any { return c.Metrics() }))

	var shown struct {
		InMemory struct{ Entries, MaxEntries int }
	}
	if err := json.Unmarshal([]byte(expvar.Get("cache").String()), &shown); err != nil {
		panic(err)
	}
	fmt.Println(shown.InMemory.Entries, "of", shown.InMemory.MaxEntries)
	// Output: 0 of 1000
}

// What led to a load, as a trace would show it. Begin keeps the name of each operation under a context key of its own.
func ExampleObserver() {
	type nameKey struct{}
	var mu sync.Mutex // the functions are called by many goroutines
	observer := aside.Observer{
		Begin: func(ctx context.Context, op aside.Op) context.Context {
			name := string(op.Kind) + " " + op.Key
			if parent, ok := ctx.Value(nameKey{}).(string); ok {
				name = parent + " > " + name
			}
			return context.WithValue(ctx, nameKey{}, name)
		},
		End: func(ctx context.Context, op aside.Op, end aside.End) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Println(ctx.Value(nameKey{}), end.Status, end.Outcome, end.Err)
		},
	}
	c, err := aside.New(aside.Options{Observer: observer})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	models := aside.NewLoader(c, aside.TTL.ModelDetail, func(context.Context, string) (string, error) { return "a model", nil })
	for range 3 { // two of them are hits in memory, of which nobody is told
		if _, err := models.Get(context.Background(), "a"); err != nil {
			panic(err)
		}
	}
	// Output:
	// call models:a > load models:a  ok <nil>
	// call models:a miss  <nil>
}

// What is cached under a key, and whether a call would get it.
func ExampleCache_Inspect() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx, products := context.Background(), aside.Policy{Name: "products", Category: "products", TTL: time.Hour}
	if err := aside.Set(ctx, c, products.Key(7), map[string]int{"price": 5}, aside.WithTags("supplier 3")); err != nil {
		panic(err)
	}
	for _, text := range []string{"products:7", "products:8"} { // as an operator has typed them
		key, err := products.ParseKey(text)
		if err != nil {
			panic(err)
		}
		e, err := c.Inspect(ctx, key, 1000)
		if err != nil {
			panic(err)
		}
		fmt.Println(e.Key, e.Verdict, e.Tags, strings.TrimSpace(string(e.Payload)))
	}
	// Output:
	// products:7 served [supplier 3] {"price":5}
	// products:8 not cached []
}

// A kill switch: the loaders alone answer, until the cache is switched on again.
func ExampleCache_Bypass() {
	products := aside.Policy{Category: "products", TTL: time.Hour}
	c, err := aside.New(aside.Options{Policies: []aside.Policy{products}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	source := "old"
	load := func(context.Context) (string, error) { return source, nil }
	show := func() {
		r, err := aside.Lookup(context.Background(), c, products.Key(7), load)
		if err != nil {
			panic(err)
		}
		fmt.Println(r.Value, "-", r.Reason)
	}
	show()
	source = "new"
	show()
	if err := c.Bypass(true, "products"); err != nil {
		panic(err)
	}
	show()
	fmt.Println(c.Health().Bypassed)
	if err := c.Bypass(false, "products"); err != nil {
		panic(err)
	}
	show() // nobody has invalidated it
	// Output:
	// old - not cached
	// old - fresh
	// new - the cache is bypassed
	// [products]
	// old - fresh
}

package aside_test

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside"
)

func ExampleNew() {
	sessions := aside.Policy{Name: "sessions", Category: "sessions", TTL: 5 * time.Minute}
	c, err := aside.New(aside.Options{
		Policies:   []aside.Policy{sessions},                             // checked here, not at their first use
		TTLs:       map[string]time.Duration{"UserProfile": time.Minute}, // in place of the table's ten minutes
		MaxEntries: 50_000,
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	fmt.Println(c)

	// What is wrong is named, all of it at once.
	_, err = aside.New(aside.Options{
		Policies:    []aside.Policy{{Category: "sessions"}},
		LoadTimeout: -time.Second,
	})
	fmt.Println(err)
	// Output:
	// aside.Cache{aside.Options{memory}}
	// aside: Options.LoadTimeout is -1s: set a positive duration, or 0 for the default
	// Options.Policies[0]: aside: policy "sessions": TTL is 0s: set a positive duration
}

func ExampleOptionsFromEnv() {
	defer redisEnv(nil)()

	// Nothing is set: in memory.
	opts, err := aside.OptionsFromEnv()
	fmt.Println(opts, err)

	redisEnv(map[string]string{"REDIS_URL": "rediss://default:s3cret@cache.example.com:6380/1"})
	opts, err = aside.OptionsFromEnv()
	fmt.Println(opts, err)

	redisEnv(map[string]string{"REDIS_HOST": "10.0.0.7", "REDIS_PASSWORD": "s3cret"})
	opts, err = aside.OptionsFromEnv()
	fmt.Println(opts, err)

	redisEnv(map[string]string{"REDIS_PORT": "redis"})
	_, err = aside.OptionsFromEnv()
	fmt.Println(err)
	// Output:
	// aside.Options{memory} <nil>
	// aside.Options{redis cache.example.com:6380 db 1 tls true} <nil>
	// aside.Options{redis 10.0.0.7:6379 db 0 tls false} <nil>
	// aside: REDIS_PORT is malformed: write a number from 1 to 65535
}

// redisEnv makes vars the only variables that name a Redis, and returns a function that puts back what was there.
func redisEnv(vars map[string]string) (restore func()) {
	before := map[string]string{}
	for _, name := range []string{"REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB", "REDIS_TLS"} {
		if value, ok := os.LookupEnv(name); ok {
			before[name] = value
			os.Unsetenv(name)
		}
	}
	for name, value := range vars {
		os.Setenv(name, value)
	}
	return func() { redisEnv(before) }
}

func ExampleGetOrLoad() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	model := aside.TTL.ModelDetail.Key("llama-3", "detail")
	for range 3 {
		price, err := aside.GetOrLoad(ctx, c, model, func(ctx context.Context) (float64, error) {
			fmt.Println("asking the upstream")
			return 0.25, nil
		})
		fmt.Println(price, err)
	}
	// Output:
	// asking the upstream
	// 0.25 <nil>
	// 0.25 <nil>
	// 0.25 <nil>
}

// A loader returns ErrNotFound for something that does not exist. That is cached too, for the policy's NegativeTTL.
func ExampleGetOrLoad_notFound() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{NegativeTTL: 10 * time.Second})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	for range 2 {
		_, err := aside.GetOrLoad(ctx, c, Products.Key(404), func(ctx context.Context) (Product, error) {
			fmt.Println("asking the database")
			return Product{}, aside.ErrNotFound
		})
		fmt.Println(errors.Is(err, aside.ErrNotFound))
	}
	// Output:
	// asking the database
	// true
	// true
}

func ExampleLookup() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	for range 2 {
		r, err := aside.Lookup(ctx, c, aside.TTL.RankingsApps.Key("apps"), func(ctx context.Context) ([]string, error) {
			return []string{"chat", "search"}, nil
		})
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s from %s, %s: %v\n", r.Status, r.Tier, r.Reason, r.Value)
		fmt.Println("young:", r.Age < time.Hour, "- expires within four hours:", r.TTL <= 4*time.Hour)
	}
	// Output:
	// miss from origin, not cached: [chat search]
	// young: true - expires within four hours: true
	// hit from memory, fresh: [chat search]
	// young: true - expires within four hours: true
}

func ExampleGet() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	_, err = aside.Get[Product](ctx, c, Products.Key(7))
	fmt.Println(errors.Is(err, aside.ErrMiss))
	// Output: true
}

func ExampleSet() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	// The database first, then the cache.
	if err := aside.Set(ctx, c, Products.Key(7), Product{Name: "teapot"}); err != nil {
		panic(err)
	}
	p, err := aside.Get[Product](ctx, c, Products.Key(7))
	fmt.Println(p, err)
	// Output: {teapot} <nil>
}

func ExampleGetOrLoadMany() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	key := func(id int) aside.Key { return Products.Key(id) }
	load := func(ctx context.Context, ids []int) (map[int]string, error) {
		fmt.Println("SELECT … WHERE id IN", ids)
		found := map[int]string{}
		for _, id := range ids {
			if id < 100 { // the others do not exist
				found[id] = fmt.Sprint("product ", id)
			}
		}
		return found, nil
	}
	for _, ids := range [][]int{{1, 2}, {2, 3, 3, 100}, {1, 100}} {
		names, err := aside.GetOrLoadMany(ctx, c, ids, key, load)
		fmt.Println(names, err)
	}
	// Output:
	// SELECT … WHERE id IN [1 2]
	// map[1:product 1 2:product 2] <nil>
	// SELECT … WHERE id IN [3 100]
	// map[2:product 2 3:product 3] <nil>
	// map[1:product 1] <nil>
}

func ExampleNewLoader() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	products := aside.NewLoader(c, Products, loadProduct)
	for range 2 {
		p, err := products.Get(ctx, 7)
		fmt.Println(p, err)
	}
	// Output:
	// loading 7
	// {product 7} <nil>
	// {product 7} <nil>
}

func ExampleNewBatchLoader() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	names := aside.NewBatchLoader(c, Products, func(ctx context.Context, ids []int) (map[int]string, error) {
		fmt.Println("SELECT … WHERE id IN", ids)
		return map[int]string{1: "teapot", 2: "kettle"}, nil
	})
	one, err := names.Get(ctx, 1)
	fmt.Println(one, err)
	many, err := names.GetMany(ctx, []int{1, 2})
	fmt.Println(many, err)
	// Output:
	// SELECT … WHERE id IN [1]
	// teapot <nil>
	// SELECT … WHERE id IN [2]
	// map[1:teapot 2:kettle] <nil>
}

func ExampleNewLoaderBy() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	// An id of several parts: a page of a list.
	type page struct{ limit, offset int }
	lists := aside.Policy{Category: "lists", TTL: time.Minute}
	pages := aside.NewLoaderBy(c, lists,
		func(p *aside.Policy, q page) aside.Key { return p.Key(q.limit, q.offset) },
		func(ctx context.Context, q page) (string, error) {
			fmt.Println("SELECT … LIMIT", q.limit, "OFFSET", q.offset)
			return "two products", nil
		})
	for range 2 {
		list, err := pages.Get(ctx, page{limit: 2, offset: 10})
		fmt.Println(list, err)
	}
	fmt.Println(pages.Key(page{limit: 2, offset: 10}))
	// Output:
	// SELECT … LIMIT 2 OFFSET 10
	// two products <nil>
	// two products <nil>
	// lists:2:10
}

func ExampleNewBatchLoaderBy() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{Secret: aside.NewSecret("a secret of 16 bytes or more")})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	// The loader gets the users' ids, and the keys have their hashes. A statement has at most two parameters here.
	profiles := aside.Policy{Category: "profiles", TTL: time.Minute, MaxBatch: 2}
	names := aside.NewBatchLoaderBy(c, profiles,
		func(p *aside.Policy, id string) aside.Key { return p.Key(c.HashID(id)) },
		func(ctx context.Context, ids []string) (map[string]string, error) {
			fmt.Println("SELECT … WHERE id IN", ids)
			return map[string]string{"u1": "Ada", "u2": "Grace", "u3": "Mary"}, nil
		})
	found, err := names.GetMany(ctx, []string{"u1", "u2", "u3"})
	fmt.Println(found, err)
	// Output:
	// SELECT … WHERE id IN [u1 u2]
	// SELECT … WHERE id IN [u3]
	// map[u1:Ada u2:Grace u3:Mary] <nil>
}

func ExampleLoader_SetMany() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	names := aside.NewLoader(c, Products, func(ctx context.Context, id int) (string, error) { return "", aside.ErrNotFound })
	if err := names.SetMany(ctx, map[int]string{1: "teapot", 2: "kettle"}); err != nil {
		panic(err)
	}
	results, err := names.LookupMany(ctx, []int{1, 2, 3})
	for _, id := range []int{1, 2, 3} {
		fmt.Println(id, results[id].Value, results[id].Status, results[id].Negative)
	}
	fmt.Println(err)
	// Output:
	// 1 teapot hit false
	// 2 kettle hit false
	// 3  miss true
	// <nil>
}

func ExampleLoader_GetMany() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	// The loader loads one id; GetMany calls it for several missing ones at the same time.
	names := aside.NewLoader(c, Products, func(ctx context.Context, id int) (string, error) {
		if id == 404 {
			return "", aside.ErrNotFound
		}
		return fmt.Sprint("product ", id), nil
	})
	found, err := names.GetMany(ctx, []int{1, 2, 404})
	fmt.Println(found, err) // an id that is not found is missing, without an error
	// Output: map[1:product 1 2:product 2] <nil>
}

func ExamplePolicy_Key() {
	fmt.Println(aside.TTL.ModelsAll.Key("all", "all"))
	fmt.Println(aside.TTL.SessionsList.Key("ABC123", "list", 50, 0))

	// A text cannot reach beyond its part, nor be a pattern.
	fmt.Println(aside.TTL.SearchResults.Key("ABC123", "search", "a:b * 100%"))

	// Other types make an invalid key, which every call refuses.
	fmt.Println(aside.TTL.ChatStats.Key(1.5).Err())
	// Output:
	// models:all:all
	// sessions:ABC123:list:50:0
	// sessions:ABC123:search:a%3Ab %2A 100%25
	// aside: part 1 of a key of policy ChatStats is a float64: use a string or an integer
}

func ExampleCache_HashID() {
	c, err := aside.New(aside.Options{Secret: aside.NewSecret("at least 16 random bytes, the same everywhere")})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	fmt.Println(aside.TTL.UserProfile.Key(c.HashID("ada@example.com"), "profile"))
	// Output: user:8yJN860QAAli2fFC:profile
}

func ExampleCache_Invalidate() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	if err := aside.Set(ctx, c, Products.Key(7), "teapot"); err != nil {
		panic(err)
	}
	receipt, err := c.Invalidate(ctx, Products.Key(7), Products.Key(8))
	fmt.Println("removed", receipt.Removed, "confirmed", receipt.Confirmed, err)
	_, err = aside.Get[string](ctx, c, Products.Key(7))
	fmt.Println(err)
	// Output:
	// removed 1 confirmed true <nil>
	// aside: not cached
}

func ExampleCache_Metrics() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	for range 4 {
		_, err := aside.GetOrLoad(ctx, c, aside.TTL.UserCredits.Key("ABC123", "credits"), func(ctx context.Context) (int, error) {
			return 250, nil
		})
		if err != nil {
			panic(err)
		}
	}
	m := c.Metrics().Labels["user_credits"]
	fmt.Println(m.Hits, "hits,", m.Misses, "miss, hit rate", m.HitRate())
	// Output: 3 hits, 1 miss, hit rate 0.75
}

func ExampleCache_Health() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Health().State)
	c.Close()
	fmt.Println(c.Health().State, "-", c.Health().Reason)
	// Output:
	// memory
	// degraded - aside: cache is closed
}

// A loader adapts how its own value is cached: here an answer that lacks something is kept for a minute, not for the hour of
// a complete one.
func ExampleCurrentLoad() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	load := func(ctx context.Context) ([]string, error) {
		models, missing := []string{"llama-3"}, []string{"an upstream that does not answer"}
		if len(missing) > 0 {
			aside.CurrentLoad(ctx).TTL(time.Minute)
		}
		return models, nil
	}
	r, err := aside.Lookup(ctx, c, aside.TTL.ModelsAll.Key("all", "all"), load)
	fmt.Println(r.Value, r.TTL <= time.Minute, err)
	// Output: [llama-3] true <nil>
}

func ExampleRefresh() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	version := 0
	load := func(ctx context.Context) (int, error) {
		version++
		return version, nil
	}
	key := aside.TTL.RankingsModels.Key("models")
	first, _ := aside.GetOrLoad(ctx, c, key, load)
	cached, _ := aside.GetOrLoad(ctx, c, key, load)
	fresh, _ := aside.GetOrLoad(ctx, c, key, load, aside.Refresh())
	fmt.Println(first, cached, fresh)
	// Output: 1 1 2
}

func ExampleWithTTL() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	r, err := aside.Lookup(ctx, c, Products.Key(7), func(ctx context.Context) (string, error) {
		return "on sale", nil
	}, aside.WithTTL(30*time.Second))
	fmt.Println(r.Value, r.TTL <= 30*time.Second, err)
	// Output: on sale true <nil>
}

// After its TTL, a value is served at once, and loaded anew behind the call. If the source fails, it is served until StaleIfError ends.
func ExamplePolicy_stale() {
	models := aside.Policy{
		Category: "models", TTL: time.Hour,
		Stale:        time.Hour,      // after the TTL, a call gets the old catalogue at once, and it is loaded behind the call
		StaleIfError: 24 * time.Hour, // if the upstreams fail, a catalogue of yesterday is better than none
	}
	ctx, key, other := context.Background(), models.Key("all"), models.Key("other")
	c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	var version atomic.Int64
	load := func(context.Context) (string, error) { return fmt.Sprint("catalogue ", version.Add(1)), nil }
	down := func(context.Context) (string, error) { return "", errors.New("the upstreams are down") }
	show := func(r aside.Result[string], err error) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %s, %s\n", r.Value, r.Status, r.Reason)
	}

	brief := aside.WithTTL(time.Millisecond) // in place of the hour
	show(aside.Lookup(ctx, c, key, load, brief))
	show(aside.Lookup(ctx, c, other, load, brief))
	time.Sleep(5 * time.Millisecond)

	// Past the TTL: nobody waits, and the new value is there soon.
	show(aside.Lookup(ctx, c, key, load))
	for old := "catalogue 1"; ; time.Sleep(time.Millisecond) {
		if v, err := aside.Get[string](ctx, c, key); err != nil || v != old {
			break
		}
	}
	show(aside.Lookup(ctx, c, key, load))

	// The source is down. An invalidation counts all the same.
	show(aside.Lookup(ctx, c, other, down))
	if _, err := c.Invalidate(ctx, other); err != nil {
		panic(err)
	}
	show(aside.Lookup(ctx, c, other, down))
	// Output:
	// catalogue 1: miss, not cached
	// catalogue 2: miss, not cached
	// catalogue 1: stale, past its TTL, being refreshed
	// catalogue 3: hit, fresh
	// catalogue 2: stale, past its TTL, being refreshed
	// the upstreams are down
}

// Without Stale, callers wait for a load after the TTL, and get the old value only if that load fails.
func ExamplePolicy_staleIfError() {
	profiles := aside.Policy{Category: "profiles", TTL: time.Hour, StaleIfError: 24 * time.Hour}
	ctx, key := context.Background(), profiles.Key(7)
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	_ = aside.Set(ctx, c, key, "Ada", aside.WithTTL(time.Millisecond)) // in place of the hour
	time.Sleep(5 * time.Millisecond)
	r, err := aside.Lookup(ctx, c, key, func(context.Context) (string, error) { return "", errors.New("the database is down") })
	fmt.Println(r.Value, r.Status, r.Reason, err)
	// Output: Ada stale past its TTL, the load failed <nil>
}

// One call can ask for a value that is newer than those which the policy allows.
func ExampleMaxStale() {
	prices := aside.Policy{Category: "prices", TTL: time.Hour, Stale: time.Hour}
	ctx, key := context.Background(), prices.Key(7)
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	_ = aside.Set(ctx, c, key, 100, aside.WithTTL(time.Millisecond)) // in place of the hour
	time.Sleep(5 * time.Millisecond)
	load := func(context.Context) (int, error) { return 120, nil }
	cached, _ := aside.Get[int](ctx, c, key)                              // for a page
	current, err := aside.GetOrLoad(ctx, c, key, load, aside.MaxStale(0)) // for the bill
	fmt.Println(cached, current, err)
	// Output: 100 120 <nil>
}

// What a value is stored with can depend on it. All processes honour it.
func ExampleWithStale() {
	prices := aside.Policy{Category: "prices", TTL: time.Minute}
	ctx, key := context.Background(), prices.Key(7)
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	// Of this price an old one will do for ten minutes, and for an hour if it cannot be loaded anew.
	_, err = aside.GetOrLoad(ctx, c, key, func(context.Context) (int, error) { return 19, nil }, aside.WithStale(10*time.Minute, time.Hour))
	for info := range c.Keys(ctx, prices.Match(aside.Wildcard)) {
		fmt.Println(info.Key, info.KeptFor.Round(time.Minute), err)
	}
	// Output: prices:7 1h1m0s <nil>
}

// A response that says how long it may be served: Cache-Control: max-age=60, stale-while-revalidate=30, stale-if-error=3600.
func ExampleLoad_StaleIfError() {
	pages := aside.Policy{Category: "pages", TTL: time.Hour}
	ctx, key := context.Background(), pages.Key("home")
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	seconds := func(header, directive string) time.Duration {
		for _, part := range strings.Split(header, ",") {
			if name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name == directive {
				n, _ := strconv.ParseUint(value, 10, 31)
				return time.Duration(n) * time.Second
			}
		}
		return 0
	}
	load := func(ctx context.Context) (string, error) {
		page, header := "welcome", "max-age=60, stale-while-revalidate=30, stale-if-error=3600" // of an HTTP response
		l, stale := aside.CurrentLoad(ctx), seconds(header, "stale-while-revalidate")
		l.TTL(seconds(header, "max-age"))
		l.Stale(stale)
		l.StaleIfError(max(stale, seconds(header, "stale-if-error")))
		return page, nil
	}
	page, err := aside.GetOrLoad(ctx, c, key, load)
	for info := range c.Keys(ctx, pages.Match(aside.Wildcard)) {
		fmt.Println(page, info.TTL.Round(time.Minute), info.KeptFor.Round(time.Minute), err)
	}
	// Output: welcome 1m0s 1h1m0s <nil>
}

// A loader asks its source whether the cached value has changed, and transfers the value only if it has.
func ExamplePrevious() {
	type Catalogue struct{ Models []string }
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		if r.Header.Get("If-None-Match") == `"v1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, `{"Models":["a","b"]}`)
	}))
	defer upstream.Close()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	load := func(ctx context.Context) (Catalogue, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, upstream.URL, nil)
		if err != nil {
			return Catalogue{}, err
		}
		if cached, ok := aside.Previous[Catalogue](ctx); ok && cached.ETag != "" { // not every response has an ETag
			request.Header.Set("If-None-Match", cached.ETag)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return Catalogue{}, err
		}
		defer response.Body.Close()
		if response.StatusCode == http.StatusNotModified {
			return Catalogue{}, aside.ErrNotModified // what is cached counts as loaded anew
		}
		aside.CurrentLoad(ctx).ETag(response.Header.Get("ETag"))
		var c Catalogue
		err = json.NewDecoder(response.Body).Decode(&c)
		return c, err
	}

	models := aside.Policy{Category: "models", TTL: time.Millisecond, StaleIfError: time.Hour}
	for range 2 {
		r, err := aside.Lookup(context.Background(), c, models.Key("all"), load)
		fmt.Println(r.Value.Models, r.ETag, err)
		time.Sleep(2 * time.Millisecond) // past the TTL
	}
	fmt.Println("not modified:", c.Metrics().Labels["models"].NotModified)
	// Output:
	// [a b] "v1" <nil>
	// [a b] "v1" <nil>
	// not modified: 1
}

// A batch loader returns a BatchError to fail some ids and not the others. GetMany returns one with the values of the others.
func ExampleBatchError() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	errShard := errors.New("shard 2 does not answer")
	names := aside.NewBatchLoader(c, Products, func(ctx context.Context, ids []int) (map[int]string, error) {
		return map[int]string{1: "teapot"}, &aside.BatchError[int]{Errors: map[int]error{2: errShard}}
	})
	found, err := names.GetMany(ctx, []int{1, 2, 3})
	fmt.Println(found)

	var failed *aside.BatchError[int]
	if errors.As(err, &failed) {
		fmt.Println(failed.Errors)
	}
	fmt.Println(errors.Is(err, errShard))
	// Output:
	// map[1:teapot]
	// map[2:shard 2 does not answer]
	// true
}

func ExampleError() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	_, err = aside.GetOrLoad(ctx, c, Products.Key(7), func(ctx context.Context) (Product, error) {
		panic("out of teapots")
	})
	fmt.Println(errors.Is(err, &aside.Error{Code: aside.CodeLoaderPanic}))

	var e *aside.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code, e.Key, len(e.Stack) > 0)
	}
	// Output:
	// true
	// loader_panic products:7 true
}

func ExampleTTL() {
	for _, p := range []aside.Policy{aside.TTL.ModelsAll, aside.TTL.SessionDetail, aside.TTL.UserCredits, aside.TTL.RankingsApps} {
		fmt.Println(p.Name, p.Category, p.Label, p.TTL)
	}
	// Output:
	// ModelsAll models  1h0m0s
	// SessionDetail sessions  5m0s
	// UserCredits user user_credits 5m0s
	// RankingsApps rankings  4h0m0s
}

// binaryCodec stores types that encode themselves, such as times, addresses and URLs.
type binaryCodec struct{}

func (binaryCodec) Name() string { return "binary-1" }

func (binaryCodec) Marshal(v any) ([]byte, error) {
	m, ok := v.(encoding.BinaryMarshaler)
	if !ok {
		return nil, fmt.Errorf("%T has no MarshalBinary", v)
	}
	return m.MarshalBinary()
}

func (binaryCodec) Unmarshal(data []byte, v any) error {
	m, ok := v.(encoding.BinaryUnmarshaler)
	if !ok {
		return fmt.Errorf("%T has no UnmarshalBinary", v)
	}
	return m.UnmarshalBinary(data)
}

// A policy names the codec of its values in Redis. Both directions get a pointer to the value.
func ExampleCodec() {
	policy := aside.Policy{Category: "addresses", TTL: time.Hour, Codec: binaryCodec{}}

	host := netip.MustParseAddr("192.0.2.7")
	data, err := policy.Codec.Marshal(&host)
	fmt.Println(data, err)

	var back netip.Addr
	fmt.Println(policy.Codec.Unmarshal(data, &back), back)
	// Output:
	// [192 0 2 7] <nil>
	// <nil> 192.0.2.7
}

func ExampleWithTags() {
	c, _ := aside.New(aside.Options{})
	defer c.Close()
	products := aside.Policy{Name: "products", Category: "products", TTL: time.Hour}
	ctx, tags := context.Background(), aside.WithTags("supplier 3") // made once, used often
	load := func(context.Context) (string, error) {
		fmt.Println("loading")
		return "a lamp", nil
	}
	for range 2 {
		p, err := aside.GetOrLoad(ctx, c, products.Key(7), load, tags)
		fmt.Println(p, err)
	}
	receipt, err := c.InvalidateTags(ctx, "supplier 3")
	fmt.Println(receipt.Confirmed, err)
	p, err := aside.GetOrLoad(ctx, c, products.Key(7), load, tags)
	fmt.Println(p, err)
	// Output:
	// loading
	// a lamp <nil>
	// a lamp <nil>
	// true <nil>
	// loading
	// a lamp <nil>
}

func ExampleLoad_Tag() {
	c, _ := aside.New(aside.Options{})
	defer c.Close()
	products := aside.Policy{Name: "products", Category: "products", TTL: time.Hour}
	ctx := context.Background()
	_, _ = aside.GetOrLoad(ctx, c, products.Key(7), func(ctx context.Context) (string, error) {
		// The supplier is known only once the product is loaded.
		aside.CurrentLoad(ctx).Tag("supplier 3")
		return "a lamp", nil
	})
	receipt, _ := c.InvalidateTags(ctx, "supplier 3")
	fmt.Println(receipt.WaitCleanup(ctx)) // waits until the memory is freed
	// Output: 1 <nil>
}

func ExampleCache_InvalidateCategory() {
	c, _ := aside.New(aside.Options{})
	defer c.Close()
	products := aside.Policy{Name: "products", Category: "products", TTL: time.Hour}
	users := aside.Policy{Name: "users", Category: "users", TTL: time.Hour}
	ctx := context.Background()
	_ = aside.Set(ctx, c, products.Key(7), "a lamp")
	_ = aside.Set(ctx, c, products.Key(8), "a chair")
	_ = aside.Set(ctx, c, users.Key(1), "Ada")

	receipt, _ := c.InvalidateCategory(ctx, "products")
	_, err := aside.Get[string](ctx, c, products.Key(7))
	fmt.Println(err) // at once: the memory is given back in the background
	fmt.Println(receipt.WaitCleanup(ctx))
	receipt, _ = c.InvalidateAll(ctx)
	fmt.Println(receipt.WaitCleanup(ctx))
	// Output:
	// aside: not cached
	// 2 <nil>
	// 1 <nil>
}

func ExampleStrong() {
	c, _ := aside.New(aside.Options{})
	defer c.Close()
	credits := aside.Policy{Name: "credits", Category: "credits", TTL: time.Minute}
	// Before money is spent: read Redis, not this process's memory.
	left, err := aside.GetOrLoad(context.Background(), c, credits.Key("DEF456"), func(context.Context) (int, error) { return 250, nil }, aside.Strong())
	fmt.Println(left, err)
	// Output: 250 <nil>
}

func ExamplePolicy_cloneOnRead() {
	c, _ := aside.New(aside.Options{})
	defer c.Close()
	limits := aside.Policy{Name: "limits", Category: "limits", TTL: time.Hour, CloneOnRead: true}
	load := func(context.Context) (map[string]int, error) { return map[string]int{"rpm": 60}, nil }
	mine, _ := aside.GetOrLoad(context.Background(), c, limits.Key("all"), load)
	mine["rpm"] = 1000 // does not change other callers' copies
	others, _ := aside.GetOrLoad(context.Background(), c, limits.Key("all"), load)
	fmt.Println(mine["rpm"], others["rpm"])
	// Output: 1000 60
}

func ExampleError_backoff() {
	c, _ := aside.New(aside.Options{}) // Backoff: 100 ms
	defer c.Close()
	products := aside.Policy{Name: "products", Category: "products", TTL: time.Hour}
	down := errors.New("the database is down")
	load := func(context.Context) (string, error) {
		fmt.Println("loading")
		return "", down
	}
	for range 3 {
		_, err := aside.GetOrLoad(context.Background(), c, products.Key(7), load)
		fmt.Println(errors.Is(err, down), errors.Is(err, &aside.Error{Code: aside.CodeBackoff}))
	}
	// Output:
	// loading
	// true false
	// loading
	// true false
	// true true
}

// Invalidates the sessions of one user, and of no other.
func ExampleCache_InvalidatePattern() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx, sessions := context.Background(), &aside.TTL.SessionsList
	for _, user := range []string{"ABC", "DEF"} {
		_ = aside.Set(ctx, c, sessions.Key(user, "list", 50, 0), []string{"a session"})
		_ = aside.Set(ctx, c, sessions.Key(user, "456", "full"), []string{"all of it"})
	}
	receipt, err := c.InvalidatePattern(ctx, sessions.Match("ABC", aside.Wildcard))
	fmt.Println(receipt.Removed, err)
	// Output: 2 <nil>
}

func ExampleCache_Keys() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx := context.Background()
	_ = aside.Set(ctx, c, aside.TTL.ModelsAll.Key("all", "all"), []string{"a model"}, aside.WithTags("catalogue"))
	for info, err := range c.Keys(ctx, aside.TTL.ModelsAll.Match(aside.Wildcard)) {
		if err != nil {
			panic(err)
		}
		fmt.Println(info.Key, info.TTL.Round(time.Minute), info.Tags)
	}
	// Output: models:all:all 1h0m0s [catalogue]
}

// A warming loads what is not cached. The second one finds all of it.
func ExampleLoader_Warm() {
	c, err := aside.New(aside.Options{}) // with Redis, one process of the fleet warms under the Name
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx := context.Background()
	products := aside.NewBatchLoader(c, aside.Policy{Category: "products", TTL: time.Hour}, func(_ context.Context, ids []int) (map[int]string, error) {
		names := make(map[int]string)
		for _, id := range ids {
			if id != 13 { // there is no product 13
				names[id] = fmt.Sprintf("product %d", id)
			}
		}
		return names, nil
	})
	ids := func(yield func(int) bool) { // of any number, such as the rows of a query
		for id := 1; id <= 250 && yield(id); id++ {
		}
	}
	w := aside.Warming{Name: "products", Progress: func(w aside.Warmed) { fmt.Println(w.Seen, "seen") }}
	for range 2 {
		warmed, err := products.Warm(ctx, ids, w)
		fmt.Println(warmed.Fresh, warmed.Loaded, warmed.NotFound, warmed.Failed, err)
	}
	// Output:
	// 100 seen
	// 200 seen
	// 250 seen
	// 0 249 1 0 <nil>
	// 100 seen
	// 200 seen
	// 250 seen
	// 250 0 0 0 <nil>
}

func ExampleConsistencyCheck() {
	c, err := aside.New(aside.Options{
		ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, SettleTime: 10 * time.Millisecond}, // in production 0.01, and the default of 10 s
		Logger:           slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx, price := context.Background(), 100
	load := func(price int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { return price, nil }
	}
	prices := aside.Policy{Category: "prices", TTL: time.Hour}
	_, _ = aside.GetOrLoad(ctx, c, prices.Key(7), load(price))
	price = 120 // and nobody invalidates prices:7
	cached, _ := aside.GetOrLoad(ctx, c, prices.Key(7), load(price))
	for c.Metrics().Labels["prices"].Checked == 0 {
		time.Sleep(time.Millisecond) // checks run in the background
	}
	m := c.Metrics().Labels["prices"]
	fmt.Println(cached, m.Checked, m.Inconsistent, m.InconsistentPerMillion())
	// Output: 100 1 1 1e+06
}

func ExamplePolicy_Match() {
	sessions := &aside.TTL.SessionsList
	fmt.Println(sessions.Match("ABC", aside.Wildcard))
	fmt.Println(sessions.Match("an id with a *", aside.Wildcard))
	// Output:
	// sessions:ABC:*
	// sessions:an id with a %2A:*
}

func ExampleParsePattern() {
	for _, text := range []string{"sessions:ABC:*", "*"} {
		p, err := aside.ParsePattern(text)
		fmt.Println(p, err)
	}
	// Output:
	// sessions:ABC:* <nil>
	//  aside: the pattern does not begin with a category: write the category, a colon, and what its keys have in common, as in sessions:ABC:*
}

// Values that are never in Redis: they are cheap to load, and large.
func ExamplePlace() {
	compiled := aside.Policy{Category: "templates", TTL: time.Hour, Place: aside.PlaceMemory}
	c, err := aside.New(aside.Options{Policies: []aside.Policy{compiled}})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	templates := aside.NewLoader(c, compiled, func(_ context.Context, name string) (string, error) { return "compiled " + name, nil })
	for range 2 {
		r, err := templates.Lookup(context.Background(), "invoice")
		if err != nil {
			panic(err)
		}
		fmt.Println(r.Value, "-", r.Tier)
	}
	// Output:
	// compiled invoice - origin
	// compiled invoice - memory
}
